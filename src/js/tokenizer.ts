/** Text to tokens and back; what Model and Tokenizer share. */

import type * as api from '../../index.js';
import * as is from './check.js';
import { awaiting, invalidArg } from './errors.js';
import { feed } from './feed.js';
import { messages, notEmpty } from './messages.js';
import type { NativeText } from './native.js';
import * as options from './options.js';
import { chatOf } from './request.js';

/** The four methods over the addon's tokenizer; `guard` throws where it may not be used. */
export class Texts {
  readonly #native: NativeText;
  readonly #vocabSize: number;
  readonly #guard: () => void;

  constructor(native: NativeText, vocabSize: number, guard: () => void = () => {}) {
    this.#native = native;
    this.#vocabSize = vocabSize;
    this.#guard = guard;
  }

  async tokenize(text: unknown, given: unknown): Promise<Uint32Array> {
    const input = is.text(text, 'text');
    const { special, bos } = options.read(options.tokenize, given);
    return this.#encode(input, special, bos);
  }

  async detokenize(tokens: unknown, given: unknown): Promise<string> {
    const input = is.tokens(this.#vocabSize)(tokens, 'tokens');
    const { special } = options.read(options.detokenize, given);
    return this.#run(() => this.#native.detokenize(input, special));
  }

  async countTokens(input: unknown, given: unknown): Promise<number> {
    options.read(options.countTokens, given);
    if (typeof input === 'string') return (await this.#encode(input, true, true)).length;
    if (!Array.isArray(input)) throw invalidArg('input', 'a string or an array of messages', input);
    const list = messages(input, 'input');
    notEmpty(list, 'input');
    return (await this.#run(() => this.#native.render(chatOf(list, '{}')))).tokens.length;
  }

  async applyTemplate(
    input: unknown,
    given: unknown,
  ): Promise<{ text: string; tokens: Uint32Array }> {
    const list = messages(input, 'messages');
    notEmpty(list, 'messages');
    const { templateArgs } = options.read(options.chat(this.#vocabSize), given);
    const rendered = await this.#run(() => this.#native.render(chatOf(list, templateArgs)));
    return { text: rendered.text, tokens: rendered.tokens };
  }

  #encode(text: string, special: boolean, bos: boolean): Promise<Uint32Array> {
    return this.#run(async () => this.#native.tokenize(await feed(text), special, bos));
  }

  async #run<T>(call: () => Promise<T>): Promise<T> {
    this.#guard();
    const result = await awaiting(call);
    this.#guard();
    return result;
  }
}

const MAKING = Symbol('making');

export class Tokenizer implements api.Tokenizer {
  readonly info: api.TokenizerInfo;
  readonly #texts: Texts;

  constructor(key: typeof MAKING, native: NativeText) {
    if (key !== MAKING) throw new TypeError('Illegal constructor: use loadTokenizer()');
    this.info = JSON.parse(native.info());
    this.#texts = new Texts(native, this.info.vocabSize);
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
}

export function makeTokenizer(native: NativeText): Tokenizer {
  return new Tokenizer(MAKING, native);
}
