// The public surface of node-chord, written by hand. Rules that hold everywhere: memory in bytes,
// `Ms` = milliseconds, unknown = null, undefined = absent, unknown options are errors.
// Functions that return a promise reject and never throw; the others throw.
/// <reference lib="esnext.disposable" />

/** A file: a path, or a `file:` URL. */
export type Path = string | URL;
/** Token ids. */
export type Tokens = Uint32Array | readonly number[];
/** An integer, or text such as `'512MiB'`, `'2GiB'`, `'1.5 GB'` (KiB = 1024, KB = 1000). */
export type Bytes = number | string;
/** Kinds of devices; this version computes on the CPU. */
export type DeviceKind = 'cpu' | 'cuda' | 'vulkan' | 'metal' | 'dx12';
/** A device: `'cuda'` is the best of its kind, `'cuda:1'` that one. */
export type DeviceId = DeviceKind | `${DeviceKind}:${number}`;
/**
 * How entries of the KV cache are stored. `'q8_0'` and `'q4_0'` take 53 % and 28 % of `'f16'`; they
 * need heads of a whole number of blocks of 32 values, else loading fails with `ERR_INVALID_ARG`.
 * `'q4_0'` rotates heads by a Hadamard matrix first, and visibly changes what small models say.
 */
export type KvType = 'f32' | 'f16' | 'bf16' | 'q8_0' | 'q4_0';

/** What can be called off. */
export interface Abortable {
  /** Rejects with `ABORT_ERR` (name `AbortError`, cause = `signal.reason`). */
  signal?: AbortSignal | undefined;
}

/** What can be called off and tells how far it is. */
export interface Task extends Abortable {
  /** At most 20 calls a second, never inside the call itself; if it throws, the task rejects. */
  onProgress?: ((progress: Progress) => void) | undefined;
}

/** How far a task is. */
export interface Progress {
  /** What it is doing. */
  phase: 'load' | 'queue' | 'prompt' | 'write';
  /** What is counted. */
  unit: 'bytes' | 'tokens';
  /** So many are done, */
  done: number;
  /** of so many. */
  total: number;
}

/** Opens a GGUF model (any part of a split one) and starts its inference thread. */
export function loadModel(path: Path, options?: LoadOptions): Promise<Model>;
/** The same, with the path among the options. */
export function loadModel(options: LoadOptions & { path: Path }): Promise<Model>;
/** What could compute, also what is unusable, with the reason. */
export function devices(): Promise<Device[]>;
/**
 * What `loadModel` with these options would lead to, by its own function: budgets, what stays in
 * memory, bytes to read, tokens a second to expect. Loads nothing; to know the speed it measures
 * kernels and disk for a fraction of a second.
 */
export function estimate(path: Path, options?: LoadOptions): Promise<Estimate>;
/** What a file holds and whether it can be run; reads no weights. */
export function inspect(path: Path, options?: Abortable): Promise<GgufInfo>;
/** The tokenizer of a file; needs no weights: vocabulary-only files too. */
export function loadTokenizer(path: Path, options?: Abortable): Promise<Tokenizer>;
/** This package's version. */
export const version: string;
/** What this build can do. */
export const features: Features;

/** What this build can do. */
export interface Features {
  /** Such as `linux-x64-gnu`. */
  platform: string;
  /** Kernel tier that this CPU gets. */
  cpu: string;
  /** Kinds of devices that are built in. */
  backends: DeviceKind[];
  /** Values of `general.architecture` that can be run. */
  architectures: string[];
  /** Tensor types that can be read. */
  tensorTypes: string[];
  /** Values of `tokenizer.ggml.model` and `tokenizer.ggml.pre`, as `model/pre`. */
  tokenizers: string[];
}

/** How a model is loaded. */
export interface LoadOptions extends Task {
  /** `'auto'`: the best that works. A named one: it, or `ERR_DEVICE`. Default `'auto'`. */
  device?: 'auto' | DeviceId | readonly DeviceId[] | undefined;
  /**
   * Hard limits. `ram`: all that the model takes; default `'auto'`: what this process or container
   * has, less a reserve; models with `'auto'` share that, and grow when another is closed. `vram`:
   * of each device; default `'auto'`. `kv`: of these, for the KV cache; default `'auto'`: one full
   * session, at most a quarter. A model that does not fit is streamed from disk; below the smallest
   * budget that works it is refused with `ERR_INSUFFICIENT_MEMORY`, which names that budget.
   */
  memory?:
    | {
        ram?: Bytes | 'auto' | undefined;
        vram?: Bytes | 'auto' | undefined;
        kv?: Bytes | 'auto' | undefined;
      }
    | undefined;
  /** Groups that are read ahead while a model is streamed, 0..64. Default `'auto'`. */
  prefetch?: number | 'auto' | undefined;
  /** How weights are read. Default `'auto'`: mapped if all fits, else direct. */
  io?: 'auto' | 'mmap' | 'direct' | 'buffered' | undefined;
  /** Tokens that a session may hold, 1..2^24. Default `'auto'`: as trained, or what fits. */
  contextLength?: number | 'auto' | undefined;
  /** How the KV cache is stored. Default `'f16'`. */
  kvType?: KvType | { k: KvType; v: KvType } | undefined;
  /** 1..256. Default `'auto'`: physical cores within the quota. */
  threads?: number | 'auto' | undefined;
  /**
   * Kernel tier, as far as this CPU has it: `'portable'`, `'avx2'`, `'avxvnni'`, `'avx512'`,
   * `'neon'`, `'dotprod'`, `'i8mm'`. All give the same bits. Default `'auto'`: the fastest.
   */
  cpu?: string | undefined;
  /** Jinja source instead of the file's chat template. */
  chatTemplate?: string | undefined;
  /** Generations that are stepped together, 1..256. Default `'auto'`. */
  maxConcurrent?: number | 'auto' | undefined;
  /** Generations that may wait beyond those. Default 1024. */
  maxQueued?: number | undefined;
}

/** A loaded model. Made by `loadModel`. */
export class Model implements AsyncDisposable {
  private constructor();
  /** What it is. */
  readonly info: ModelInfo;
  /** Whether it takes no more calls: after `close`, or a bug of ours (`ERR_INTERNAL`). */
  readonly closed: boolean;
  /** A snapshot of what it does and holds; after closing the last one. */
  stats(): Stats;
  /** What loading its file would lead to; options left out are as they are now. Changes nothing. */
  estimate(options?: LoadOptions): Promise<Estimate>;
  /** Continues a text or tokens. Starts at once. */
  generate(
    prompt: string | Tokens,
    options?: GenerateOptions,
  ): Generation<TextChunk, GenerateResult>;
  /** Answers in the model's own chat format; a string is one user message. Starts at once. */
  chat(
    messages: string | readonly Message[],
    options?: ChatOptions,
  ): Generation<ChatChunk, ChatResult>;
  /** A conversation, or text, that goes on from where it was. */
  createSession(options?: { messages?: readonly Message[] | undefined }): Session;
  /** Log-probabilities of a text's tokens, from the 2nd. `top`: alternatives, 0..20; default 0. */
  score(
    text: string | Tokens,
    options?: Abortable & { top?: number | undefined },
  ): Promise<TokenLogprob[]>;
  /**
   * Text to tokens. `special`: control tokens in the text count as such; `bos`: add BOS as the
   * model wants it. Both default to false.
   */
  tokenize(
    text: string,
    options?: { special?: boolean | undefined; bos?: boolean | undefined },
  ): Promise<Uint32Array>;
  /** Tokens to text. `special`: print control tokens too; default false. */
  detokenize(tokens: Tokens, options?: { special?: boolean | undefined }): Promise<string>;
  /** How many tokens `generate` (a string) or `chat` (messages) would see. */
  countTokens(input: string | readonly Message[]): Promise<number>;
  /** The text and tokens that `chat` would see. */
  applyTemplate(
    messages: readonly Message[],
    options?: ChatOptions,
  ): Promise<{ text: string; tokens: Uint32Array }>;
  /**
   * Changes what is given, of the memory too, between two passes: running generations go on with
   * the same text. What the new budget lacks is given back, what it has more is filled by the next
   * passes. Its context stays. After a refusal everything is as it was.
   */
  configure(
    options: Pick<LoadOptions, 'memory' | 'prefetch' | 'threads' | 'signal'>,
  ): Promise<void>;
  /** Ends after the pass in flight; what runs or waits rejects with `ERR_CLOSED`. Idempotent. */
  close(): Promise<void>;
  /** `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** A tokenizer without a model. Made by `loadTokenizer`; collected like any object. */
export class Tokenizer {
  private constructor();
  /** What it is. */
  readonly info: TokenizerInfo;
  /** As the model's. */
  readonly tokenize: Model['tokenize'];
  /** As the model's. */
  readonly detokenize: Model['detokenize'];
  /** As the model's. */
  readonly countTokens: Model['countTokens'];
  /** As the model's. */
  readonly applyTemplate: Model['applyTemplate'];
}

/** What a tokenizer is. */
export interface TokenizerInfo {
  /** The file it came from. */
  path: string;
  /** `tokenizer.ggml.model`. */
  kind: string;
  /** `tokenizer.ggml.pre`. */
  pre: string | null;
  /** Number of tokens. */
  vocabSize: number;
  /** Begins a text. */
  bos: number | null;
  /** Ends a text. */
  eos: number | null;
  /** All tokens that end a generation. */
  eog: number[];
  /** The file's chat template, Jinja source. */
  chatTemplate: string | null;
}

/** How a text goes on. A file's `general.sampling.*` replaces these defaults. */
export interface GenerateOptions extends Task {
  /** >= 0; 0 = greedy, the lowest id wins a tie. Default 0.8. */
  temperature?: number | undefined;
  /** Only the likeliest so many; 0 = off. Default 40. */
  topK?: number | undefined;
  /** Only the likeliest that sum up to this, 0..1; 1 = off. Default 0.95. */
  topP?: number | undefined;
  /** Only those at least so likely, relative to the best, 0..1; 0 = off. Default 0.05. */
  minP?: number | undefined;
  /** Only the most typical that sum up to this, 0..1; 1 = off. Default 1. */
  typicalP?: number | undefined;
  /** Only logits within so many standard deviations of the best; 0 = off. Default 0. */
  topNSigma?: number | undefined;
  /** At this chance, drop all above the threshold but the least likely of them. Default off. */
  xtc?: { probability: number; threshold: number } | undefined;
  /** Divides the logits of tokens seen; > 0, 1 = off. Default 1. */
  repeatPenalty?: number | undefined;
  /** Taken off for each time a token was seen, -2..2. Default 0. */
  frequencyPenalty?: number | undefined;
  /** Taken off once if a token was seen, -2..2. Default 0. */
  presencePenalty?: number | undefined;
  /** Window of these three, with the prompt. Default 64. */
  repeatLastTokens?: number | undefined;
  /** Token id to what is added to its logit; -Infinity forbids it. */
  logitBias?: Record<number, number> | undefined;
  /** 0..2^32-1. Default random; the result tells which. */
  seed?: number | undefined;
  /** >= 1. Default: until it stops or the context is full. */
  maxTokens?: number | undefined;
  /** Texts that end it, at most 64; cut from the answer. */
  stop?: string | readonly string[] | undefined;
  /** Tokens that end it; cut from the answer. */
  stopTokens?: Tokens | undefined;
  /** Go on past end-of-generation tokens. Default false. */
  ignoreEos?: boolean | undefined;
  /** Record log-probabilities with so many alternatives, 0..20. Default: none recorded. */
  logprobs?: number | undefined;
  /** Control tokens in a string prompt count as such (in messages never). Default true. */
  special?: boolean | undefined;
  /** Context full: end, or drop the oldest half and evaluate the rest again. Default `'error'`. */
  overflow?: 'error' | 'shift' | undefined;
  /** Tokens at the front that `'shift'` never drops. Default 0. */
  keep?: number | undefined;
  /** Unread chunks at which it pauses, 1..4096. Default 64. */
  queueSize?: number | undefined;
}

/** How an answer is made. */
export interface ChatOptions extends GenerateOptions {
  /** More variables for the chat template, such as `enable_thinking`. */
  templateArgs?: Record<string, unknown> | undefined;
}

/** A tool call in an assistant's message. */
export interface ToolCall {
  /** What it is. */
  type: 'tool-call';
  /** Links the call with its result. */
  id: string;
  /** The tool. */
  name: string;
  /** Its arguments, a JSON value. */
  args: unknown;
}

/** One message of a conversation. */
export type Message =
  | { role: 'system' | 'developer'; content: string }
  | {
      role: 'user';
      content: string | readonly { type: 'text'; text: string }[];
    }
  | {
      role: 'assistant';
      content: string | readonly ({ type: 'text' | 'reasoning'; text: string } | ToolCall)[];
    }
  | {
      role: 'tool';
      id: string;
      name: string;
      content: string;
      isError?: boolean | undefined;
    };

/**
 * A running generation: await it for the result, or iterate it (once) for its chunks, or both.
 * `break` and cancelling a stream cancel it. A failure reaches every await and the reader.
 */
export interface Generation<C, R> extends Promise<R>, AsyncIterable<C>, AsyncDisposable {
  /** The answer. */
  text(): Promise<string>;
  /** Its chunks as a web stream. */
  stream(): ReadableStream<C>;
  /** Its answer text as a web stream. */
  textStream(): ReadableStream<string>;
  /**
   * Ends it; the result says `'cancelled'`, with what there is. If it has ended by then, nothing
   * changes: this is its result, or its failure.
   */
  cancel(): Promise<R>;
}

/** A piece of the answer: whole characters, and the tokens that made them. */
export interface TextChunk {
  /** What it is. */
  type: 'text';
  /** May be empty where tokens become text later, or never. */
  text: string;
  /** The tokens. */
  tokens: Uint32Array;
  /** One a token, if asked for. */
  logprobs?: TokenLogprob[];
}

/** A piece of a chat's answer. */
export type ChatChunk = TextChunk;

/** How likely a token was, in the raw distribution. */
export interface TokenLogprob {
  /** Its id. */
  token: number;
  /** Its bytes as text; U+FFFD for those that are no whole character. */
  text: string;
  /** Its bytes. */
  bytes: Uint8Array;
  /** Natural logarithm. */
  logprob: number;
  /** The likeliest tokens at this place, best first. */
  top: { token: number; text: string; logprob: number }[];
}

/** What came of a generation. */
export interface GenerateResult {
  /** The answer: exactly the chunks' texts joined. */
  text: string;
  /** Its tokens. */
  tokens: Uint32Array;
  /** The seed in force. */
  seed: number;
  /** One a token, if asked for. */
  logprobs?: TokenLogprob[];
  /** `'stop'`: end of generation or a stop; `'length'`: maxTokens; `'context'`: it is full. */
  finishReason: 'stop' | 'length' | 'context' | 'tool-calls' | 'cancelled';
  /** The stop string or token. */
  stoppedBy: string | number | null;
  /** Tokens. */
  usage: Usage;
  /** Times and rates. */
  timings: Timings;
}

/** Tokens that a generation took. */
export interface Usage {
  /** Of the whole prompt, with what a session held. */
  promptTokens: number;
  /** Of those, the ones that needed no evaluation. */
  cachedTokens: number;
  /** Of the answer. */
  completionTokens: number;
  /** Of those, reasoning. */
  reasoningTokens: number;
}

/** Times and rates of a generation. */
export interface Timings {
  /** Waiting for its turn. */
  queueMs: number;
  /** Evaluating the prompt. */
  promptMs: number;
  /** From the call to the first token. */
  firstTokenMs: number;
  /** From the call to the end. */
  totalMs: number;
  /** Waiting for weights. */
  stallMs: number;
  /** Prompt tokens evaluated a second. */
  promptTokensPerSecond: number;
  /** Answer tokens a second, after the first. */
  tokensPerSecond: number;
  /** Weight bytes read from disk. */
  bytesRead: number;
  /** Tokens drafted. */
  draftTokens: number;
  /** Of those, accepted. */
  acceptedTokens: number;
}

/** What came of a chat. */
export interface ChatResult extends GenerateResult {
  /** What the model thought aloud before the answer. */
  reasoning: string;
  /** What the model wants called. */
  toolCalls: ToolCall[];
  /** What was added: append to go on. */
  messages: Message[];
}

/** A conversation or text that keeps its place. Made by `createSession` or `fork`. */
export class Session implements AsyncDisposable {
  private constructor();
  /** Whose it is. */
  readonly model: Model;
  /** The conversation so far. */
  readonly messages: readonly Message[];
  /** Whether it, or its model, was closed. */
  readonly closed: boolean;
  /** Tokens held. */
  readonly length: number;
  /** As the model's, going on from here. One at a time: `ERR_SESSION_BUSY`. */
  readonly generate: Model['generate'];
  /** As the model's, going on from here; adds to `messages` what resolves. */
  readonly chat: Model['chat'];
  /** A second session that shares everything so far. */
  fork(): Session;
  /** Forgets the tokens from `length` on; with messages, `length` must be a message's border. */
  rewind(length: number): void;
  /** Gives its memory back; what it generates rejects with `ERR_CLOSED`. */
  close(): Promise<void>;
  /** `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** Something that computes. */
export interface Device {
  /** Such as `cpu` or `cuda:0`. */
  id: string;
  /** Its kind. */
  kind: DeviceKind;
  /** Its name. */
  name: string;
  /** Whether a model can run on it. */
  usable: boolean;
  /** Why not. */
  reason: string | null;
  /** Its memory. */
  total: number;
  /** Of that, free now. */
  free: number;
  /** Whether it shares the host's memory. */
  unified: boolean;
  /** Its driver's version. */
  driver: string | null;
}

/** A metadata value; bigint beyond 2^53. */
export type Meta = string | number | bigint | boolean | Meta[];

/** What a model is. */
export interface ModelInfo {
  /** As given to `loadModel`. */
  path: string;
  /** All parts of a split model. */
  files: string[];
  /** `general.name`. */
  name: string | null;
  /** `general.architecture`. */
  architecture: string;
  /** Tensor type of most weights. */
  type: string;
  /** Number of weights. */
  parameters: number;
  /** Size of all files. */
  fileBytes: number;
  /** Tokens that a session may hold. */
  contextLength: number;
  /** Tokens that it was trained on. */
  trainedContextLength: number;
  /** Layers. */
  layers: number;
  /** Width of the residual stream. */
  embeddingLength: number;
  /** Number of tokens. */
  vocabSize: number;
  /** Where it runs. */
  devices: string[];
  /** What it can do. */
  capabilities: (
    'chat' | 'tools' | 'reasoning' | 'embed' | 'rerank' | 'vision' | 'audio' | 'infill'
  )[];
  /** Begins a text. */
  bos: number | null;
  /** Ends a text. */
  eos: number | null;
  /** All tokens that end a generation. */
  eog: number[];
  /** The file's metadata, in its order; made when first read. */
  metadata: Record<string, Meta>;
}

/** What a file holds. */
export interface GgufInfo {
  /** All parts. */
  files: string[];
  /** Of the format. */
  version: number;
  /** Size of all parts. */
  fileBytes: number;
  /** In the file's order. */
  metadata: Record<string, Meta>;
  /** Whether `loadModel` would understand it. */
  supported: boolean;
  /** Why not. */
  reasons: string[];
  /** Shapes are outermost first; `offset` counts from the start of `files[file]`. */
  tensors: {
    name: string;
    type: string;
    shape: number[];
    file: number;
    offset: number;
    bytes: number;
  }[];
}

/** Bytes of one memory. */
export interface Budget {
  /** What may be used. */
  limit: number;
  /** Weights. */
  weights: number;
  /** Buffers that weights stream through. */
  ring: number;
  /** KV cache. */
  kv: number;
  /** Values between steps. */
  activations: number;
  /** Kernels' own. */
  scratch: number;
  /** Buffers for transfers to devices. */
  staging: number;
  /** All of these. */
  total: number;
}

/** A unit of weights: half a layer, an expert, the output. */
export interface Group {
  /** Its name. */
  name: string;
  /** Its size. */
  bytes: number;
  /** Where it is computed. */
  device: string;
  /** Held in memory, streamed each pass, or kept while used. */
  place: 'pinned' | 'streamed' | 'cached';
}

/** What loading a model would lead to. */
export interface Estimate {
  /** Whether `loadModel` works so, here and now. If not, the rest is of the smallest budget. */
  fits: boolean;
  /** The host's memory. */
  ram: Budget;
  /** Each device's memory. */
  vram: Record<string, Budget>;
  /** The smallest budgets that work. */
  minimum: { ram: number; vram: number };
  /** Bytes of weights that a pass reads, once all that stays is there. */
  bytesPerPass: number;
  /** Tokens that a session may hold. */
  contextLength: number;
  /** To expect of one generation with a short context. */
  tokensPerSecond: number;
  /** To expect of a long prompt. */
  promptTokensPerSecond: number;
  /** Each group, in plan order. */
  groups: Group[];
}

/** What a model does and holds. */
export interface Stats {
  /** Devices in use; why a better one is not. */
  devices: { id: string; reason: string | null }[];
  /** Kernel tier. */
  cpu: string;
  /** Threads that compute. */
  threads: number;
  /** The host's memory. */
  ram: Budget;
  /** Each device's memory. */
  vram: Record<string, Budget>;
  /** The process' largest resident size so far. */
  peakRam: number;
  /** How weights are read. */
  io: {
    backend: string;
    reason: string | null;
    bytesRead: number;
    /** Of those, of experts that were read before they were routed to. */
    bytesGuessed: number;
    bytesPerSecond: number;
    inFlight: number;
    stallMs: number;
  };
  /** Each group, in plan order. */
  groups: (Group & {
    state: 'cold' | 'loading' | 'ready' | 'pinned';
    hits: number;
    misses: number;
    late: number;
    /** Experts that were asked for before they were routed to. */
    guessed: number;
    /** Of those, routed to afterwards. */
    guessedRight: number;
  })[];
  /** Generations in the running set. */
  running: number;
  /** Generations that wait. */
  queued: number;
  /** Open sessions. */
  sessions: number;
  /** Tokens of KV cache in use, of those shared, and capacity. */
  kvTokens: { used: number; shared: number; total: number };
  /** Prompt tokens evaluated since loading. */
  promptTokens: number;
  /** Tokens generated since loading. */
  completionTokens: number;
}

/** A place in a file: `at` is a byte, key, tensor or token. */
export interface At {
  path: string;
  at: string;
}

/** What `details` holds for each code. */
export interface ErrorDetails {
  /** topK: expected an integer >= 0, got -1 */
  ERR_INVALID_ARG: { name: string; expected: string; received: string };
  /** unknown option 'temprature'; did you mean 'temperature'? */
  ERR_UNKNOWN_OPTION: { name: string; suggestion: string | null };
  /** No addon for this platform. */
  ERR_ADDON: { platform: string; tried: string[] };
  /** m.gguf: no such file */
  ERR_FILE_NOT_FOUND: { path: string };
  /** m.gguf is a folder (EISDIR) */
  ERR_FILE_UNREADABLE: { path: string; errno: string };
  /** m.gguf is something else. */
  ERR_NOT_GGUF: At;
  /** Only versions 2 and 3 are known. */
  ERR_GGUF_VERSION: At;
  /** m.gguf contradicts itself. */
  ERR_GGUF_CORRUPT: At;
  /** A key or tensor is missing, or of the wrong shape. */
  ERR_MODEL_INVALID: At;
  /** The vocabulary contradicts itself. */
  ERR_TOKENIZER_INVALID: At;
  /** An architecture that is not known. */
  ERR_UNSUPPORTED_ARCHITECTURE: At;
  /** A tensor type that is not known. */
  ERR_UNSUPPORTED_TENSOR_TYPE: At;
  /** Something that this model or version cannot do. */
  ERR_UNSUPPORTED: { feature: string };
  /** It does not fit. */
  ERR_INSUFFICIENT_MEMORY: {
    /** Which, as the options name it; of `'threads'` the numbers are threads, else bytes. */
    memory: string;
    required: number;
    available: number;
    /** Paths of models that were to make room and did not within half a minute. */
    waitedFor?: string;
  };
  /** A named device cannot be used. */
  ERR_DEVICE: { device: string; reason: string };
  /** Reading failed. */
  ERR_IO: At & { errno: string };
  /** The file changed while loaded. */
  ERR_FILE_CHANGED: { path: string };
  /** The prompt is longer than the context. */
  ERR_CONTEXT_OVERFLOW: { tokens: number; contextLength: number };
  /** So many wait already. */
  ERR_QUEUE_FULL: { limit: number };
  /** The session is generating. */
  ERR_SESSION_BUSY: {};
  /** The model or session was closed. */
  ERR_CLOSED: { what: 'model' | 'session' };
  /** The chunks are read already. */
  ERR_CONSUMED: {};
  /** The chat template failed, or there is none. */
  ERR_TEMPLATE: { line: number | null; reason: string };
  /** Logits are not numbers. */
  ERR_NUMERIC: { token: number };
  /** A bug. */
  ERR_INTERNAL: { where: string };
  /** Called off by a signal. */
  ABORT_ERR: { partial: GenerateResult | null };
}

/** Every code. */
export type ErrorCode = keyof ErrorDetails;

/** Every failure; compare `code`, or use `isChordError`. */
export class ChordError<C extends ErrorCode = ErrorCode> extends Error {
  /** What kind of failure. */
  readonly code: C;
  /** Its particulars. */
  readonly details: ErrorDetails[C];
  /** Plain data for logs. */
  toJSON(): object;
}

/** Whether it is a `ChordError` (of that code), also across copies of this package. */
export function isChordError<C extends ErrorCode>(error: unknown, code?: C): error is ChordError<C>;
