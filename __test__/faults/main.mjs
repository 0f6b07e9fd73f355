// Real faults, each once, on a copy of a model file: `npm run faults -- MODEL.gguf [MiB]`,
// where the second is a budget that makes the model stream. Slow, and no part of `npm test`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import chord from '../../dist/index.js';

const [source, mib = '320', role] = process.argv.slice(2);
if (!source) throw new Error('usage: npm run faults -- MODEL.gguf [MiB]');
const SMALL = fileURLToPath(new URL('../../models/chord-5m-Q4_K_M.gguf', import.meta.url));
const STREAMED = { contextLength: 256, memory: { ram: `${mib}MiB` } };
const ANSWER = { maxTokens: 4, temperature: 0, ignoreEos: true };

// The child of the kill: streams until it is killed.
if (role === 'child') {
  const model = await chord.loadModel(source, STREAMED);
  process.send('ready');
  for (;;) await model.generate('Once', ANSWER);
}

const folder = fs.mkdtempSync(join(os.tmpdir(), 'chord-faults-'));
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
const small = await chord.loadModel(SMALL);

/** A copy of the model that may be spoilt. */
function copy() {
  const path = join(folder, 'model.gguf');
  fs.rmSync(path, { force: true });
  fs.copyFileSync(source, path);
  return path;
}

/** Loads, spoils the file while an answer is on its way, and says what became of both. */
async function spoil(options, how) {
  const path = copy();
  const model = await chord.loadModel(path, options);
  const before = await model.generate('Once', ANSWER);
  const running = model.generate('Once', { ...ANSWER, maxTokens: 64 }).then(
    () => null,
    (error) => error.code,
  );
  await sleep(150);
  how(path);
  const first = await running;
  const second = await model.generate('Once', ANSWER).then(
    ({ text }) => (text === before.text ? 'same text' : 'other text'),
    (error) => error.code,
  );
  await model.close();
  return [first, second];
}

async function check(name, run) {
  const began = performance.now();
  await run();
  // Whatever happened, the process and other models live.
  assert.equal((await small.generate('Once upon', ANSWER)).tokens.length, 4);
  console.log(`ok ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
}

const changed = ['ERR_FILE_CHANGED', 'ERR_FILE_CHANGED'];
const half = (path) => fs.truncateSync(path, Math.floor(fs.statSync(path).size / 2));
const touch = (path) => fs.utimesSync(path, 1, 1);
const replace = (path) => {
  fs.writeFileSync(`${path}.new`, 'another file');
  fs.renameSync(`${path}.new`, path);
};

for (const [kind, options] of [
  ['streamed', STREAMED],
  ['mapped', { contextLength: 256 }],
]) {
  await check(`truncated while ${kind}`, async () =>
    assert.deepEqual(await spoil(options, half), changed),
  );
  await check(`rewritten while ${kind}`, async () =>
    assert.deepEqual(await spoil(options, touch), changed),
  );
  await check(`replaced by another file while ${kind}: the opened one counts`, async () =>
    assert.deepEqual(await spoil(options, replace), [null, 'same text']),
  );
}

await check('cancelled while reads are on their way', async () => {
  const model = await chord.loadModel(source, STREAMED);
  const { text } = await model.generate('Once', ANSWER);
  for (let round = 0; round < 8; round += 1) {
    const signal = AbortSignal.timeout(5 + 40 * round);
    const began = performance.now();
    const answer = model.generate('Once', { ...ANSWER, maxTokens: 1000, signal });
    await assert.rejects(answer, { code: 'ABORT_ERR' });
    assert.ok(performance.now() - began < 2000);
  }
  assert.equal((await model.generate('Once', ANSWER)).text, text);
  await model.close();
});

await check('closed while reading ahead', async () => {
  for (let round = 0; round < 8; round += 1) {
    const model = await chord.loadModel(source, STREAMED);
    await sleep(10 * round);
    await model.close();
  }
});

await check('two models stream at once, one closes, the other goes on', async () => {
  const [one, two] = await Promise.all([1, 2].map(() => chord.loadModel(source, STREAMED)));
  const answers = await Promise.all([one, two].map((model) => model.generate('Once', ANSWER)));
  assert.equal(answers[0].text, answers[1].text);
  const going = two.generate('Once', { ...ANSWER, maxTokens: 8 });
  await one.close();
  assert.equal((await going).tokens.length, 8);
  await two.close();
});

await check('killed while streaming', async () => {
  const stdio = ['ignore', 'inherit', 'inherit', 'ipc'];
  const child = spawn(process.execPath, [process.argv[1], source, mib, 'child'], { stdio });
  await new Promise((resolve) => child.once('message', resolve));
  await sleep(300);
  const closed = new Promise((resolve) => child.once('close', (code, signal) => resolve(signal)));
  child.kill('SIGKILL');
  assert.equal(await closed, 'SIGKILL');
  const model = await chord.loadModel(source, STREAMED);
  assert.equal((await model.generate('Once', ANSWER)).tokens.length, 4);
  await model.close();
});

/** A version 1 control group that holds the disk of the temp folder to a rate; only root may. */
function throttle(bytesPerSecond) {
  const group = '/sys/fs/cgroup/blkio/chord-faults';
  try {
    const { dev } = fs.statSync(source);
    const [major, minor] = [(dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xfff00)];
    fs.mkdirSync(group, { recursive: true });
    const file = join(group, 'blkio.throttle.read_bps_device');
    fs.writeFileSync(file, `${major}:${minor & ~15} ${bytesPerSecond}`);
    fs.writeFileSync(join(group, 'cgroup.procs'), String(process.pid));
    return () => fs.writeFileSync('/sys/fs/cgroup/blkio/cgroup.procs', String(process.pid));
  } catch (error) {
    console.log(`left out: a disk ten times slower (${error.code})`);
    return null;
  }
}

await check('a disk ten times slower for a while', async () => {
  const model = await chord.loadModel(source, STREAMED);
  const quick = await model.generate('Once', ANSWER);
  const before = model.stats().io.bytesRead;
  const free = throttle(100e6);
  if (!free) return model.close();
  const began = performance.now();
  const slow = await model.generate('Once', { ...ANSWER, maxTokens: 2 });
  const rate = (model.stats().io.bytesRead - before) / (performance.now() - began) / 1e3;
  const signal = AbortSignal.timeout(100);
  await assert.rejects(model.generate('Once', { ...ANSWER, signal }), { code: 'ABORT_ERR' });
  free();
  console.log(`  read at ${rate.toFixed(0)} MB/s meanwhile`);
  assert.deepEqual([...slow.tokens], [...quick.tokens.slice(0, 2)]);
  assert.equal((await model.generate('Once', ANSWER)).text, quick.text);
  await model.close();
});

await small.close();
