// What is exported is what index.d.ts declares: names, members, and the codes of errors.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { chord, MODEL, ROOT } = require('./common.js');

const page = fs.readFileSync(path.join(ROOT, 'index.d.ts'), 'utf8');
const names = (pattern, text = page) => [...text.matchAll(pattern)].map((match) => match[1]);
const sorted = (list) => [...new Set(list)].sort();

/** The members of a class on the page. */
function members(name) {
  const body = new RegExp(`export class ${name}\\b[^]*?\\n}`).exec(page)[0];
  const found = names(/^ {2}(?:readonly )?(\[Symbol\.\w+\]|\w+)[(:?]/gm, body);
  return sorted(found.filter((member) => member !== 'constructor'));
}

/** The public members of an object: its own, and those of its classes. */
function real(object, last) {
  const found = [];
  for (let at = object; at !== last; at = Object.getPrototypeOf(at)) {
    for (const key of Reflect.ownKeys(at)) {
      if (key === 'constructor' || key === Symbol.for('node-chord.error')) continue;
      found.push(key === Symbol.asyncDispose ? '[Symbol.asyncDispose]' : String(key));
    }
  }
  return sorted(found);
}

test('the exports are those that are declared', () => {
  const declared = names(/^export (?:declare )?(?:function|const|class) (\w+)/gm);
  assert.deepEqual(sorted(Object.keys(chord)), sorted(declared));
});

test('the members of what is made are those that are declared', async () => {
  const model = await chord.loadModel(MODEL);
  const tokenizer = await chord.loadTokenizer(MODEL);
  const session = model.createSession();
  assert.deepEqual(real(model, Object.prototype), members('Model'));
  assert.deepEqual(real(session, Object.prototype), members('Session'));
  assert.deepEqual(real(tokenizer, Object.prototype), members('Tokenizer'));
  const error = await chord.loadModel('no.gguf').catch((caught) => caught);
  const standard = ['cause', 'message', 'name', 'stack'];
  const own = real(error, Error.prototype).filter((member) => !standard.includes(member));
  assert.deepEqual(own, members('ChordError'));
  const generation = model.generate('x', { maxTokens: 1 });
  const interfaceBody = /export interface Generation<[^]*?\n}/.exec(page)[0];
  for (const name of names(/^ {2}(\w+)\(/gm, interfaceBody)) {
    assert.equal(typeof generation[name], 'function', name);
  }
  await generation;
  await model.close();
});

test('results have the properties that are declared', async () => {
  const properties = (name) => {
    const body = new RegExp(`export interface ${name}\\b[^{]*{[^]*?\\n}`).exec(page)[0];
    const all = [...body.matchAll(/^ {2}(\w+)(\??)[:]/gm)];
    return {
      all: all.map((match) => match[1]),
      needed: all.filter((match) => match[2] === '').map((match) => match[1]),
    };
  };
  const fits = (value, ...interfaces) => {
    const parts = interfaces.map(properties);
    const keys = Object.keys(value);
    const [all, needed] = ['all', 'needed'].map((part) => parts.flatMap((each) => each[part]));
    assert.deepEqual(
      keys.filter((key) => !all.includes(key)),
      [],
      `${interfaces}: more`,
    );
    assert.deepEqual(
      needed.filter((key) => !keys.includes(key)),
      [],
      `${interfaces}: less`,
    );
  };
  const model = await chord.loadModel(MODEL);
  const result = await model.generate('x', { maxTokens: 2, logprobs: 1 });
  fits(result, 'GenerateResult');
  fits(result.usage, 'Usage');
  fits(result.timings, 'Timings');
  fits(result.logprobs[0], 'TokenLogprob');
  fits(await model.chat('x', { maxTokens: 1 }), 'GenerateResult', 'ChatResult');
  fits(model.info, 'ModelInfo');
  fits(model.stats(), 'Stats');
  fits(model.stats().ram, 'Budget');
  fits((await chord.loadTokenizer(MODEL)).info, 'TokenizerInfo');
  fits(await chord.inspect(MODEL), 'GgufInfo');
  fits((await chord.devices())[0], 'Device');
  fits(chord.features, 'Features');
  await model.close();
});

test("the version is the package's, the features are told", () => {
  assert.equal(chord.version, require('../../package.json').version);
  const { platform, backends, architectures, tensorTypes, tokenizers } = chord.features;
  assert.match(platform, new RegExp(`^${process.platform}-${process.arch}`));
  assert.deepEqual(backends, ['cpu']);
  assert.ok(architectures.includes('llama') && tensorTypes.includes('Q4_K'));
  assert.ok(tokenizers.includes('llama') && tokenizers.includes('gpt2/qwen2'));
});
