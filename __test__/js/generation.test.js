// The Generation class over a scripted source: reading, awaiting, cancelling, failing.
'use strict';

const assert = require('node:assert/strict');
const { test, describe } = require('node:test');
const { spawnSync } = require('node:child_process');
const { begin } = require('../../dist/generation.js');
const { failure } = require('../../dist/errors.js');
const { FakeSource } = require('./fake.js');

const reading = { text: (result) => result.text, chunkText: (chunk) => chunk.text };
const chunk = (text) => ({ type: 'text', text });
const turn = () => new Promise(setImmediate);
const isConsumed = (error) => error.code === 'ERR_CONSUMED';

function start(source, more = {}) {
  const prepared = { source, queueSize: 64, signal: undefined, onProgress: undefined, ...more };
  return begin(() => prepared, reading);
}

async function texts(generation) {
  const all = [];
  for await (const { text } of generation) all.push(text);
  return all;
}

describe('reading', () => {
  test('chunks arrive in order and the loop ends with the generation', async () => {
    const source = new FakeSource();
    const generation = start(source);
    source.push(chunk('a'), chunk('b'));
    setImmediate(() => {
      source.push(chunk('c'));
      source.end({ text: 'abc' });
    });
    assert.deepEqual(await texts(generation), ['a', 'b', 'c']);
    assert.deepEqual(await generation, { text: 'abc' });
  });

  test('it is a promise, awaited as often as one likes, before and after reading', async () => {
    const source = new FakeSource();
    const generation = start(source);
    assert.ok(generation instanceof Promise);
    const first = generation.then((result) => result.text);
    source.push(chunk('a'));
    source.end({ text: 'a' });
    assert.equal(await first, 'a');
    assert.equal(await generation.text(), 'a');
    assert.deepEqual(await texts(generation), ['a'], 'awaiting first loses no chunk');
    assert.deepEqual(await Promise.all([generation, generation]), [{ text: 'a' }, { text: 'a' }]);
    assert.equal(await generation.finally(() => {}).then((result) => result.text), 'a');
  });

  test('a second reader of any kind throws ERR_CONSUMED', async () => {
    const source = new FakeSource();
    const generation = start(source);
    source.end({ text: '' });
    generation[Symbol.asyncIterator]();
    assert.throws(() => generation[Symbol.asyncIterator](), isConsumed);
    assert.throws(() => generation.stream(), isConsumed);
    assert.throws(() => generation.textStream(), isConsumed);
    await generation;
  });

  test('several next() calls at once are answered in order', async () => {
    const source = new FakeSource();
    const iterator = start(source)[Symbol.asyncIterator]();
    const steps = [iterator.next(), iterator.next(), iterator.next()];
    source.push(chunk('a'), chunk('b'));
    source.end({ text: 'ab' });
    const values = (await Promise.all(steps)).map((step) => step.value?.text);
    assert.deepEqual(values, ['a', 'b', undefined]);
    assert.deepEqual(await iterator.next(), { done: true, value: undefined });
  });

  test('stream() gives chunks, textStream() their text without empty ones', async () => {
    const make = () => {
      const source = new FakeSource();
      const generation = start(source);
      source.push(chunk('a'), chunk(''), chunk('b'));
      source.end({ text: 'ab' });
      return generation;
    };
    const [all, onlyText] = [[], []];
    for await (const item of make().stream()) all.push(item.text);
    for await (const item of make().textStream()) onlyText.push(item);
    assert.deepEqual(all, ['a', '', 'b']);
    assert.deepEqual(onlyText, ['a', 'b']);
    const response = new Response(make().textStream().pipeThrough(new TextEncoderStream()));
    assert.equal(await response.text(), 'ab');
  });
});

describe('back-pressure', () => {
  test('nothing is taken that nobody reads', async () => {
    const source = new FakeSource(4);
    source.onCancel = () => source.end({ text: '' });
    const generation = start(source, { queueSize: 4 });
    for (let i = 0; i < 4; i++) source.push(chunk(String(i)));
    await turn();
    assert.equal(source.unread, 4);
    assert.ok(source.paused);
    const iterator = generation[Symbol.asyncIterator]();
    assert.equal((await iterator.next()).value.text, '0');
    assert.ok(source.paused, 'handed over is not yet read');
    assert.equal((await iterator.next()).value.text, '1');
    const third = iterator.next();
    await turn();
    assert.equal(source.paused, false, 'half is read');
    assert.equal((await third).value.text, '2');
    await iterator.return();
  });

  for (const [name, act] of Object.entries({
    await: (generation) => generation.then(() => {}),
    'text()': (generation) => generation.text(),
    'cancel()': (generation) => generation.cancel(),
  })) {
    test(`${name} lifts it`, async () => {
      const source = new FakeSource(1);
      source.onCancel = () => {};
      const generation = start(source, { queueSize: 1 });
      source.push(chunk('a'));
      await turn();
      assert.ok(source.paused);
      const done = act(generation);
      assert.ok(!source.paused);
      source.push(chunk('b'));
      source.end({ text: 'ab' });
      await done;
    });
  }
});

describe('calling off', () => {
  const cancellable = () => {
    const source = new FakeSource();
    source.onCancel = (keep) => {
      if (keep) source.end({ text: 'a', finishReason: 'cancelled' });
      else source.fail(failure('ABORT_ERR', 'aborted', { partial: null }), { text: 'a' });
    };
    return source;
  };

  test('break cancels, and the loop ends only when it has ended', async () => {
    const source = cancellable();
    const generation = start(source);
    source.push(chunk('a'), chunk('b'));
    for await (const item of generation) {
      assert.equal(item.text, 'a');
      break;
    }
    assert.equal((await generation).finishReason, 'cancelled');
    assert.ok(source.calls.includes('cancel keep'));
  });

  test('cancelling a stream cancels', async () => {
    const source = cancellable();
    const generation = start(source);
    await generation.stream().cancel();
    assert.equal((await generation).finishReason, 'cancelled');
  });

  test('cancel() resolves with what there is, and again after the end', async () => {
    const source = cancellable();
    const generation = start(source);
    assert.equal((await generation.cancel()).finishReason, 'cancelled');
    assert.equal((await generation.cancel()).finishReason, 'cancelled');
    assert.equal(source.calls.filter((call) => call.startsWith('cancel')).length, 1);
  });

  test('disposing cancels', async () => {
    const source = cancellable();
    const generation = start(source);
    await generation[Symbol.asyncDispose]();
    assert.equal((await generation).finishReason, 'cancelled');
  });

  test('a signal rejects with ABORT_ERR as Node forms it, with what there was', async () => {
    const source = cancellable();
    const controller = new AbortController();
    const generation = start(source, { signal: controller.signal });
    const reason = new Error('enough');
    controller.abort(reason);
    const error = await generation.then(assert.fail, (caught) => caught);
    assert.equal(error.name, 'AbortError');
    assert.equal(error.code, 'ABORT_ERR');
    assert.equal(error.cause, reason);
    assert.deepEqual(error.details.partial, { text: 'a' });
    assert.ok(source.calls.includes('cancel reject'));
  });

  test('the signal is let go of at the end', async () => {
    const { getEventListeners } = require('node:events');
    const { signal } = new AbortController();
    const source = new FakeSource();
    const generation = start(source, { signal });
    assert.equal(getEventListeners(signal, 'abort').length, 1);
    source.end({ text: '' });
    await generation;
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  });
});

describe('failing', () => {
  test('a failure reaches every await and, after the chunks before it, the reader', async () => {
    const source = new FakeSource();
    const generation = start(source);
    source.push(chunk('a'));
    const boom = failure('ERR_NUMERIC', 'logits of token 1 are NaN', { token: 1 });
    source.fail(boom);
    const seen = [];
    const reader = (async () => {
      for await (const item of generation) seen.push(item.text);
    })();
    await assert.rejects(reader, boom);
    assert.deepEqual(seen, ['a']);
    await assert.rejects(generation, boom);
    await assert.rejects(generation.text(), boom);
    await assert.rejects(generation.cancel(), boom);
  });

  test('what preparing throws is a rejection', async () => {
    const boom = new Error('boom');
    const generation = begin(() => {
      throw boom;
    }, reading);
    await assert.rejects(generation, boom);
    await assert.rejects(texts(generation), boom);
  });

  test('a stream errors with it', async () => {
    const source = new FakeSource();
    const generation = start(source);
    const boom = new Error('boom');
    source.fail(boom);
    await assert.rejects(generation.stream().getReader().read(), boom);
  });

  test('a progress callback that throws rejects its task with that', async () => {
    const source = new FakeSource();
    source.onCancel = () => source.fail(failure('ABORT_ERR', 'x', { partial: null }));
    const boom = new Error('boom');
    const onProgress = () => {
      throw boom;
    };
    const generation = start(source, { onProgress });
    source.report(1, 2);
    await assert.rejects(generation, boom);
  });

  test('unwatched it is a process warning, not an unhandled rejection', () => {
    const script = `
      const { begin } = require(${JSON.stringify(require.resolve('../../dist/generation.js'))});
      process.on('unhandledRejection', () => console.log('unhandled'));
      process.on('warning', (w) => console.log(w.name, w.code, w.message));
      begin(() => { throw new Error('boom'); }, {});
      const watched = begin(() => { throw new Error('seen'); }, {});
      watched.catch(() => console.log('caught'));
    `;
    const { stdout } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
    assert.deepEqual(stdout.trim().split('\n').sort(), [
      'ChordWarning ERR_INTERNAL a generation failed unwatched: boom',
      'caught',
    ]);
  });
});

test('progress is told 20 times a second, the last one always', async (t) => {
  let now = 1000;
  t.mock.method(performance, 'now', () => now);
  const source = new FakeSource();
  const seen = [];
  const generation = start(source, { onProgress: (progress) => seen.push(progress) });
  for (const [done, ms] of [
    [1, 0],
    [2, 40],
    [3, 20],
    [4, 1],
  ]) {
    now += ms;
    source.report(done, 4);
    await turn();
  }
  source.end({ text: '' });
  await generation;
  assert.deepEqual(seen, [
    { phase: 'prompt', unit: 'tokens', done: 1, total: 4 },
    { phase: 'prompt', unit: 'tokens', done: 3, total: 4 },
    { phase: 'prompt', unit: 'tokens', done: 4, total: 4 },
  ]);
});

test('a dropped generation is cancelled, one that is awaited or read is not', () => {
  const script = `
    const { begin } = require(${JSON.stringify(require.resolve('../../dist/generation.js'))});
    const { FakeSource } = require(${JSON.stringify(require.resolve('./fake.js'))});
    const start = (name) => {
      const source = new FakeSource();
      source.onCancel = () => { console.log('cancelled', name); source.end({ text: '' }); };
      return [source, begin(() => ({ source, queueSize: 64 }), { text: (r) => r.text })];
    };
    const keep = [];
    (() => {
      keep.push(start('dropped')[0]);
      const [a, b] = [start('awaited'), start('read')];
      keep.push(a[0], b[0]);
      a[1].then(() => console.log('resolved'));
      (async () => { for await (const c of b[1]) console.log('read', c.text); })();
    })();
    let rounds = 0;
    const timer = setInterval(() => {
      gc();
      if (++rounds < 10) return;
      clearInterval(timer);
      for (const source of keep) { source.push({ text: 'x' }); source.end({ text: 'x' }); }
    }, 5);
  `;
  const flags = ['--expose-gc', '-e', script];
  const { stdout, stderr } = spawnSync(process.execPath, flags, { encoding: 'utf8' });
  const lines = stdout.trim().split('\n').sort();
  assert.deepEqual(lines, ['cancelled dropped', 'read x', 'resolved'], stderr);
});
