/**
 * The addon as TypeScript sees it, and its loader. Everything here is internal; failures arrive as
 * errors whose message `errors.ts` can read. Numbers were checked before they get here.
 */

import { createRequire } from 'node:module';
import * as path from 'node:path';
import { addonPath } from './env.js';
import { failure } from './errors.js';

/** The addon's exports. */
export interface Native {
  NativeCancel: new () => NativeCancel;
  NativeString: new () => NativeString;
  version(): string;
  /** JSON of `Features`. */
  features(): string;
  /** Kernel tiers of this CPU, slowest first. */
  tiers(): string[];
  load(path: string, options: NativeLoadOptions): NativeLoad;
  openTokenizer(path: string, cancel: NativeCancel): Promise<NativeText>;
  inspect(path: string, cancel: NativeCancel): Promise<NativeInspection>;
  /** JSON of `Estimate`, and `disk`: bytes a second; null: measured. */
  estimate(
    path: string,
    options: NativeLoadOptions,
    disk: number | null,
    cancel: NativeCancel,
  ): Promise<string>;
  /** Remembers so many events of reading and computing in this process, from now on. */
  traceStart(events: number): void;
  /** JSON of what was remembered: `{what, group, start, end}`, in seconds. */
  traceTake(): string;
  /** Stops every engine of this environment and waits for it, at most a second. */
  shutdown(): void;
}

export interface NativeCancel {
  cancel(): void;
}

/** A long text, piece by piece. */
export interface NativeString {
  push(piece: string): void;
}

export interface NativeLoadOptions {
  device: string[] | null;
  contextLength: number | null;
  kvTypeK: string;
  kvTypeV: string;
  threads: number | null;
  cpu: string | null;
  chatTemplate: string | null;
  maxConcurrent: number | null;
  maxQueued: number;
  ram: number | null;
  kv: number | null;
  vram: number | null;
  prefetch: number | null;
  io: string;
}

export interface NativeLoad {
  /** Bytes done and in all, at most 20 times a second; null when loaded; rejects if it fails. */
  next(): Promise<number[] | null>;
  /** Once, after `next` gave null. */
  take(): NativeModel;
  cancel(): void;
}

/** A tokenizer with the template that goes with it. */
export interface NativeText {
  /** JSON of `TokenizerInfo`. */
  info(): string;
  tokenize(text: string | NativeString, special: boolean, bos: boolean): Promise<Uint32Array>;
  detokenize(tokens: Uint32Array, special: boolean): Promise<string>;
  render(chat: NativeChat): Promise<{ text: string; tokens: Uint32Array }>;
}

/** What a template is rendered from. */
export interface NativeChat {
  /** JSON. */
  messages: string;
  /** JSON. */
  templateArgs: string;
  /** Local: year, month 1..12, day, hour, minute, second, weekday (0 = Sunday), day of year. */
  clock: number[];
}

export interface NativeModel {
  /** JSON of `ModelInfo` but for `metadata`, of `sampling`, and of `kernels` by tensor type. */
  info(): string;
  /** `[key, kind, JSON ...]` each; a long array comes in several pieces of JSON. */
  metadata(): string[][];
  text(): NativeText;
  /** `long`: instead of `request.text`. */
  generate(request: NativeRequest, long: NativeString | null): NativeGeneration;
  /** Whether its engine takes nothing any more: a panic of ours closes it, too. */
  closed(): boolean;
  openSession(): NativeSession;
  score(
    prompt: string | NativeString | Uint32Array,
    top: number,
    cancel: NativeCancel,
  ): Promise<NativeLogprob[]>;
  /** JSON of what changes: `ram`, `kv`, `prefetch`, `threads`; null is `'auto'`. */
  configure(change: string, cancel: NativeCancel): Promise<void>;
  /** JSON of `Stats` but for what Node knows. */
  stats(): string;
  close(): Promise<void>;
}

export interface NativeSession {
  length(): number;
  generate(request: NativeRequest, long: NativeString | null): NativeGeneration;
  fork(): NativeSession;
  /** Keeps so many tokens; those of `tail` follow them, to be evaluated with what comes next. */
  rewind(length: number, tail: Uint32Array): void;
  close(): Promise<void>;
}

/** One of `text`, `tokens`, `chat` is the prompt. */
export interface NativeRequest {
  text: string | null;
  tokens: Uint32Array | null;
  chat: NativeChat | null;
  special: boolean;
  temperature: number;
  topK: number;
  topP: number;
  minP: number;
  typicalP: number;
  topNSigma: number;
  xtcProbability: number;
  xtcThreshold: number;
  repeatPenalty: number;
  frequencyPenalty: number;
  presencePenalty: number;
  repeatLastTokens: number;
  biasIds: number[];
  biases: number[];
  seed: number;
  maxTokens: number | null;
  stop: string[];
  stopTokens: Uint32Array;
  ignoreEos: boolean;
  logprobs: number | null;
  shift: boolean;
  keep: number;
  queueSize: number;
  progress: boolean;
  /** Called off already, and whether with what there is as the result; null: it is not. */
  cancelled: boolean | null;
}

export interface NativeGeneration {
  next(): Promise<NativeBatch>;
  demand(chunks: number): void;
  lift(): void;
  cancel(keep: boolean): void;
}

export interface NativeBatch {
  progress: number[] | null;
  chunks: NativeChunk[];
  full: boolean;
  done: NativeOutcome | null;
  /** JSON of the failure; `done` is then what there was, if anything. */
  failed: string | null;
}

export interface NativeChunk {
  text: string;
  tokens: number[];
  logprobs: NativeLogprob[] | null;
}

export interface NativeLogprob {
  token: number;
  text: string;
  bytes: Uint8Array;
  logprob: number;
  top: { token: number; text: string; logprob: number }[];
}

export interface NativeOutcome {
  text: string;
  tokens: Uint32Array;
  logprobs: NativeLogprob[] | null;
  seed: number;
  finish: 'stop' | 'length' | 'context' | 'cancelled';
  stopText: string | null;
  stopToken: number | null;
  promptTokens: number;
  cachedTokens: number;
  /** Milliseconds: queue, prompt, first token, total, stall; then bytes read. */
  timings: number[];
  /** Tokens that the session holds. */
  sessionLength: number;
}

export interface NativeInspection {
  /** JSON of `GgufInfo` but for `metadata`. */
  info(): string;
  /** As `NativeModel.metadata`. */
  metadata(): string[][];
}

let loaded: Native | undefined;

/** The addon, loaded at first use. */
export function native(): Native {
  return (loaded ??= loadAddon());
}

/** Such as `linux-x64-gnu`. */
export function platform(): string {
  const name = `${process.platform}-${process.arch}`;
  if (process.platform === 'linux') return `${name}-${isMusl() ? 'musl' : 'gnu'}`;
  return process.platform === 'win32' ? `${name}-msvc` : name;
}

function loadAddon(): Native {
  const name = platform();
  const chosen = addonPath();
  const file = `node-chord.${name}.node`;
  const candidates = chosen
    ? [path.resolve(chosen)]
    : [path.join(__dirname, file), `node-chord-${name}`];
  const load = createRequire(__filename);
  const reasons: unknown[] = [];
  for (const candidate of candidates) {
    try {
      const addon = load(candidate) as Partial<Native>;
      if (typeof addon?.version === 'function') return addon as Native;
      reasons.push(new Error(`${candidate} is no addon of node-chord`));
    } catch (error) {
      reasons.push(error);
    }
  }
  const found = reasons.find((error) => (error as { code?: unknown }).code !== 'MODULE_NOT_FOUND');
  const why = ((found ?? reasons[0]) as Error).message.split('\n')[0];
  const details = { platform: name, tried: candidates };
  const refuse = (message: string) => failure('ERR_ADDON', message, details, found ?? reasons[0]);
  if (chosen) {
    throw refuse(`NODE_CHORD_ADDON: expected an addon for ${name}, got '${chosen}': ${why}`);
  }
  if (found) throw refuse(`the addon for ${name} cannot be loaded: ${why}`);
  throw refuse(
    `no addon for ${name}: tried ${candidates.join(', ')}; install with optional dependencies, ` +
      'or set NODE_CHORD_ADDON to a .node file',
  );
}

/** glibc says its version in the process report; musl does not. */
function isMusl(): boolean {
  const report = process.report as { excludeNetwork?: boolean } & NodeJS.ProcessReport;
  report.excludeNetwork = true;
  const { header } = report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return header?.glibcVersionRuntime === undefined;
}
