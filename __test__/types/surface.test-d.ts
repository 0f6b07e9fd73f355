// What the declarations promise to TypeScript: compiled, never run.

import { expectTypeOf } from 'expect-type';
import {
  ChordError,
  Model,
  Session,
  Tokenizer,
  devices,
  estimate,
  features,
  inspect,
  isChordError,
  loadModel,
  loadTokenizer,
  version,
} from '../../index.js';
import type {
  ChatChunk,
  ChatOptions,
  ChatResult,
  Device,
  ErrorCode,
  ErrorDetails,
  Estimate,
  GenerateOptions,
  GenerateResult,
  Generation,
  GgufInfo,
  LoadOptions,
  Message,
  Meta,
  ModelInfo,
  Progress,
  Stats,
  TextChunk,
  TokenLogprob,
  TokenizerInfo,
} from '../../index.js';

declare const model: Model;
declare const session: Session;
declare const tokenizer: Tokenizer;
declare const signal: AbortSignal;

// Loading.
expectTypeOf(loadModel('m.gguf')).resolves.toEqualTypeOf<Model>();
expectTypeOf(loadModel(new URL('file:m.gguf'), { threads: 4 })).resolves.toEqualTypeOf<Model>();
expectTypeOf(loadModel({ path: 'm.gguf', signal })).resolves.toEqualTypeOf<Model>();
expectTypeOf(loadTokenizer('m.gguf', { signal })).resolves.toEqualTypeOf<Tokenizer>();
expectTypeOf(inspect('m.gguf')).resolves.toEqualTypeOf<GgufInfo>();
expectTypeOf(estimate('m.gguf', { memory: { ram: '2GiB' } })).resolves.toEqualTypeOf<Estimate>();
expectTypeOf(model.estimate()).resolves.toEqualTypeOf<Estimate>();
expectTypeOf(
  model.configure({ memory: { ram: 'auto' }, prefetch: 4, threads: 2, signal }),
).resolves.toEqualTypeOf<void>();
// @ts-expect-error a context stays what it is
void model.configure({ contextLength: 5 });
expectTypeOf(devices()).resolves.toEqualTypeOf<Device[]>();
expectTypeOf(version).toBeString();
expectTypeOf(features.backends).items.toEqualTypeOf<'cpu' | 'cuda' | 'vulkan' | 'metal' | 'dx12'>();
// @ts-expect-error a path is needed
void loadModel({ threads: 4 });
// @ts-expect-error no such option
void loadModel('m.gguf', { thread: 4 });
// @ts-expect-error no such type of cache
void loadModel('m.gguf', { kvType: 'q1' });
expectTypeOf<{ device: 'cuda:1' }>().toExtend<LoadOptions>();
expectTypeOf<{ device: ('cpu' | 'cuda')[] }>().toExtend<LoadOptions>();
expectTypeOf<{ device: 'gpu' }>().not.toExtend<LoadOptions>();
expectTypeOf<{ memory: { ram: '2GiB'; kv: 1000 }; prefetch: 'auto' }>().toExtend<LoadOptions>();
expectTypeOf<{ memory: { ram: 'auto' }; io: 'direct' }>().toExtend<LoadOptions>();
expectTypeOf<{ io: 'fast' }>().not.toExtend<LoadOptions>();
expectTypeOf<{ kvType: { k: 'f16'; v: 'bf16' } }>().toExtend<LoadOptions>();
expectTypeOf<LoadOptions['onProgress']>()
  .extract<Function>()
  .parameter(0)
  .toEqualTypeOf<Progress>();

// Generating.
expectTypeOf(model.generate('x')).toEqualTypeOf<Generation<TextChunk, GenerateResult>>();
expectTypeOf(model.generate([1, 2] as const, { topK: 1 })).resolves.toEqualTypeOf<GenerateResult>();
expectTypeOf(model.generate(new Uint32Array(2))).resolves.toEqualTypeOf<GenerateResult>();
expectTypeOf(model.chat('x')).toEqualTypeOf<Generation<ChatChunk, ChatResult>>();
expectTypeOf(model.chat('x').text()).resolves.toBeString();
expectTypeOf(model.chat('x').stream()).toEqualTypeOf<ReadableStream<ChatChunk>>();
expectTypeOf(model.chat('x').textStream()).toEqualTypeOf<ReadableStream<string>>();
expectTypeOf(model.chat('x').cancel()).resolves.toEqualTypeOf<ChatResult>();
// @ts-expect-error a number is no prompt
model.generate(1);
// @ts-expect-error no such option
model.generate('x', { temprature: 1 });
// @ts-expect-error only chat has a template
model.generate('x', { templateArgs: {} });
expectTypeOf<ChatOptions>().toExtend<GenerateOptions>();
expectTypeOf<GenerateOptions['logitBias']>().toEqualTypeOf<Record<number, number> | undefined>();
expectTypeOf<GenerateResult['stoppedBy']>().toEqualTypeOf<string | number | null>();
expectTypeOf<ChatResult>().toExtend<GenerateResult>();
expectTypeOf<ChatResult['messages']>().toEqualTypeOf<Message[]>();

async function reading() {
  for await (const chunk of model.generate('x')) expectTypeOf(chunk).toEqualTypeOf<TextChunk>();
  for await (const chunk of model.chat('x')) if (chunk.type === 'text') chunk.text.trim();
  await using generation = session.chat([{ role: 'user', content: [{ type: 'text', text: 'x' }] }]);
  const { text, usage, finishReason } = await generation;
  expectTypeOf(text).toBeString();
  expectTypeOf(usage.cachedTokens).toBeNumber();
  if (finishReason === 'stop') return;
  await using other = await loadModel('m.gguf');
  await using fork = other.createSession({ messages: [{ role: 'system', content: 'x' }] }).fork();
  expectTypeOf(fork).toEqualTypeOf<Session>();
  const response = new Response(model.chat('Hi').textStream().pipeThrough(new TextEncoderStream()));
  expectTypeOf(response.text()).resolves.toBeString();
}

// The rest of a model, and what shares its methods.
expectTypeOf(model.score('x', { top: 2, signal })).resolves.toEqualTypeOf<TokenLogprob[]>();
expectTypeOf(model.stats()).toEqualTypeOf<Stats>();
expectTypeOf(model.info).toEqualTypeOf<ModelInfo>();
expectTypeOf(model.info.metadata).toEqualTypeOf<Record<string, Meta>>();
expectTypeOf(tokenizer.info).toEqualTypeOf<TokenizerInfo>();
expectTypeOf(tokenizer.tokenize).toEqualTypeOf<Model['tokenize']>();
expectTypeOf(tokenizer.detokenize).toEqualTypeOf<Model['detokenize']>();
expectTypeOf(tokenizer.countTokens).toEqualTypeOf<Model['countTokens']>();
expectTypeOf(tokenizer.applyTemplate).toEqualTypeOf<Model['applyTemplate']>();
expectTypeOf(session.generate).toEqualTypeOf<Model['generate']>();
expectTypeOf(session.chat).toEqualTypeOf<Model['chat']>();
expectTypeOf(session.messages).toEqualTypeOf<readonly Message[]>();
expectTypeOf(session.rewind).parameters.toEqualTypeOf<[number]>();
// @ts-expect-error made by loadModel
new Model();
// @ts-expect-error made by createSession
new Session();
// @ts-expect-error made by loadTokenizer
new Tokenizer();
// @ts-expect-error read-only
model.info = model.info;
// @ts-expect-error no such role
void model.chat([{ role: 'usr', content: 'x' }]);

// Errors.
function caught(error: unknown) {
  if (isChordError(error)) {
    expectTypeOf(error.code).toEqualTypeOf<ErrorCode>();
    expectTypeOf(error.toJSON()).toBeObject();
  }
  if (isChordError(error, 'ERR_CONTEXT_OVERFLOW')) {
    expectTypeOf(error.details.tokens).toBeNumber();
    expectTypeOf(error.details).toEqualTypeOf<{ tokens: number; contextLength: number }>();
  }
  if (isChordError(error, 'ABORT_ERR')) {
    expectTypeOf(error.details.partial).toEqualTypeOf<GenerateResult | null>();
  }
  // @ts-expect-error no such code
  isChordError(error, 'ERR_FOO');
  if (error instanceof ChordError) error.code satisfies ErrorCode;
}
expectTypeOf<keyof ErrorDetails>().toEqualTypeOf<ErrorCode>();
