// Budgets: what is estimated is what loading does; they change at run time; absurd ones are refused
// with figures, from JavaScript, the command line and the environment alike.
'use strict';

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const { mkdtempSync, readFileSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { test } = require('node:test');
const { chord, MODEL, ROOT, GREEDY, withModel, rejects, script } = require('./common.js');

const CODE = 'ERR_INSUFFICIENT_MEMORY';
const WHOLE = { contextLength: 128 };
const ANSWER = { ...GREEDY, maxTokens: 60, ignoreEos: true };

const run = (args, env = {}) =>
  spawnSync(process.execPath, [join(ROOT, 'dist/cli/main.js'), ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 120_000,
  });

/** Bytes of weights that a pass reads, from many. */
async function bytesPerPass(model) {
  await model.generate('Once', { ...ANSWER, maxTokens: 3 });
  const before = model.stats().io.bytesRead;
  const { usage } = await model.generate('Once', ANSWER);
  return (model.stats().io.bytesRead - before) / usage.completionTokens;
}

test('an estimate is what loading does', async () => {
  const { minimum } = await chord.estimate(MODEL, WHOLE);
  assert.equal(minimum.vram, 0);
  for (const ram of [minimum.ram, minimum.ram + 1_000_000, '1GiB']) {
    const options = { ...WHOLE, memory: { ram } };
    const guess = await chord.estimate(MODEL, options);
    assert.ok(guess.fits);
    assert.deepEqual(guess.minimum, minimum);
    assert.ok(guess.ram.total <= guess.ram.limit);
    assert.ok(guess.tokensPerSecond > 0 && guess.promptTokensPerSecond > 0);
    await withModel(async (model) => {
      const { ram: budget, groups } = model.stats();
      for (const part of ['limit', 'weights', 'ring', 'staging']) {
        assert.equal(guess.ram[part], budget[part], part);
      }
      const plain = ({ name, bytes, device, place }) => ({ name, bytes, device, place });
      assert.deepEqual(guess.groups, groups.map(plain));
      assert.equal(guess.contextLength, model.info.contextLength);
      const read = await bytesPerPass(model);
      // Embedding rows come on top; the ring may be fuller at the end than at the beginning.
      const slack = (guess.ram.ring + 60 * 8192) / 60;
      assert.ok(Math.abs(read - guess.bytesPerPass) <= slack, `${read} of ${guess.bytesPerPass}`);
    }, options);
  }
  const less = { ...WHOLE, memory: { ram: minimum.ram - 1 } };
  const short = await chord.estimate(MODEL, less);
  assert.equal(short.fits, false);
  assert.equal(short.ram.total, minimum.ram);
  const error = await rejects(CODE, chord.loadModel(MODEL, less));
  assert.deepEqual(error.details, {
    memory: 'ram',
    required: minimum.ram,
    available: minimum.ram - 1,
  });
});

test('a loaded model estimates from how it was loaded and configured', async () => {
  const ram = '1GiB';
  await withModel(
    async (model) => {
      assert.deepEqual((await model.estimate()).ram.limit, 2 ** 30);
      const { minimum } = await model.estimate();
      const small = await model.estimate({ memory: { ram: minimum.ram } });
      assert.equal(small.ram.total, minimum.ram);
      assert.equal(small.contextLength, 128);
      await model.configure({ memory: { ram: minimum.ram } });
      assert.equal((await model.estimate()).bytesPerPass, small.bytesPerPass);
      assert.ok(small.bytesPerPass > 0);
    },
    { ...WHOLE, memory: { ram } },
  );
});

test('estimates are checked like loading, and can be called off', async () => {
  await rejects('ERR_UNKNOWN_OPTION', chord.estimate(MODEL, { memry: 1 }));
  await rejects('ERR_INVALID_ARG', chord.estimate(MODEL, { memory: { ram: -1 } }));
  await rejects('ERR_INVALID_ARG', chord.estimate(7));
  await rejects('ERR_FILE_NOT_FOUND', chord.estimate('no.gguf'));
  await rejects('ERR_DEVICE', chord.estimate(MODEL, { device: 'cuda' }));
  await rejects('ABORT_ERR', chord.estimate(MODEL, { signal: AbortSignal.abort() }));
});

test('budget, read-ahead and threads change while generations run, and no token does', async () => {
  await withModel(async (model) => {
    const prompts = ['Once upon a time', 'Lily had', 'The dog'];
    const expected = [];
    for (const prompt of prompts) expected.push((await model.generate(prompt, ANSWER)).text);
    const { minimum } = await model.estimate();
    const running = prompts.map((prompt) => model.generate(prompt, ANSWER));
    const changes = [
      { memory: { ram: minimum.ram } },
      { prefetch: 0 },
      { memory: { ram: minimum.ram + 1_500_000 }, prefetch: 'auto', threads: 1 },
      { threads: 'auto' },
      { memory: { ram: 'auto' } },
      { memory: { ram: minimum.ram } },
    ];
    for (const change of changes) {
      await model.configure(change);
      const { ram, threads } = model.stats();
      if (typeof change.memory?.ram === 'number') assert.equal(ram.limit, change.memory.ram);
      if (change.threads === 1) assert.equal(threads, 1);
      assert.ok(ram.total <= ram.limit);
    }
    const texts = (await Promise.all(running)).map(({ text }) => text);
    assert.deepEqual(texts, expected);
    assert.equal((await model.generate(prompts[0], ANSWER)).text, expected[0]);
    assert.ok(model.stats().groups.some(({ place }) => place === 'streamed'));
  }, WHOLE);
});

test('memory.kv is shared by as many sessions as it holds, and changes at run time', async () => {
  const { ram } = await chord.estimate(MODEL, WHOLE);
  const options = { ...WHOLE, maxConcurrent: 4, memory: { kv: 3 * ram.kv } };
  await withModel(async (model) => {
    assert.equal(model.info.contextLength, WHOLE.contextLength);
    assert.equal(model.stats().kvTokens.total, 3 * 128);
    const sessions = Array.from({ length: 3 }, () => model.createSession());
    await Promise.all(
      sessions.map((session) => session.generate('Once', { ...ANSWER, maxTokens: 90 })),
    );
    // Nobody's pages were taken.
    assert.ok(model.stats().kvTokens.used >= 3 * 90);
    const short = await rejects(CODE, model.configure({ memory: { kv: ram.kv } }));
    assert.equal(short.details.memory, 'memory.kv');
    assert.ok(short.details.required > short.details.available);
    assert.equal(model.stats().kvTokens.total, 3 * 128);
    await model.configure({ memory: { kv: 5 * ram.kv } });
    assert.equal(model.stats().kvTokens.total, 5 * 128);
    await Promise.all(sessions.map((session) => session.close()));
    await model.configure({ memory: { kv: 'auto' } });
    assert.equal(model.stats().kvTokens.total, 128);
    assert.equal((await model.generate('Once', ANSWER)).usage.completionTokens, 60);
  }, options);
});

test('what configure refuses leaves everything as it was', async () => {
  await withModel(async (model) => {
    const { minimum } = await model.estimate();
    await model.configure({ memory: { ram: minimum.ram + 500_000 } });
    const before = model.stats();
    const short = await rejects(CODE, model.configure({ memory: { ram: minimum.ram - 1 } }));
    assert.equal(short.details.required, minimum.ram);
    assert.equal(short.details.available, minimum.ram - 1);
    await rejects(CODE, model.configure({ memory: { kv: 1 } }));
    await rejects(CODE, model.configure({ memory: { vram: '1GiB' } }));
    await rejects('ERR_INVALID_ARG', model.configure({ memory: { ram: 0 } }));
    await rejects('ERR_INVALID_ARG', model.configure({ prefetch: 65 }));
    await rejects('ERR_INVALID_ARG', model.configure({ threads: 0 }));
    await rejects('ERR_UNKNOWN_OPTION', model.configure({ contextLength: 5 }));
    await rejects('ABORT_ERR', model.configure({ threads: 1, signal: AbortSignal.abort() }));
    assert.deepEqual(model.stats().ram, before.ram);
    await model.close();
    await rejects('ERR_CLOSED', model.configure({ threads: 1 }));
  }, WHOLE);
});

test('absurd budgets are refused with figures', async () => {
  const machine = require('node:os').totalmem();
  const cases = [
    [{ ram: '100000GiB' }, 'ram', 100000 * 2 ** 30, /memory\.ram: \d+ MiB were asked for, .* has/],
    [{ ram: '1KiB' }, 'ram', null, /ram: needs \d+ KiB, budget is 1024 bytes/],
    [{ kv: 1 }, 'memory.kv', null, /memory\.kv: needs \d+ KiB, budget is 1 bytes/],
    [{ vram: '2GiB' }, 'vram', 2 ** 31, /memory\.vram: 2048 MiB were asked for, .* no GPU/],
  ];
  for (const [memory, name, required, message] of cases) {
    for (const call of [chord.loadModel]) {
      const error = await rejects(CODE, call(MODEL, { memory }));
      assert.equal(error.details.memory, name);
      assert.ok(error.details.required > error.details.available);
      if (required !== null) assert.equal(error.details.required, required);
      if (name === 'ram') assert.ok(error.details.available <= machine);
      assert.match(error.message, message);
    }
  }
  for (const ram of ['0', 0, -1, '-1GiB', NaN, Infinity, '', '1e9', 2 ** 60]) {
    const error = await rejects('ERR_INVALID_ARG', chord.loadModel(MODEL, { memory: { ram } }));
    assert.equal(error.details.name, 'memory.ram');
  }
  await (await chord.loadModel(MODEL, { memory: { vram: 'auto' } })).close();
});

test('the same from the command line', () => {
  const cases = [
    [['--memory', '0'], 2, /memory\.ram: expected 'auto' or bytes/],
    [['--memory', '-1'], 2, /memory\.ram: expected/],
    [['--memory', 'ram=1KiB'], 1, /ram: needs \d+ KiB, budget is 1024 bytes/],
    [['--memory', '100000GiB'], 1, /100000 GiB|\d+ MiB were asked for/],
    [['--memory', 'vram=1GiB'], 1, /memory\.vram: 1024 MiB were asked for/],
    [['--memory', 'a=b=c'], 2, /--memory/],
    [['--memory', '1GiB,2KiB,3'], 2, /--memory/],
  ];
  for (const [flags, status, message] of cases) {
    const result = run(['run', MODEL, 'Once', '--max-tokens', '1', ...flags]);
    assert.equal(result.status, status, `${flags}: ${result.stderr}`);
    assert.match(result.stderr, message);
  }
});

test('NODE_CHORD_VRAM stands for memory.vram, which wins over it', async () => {
  const body = `
    const tell = (error) => console.log(error.code, error.details.memory ?? error.details.name);
    chord.loadModel(MODEL).catch(tell).then(() =>
      chord.loadModel(MODEL, { memory: { vram: 'auto' } }).then((model) => model.close(), tell));`;
  const run = (NODE_CHORD_VRAM) => script(body, { env: { NODE_CHORD_VRAM } });
  assert.equal((await run('1GiB')).stdout, `${CODE} vram\n`);
  assert.equal((await run('much')).stdout, 'ERR_INVALID_ARG NODE_CHORD_VRAM\n');
});

test('chord estimate tells the same, also for a disk of a given rate', async () => {
  const { minimum } = await chord.estimate(MODEL, WHOLE);
  const flags = ['--context-length', '128', '--io', 'direct', '--json'];
  const at = (disk) => {
    const memory = ['--memory', String(minimum.ram), '--disk', disk];
    const { status, stdout, stderr } = run(['estimate', MODEL, ...memory, ...flags]);
    assert.equal(status, 0, stderr);
    return JSON.parse(stdout);
  };
  const [slow, fast] = [at('1MB'), at('2MB')];
  assert.equal(slow.disk, 1e6);
  assert.equal(slow.ram.total, minimum.ram);
  // Nothing but the disk counts at that rate, which direct reads of whole pages use up.
  assert.ok(Math.abs(fast.tokensPerSecond / slow.tokensPerSecond - 2) < 0.1);
  assert.ok(slow.tokensPerSecond <= 1e6 / slow.bytesPerPass);
  const short = run(['estimate', MODEL, '--memory', '1KiB']);
  assert.equal(short.status, 1);
  assert.match(short.stdout, /does not fit.*\n.*smallest/);
  assert.equal(run(['estimate', MODEL, '--disk', 'fast']).status, 2);
});

test('chord bench prints what was predicted beside what was measured, and a trace', async () => {
  const { minimum } = await chord.estimate(MODEL, WHOLE);
  const folder = mkdtempSync(join(tmpdir(), 'chord-bench-'));
  const file = join(folder, 'trace.jsonl');
  const flags = ['--memory', String(minimum.ram), '--context-length', '128', '--trace', file];
  const { status, stdout, stderr } = run(['bench', MODEL, ...flags, '--seconds', '5', '--json']);
  assert.equal(status, 0, stderr);
  const { predicted, measured } = JSON.parse(stdout);
  assert.equal(predicted.ram.total, minimum.ram);
  assert.ok(measured.tokens > 10 && measured.tokensPerSecond > 0);
  const slack = predicted.ram.ring / measured.tokens + 16_384;
  assert.ok(Math.abs(measured.bytesPerPass - predicted.bytesPerPass) <= slack);
  const [about, ...events] = readFileSync(file, 'utf8').trim().split('\n').map(JSON.parse);
  rmSync(folder, { recursive: true });
  for (const what of ['read', 'compute']) assert.ok(events.some((event) => event.what === what));
  for (const { group, start, end } of events) {
    assert.ok(start <= end && about.groups[group] !== undefined);
  }
  const text = run(['bench', MODEL, '--seconds', '3']);
  assert.match(text.stdout, /predicted +measured\ntokens\/s +\d.*\nprompt tokens\/s/);
  assert.match(text.stderr, /drawing tokens/);
});

test('run --stats ends with a line of figures where there is no terminal', async () => {
  const { minimum } = await chord.estimate(MODEL, WHOLE);
  const flags = ['--memory', String(minimum.ram), '--context-length', '128', '--stats'];
  const { status, stderr } = run(['run', MODEL, 'Once', '--max-tokens', '9', ...flags]);
  assert.equal(status, 0, stderr);
  assert.match(stderr, /read .*\/s, .* in all \| \d+ in flight \| waited \d+ % \| in time/);
  assert.doesNotMatch(stderr, /\x1b/);
});

test('scores side by side give what one alone gives, also where pages are short', async () => {
  const text = 'Once upon a time there was a girl called Lily who had a red ball and a dog. ';
  const texts = Array.from({ length: 6 }, (_, i) => text.slice(i).repeat(2));
  await withModel(async (model) => {
    const plain = (scores) => scores.map(({ token, logprob }) => [token, logprob]);
    const expected = [];
    for (const one of texts) expected.push(plain(await model.score(one)));
    const { minimum } = await model.estimate();
    for (const ram of ['1GiB', minimum.ram]) {
      await model.configure({ memory: { ram } });
      const all = await Promise.all(texts.map((one) => model.score(one)));
      assert.deepEqual(all.map(plain), expected);
    }
  }, WHOLE);
});
