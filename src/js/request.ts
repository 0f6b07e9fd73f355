/** What `generate` and `chat` ask of the addon, for models and sessions alike. */

import type * as api from '../../index.js';
import * as is from './check.js';
import { aborted, calling, closed, invalidArg } from './errors.js';
import { isLong, LateSource } from './feed.js';
import { begin, type Reading } from './generation.js';
import { traceGenerate } from './log.js';
import { forTemplate } from './messages.js';
import type { NativeChat, NativeGeneration, NativeRequest, NativeString } from './native.js';
import * as options from './options.js';
import { source, type Shape } from './results.js';
import type { Prepared, Source } from './run.js';

/** What a request is made on. */
export interface Target {
  model: api.Model;
  sampling: options.SamplingDefaults;
  session: boolean;
  /** Throws if it cannot take a request now; else it is taken by this one until it settles. */
  take(): void;
  send(request: NativeRequest, long: NativeString | null): NativeGeneration;
  /** Called once at the end, before anybody else learns of it. */
  settled?(result: api.GenerateResult | null): void;
}

export function generate(
  target: Target,
  prompt: unknown,
  given: unknown,
): api.Generation<api.TextChunk, api.GenerateResult> {
  return begin(() => {
    const { vocabSize } = target.model.info;
    const input = promptOf(prompt, vocabSize);
    const read = options.read(options.generate(vocabSize, target.sampling), given);
    return prepare(target, 'generate', read, input, TEXT);
  }, READING);
}

/** `list` makes the whole conversation; it is called after the options were read. */
export function chat(
  target: Target,
  list: () => readonly api.Message[],
  given: unknown,
): api.Generation<api.ChatChunk, api.ChatResult> {
  return begin<api.ChatChunk, api.ChatResult>(() => {
    const { vocabSize } = target.model.info;
    const read = options.read(options.chat(vocabSize, target.sampling), given);
    const input = { ...NO_INPUT, chat: chatOf(list(), read.templateArgs) };
    return prepare(target, 'chat', read, input, CHAT);
  }, READING);
}

/** What the addon renders a template from. */
export function chatOf(list: readonly api.Message[], templateArgs: string): NativeChat {
  const now = new Date();
  const date = [now.getFullYear(), now.getMonth() + 1, now.getDate()];
  const time = [now.getHours(), now.getMinutes(), now.getSeconds(), now.getDay()];
  const newYear = Date.UTC(now.getFullYear(), 0, 1);
  const today = Date.UTC(now.getFullYear(), now.getMonth(), now.getDate());
  const dayOfYear = Math.round((today - newYear) / 86_400_000) + 1;
  return { messages: forTemplate(list), templateArgs, clock: [...date, ...time, dayOfYear] };
}

/** A prompt: text, or tokens. */
export function promptOf(prompt: unknown, vocabSize: number, name = 'prompt'): Input {
  if (typeof prompt === 'string') return { ...NO_INPUT, text: prompt };
  if (!(prompt instanceof Uint32Array) && !Array.isArray(prompt)) {
    throw invalidArg(name, 'a string or an array of token ids', prompt);
  }
  return { ...NO_INPUT, tokens: is.tokens(vocabSize)(prompt, name) };
}

const NO_INPUT = { text: null, tokens: null, chat: null };

type Input = Pick<NativeRequest, 'text' | 'tokens' | 'chat'>;

function prepare<C, R extends api.GenerateResult>(
  target: Target,
  kind: 'generate' | 'chat',
  read: options.GenerateRead,
  input: Input,
  shape: Shape<C, R>,
): Prepared<C, R> {
  const { signal, onProgress, queueSize } = read;
  if (signal?.aborted) throw aborted(signal.reason, null);
  if (target.model.closed) throw closed('model');
  target.take();
  const request = { ...requestOf(read), ...input };
  const trace = traceGenerate({ kind, model: target.model.info.path, session: target.session });
  return {
    source: send(target, request, shape),
    queueSize,
    signal,
    onProgress,
    owner: target,
    settled(end) {
      if ('error' in end) {
        trace.error(end.error);
        target.settled?.(null);
        return;
      }
      const { finishReason, usage, timings } = end.result;
      const line = `${usage.completionTokens} tokens in ${timings.totalMs.toFixed()} ms`;
      trace.end(() => ({ finishReason, usage, timings }), `${line}, ${finishReason}`);
      target.settled?.(end.result);
    },
  };
}

/** Sends a request: at once, unless its text is so long that it has to be fed. */
function send<C, R>(target: Target, request: NativeRequest, shape: Shape<C, R>): Source<C, R> {
  const { text } = request;
  if (text === null || !isLong(text)) {
    try {
      return source(
        calling(() => target.send(request, null)),
        shape,
      );
    } catch (error) {
      target.settled?.(null);
      throw error;
    }
  }
  return new LateSource(text, (long, cancelled) =>
    source(
      calling(() => target.send({ ...request, text: null, cancelled }, long as NativeString)),
      shape,
    ),
  );
}

function requestOf(read: options.GenerateRead): Omit<NativeRequest, keyof Input> {
  return {
    special: read.special,
    temperature: read.temperature,
    topK: read.topK,
    topP: read.topP,
    minP: read.minP,
    typicalP: read.typicalP,
    topNSigma: read.topNSigma,
    xtcProbability: read.xtc?.probability ?? 0,
    xtcThreshold: read.xtc?.threshold ?? 0.1,
    repeatPenalty: read.repeatPenalty,
    frequencyPenalty: read.frequencyPenalty,
    presencePenalty: read.presencePenalty,
    repeatLastTokens: read.repeatLastTokens,
    biasIds: read.logitBias.ids,
    biases: read.logitBias.biases,
    seed: read.seed ?? Math.floor(Math.random() * 2 ** 32),
    maxTokens: read.maxTokens ?? null,
    stop: read.stop,
    stopTokens: read.stopTokens,
    ignoreEos: read.ignoreEos,
    logprobs: read.logprobs ?? null,
    shift: read.overflow === 'shift',
    keep: read.keep,
    queueSize: read.queueSize,
    progress: read.onProgress !== undefined,
    cancelled: null,
  };
}

const READING: Reading<api.TextChunk, api.GenerateResult> = {
  text: (result) => result.text,
  chunkText: (chunk) => chunk.text,
};

const TEXT: Shape<api.TextChunk, api.GenerateResult> = {
  chunk: (chunk) => chunk,
  result: (result) => result,
};

const CHAT: Shape<api.ChatChunk, api.ChatResult> = {
  chunk: (chunk) => chunk,
  result: (result) => ({
    ...result,
    reasoning: '',
    toolCalls: [],
    messages: [{ role: 'assistant', content: result.text }],
  }),
};
