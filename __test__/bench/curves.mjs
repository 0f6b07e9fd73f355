// How cost grows, through the JavaScript API: decoding against the tokens held, a prompt against
// its length, sessions that decode together. Each part runs in a process of its own.

import { resolve } from 'node:path';
import { measured } from './child.mjs';
import { checkBuilt, limitsMeter } from './machine.mjs';
import { begin, save } from './record.mjs';
import { columns, digits, figure, summary } from './stats.mjs';
import { workload } from './workload.mjs';

/** Tokens of each session where many share a cache, and beyond a context's last point. */
const SHORT = 128;

/** Runs the bench; the exit status. */
export async function curves(file, options) {
  checkBuilt();
  const path = resolve(file);
  const work = await workload(path);
  const limits = limitsMeter();
  const finish = begin('curves');
  const deadline = performance.now() + options.minutes * 60_000;
  const measuredLimits = [await limits()];
  const parts = {};
  for (const [part, request] of Object.entries(requests(options))) {
    const left = Math.max(1, Math.round((deadline - performance.now()) / 1000));
    const task = { part, model: path, vocabSize: work.vocabSize, ...request };
    const { points = [], failed, threads } = await measured('run-curve.mjs', task, left);
    measuredLimits.push(await limits());
    parts[part] = { options: request.options, threads, failed, points: points.map(rounded) };
    console.log(`\n${part}${failed ? ` (${failed})` : ''}\n${table(parts[part])}`);
  }
  const of = (name) => summary(measuredLimits.map((each) => each[name]));
  const record = finish({
    model: work,
    limits: {
      readGBs: of('readGBs'),
      int8Gops: of('int8Gops'),
      f32Gflops: of('f32Gflops'),
    },
    parts,
  });
  save(record, options);
  return 0;
}

/** The parts with what each needs; points in rising order. */
function requests({ contexts, prompts, sessions }) {
  const rising = (points) => [...points].sort((a, b) => a - b);
  const most = (points) => Math.max(...points) + SHORT;
  return {
    context: { points: rising(contexts), options: { contextLength: most(contexts) } },
    prompt: { points: rising(prompts), options: { contextLength: most(prompts) } },
    sessions: {
      points: rising(sessions),
      options: {
        contextLength: SHORT * Math.max(...sessions),
        maxConcurrent: Math.max(...sessions),
      },
    },
  };
}

function rounded({ x, tokensPerSecond }) {
  return { x, tokensPerSecond: digits(tokensPerSecond) };
}

function table({ points }) {
  const first = points[0]?.tokensPerSecond;
  const rows = points.map(({ x, tokensPerSecond }) => {
    return [x, figure(tokensPerSecond), figure(tokensPerSecond / first)];
  });
  return columns([['', 'tok/s', 'of the first'], ...rows]);
}
