// One part of `curves.mjs` over the JavaScript API: rates against context, prompt or sessions. Each
// point is told when it is there, so that a part that is stopped keeps what it has.

import { loadModel } from 'node-chord';
import { task, tell, words } from './child.mjs';
import { median } from './stats.mjs';

const GREEDY = { temperature: 0, ignoreEos: true };
/** Tokens that are decoded at a point of context, and by each of many sessions. */
const STEPS = 24;
const TOGETHER = 48;
const REPEATS = 3;

const { part, model: path, vocabSize, points, options } = task();
const draw = words(vocabSize);
const model = await loadModel(path, options);
await model.generate(draw(8), { ...GREEDY, maxTokens: 8 });
await { context, prompt, sessions }[part]();
await tell({ threads: model.stats().threads, cpu: model.stats().cpu, done: true });
process.exit(0);

/** Decoding while a session holds so many tokens: one session grows from point to point. */
async function context() {
  const session = model.createSession();
  for (const length of points) {
    await session.generate(draw(length - session.length), { ...GREEDY, maxTokens: 1 });
    session.rewind(length);
    const rates = [];
    for (let repeat = 0; repeat < REPEATS; repeat++) {
      rates.push(rate(await arrivals(session.generate(draw(1), greedy(STEPS)))));
      session.rewind(length);
    }
    await tell({ point: { x: length, tokensPerSecond: median(rates) } });
  }
}

/** A prompt of so many tokens, up to its first new token. */
async function prompt() {
  for (const length of points) {
    const rates = [];
    for (let repeat = 0; repeat < (length > 1024 ? 1 : REPEATS); repeat++) {
      const began = performance.now();
      await model.generate(draw(length), greedy(1));
      rates.push((1000 * length) / (performance.now() - began));
    }
    await tell({ point: { x: length, tokensPerSecond: median(rates) } });
  }
}

/** So many generations at once: their tokens a second while all of them decode. */
async function sessions() {
  for (const count of points) {
    const running = Array.from({ length: count }, () => {
      return arrivals(model.generate(draw(4), greedy(TOGETHER)));
    });
    const times = await Promise.all(running);
    const from = Math.max(...times.map((each) => each[0]));
    const until = Math.min(...times.map((each) => each.at(-1)));
    const inside = times.flat().filter((time) => time > from && time <= until).length;
    // Where the first ends before the last begins, there is no such time.
    if (until <= from) continue;
    await tell({ point: { x: count, tokensPerSecond: (1000 * inside) / (until - from) } });
  }
}

function greedy(maxTokens) {
  return { ...GREEDY, maxTokens };
}

/** When each token of a generation came. */
async function arrivals(generation) {
  const times = [];
  for await (const { tokens } of generation) {
    const now = performance.now();
    for (const _ of tokens) times.push(now);
  }
  return times;
}

/** Tokens a second after the first. */
function rate(times) {
  return (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
}
