/** A loaded model. */

import type * as api from '../../index.js';
import * as is from './check.js';
import { awaiting, closed } from './errors.js';
import { estimate, machineBytes } from './estimate.js';
import { feed } from './feed.js';
import { logKernels } from './log.js';
import { conversation, messages, notEmpty } from './messages.js';
import { readMetadata } from './metadata.js';
import { native as addon, type NativeModel } from './native.js';
import * as options from './options.js';
import * as request from './request.js';
import { logprob } from './results.js';
import { makeSession } from './session.js';
import { abortable } from './task.js';
import { Texts } from './tokenizer.js';

const MAKING = Symbol('making');

export class Model implements api.Model {
  readonly info: api.ModelInfo;
  readonly #native: NativeModel;
  readonly #texts: Texts;
  readonly #sampling: options.SamplingDefaults;
  #closing: Promise<void> | null = null;
  #lastStats: api.Stats | null = null;
  /** As it was asked for, and configured since. */
  #asked: api.LoadOptions;

  constructor(key: typeof MAKING, native: NativeModel, asked: api.LoadOptions = {}) {
    if (key !== MAKING) throw new TypeError('Illegal constructor: use loadModel()');
    this.#native = native;
    this.#asked = { ...asked, signal: undefined, onProgress: undefined };
    const { info, sampling, kernels } = JSON.parse(native.info());
    logKernels(kernels);
    this.info = withMetadata(info, native);
    this.#sampling = sampling;
    this.#texts = new Texts(native.text(), this.info.vocabSize, () => this.#guard());
  }

  get closed(): boolean {
    return this.#closing !== null || this.#native.closed();
  }

  stats(): api.Stats {
    return this.#lastStats ?? statsOf(this.#native);
  }

  generate(
    prompt: string | api.Tokens,
    options?: api.GenerateOptions,
  ): api.Generation<api.TextChunk, api.GenerateResult> {
    return request.generate(this.#target(), prompt, options);
  }

  chat(
    messages: string | readonly api.Message[],
    options?: api.ChatOptions,
  ): api.Generation<api.ChatChunk, api.ChatResult> {
    const list = () => {
      const all = conversation(messages, 'messages');
      notEmpty(all, 'messages');
      return all;
    };
    return request.chat(this.#target(), list, options);
  }

  createSession(given?: { messages?: readonly api.Message[] | undefined }): api.Session {
    const read = options.read({ messages: { check: messages } }, given);
    this.#guard();
    const target = this.#target();
    return makeSession(this, target.sampling, this.#native.openSession(), read.messages ?? []);
  }

  async score(
    text: string | api.Tokens,
    given?: api.Abortable & { top?: number | undefined },
  ): Promise<api.TokenLogprob[]> {
    const input = request.promptOf(text, this.info.vocabSize, 'text');
    const { signal, top } = options.read(options.score, given);
    this.#guard();
    const cancel = new (addon().NativeCancel)();
    const score = async () => {
      const prompt = input.tokens ?? (await feed(input.text ?? ''));
      return this.#native.score(prompt, top, cancel);
    };
    const stop = () => cancel.cancel();
    return (await abortable(signal, stop, () => awaiting(score))).map(logprob);
  }

  tokenize(text: string, options?: object): Promise<Uint32Array> {
    return this.#texts.tokenize(text, options);
  }

  detokenize(tokens: api.Tokens, options?: object): Promise<string> {
    return this.#texts.detokenize(tokens, options);
  }

  countTokens(input: string | readonly api.Message[], options?: object): Promise<number> {
    return this.#texts.countTokens(input, options);
  }

  applyTemplate(
    messages: readonly api.Message[],
    options?: api.ChatOptions,
  ): Promise<{ text: string; tokens: Uint32Array }> {
    return this.#texts.applyTemplate(messages, options);
  }

  async estimate(given?: api.LoadOptions): Promise<api.Estimate> {
    const { contextLength, path } = this.info;
    const more = is.optionsObject(is.optionsObject(given)['memory'], 'memory');
    const memory = { ...this.#asked.memory, ...more };
    // What it has now is its own: it would not have to make room for itself.
    if (more['ram'] === undefined && (memory.ram ?? 'auto') === 'auto') {
      memory.ram = this.stats().ram.limit;
    }
    return estimate(path, { ...this.#asked, contextLength, ...given, memory });
  }

  async configure(
    given: Pick<api.LoadOptions, 'memory' | 'prefetch' | 'threads' | 'signal'>,
  ): Promise<void> {
    const read = options.read(options.configure, given);
    this.#guard();
    const { signal, memory, ...rest } = read;
    const change = { ...memory, ...rest };
    const cancel = new (addon().NativeCancel)();
    const json = JSON.stringify(change, (_, value) => (value === 'auto' ? null : value));
    const work = () => awaiting(() => this.#native.configure(json, cancel));
    await abortable(signal, () => cancel.cancel(), work);
    const chosen = Object.entries(rest).filter(([, value]) => value !== undefined);
    const asked = { ...this.#asked, ...Object.fromEntries(chosen) };
    this.#asked = { ...asked, memory: { ...this.#asked.memory, ...memory } };
  }

  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await awaiting(() => this.#native.close());
    this.#lastStats = statsOf(this.#native);
  }

  #guard(): void {
    if (this.closed) throw closed('model');
  }

  #target(): request.Target {
    return {
      model: this,
      sampling: this.#sampling,
      session: false,
      take: () => {},
      send: (wanted, long) => this.#native.generate(wanted, long),
    };
  }
}

export function makeModel(native: NativeModel, asked?: api.LoadOptions): Model {
  return new Model(MAKING, native, asked);
}

/** A vocabulary takes a while to become objects, so that happens when somebody looks. */
function withMetadata(info: Omit<api.ModelInfo, 'metadata'>, native: NativeModel): api.ModelInfo {
  let metadata: Record<string, api.Meta> | undefined;
  const get = () => (metadata ??= readMetadata(native.metadata()));
  return Object.defineProperty(info as api.ModelInfo, 'metadata', { enumerable: true, get });
}

function statsOf(native: NativeModel): api.Stats {
  const stats: api.Stats = JSON.parse(native.stats());
  stats.ram.limit ??= machineBytes();
  stats.peakRam = process.resourceUsage().maxRSS * 1024;
  return stats;
}
