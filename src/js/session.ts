/** A conversation, or a text, that keeps its place in the addon's KV cache. */

import type * as api from '../../index.js';
import * as is from './check.js';
import { awaiting, calling, closed, failure, invalidText } from './errors.js';
import { conversation, notEmpty } from './messages.js';
import type { NativeSession } from './native.js';
import type { SamplingDefaults } from './options.js';
import * as request from './request.js';

const MAKING = Symbol('making');

/** A state to which `rewind` can go back. */
interface Mark {
  length: number;
  messages: readonly api.Message[];
  /** So much of it is still in the addon: an answer's tokens may be spelt anew by a later turn. */
  held: number;
  /** The answer that it ends with, and where that began. */
  answer: Uint32Array;
  from: number;
}

/** What `fork` copies. */
interface State {
  messages: readonly api.Message[];
  /** In the order in which they came; the first is empty. */
  marks: readonly Mark[];
}

const NOTHING = new Uint32Array();

export class Session implements api.Session {
  readonly model: api.Model;
  readonly #native: NativeSession;
  readonly #sampling: SamplingDefaults;
  #state: State;
  #busy = false;
  #closing: Promise<void> | null = null;

  constructor(
    key: typeof MAKING,
    model: api.Model,
    sampling: SamplingDefaults,
    native: NativeSession,
    state: State,
  ) {
    if (key !== MAKING) throw new TypeError('Illegal constructor: use model.createSession()');
    this.model = model;
    this.#sampling = sampling;
    this.#native = native;
    this.#state = state;
  }

  get messages(): readonly api.Message[] {
    return this.#state.messages;
  }

  get closed(): boolean {
    return this.#closing !== null || this.model.closed;
  }

  get length(): number {
    return this.#native.length();
  }

  generate(
    prompt: string | api.Tokens,
    options?: api.GenerateOptions,
  ): api.Generation<api.TextChunk, api.GenerateResult> {
    const target = this.#target((result) => {
      const { messages, marks } = this.#state;
      this.#state = { messages, marks: [...marks, this.#mark(messages, result)] };
    });
    return request.generate(target, prompt, options);
  }

  chat(
    messages: string | readonly api.Message[],
    options?: api.ChatOptions,
  ): api.Generation<api.ChatChunk, api.ChatResult> {
    let asked: readonly api.Message[] = [];
    const list = () => {
      asked = Object.freeze([...this.#state.messages, ...conversation(messages, 'messages')]);
      notEmpty(asked, 'messages');
      return asked;
    };
    const target = this.#target((result) => this.#answered(asked, result));
    return request.chat(target, list, options);
  }

  fork(): api.Session {
    this.#guard();
    const native = calling(() => this.#native.fork());
    return new Session(MAKING, this.model, this.#sampling, native, this.#state);
  }

  rewind(length: number): void {
    is.integer(0, this.length)(length, 'length');
    this.#guard();
    const mark = this.#markAt(length);
    const tail = mark.answer.slice(mark.held - mark.from, length - mark.from);
    const native = this.#native;
    calling(() => native.rewind(mark.held, tail));
    const { marks } = this.#state;
    const index = marks.indexOf(mark);
    const older = (other: Mark) => other.length <= length;
    this.#state = {
      messages: mark.messages,
      marks: index >= 0 ? marks.slice(0, index + 1) : marks.filter(older),
    };
  }

  close(): Promise<void> {
    const close = () => (this.model.closed ? this.model.close() : this.#native.close());
    return (this.#closing ??= awaiting(close));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** The newest state of that length; without messages every length is one. */
  #markAt(length: number): Mark {
    const { messages, marks } = this.#state;
    const mark = marks.findLast((other) => other.length === length);
    if (mark !== undefined) return mark;
    const lengths = [...new Set(marks.map((other) => other.length))];
    if (messages.length === 0) return { ...START, length, held: length, from: length };
    const expected = `the length at a message's border: ${lengths.join(', ')}`;
    throw invalidText('length', expected, String(length));
  }

  /** The state now that this was generated. */
  #mark(messages: readonly api.Message[], result: api.GenerateResult): Mark {
    const { length } = this;
    return {
      length,
      messages,
      held: length,
      answer: result.tokens,
      from: result.usage.promptTokens,
    };
  }

  #answered(asked: readonly api.Message[], result: api.GenerateResult): void {
    const { cachedTokens, promptTokens } = result.usage;
    const answer = Object.freeze({ role: 'assistant' as const, content: result.text });
    const messages = Object.freeze([...asked, answer]);
    const kept = this.#state.marks
      .map((mark) => ({ ...mark, held: Math.min(mark.held, cachedTokens) }))
      .filter(isWhole);
    const border = { ...START, messages: asked };
    Object.assign(border, { length: promptTokens, held: promptTokens, from: promptTokens });
    this.#state = { messages, marks: [...kept, border, this.#mark(messages, result)] };
  }

  #guard(): void {
    if (this.model.closed) throw closed('model');
    if (this.closed) throw closed('session');
    if (!this.#busy) return;
    throw failure('ERR_SESSION_BUSY', 'this session is generating; wait for it, or fork', {});
  }

  #target(resolved: (result: api.GenerateResult) => void): request.Target {
    return {
      model: this.model,
      sampling: this.#sampling,
      session: true,
      take: () => {
        this.#guard();
        this.#busy = true;
      },
      send: (wanted, long) => this.#native.generate(wanted, long),
      settled: (result) => {
        this.#busy = false;
        if (result !== null) resolved(result);
      },
    };
  }
}

const START: Mark = { length: 0, messages: [], held: 0, answer: NOTHING, from: 0 };

/** Whether what is no longer held of it can be evaluated again. */
function isWhole(mark: Mark): boolean {
  if (mark.held === mark.length) return true;
  return mark.from <= mark.held && mark.from + mark.answer.length === mark.length;
}

export function makeSession(
  model: api.Model,
  sampling: SamplingDefaults,
  native: NativeSession,
  messages: readonly api.Message[],
): Session {
  return new Session(MAKING, model, sampling, native, {
    messages,
    marks: [{ ...START, messages }],
  });
}
