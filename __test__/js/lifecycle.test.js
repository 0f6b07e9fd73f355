// The ends of processes and workers, in the middle of everything; two copies; both module systems.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { test } = require('node:test');
const { Worker } = require('node:worker_threads');
const { chord, MODEL, ROOT, script } = require('./common.js');
const { cycles } = require('./cycles.js');

const BUSY = `
  const busy = async () => {
    const model = await chord.loadModel(MODEL);
    const options = { ignoreEos: true, overflow: 'shift' };
    const readers = [1, 2, 3].map(() => model.generate('Once', options)[Symbol.asyncIterator]());
    for (const reader of readers) await reader.next();
    const drain = async (reader) => { while (!(await reader.next()).done); };
    readers.forEach(drain);
    model.createSession().chat('Hi', options).then(() => {}, () => {});
    model.tokenize('word '.repeat(100000)).catch(() => {});
    return model;
  };`;

async function ends(body, expected, options) {
  const { code, signal, stdout, stderr } = await script(body, options);
  assert.deepEqual({ code, signal, stdout: stdout.trim() }, { signal: null, ...expected }, stderr);
  return stderr;
}

test('process.exit in the middle keeps its code', async () => {
  await ends(`${BUSY} busy().then(() => process.exit(7));`, { code: 7, stdout: '' });
});

test('process.exit while loading keeps its code', async () => {
  const body = `for (let i = 0; i < 4; i++) chord.loadModel(MODEL).catch(() => {});
    setTimeout(() => process.exit(7), 1);`;
  await ends(body, { code: 7, stdout: '' });
});

test('an uncaught exception in the middle ends with its code and text', async () => {
  const body = `${BUSY} busy().then(() => setImmediate(() => { throw new Error('thrown'); }));`;
  const stderr = await ends(body, { code: 1, stdout: '' });
  assert.match(stderr, /thrown/);
});

test('an exception in a reader ends with its code', async () => {
  const body = `${BUSY} busy().then(async (model) => {
    for await (const _ of model.generate('Once')) throw new Error('thrown');
  });`;
  const stderr = await ends(body, { code: 1, stdout: '' });
  assert.match(stderr, /thrown/);
});

test('an idle model does not keep the process alive, pending work does', async () => {
  const idle = `chord.loadModel(MODEL).then((model) => {
    globalThis.kept = [model, model.createSession()];
    console.log('loaded');
  });`;
  await ends(idle, { code: 0, stdout: 'loaded' });
  const pending = `chord.loadModel(MODEL).then((model) => {
    const options = { maxTokens: 200, ignoreEos: true };
    model.generate('Once', options).then((result) => console.log(result.finishReason));
  });`;
  await ends(pending, { code: 0, stdout: 'length' });
});

test('a generation that waits for a reader does not keep the process alive', async () => {
  const body = `chord.loadModel(MODEL).then((model) => {
    globalThis.kept = model.generate('Once', { ignoreEos: true, overflow: 'shift' });
  });`;
  await ends(body, { code: 0, stdout: '' });
});

test('everything works in a worker', async () => {
  const body = `
    const { parentPort } = require('node:worker_threads');
    const chord = require(${JSON.stringify(ROOT)});
    (async () => {
      const model = await chord.loadModel(${JSON.stringify(MODEL)});
      const result = await model.generate('Once upon a time', { temperature: 0, maxTokens: 10 });
      parentPort.postMessage(result);
      await model.close();
    })();`;
  const run = () =>
    new Promise((resolve, reject) => {
      const worker = new Worker(body, { eval: true });
      let result;
      worker.on('message', (message) => (result = message));
      worker.on('error', reject);
      worker.on('exit', (code) => resolve({ code, result }));
    });
  const model = await chord.loadModel(MODEL);
  const options = { temperature: 0, maxTokens: 10 };
  const [first, second, own] = await Promise.all([
    run(),
    run(),
    model.generate('Once upon a time', options),
  ]);
  for (const { code, result } of [first, second]) {
    assert.equal(code, 0);
    assert.equal(result.text, own.text);
  }
  await model.close();
});

test('workers are terminated in the middle without a trace', async () => {
  const body = `${BUSY}
    const { Worker } = require('node:worker_threads');
    const code = ${JSON.stringify(BUSY)};
    const head = 'const chord = require(' + JSON.stringify(${JSON.stringify(ROOT)}) + ');'
      + 'const MODEL = ' + JSON.stringify(MODEL) + ';' + code
      + 'busy().then(() => require("node:worker_threads").parentPort.postMessage(1));';
    (async () => {
      for (let i = 0; i < 10; i++) {
        const worker = new Worker(head, { eval: true });
        await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject));
        await new Promise((resolve) => setTimeout(resolve, i));
        await worker.terminate();
      }
      const fs = require('node:fs');
      const left = () => process.platform !== 'linux' ? [] : fs.readdirSync('/proc/self/task')
        .map((id) => '/proc/self/task/' + id + '/comm')
        .map((file) => { try { return fs.readFileSync(file, 'utf8'); } catch { return ''; } })
        .filter((name) => name.startsWith('chord'));
      // A thread that was joined is listed until the system has cleared it away, and an engine that
      // does not get to run within a second is not waited for.
      while (left().length > 0) await new Promise((resolve) => setTimeout(resolve, 10));
      console.log('none left');
    })();`;
  await ends(body, { code: 0, stdout: 'none left' });
});

test('process.exit in a worker in the middle ends the worker alone', async () => {
  const body = `
    const { Worker } = require('node:worker_threads');
    const head = 'const chord = require(' + JSON.stringify(${JSON.stringify(ROOT)}) + ');'
      + 'const MODEL = ' + JSON.stringify(MODEL) + ';' + ${JSON.stringify(BUSY)}
      + 'busy().then(() => process.exit(5));';
    new Worker(head, { eval: true }).on('exit', (code) => console.log('worker', code));`;
  await ends(body, { code: 0, stdout: 'worker 5' });
});

test('two copies of the package live in one process', async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'chord-copy-'));
  for (const part of ['dist', 'package.json']) {
    fs.cpSync(path.join(ROOT, part), path.join(folder, part), { recursive: true });
  }
  const body = `
    const other = require(${JSON.stringify(folder)});
    (async () => {
      console.log(other.Model === chord.Model);
      const options = { temperature: 0, maxTokens: 10 };
      const models = await Promise.all([chord.loadModel(MODEL), other.loadModel(MODEL)]);
      const calls = models.map((model) => model.generate('Once', options).text());
      const texts = await Promise.all(calls);
      console.log(texts[0] === texts[1]);
      const error = await other.loadModel('no.gguf').catch((error) => error);
      const isKnown = chord.isChordError(error, 'ERR_FILE_NOT_FOUND');
      console.log(isKnown, error instanceof chord.ChordError);
      await Promise.all(models.map((model) => model.close()));
    })();`;
  await ends(body, { code: 0, stdout: 'false\ntrue\ntrue false' });
  fs.rmSync(folder, { recursive: true });
});

test('import and require give the same classes', async () => {
  const esm = await import(path.join(ROOT, 'dist', 'index.mjs'));
  for (const name of Object.keys(chord)) assert.equal(esm[name], chord[name], name);
  assert.deepEqual(
    Object.keys(esm).sort(),
    Object.keys(chord)
      .filter((name) => name !== '__esModule')
      .sort(),
  );
});

test('models come and go without leaving memory, threads or handles', async () => {
  const { before, after, perCycleKb } = await cycles(30);
  const seen = JSON.stringify({ before, after });
  assert.ok(after.fds <= before.fds && after.threads <= before.threads + 4, seen);
  // A model's vocabulary alone is 500 kB, its mapped file 3 MB.
  assert.ok(perCycleKb < 200, seen);
});

test('events are published on diagnostics channels', async () => {
  const { channel } = require('node:diagnostics_channel');
  const seen = [];
  const listen = (event, name) => seen.push([name, event.type]);
  for (const name of ['load', 'generate']) channel(`node-chord:${name}`).subscribe(listen);
  const model = await chord.loadModel(MODEL);
  await model.generate('Once', { maxTokens: 1 });
  await model.generate('x'.repeat(1e5)).catch(() => {});
  await model.close();
  for (const name of ['load', 'generate']) channel(`node-chord:${name}`).unsubscribe(listen);
  assert.deepEqual(
    seen.map(([name, type]) => `${name.slice(11)} ${type}`),
    [
      'load start',
      'load end',
      'generate start',
      'generate end',
      'generate start',
      'generate error',
    ],
  );
});
