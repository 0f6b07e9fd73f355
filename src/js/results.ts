/** From the addon's plain objects to the results and chunks of the public surface. */

import type * as api from '../../index.js';
import { internal, parseNative } from './errors.js';
import type * as n from './native.js';
import type { Batch, End, Source } from './run.js';

/** What a kind of generation makes of chunks and outcomes. */
export interface Shape<C, R> {
  chunk(chunk: api.TextChunk): C;
  result(result: api.GenerateResult): R;
}

/** The addon's generation as what the pump pulls from. */
export function source<C, R>(native: n.NativeGeneration, shape: Shape<C, R>): Source<C, R> {
  return {
    next: async () => batch(await native.next(), shape),
    demand: (chunks) => native.demand(chunks),
    lift: () => native.lift(),
    cancel: (keep) => native.cancel(keep),
  };
}

export function logprob(from: n.NativeLogprob): api.TokenLogprob {
  const { token, text, bytes, logprob, top } = from;
  return { token, text, bytes, logprob, top };
}

function batch<C, R>(from: n.NativeBatch, shape: Shape<C, R>): Batch<C, R> {
  const [done, total] = from.progress ?? [];
  const progress = done === undefined || total === undefined ? null : ([done, total] as const);
  const chunks = from.chunks.map((chunk) => shape.chunk(textChunk(chunk)));
  return { progress, chunks, full: from.full, end: end(from, shape) };
}

function end<R>(from: n.NativeBatch, shape: Shape<unknown, R>): End<R> | null {
  const result = from.done === null ? null : generateResult(from.done);
  if (from.failed !== null) {
    const error = parseNative(from.failed) ?? internal('the addon', from.failed);
    return { error, partial: result };
  }
  return result === null ? null : { result: shape.result(result) };
}

function textChunk(from: n.NativeChunk): api.TextChunk {
  const chunk: api.TextChunk = {
    type: 'text',
    text: from.text,
    tokens: Uint32Array.from(from.tokens),
  };
  if (from.logprobs !== null) chunk.logprobs = from.logprobs.map(logprob);
  return chunk;
}

function generateResult(from: n.NativeOutcome): api.GenerateResult {
  const result: api.GenerateResult = {
    text: from.text,
    tokens: from.tokens,
    seed: from.seed,
    finishReason: from.finish,
    stoppedBy: from.stopText ?? from.stopToken,
    usage: {
      promptTokens: from.promptTokens,
      cachedTokens: from.cachedTokens,
      completionTokens: from.tokens.length,
      reasoningTokens: 0,
    },
    timings: timings(from),
  };
  if (from.logprobs !== null) result.logprobs = from.logprobs.map(logprob);
  return result;
}

function timings(from: n.NativeOutcome): api.Timings {
  const [queueMs = 0, promptMs = 0, firstTokenMs = 0, totalMs = 0, stallMs = 0, bytesRead = 0] =
    from.timings;
  const evaluated = from.promptTokens - from.cachedTokens;
  const decoded = Math.max(0, from.tokens.length - 1);
  return {
    queueMs,
    promptMs,
    firstTokenMs,
    totalMs,
    stallMs,
    promptTokensPerSecond: perSecond(evaluated, promptMs),
    tokensPerSecond: perSecond(decoded, totalMs - firstTokenMs),
    bytesRead,
    draftTokens: 0,
    acceptedTokens: 0,
  };
}

function perSecond(count: number, ms: number): number {
  return ms > 0 ? (count * 1000) / ms : 0;
}
