/** `chord bench`: runs a model for a while; prints what was predicted beside what was measured. */

import { closeSync, openSync, writeFileSync } from 'node:fs';
import type { Estimate, GenerateResult, Model, Stats } from '../../../index.js';
import * as is from '../check.js';
import { invalidText } from '../errors.js';
import { estimateOn } from '../estimate.js';
import { native } from '../native.js';
import { rate } from './estimate.js';
import { type Flags, loadOptions } from './flags.js';
import { Interrupted, onInterrupt } from './interrupt.js';
import { open } from './open.js';
import { bytes, colours, print, printJson, printNote } from './terminal.js';

/** Seconds that it takes by default, all in all. */
const SECONDS = 60;
const SECONDS_MAX = 86_400;
/** Tokens that are drawn at most; of a small model these are enough. */
const TOKENS = 512;
const PROMPT = 512;
/** Events of a trace: a few passes of the largest models. */
const EVENTS = 4096;

interface Measured {
  tokensPerSecond: number;
  promptTokensPerSecond: number | null;
  bytesPerPass: number;
  /** Bytes a second while something was read; null: nothing was. */
  readRate: number | null;
  /** Milliseconds a token that computing waited for weights. */
  stallMsPerToken: number;
  /** Part of the streamed groups that were there when they were needed; null: none are streamed. */
  hitRate: number | null;
  tokens: number;
  promptTokens: number;
  loadMs: number;
  peakRam: number;
  backend: string;
}

/** The exit status. */
export async function bench(path: string, flags: Flags): Promise<number> {
  const controller = new AbortController();
  const { signal } = controller;
  const seconds = is.number(1, SECONDS_MAX)(flags['seconds'] ?? SECONDS, 'seconds');
  const deadline = performance.now() + seconds * 1e3;
  const trace = openTrace(flags['trace'] as string | undefined);
  let interrupt = onInterrupt(() => controller.abort());
  try {
    printNote('estimating ...');
    const options = { ...loadOptions(flags), signal };
    const { estimate: predicted, disk } = await estimateOn(path, options, null);
    interrupt.off();
    const { model, loadMs } = await open(path, flags);
    interrupt = onInterrupt(() => controller.abort());
    try {
      const measured = await measure(model, loadMs, { signal, deadline, trace });
      if (flags.json) printJson({ model: path, disk, predicted, measured });
      else await show(path, predicted, disk, measured);
    } finally {
      await model.close();
    }
    return 0;
  } catch (error) {
    if (interrupt.happened) throw new Interrupted();
    throw error;
  } finally {
    interrupt.off();
    if (trace !== null) closeSync(trace);
  }
}

interface Limits {
  signal: AbortSignal;
  /** On the clock of `performance`. */
  deadline: number;
  /** The file that a trace goes to. */
  trace: number | null;
}

async function measure(model: Model, loadMs: number, limits: Limits): Promise<Measured> {
  const { signal, deadline, trace } = limits;
  const { contextLength, vocabSize } = model.info;
  printNote('filling what stays in memory ...');
  await decode(model, 2, { signal, until: deadline });
  const until = performance.now() + (deadline - performance.now()) / 2;
  const most = Math.max(2, Math.min(TOKENS, contextLength - 2));
  printNote(`drawing tokens for at most ${(left(until) / 1000).toFixed(0)} s ...`);
  const before = model.stats();
  if (trace !== null) native().traceStart(EVENTS);
  const drawn = await decode(model, most, { signal, until });
  if (trace !== null) writeTrace(trace, model);
  const after = model.stats();
  const length = Math.min(PROMPT, contextLength - 2);
  printNote(`evaluating a prompt of ${length} tokens ...`);
  const prompt = Uint32Array.from({ length }, (_, i) => (1000 + i * 7919) % vocabSize);
  const promptRate = await evaluate(model, prompt, { signal, until: deadline });
  const { io, peakRam } = model.stats();
  return {
    tokensPerSecond: drawn.rate,
    promptTokensPerSecond: promptRate,
    bytesPerPass: (after.io.bytesRead - before.io.bytesRead) / Math.max(1, drawn.passes),
    readRate: io.bytesPerSecond > 0 ? io.bytesPerSecond : null,
    stallMsPerToken: (after.io.stallMs - before.io.stallMs) / Math.max(1, drawn.passes),
    hitRate: hitRate(before, after),
    tokens: drawn.passes,
    promptTokens: length,
    loadMs,
    peakRam,
    backend: io.backend,
  };
}

/** Before a minute is spent on what cannot be written. */
function openTrace(file: string | undefined): number | null {
  if (file === undefined) return null;
  try {
    return openSync(file, 'w');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw invalidText('trace', 'a file that can be written', `'${file}' (${code})`);
  }
}

/** A line of what is what, then a line an event. */
function writeTrace(file: number, model: Model): void {
  const events: object[] = JSON.parse(native().traceTake());
  const groups = model.stats().groups.filter(({ place }) => place !== 'cached');
  const about = { model: model.info.path, groups: groups.map(({ name, place }) => [name, place]) };
  const lines = [about, ...events].map((line) => JSON.stringify(line));
  writeFileSync(file, `${lines.join('\n')}\n`);
}

interface Span {
  signal: AbortSignal;
  until: number;
}

/** Draws tokens one by one; how many passes that took, and how many a second. */
async function decode(
  model: Model,
  maxTokens: number,
  { signal, until }: Span,
): Promise<{ passes: number; rate: number }> {
  const options = { maxTokens, temperature: 0, ignoreEos: true, signal };
  const generation = model.generate(Uint32Array.of(1), options);
  const timer = setTimeout(() => void generation.cancel().catch(() => {}), left(until));
  try {
    const { usage, timings } = await generation;
    const passes = usage.completionTokens;
    return {
      passes,
      rate: passes > 1 ? timings.tokensPerSecond : (passes * 1e3) / timings.totalMs,
    };
  } finally {
    clearTimeout(timer);
  }
}

/** Prompt tokens a second; null if time ran out. */
async function evaluate(model: Model, prompt: Uint32Array, span: Span): Promise<number | null> {
  const generation = model.generate(prompt, { maxTokens: 1, temperature: 0, signal: span.signal });
  const timer = setTimeout(() => void generation.cancel().catch(() => {}), left(span.until));
  try {
    const { finishReason, timings }: GenerateResult = await generation;
    return finishReason === 'cancelled' ? null : timings.promptTokensPerSecond;
  } finally {
    clearTimeout(timer);
  }
}

function left(until: number): number {
  return Math.max(1_000, until - performance.now());
}

/** Of the groups that stream. */
function hitRate(before: Stats, after: Stats): number | null {
  let [hits, all] = [0, 0];
  for (const [index, group] of after.groups.entries()) {
    const past = before.groups[index];
    if (group.place === 'pinned' || past === undefined) continue;
    hits += group.hits - past.hits;
    all += group.hits + group.misses + group.late - past.hits - past.misses - past.late;
  }
  return all === 0 ? null : hits / all;
}

async function show(
  path: string,
  predicted: Estimate,
  disk: number | null,
  measured: Measured,
): Promise<void> {
  const { bold } = colours(process.stdout);
  const orNone = <T>(value: T | null, text: (value: T) => string) =>
    value === null ? '-' : text(value);
  const perSecond = (value: number) => `${bytes(value)}/s`;
  const percent = (value: number) => `${(value * 100).toFixed(1)} %`;
  const rows = [
    ['', 'predicted', 'measured'],
    ['tokens/s', rate(predicted.tokensPerSecond), rate(measured.tokensPerSecond)],
    [
      'prompt tokens/s',
      rate(predicted.promptTokensPerSecond),
      orNone(measured.promptTokensPerSecond, rate),
    ],
    ['read a pass', bytes(predicted.bytesPerPass), bytes(measured.bytesPerPass)],
    ['read rate', orNone(disk, perSecond), orNone(measured.readRate, perSecond)],
    ['waited a token', '-', `${measured.stallMsPerToken.toFixed(2)} ms`],
    ['there in time', '-', orNone(measured.hitRate, percent)],
    ['memory', bytes(predicted.ram.total), `${bytes(measured.peakRam)} (process)`],
  ] as const;
  await print(`${bold(path)}, ${measured.tokens} tokens, ${measured.backend}\n`);
  const widths = [0, 1].map((i) => Math.max(...rows.map((row) => row[i as 0 | 1].length)));
  for (const [name, a, b] of rows) {
    await print(`${name.padEnd(widths[0]! + 2)}${a.padEnd(widths[1]! + 2)}${b}\n`);
  }
}
