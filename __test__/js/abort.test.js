// Signals, cancelling, back-pressure and streams, over the real engine.
'use strict';

const assert = require('node:assert/strict');
const { test, before, after } = require('node:test');
const { getEventListeners } = require('node:events');
const { chord, MODEL, GREEDY, withModel, rejects } = require('./common.js');

let model;
before(async () => {
  model = await chord.loadModel(MODEL);
});
after(() => model.close());

const ENDLESS = { ...GREEDY, ignoreEos: true, overflow: 'shift' };
const turn = () => new Promise(setImmediate);

/** Waits until the engine has stepped no token for a while. */
async function settled() {
  for (let same = 0, last = -1; same < 20;) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    const { completionTokens } = model.stats();
    same = completionTokens === last ? same + 1 : 0;
    last = completionTokens;
  }
}

test('a signal that has fired already stops everything before it starts', async () => {
  const reason = new Error('too late');
  const signal = AbortSignal.abort(reason);
  const before = model.stats();
  for (const call of [
    () => model.generate('Once', { signal }),
    () => model.chat('Once', { signal }),
    () => model.createSession().chat('Once', { signal }),
    () => model.score('Once upon', { signal }),
    () => chord.loadModel(MODEL, { signal }),
    () => chord.loadTokenizer(MODEL, { signal }),
    () => chord.inspect(MODEL, { signal }),
  ]) {
    const error = await rejects('ABORT_ERR', call());
    assert.equal(error.name, 'AbortError');
    assert.equal(error.cause, reason);
    assert.deepEqual(error.details, { partial: null });
    assert.ok(error instanceof chord.ChordError);
  }
  assert.equal(model.stats().promptTokens, before.promptTokens);
});

test('a signal that fires right after the call stops it too', async () => {
  for (const start of [
    (signal) => model.generate('word '.repeat(900), { signal }),
    (signal) => model.chat('word '.repeat(900), { signal }),
    (signal) => model.score('word '.repeat(900), { signal }),
    (signal) => chord.loadModel(MODEL, { signal }),
    (signal) => chord.inspect(MODEL, { signal }),
  ]) {
    const controller = new AbortController();
    const call = start(controller.signal);
    controller.abort();
    const error = await rejects('ABORT_ERR', call);
    assert.equal(error.cause, controller.signal.reason);
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0);
  }
  await model.generate('Once', { maxTokens: 1 });
});

test('AbortSignal.timeout ends a generation with what there was', async () => {
  const error = await rejects(
    'ABORT_ERR',
    model.generate('Once', { ...ENDLESS, signal: AbortSignal.timeout(60) }),
  );
  assert.equal(error.cause.name, 'TimeoutError');
  const { partial } = error.details;
  assert.equal(partial.finishReason, 'cancelled');
  assert.ok(partial.text.length > 0 && partial.tokens.length > 0);
  assert.ok(Array.isArray(JSON.parse(JSON.stringify(error)).details.partial.tokens));
});

test('break, cancel() and cancelling a stream end it with what there is', async () => {
  const read = model.generate('Once', ENDLESS);
  let seen = '';
  for await (const { text } of read) {
    seen += text;
    if (seen.length > 20) break;
  }
  const result = await read;
  assert.equal(result.finishReason, 'cancelled');
  assert.ok(result.text.startsWith(seen));
  const cancelled = model.generate('Once', ENDLESS);
  assert.equal((await cancelled.cancel()).finishReason, 'cancelled');
  const streamed = model.generate('Once', ENDLESS);
  const reader = streamed.textStream().getReader();
  assert.ok((await reader.read()).value.length > 0);
  await reader.cancel();
  assert.equal((await streamed).finishReason, 'cancelled');
  assert.equal(model.stats().running, 0);
});

test('cancelling while the prompt is evaluated', async () => {
  const generation = model.generate('word '.repeat(1000), ENDLESS);
  const result = await generation.cancel();
  assert.deepEqual([result.finishReason, result.text], ['cancelled', '']);
});

test('progress of the prompt ends with all of it', async () => {
  const seen = [];
  const prompt = 'word '.repeat(900);
  const { usage } = await model.generate(prompt, {
    maxTokens: 1,
    onProgress: (progress) => seen.push(progress),
  });
  const total = usage.promptTokens;
  assert.deepEqual(seen.at(-1), { phase: 'prompt', unit: 'tokens', done: total, total });
});

test('a progress callback that throws rejects its generation alone', async () => {
  const boom = new Error('boom');
  const other = model.generate('Once', { maxTokens: 5 });
  const onProgress = () => {
    throw boom;
  };
  await assert.rejects(
    Promise.resolve(model.generate('word '.repeat(900), { onProgress })),
    (error) => error === boom,
  );
  await other;
});

test('an unread generation pauses at queueSize, and holds back nobody else', async () => {
  const before = model.stats().completionTokens;
  const unread = model.generate('Once', { ...ENDLESS, queueSize: 8 });
  await settled();
  const held = model.stats().completionTokens - before;
  assert.ok(held >= 8 && held <= 12, `${held} tokens for 8 chunks`);
  await model.generate('Once', { maxTokens: 20, ignoreEos: true });
  assert.ok(model.stats().completionTokens - before <= held + 20);
  const reader = unread[Symbol.asyncIterator]();
  for (let i = 0; i < 40; i++) assert.equal((await reader.next()).done, false);
  await settled();
  const after = model.stats().completionTokens - before - 20;
  assert.ok(after >= 40 && after <= 40 + 12, `${after} tokens for 40 + 8 chunks`);
  await reader.return();
});

test('awaiting lifts the bound, and a reader still gets every chunk afterwards', async () => {
  const generation = model.generate('Once', { ...GREEDY, queueSize: 2, maxTokens: 40 });
  await turn();
  const { text } = await generation;
  let read = '';
  for await (const chunk of generation) read += chunk.text;
  assert.equal(read, text);
});

test('a slow reader gets the same text', async () => {
  const options = { ...GREEDY, maxTokens: 30, queueSize: 1 };
  let read = '';
  for await (const { text } of model.generate('Once', options)) {
    read += text;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  assert.equal(read, await model.generate('Once', options).text());
});

test('streams: chunks, text, and a Response', async () => {
  const options = { ...GREEDY, maxTokens: 20 };
  const expected = await model.chat('Hi', options).text();
  const tokens = [];
  for await (const chunk of model.chat('Hi', options).stream()) tokens.push(...chunk.tokens);
  assert.equal(await model.detokenize(tokens), expected);
  const response = new Response(
    model.chat('Hi', options).textStream().pipeThrough(new TextEncoderStream()),
  );
  assert.equal(await response.text(), expected);
});

test('two readers of one generation: the second is ERR_CONSUMED', async () => {
  const generation = model.generate('Once', { maxTokens: 3 });
  for await (const _ of generation);
  assert.throws(() => generation.stream(), { code: 'ERR_CONSUMED' });
  await assert.rejects(
    (async () => {
      for await (const _ of generation);
    })(),
    { code: 'ERR_CONSUMED' },
  );
  assert.equal((await generation).usage.completionTokens, 3);
});

test('generations that nobody holds are cancelled when collected', async () => {
  await withModel(async (own) => {
    const { setFlagsFromString } = require('node:v8');
    setFlagsFromString('--expose-gc');
    const gc = require('node:vm').runInNewContext('gc');
    (() => {
      for (let i = 0; i < 4; i++) own.generate('Once', ENDLESS);
    })();
    for (let i = 0; i < 200 && (i === 0 || own.stats().running > 0); i++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      gc();
    }
    assert.equal(own.stats().running, 0);
  });
});
