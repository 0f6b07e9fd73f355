// Options and arguments: everything wrong is a coded error that names it.
'use strict';

const assert = require('node:assert/strict');
const { test, describe, before, after } = require('node:test');
const { chord, MODEL, rejects, throws } = require('./common.js');

let model;
let session;
before(async () => {
  model = await chord.loadModel(MODEL);
  session = model.createSession();
});
after(() => model.close());

/** What each option of `generate` and `chat` does not take, and what the message says. */
const GENERATE = [
  ['temperature', -1, 'temperature: expected a number >= 0, got -1'],
  ['temperature', NaN, 'temperature: expected a number >= 0, got NaN'],
  ['temperature', Infinity, 'temperature: expected a number >= 0, got Infinity'],
  ['temperature', '1', "temperature: expected a number >= 0, got '1'"],
  ['temperature', null, 'temperature: expected a number >= 0, got null'],
  ['topK', -1, 'topK: expected an integer >= 0, got -1'],
  ['topK', 1.5, 'topK: expected an integer >= 0, got 1.5'],
  ['topK', 2 ** 60, null],
  ['topP', 1.1, 'topP: expected a number from 0 to 1, got 1.1'],
  ['minP', -0.1, 'minP: expected a number from 0 to 1, got -0.1'],
  ['typicalP', 2, null],
  ['topNSigma', -1, null],
  ['xtc', 1, 'xtc: expected an object, got 1'],
  ['xtc', { probability: 2, threshold: 0 }, /^xtc\.probability: /],
  ['xtc', { probability: 1 }, 'xtc.threshold: expected a number from 0 to 1, got undefined'],
  ['repeatPenalty', 0, 'repeatPenalty: expected a number > 0, got 0'],
  ['frequencyPenalty', -2.1, 'frequencyPenalty: expected a number from -2 to 2, got -2.1'],
  ['presencePenalty', 3, null],
  ['repeatLastTokens', -1, null],
  ['logitBias', [1], 'logitBias: expected an object, got an array'],
  ['logitBias', { 4096: 1 }, "logitBias: expected token ids below 4096, got '4096'"],
  ['logitBias', { '-1': 1 }, null],
  ['logitBias', { '01': 1 }, null],
  ['logitBias', { 1: NaN }, 'logitBias.1: expected a number or -Infinity, got NaN'],
  ['logitBias', { 1: Infinity }, null],
  ['seed', -1, 'seed: expected an integer from 0 to 4294967295, got -1'],
  ['seed', 2 ** 32, null],
  ['seed', 1n, 'seed: expected an integer from 0 to 4294967295, got 1n'],
  ['maxTokens', 0, 'maxTokens: expected an integer >= 1, got 0'],
  ['stop', '', null],
  ['stop', ['a', ''], /^stop\[1\]: /],
  ['stop', [1], /^stop\[0\]: /],
  ['stop', Array(65).fill('a'), /got 65 of them$/],
  ['stop', 5, null],
  ['stopTokens', [1, -1], 'stopTokens[1]: expected token ids below 4096, got -1'],
  ['stopTokens', [4096], null],
  ['stopTokens', [0.5], null],
  ['stopTokens', 'x', "stopTokens: expected an array of token ids, got 'x'"],
  ['ignoreEos', 1, 'ignoreEos: expected true or false, got 1'],
  ['logprobs', 21, 'logprobs: expected an integer from 0 to 20, got 21'],
  ['logprobs', true, null],
  ['special', 'no', null],
  ['overflow', 'drop', "overflow: expected 'error' or 'shift', got 'drop'"],
  ['keep', -1, null],
  ['queueSize', 0, 'queueSize: expected an integer from 1 to 4096, got 0'],
  ['queueSize', 4097, null],
  ['signal', {}, 'signal: expected an AbortSignal, got an object'],
  ['onProgress', 1, 'onProgress: expected a function, got 1'],
];

function matches(error, name, message) {
  assert.ok(chord.isChordError(error, 'ERR_INVALID_ARG'));
  assert.equal(error.details.name.split(/[.[]/)[0], name);
  assert.equal(
    error.message,
    `${error.details.name}: expected ${error.details.expected}, got ${error.details.received}`,
  );
  if (typeof message === 'string') assert.equal(error.message, message);
  else if (message) assert.match(error.message, message);
}

test('every wrong option of generate and chat is named, with what was expected', async () => {
  for (const [name, value, message] of GENERATE) {
    const options = { [name]: value };
    for (const call of [
      () => model.generate('x', options),
      () => model.chat('x', options),
      () => session.generate('x', options),
      () => model.applyTemplate([{ role: 'user', content: 'x' }], options),
    ]) {
      matches(await rejects('ERR_INVALID_ARG', call()), name, message);
    }
  }
});

test('very large counts mean as many as there are', async () => {
  const huge = Number.MAX_SAFE_INTEGER;
  const options = { topK: huge, repeatLastTokens: huge, maxTokens: huge, stop: ' ' };
  await model.generate('Once upon a', options);
});

test('undefined is absent', async () => {
  const options = Object.fromEntries(GENERATE.map(([name]) => [name, undefined]));
  await model.generate('x', { ...options, maxTokens: 1 });
  await model.chat('x', { ...options, templateArgs: undefined, maxTokens: 1 });
  await model.generate('x', undefined).cancel();
});

test('unknown options are errors with the name that was meant', async () => {
  const cases = [
    [model.generate('x', { temprature: 1 }), 'temprature', 'temperature'],
    [model.generate('x', { max_tokens: 1 }), 'max_tokens', 'maxTokens'],
    [model.generate('x', { TOPK: 1 }), 'TOPK', 'topK'],
    [model.generate('x', { zzz: 1 }), 'zzz', null],
    [model.generate('x', { templateArgs: {} }), 'templateArgs', null],
    [model.chat('x', { templateArg: {} }), 'templateArg', 'templateArgs'],
    [model.chat('x', { tools: [] }), 'tools', null],
    [model.chat('x', { schema: {} }), 'schema', null],
    [model.generate('x', { xtc: { probabilty: 1 } }), 'xtc.probabilty', 'xtc.probability'],
    [model.score('xy', { topp: 1 }), 'topp', 'top'],
    [model.tokenize('x', { specal: true }), 'specal', 'special'],
    [model.countTokens('x', { tools: [] }), 'tools', null],
    [chord.loadModel(MODEL, { thread: 1 }), 'thread', 'threads'],
    [chord.loadModel({ path: MODEL, adapters: [] }), 'adapters', null],
    [chord.loadModel(MODEL, { memory: { rma: 1 } }), 'memory.rma', 'memory.ram'],
    [chord.loadModel({ paht: MODEL }), 'paht', 'path'],
    [chord.inspect(MODEL, { sinal: 1 }), 'sinal', 'signal'],
    [chord.loadTokenizer(MODEL, { threads: 1 }), 'threads', null],
  ];
  for (const [call, name, suggestion] of cases) {
    const error = await rejects('ERR_UNKNOWN_OPTION', Promise.resolve(call));
    assert.deepEqual(error.details, { name, suggestion });
    const hint = suggestion === null ? '' : `; did you mean '${suggestion}'?`;
    assert.equal(error.message, `unknown option '${name}'${hint}`);
  }
  throws('ERR_UNKNOWN_OPTION', () => model.createSession({ message: [] }));
});

test('options that are no object are refused', async () => {
  for (const options of [null, 1, 'x', [], true]) {
    await rejects('ERR_INVALID_ARG', model.generate('x', options));
    await rejects('ERR_INVALID_ARG', chord.loadModel(MODEL, options));
    await rejects('ERR_INVALID_ARG', model.tokenize('x', options));
    throws('ERR_INVALID_ARG', () => model.createSession(options));
  }
});

test('wrong load options are refused before the file is looked at', async () => {
  const cases = {
    device: ['gpu', 'cuda:', 1, [], ['cpu', 7], null],
    contextLength: [0, -1, 1.5, '8k'],
    kvType: ['q4', 1, { k: 'f16' }, { k: 'f16', v: 'x' }, {}],
    threads: [0, 257, 10_000, NaN, 'many', 1.5],
    memory: [1, 'all', { ram: '2 potatoes' }, { ram: 0 }, { kv: -1 }, { ram: '0 GiB' }],
    prefetch: [-1, 65, 'far', 0.5],
    io: ['fast', 1, null],
    cpu: [1, {}],
    chatTemplate: [1, null],
    maxConcurrent: [0, 257],
    maxQueued: [-1, 1.5],
    signal: [1, {}],
    onProgress: [1],
  };
  for (const [name, values] of Object.entries(cases)) {
    for (const value of values) {
      matches(
        await rejects('ERR_INVALID_ARG', chord.loadModel('no.gguf', { [name]: value })),
        name,
      );
    }
  }
  await rejects(
    'ERR_UNKNOWN_OPTION',
    chord.loadModel('no.gguf', { kvType: { k: 'f16', v: 'f16', x: 1 } }),
  );
});

test('a named device is that or ERR_DEVICE', async () => {
  await (await chord.loadModel(MODEL, { device: 'cpu' })).close();
  await (await chord.loadModel(MODEL, { device: ['cpu'] })).close();
  for (const device of ['cuda', 'vulkan:1', 'metal']) {
    const error = await rejects('ERR_DEVICE', chord.loadModel(MODEL, { device }));
    assert.equal(error.details.device, device);
    assert.ok(error.details.reason);
  }
  const error = await rejects('ERR_INVALID_ARG', chord.loadModel(MODEL, { cpu: 'z80' }));
  assert.match(error.message, /z80/);
});

test('paths that cannot be are refused', async () => {
  const bad = [undefined, null, 1, '', 'a\0b', {}, new URL('http://example.org/m.gguf'), []];
  for (const call of [chord.loadModel, chord.inspect, chord.loadTokenizer]) {
    for (const path of bad) {
      if (call === chord.loadModel && Object.prototype.toString.call(path) === '[object Object]') {
        continue;
      }
      const error = await rejects('ERR_INVALID_ARG', call(path));
      assert.equal(error.details.name, 'path');
    }
  }
});

describe('arguments', () => {
  test('prompts', async () => {
    for (const prompt of [undefined, null, 1, {}, { prefix: 'a', suffix: 'b' }, true]) {
      matches(await rejects('ERR_INVALID_ARG', model.generate(prompt)), 'prompt');
    }
    for (const prompt of [[4096], [-1], [0.5], ['1'], [1, undefined], Uint32Array.of(5000)]) {
      matches(await rejects('ERR_INVALID_ARG', model.generate(prompt)), 'prompt');
    }
    matches(await rejects('ERR_INVALID_ARG', model.score(1)), 'text');
    matches(await rejects('ERR_INVALID_ARG', model.tokenize(['x'])), 'text');
    matches(await rejects('ERR_INVALID_ARG', model.detokenize('x')), 'tokens');
    matches(await rejects('ERR_INVALID_ARG', model.detokenize([4096])), 'tokens');
    matches(await rejects('ERR_INVALID_ARG', model.countTokens(1)), 'input');
    matches(await rejects('ERR_INVALID_ARG', model.applyTemplate('x')), 'messages');
  });

  test('messages', async () => {
    const bad = [
      [undefined, /^messages: expected a string or an array of messages/],
      [[], /^messages: expected at least one message, got none$/],
      [['x'], /^messages\[0\]: /],
      [[{ role: 'user' }], /^messages\[0\]\.content: expected a string or an array of parts/],
      [[{ role: 'usr', content: 'x' }], /^messages\[0\]\.role: expected 'system', .* got 'usr'$/],
      [[{ role: 'system', content: [] }], /^messages\[0\]\.content: expected a string/],
      [[{ role: 'user', content: [{ type: 'txt' }] }], /^messages\[0\]\.content\[0\]\.type/],
      [[{ role: 'user', content: [{ type: 'text', text: 1 }] }], /content\[0\]\.text/],
      [[{ role: 'user', content: [null] }], /content\[0\]: expected an object/],
      [[{ role: 'assistant', content: [{ type: 'image' }] }], /content\[0\]\.type/],
      [[{ role: 'assistant', content: [{ type: 'tool-call', id: 'a', name: 'b' }] }], /\.args: /],
      [[{ role: 'tool', name: 'x', content: 'x' }], /^messages\[0\]\.id/],
      [[{ role: 'tool', id: 'x', name: 'x', content: 'x', isError: 1 }], /isError/],
    ];
    for (const [messages, message] of bad) {
      for (const call of [model.chat(messages), session.chat(messages)]) {
        assert.match((await rejects('ERR_INVALID_ARG', call)).message, message);
      }
    }
    const image = [{ role: 'user', content: [{ type: 'image', data: new Uint8Array(4) }] }];
    const error = await rejects('ERR_UNSUPPORTED', model.chat(image));
    assert.deepEqual(error.details, { feature: 'image input' });
    throws('ERR_INVALID_ARG', () => model.createSession({ messages: 'x' }));
  });

  test('a conversation with calls and results reaches the template', async () => {
    const chatTemplate =
      '{% for m in messages %}{{ m.role }}:{{ m.content }}' +
      '{% for c in m.tool_calls or [] %}' +
      '[{{ c.function.name }}{{ c.function.arguments | tojson }}]{% endfor %}' +
      '{{ m.reasoning_content }}{{ m.tool_call_id }};{% endfor %}';
    const own = await chord.loadModel(MODEL, { chatTemplate });
    const messages = [
      { role: 'user', content: 'q' },
      {
        role: 'assistant',
        content: [
          { type: 'reasoning', text: 'hm' },
          { type: 'text', text: 'a' },
          { type: 'tool-call', id: '1', name: 'f', args: { x: [1, 'y'] } },
        ],
      },
      { role: 'tool', id: '1', name: 'f', content: '42' },
    ];
    const { text } = await own.applyTemplate(messages);
    assert.equal(text, 'user:q;assistant:a[f{"x": [1, "y"]}]hm;tool:421;');
    await own.close();
  });

  test('templateArgs must be JSON', async () => {
    const circular = {};
    circular.self = circular;
    for (const templateArgs of [circular, 1, [], { n: 1n }]) {
      const error = await rejects('ERR_INVALID_ARG', model.chat('x', { templateArgs }));
      assert.equal(error.details.name, 'templateArgs');
    }
    let deep = {};
    for (let i = 0; i < 500; i++) deep = { deep };
    await rejects('ERR_INVALID_ARG', model.chat('x', { templateArgs: deep }));
  });

  test('constructors are not for callers', () => {
    for (const Class of [chord.Model, chord.Session, chord.Tokenizer]) {
      assert.throws(() => new Class(), TypeError);
    }
  });
});

test('async functions never throw, not even for a getter that does', async () => {
  const options = {
    get temperature() {
      throw new Error('boom');
    },
  };
  await assert.rejects(Promise.resolve(model.generate('x', options)), /boom/);
  await assert.rejects(
    chord.loadModel(MODEL, {
      get threads() {
        throw new Error('boom');
      },
    }),
    /boom/,
  );
});

test('an object that is no set of options is refused, not read as an empty one', async () => {
  const odd = [new Map([['threads', 1]]), new Date(), AbortSignal.abort(), Promise.resolve(), []];
  for (const value of odd) {
    const error = await rejects('ERR_INVALID_ARG', chord.loadModel(MODEL, value));
    assert.match(error.message, /^options: expected an object, got an? /);
    await rejects('ERR_INVALID_ARG', model.generate('a', value));
    await rejects('ERR_INVALID_ARG', model.generate('a', { logitBias: value }));
    await rejects('ERR_INVALID_ARG', model.tokenize('a', value));
    throws('ERR_INVALID_ARG', () => model.createSession(value));
  }
  for (const value of [Buffer.from(MODEL), [MODEL], new String(MODEL)]) {
    const error = await rejects('ERR_INVALID_ARG', chord.loadModel(value));
    assert.match(error.message, /^path: expected a path or a file: URL, got an? /);
  }
  await rejects('ERR_INVALID_ARG', chord.loadModel(MODEL, { memory: { ram: null } }));
  const far = await rejects('ERR_INVALID_ARG', chord.loadModel(MODEL, { contextLength: 2 ** 25 }));
  const wanted = "'auto' or an integer from 1 to 16777216";
  assert.equal(far.message, `contextLength: expected ${wanted}, got 33554432`);
  class Mine {
    maxTokens = 1;
  }
  assert.equal((await model.generate('Once', new Mine())).tokens.length, 1);
});

test('holes and objects that write themselves otherwise are named', async () => {
  const hole = await rejects('ERR_INVALID_ARG', model.generate('a', { stop: [, 'a'] }));
  assert.match(hole.message, /^stop\[0\]: .*got undefined$/);
  const args = { toJSON: () => 5 };
  const error = await rejects('ERR_INVALID_ARG', model.chat('a', { templateArgs: args }));
  assert.match(error.message, /toJSON gives something else$/);
  const ring = {};
  ring.ring = ring;
  const cyclic = await rejects('ERR_INVALID_ARG', model.chat('a', { templateArgs: ring }));
  assert.doesNotMatch(cyclic.message, /\n/);
});

test('a callback whose promise rejects ends its task, as one that throws', async () => {
  const onProgress = async () => {
    throw new Error('mine');
  };
  const isMine = (error) => error.message === 'mine';
  await assert.rejects(chord.loadModel(MODEL, { onProgress }), isMine);
  await assert.rejects(model.generate('Once '.repeat(200), { onProgress }), isMine);
  assert.equal((await model.generate('Once', { maxTokens: 1 })).tokens.length, 1);
});
