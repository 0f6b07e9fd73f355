// The corpus of broken files, through the whole product: load, render, tokenize, generate.
'use strict';

const test = require('node:test');
const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const { chord, MODEL, ROOT } = require('./common.js');

const CORPUS = path.join(ROOT, '..', 'shared', 'oracles', 'malformed');

/** How far a file comes: the failure that stopped it, or what its template rendered. */
async function use(file, renders) {
  let model;
  try {
    model = await chord.loadModel(path.join(CORPUS, file));
    let text;
    if (renders) {
      ({ text } = await model.applyTemplate([{ role: 'user', content: 'Hi' }]));
    }
    await model.tokenize('hello the ab.');
    await model.generate('hello the ab.', { maxTokens: 8, ignoreEos: true });
    return { text };
  } catch (error) {
    return { error };
  } finally {
    await model?.close();
  }
}

test('every broken file ends with its code, and the process lives', async (t) => {
  if (!fs.existsSync(CORPUS)) {
    t.skip(`${CORPUS} is not here`);
    return;
  }
  const lines = fs.readFileSync(path.join(CORPUS, 'cases.jsonl'), 'utf8').trim().split('\n');
  for (const line of lines) {
    const wanted = JSON.parse(line);
    const renders = wanted.stage === 'template' || wanted.renders !== undefined;
    const { error, text } = await use(wanted.file, renders);
    const codes = [wanted.code, ...[wanted.or ?? []].flat()];
    if (error === undefined) {
      assert.ok(wanted.expect === 'accept' || wanted.also === 'accept', `${wanted.file}: accepted`);
      assert.ok(wanted.renders === undefined || text === wanted.renders, wanted.file);
    } else {
      assert.ok(chord.isChordError(error), `${wanted.file}: ${error.stack}`);
      assert.equal(wanted.expect, 'reject', `${wanted.file}: ${error.message}`);
      assert.ok(codes.includes(error.code), `${wanted.file}: ${error.code} ${error.message}`);
    }
  }
  const model = await chord.loadModel(MODEL);
  assert.equal((await model.generate('Once', { maxTokens: 3 })).tokens.length, 3);
  await model.close();
});
