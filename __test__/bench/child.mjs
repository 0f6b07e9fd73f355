// A measurement in a process of its own: killed after a limit, what it told until then is kept.
// A script sends objects to its parent, which merges them, and sends `{ done: true }` at the end.

import { fork } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = dirname(fileURLToPath(import.meta.url));
const running = new Set();

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    for (const child of running) child.kill('SIGKILL');
    process.exit(130);
  });
}

/** Runs `script` (beside this file) with a task; `failed` says how it ended if not well. */
export function measured(script, task, limitSeconds) {
  const started = performance.now();
  const child = fork(join(HERE, script), [JSON.stringify(task)], { stdio: 'inherit' });
  running.add(child);
  return new Promise((resolve) => {
    const told = {};
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      child.kill('SIGKILL');
    }, limitSeconds * 1000);
    child.on('message', (message) => {
      if (!message.point) return Object.assign(told, message);
      (told.points ??= []).push(message.point);
    });
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      running.delete(child);
      const { done, ...rest } = told;
      if (!done) rest.failed = isLate ? `killed after ${limitSeconds} s` : `${signal ?? code}`;
      resolve({ ...rest, seconds: Math.round((performance.now() - started) / 100) / 10 });
    });
  });
}

/** In a script: its task, and how to tell the parent. */
export function task() {
  return JSON.parse(process.argv[2]);
}

/** In a script: tells the parent something. */
export function tell(message) {
  return new Promise((resolve) => process.send(message, resolve));
}

/** Token ids that are words, neither control tokens nor all the same: a sequence from a seed. */
export function words(vocabSize, seed = 12345) {
  let state = seed;
  return (count) =>
    Array.from({ length: count }, () => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return (vocabSize >> 2) + ((state >>> 8) % (vocabSize >> 1));
    });
}
