// What needs time or a quiet machine: `node __test__/js/checks.js [name ...]` prints figures and
// fails beyond the limits. Not part of `npm test`.
'use strict';

const { monitorEventLoopDelay } = require('node:perf_hooks');
const { cycles } = require('./cycles.js');
const { chord, MODEL, ROOT, GREEDY, withModel, script } = require('./common.js');

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const ENDLESS = { ...GREEDY, ignoreEos: true, overflow: 'shift' };

const checks = {
  /** p99 of the event loop's delay below 20 ms while several generations run. */
  async eventLoop() {
    return withModel(async (model) => {
      const delay = monitorEventLoopDelay({ resolution: 1 });
      delay.enable();
      const options = { ...ENDLESS, maxTokens: 2000 };
      const read = async () => {
        for await (const _ of model.generate('Once', options));
      };
      await Promise.all([read(), read(), model.generate('Once', options), read()]);
      delay.disable();
      const [p99, max] = [delay.percentile(99) / 1e6, delay.max / 1e6];
      return { p99, max, good: p99 < 20 };
    });
  },

  /** 10 MB of text, and 1 MB of one letter, do not hold the event loop up. */
  async longTexts() {
    const tokenizer = await chord.loadTokenizer(MODEL);
    const figures = {};
    for (const [name, unit, count] of [
      ['english', 'The quick brown fox jumps over the lazy dog. ', 233_000],
      ['mixed', 'Ünïcödé текст 漢字🙂 ', 300_000],
      ['letter', 'a', 1_000_000],
    ]) {
      const text = Buffer.from(unit.repeat(count)).toString(); // flat, as from a file
      await sleep(50);
      const delay = monitorEventLoopDelay({ resolution: 1 });
      delay.enable();
      const tokens = await tokenizer.tokenize(text);
      delay.disable();
      if ((await tokenizer.detokenize(tokens)) !== text) throw new Error(`${name} is not the same`);
      figures[name] = { tokens: tokens.length, max: delay.max / 1e6 };
    }
    return { ...figures, good: Object.values(figures).every(({ max }) => max < 50) };
  },

  /** Aborting a long prompt returns within 100 ms. */
  async abort() {
    return withModel(async (model) => {
      const waits = [];
      for (let i = 0; i < 20; i++) {
        const controller = new AbortController();
        const call = model.generate('word '.repeat(1000), { signal: controller.signal });
        await sleep(i);
        const started = performance.now();
        controller.abort();
        await call.catch(() => {});
        waits.push(performance.now() - started);
      }
      const max = Math.max(...waits);
      return { max, good: max < 100 };
    });
  },

  /** A reader that stalls holds back its own generation alone. */
  async stall() {
    return withModel(async (model) => {
      const stalled = model.generate('Once', ENDLESS)[Symbol.asyncIterator]();
      await stalled.next();
      const started = performance.now();
      const { usage } = await model.generate('Once', { ...ENDLESS, maxTokens: 500 });
      const ms = performance.now() - started;
      await stalled.return();
      return { ms, good: usage.completionTokens === 500 };
    });
  },

  /** After 100 models, 100 more come and go without growth of memory, handles or threads. */
  async cycles() {
    // The engine of Node 22 itself goes on growing until about the 200th.
    const { before, after, perCycleKb } = await cycles(250);
    // A model's vocabulary alone is 500 kB. Threads of tokio's come and go.
    const good = perCycleKb < 50 && after.fds <= before.fds && after.threads <= before.threads + 2;
    return { before, after, perCycleKb, good };
  },

  /** 100 workers are terminated in the middle of generating, in one process. */
  async workers() {
    const code = `const chord = require(${JSON.stringify(ROOT)});
      (async () => {
        const model = await chord.loadModel(${JSON.stringify(MODEL)});
        const options = { ignoreEos: true, overflow: 'shift' };
        const read = async () => { for await (const _ of model.generate('Once', options)); };
        for (let i = 0; i < 3; i++) read().catch(() => {});
        model.tokenize('word '.repeat(50000)).catch(() => {});
        require('node:worker_threads').parentPort.postMessage(1);
      })();`;
    const body = `const { Worker } = require('node:worker_threads');
      (async () => {
        for (let i = 0; i < 100; i++) {
          const worker = new Worker(${JSON.stringify(code)}, { eval: true });
          await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject));
          await new Promise((resolve) => setTimeout(resolve, i % 7));
          await worker.terminate();
        }
        console.log('done');
      })();`;
    const { code: status, signal, stdout, stderr } = await script(body, { limit: 300_000 });
    return { status, signal, stderr: stderr.slice(0, 200), good: stdout.trim() === 'done' };
  },

  /** 50 processes each end by exit and by an uncaught exception in the middle of generating. */
  async exits() {
    const busy = (end) => `
      chord.loadModel(MODEL).then(async (model) => {
        const options = { ignoreEos: true, overflow: 'shift' };
        const read = async () => { for await (const _ of model.generate('Once', options)); };
        for (let i = 0; i < 3; i++) read();
        setTimeout(() => { ${end} }, Math.random() * 10);
      });`;
    const wrong = [];
    for (let i = 0; i < 50; i++) {
      for (const [end, wanted] of [
        ['process.exit(3)', 3],
        ["throw new Error('thrown')", 1],
      ]) {
        const { code, signal, stderr } = await script(busy(end));
        if (code !== wanted) wrong.push({ end, code, signal, stderr: stderr.slice(0, 200) });
      }
    }
    return { wrong, good: wrong.length === 0 };
  },
};

(async () => {
  const names = process.argv.slice(2);
  const unknown = names.find((name) => !checks[name]);
  if (unknown) throw new Error(`no check '${unknown}'; one of: ${Object.keys(checks).join(' ')}`);
  for (const name of names.length > 0 ? names : Object.keys(checks)) {
    const { good, ...figures } = await checks[name]();
    console.log(`${good ? 'ok' : 'FAILED'} ${name}`, figures);
    if (!good) process.exitCode = 1;
  }
})();
