/**
 * The pump of one generation: pulls batches out of a source on demand, keeps what is unread,
 * settles the result, and watches the signal. It knows neither the addon nor what a chunk holds.
 */

import type * as api from '../../index.js';
import { aborted, fromNative, isChordError } from './errors.js';
import { report } from './task.js';

/** Where batches come from: the addon, or a double in tests. */
export interface Source<C, R> {
  /** Waits for news: chunks as far as demanded, progress, `full` with no demand, or the end. */
  next(): Promise<Batch<C, R>>;
  /** So many chunks may come with the next batch. */
  demand(chunks: number): void;
  /** All chunks may come, whenever they are ready; the bound is off. */
  lift(): void;
  /** `keep`: end with what there is; else fail with ABORT_ERR. */
  cancel(keep: boolean): void;
}

export interface Batch<C, R> {
  /** Prompt tokens evaluated, and in all. */
  progress: readonly [number, number] | null;
  chunks: readonly C[];
  /** As many are unread as may be: nothing comes until more are demanded. */
  full: boolean;
  end: End<R> | null;
}

/** `partial`: what there was when it was called off. */
export type End<R> = { result: R } | { error: unknown; partial: api.GenerateResult | null };

export interface Prepared<C, R> {
  source: Source<C, R>;
  queueSize: number;
  signal: AbortSignal | undefined;
  onProgress: ((progress: api.Progress) => void) | undefined;
  /** Must not be collected while it runs. */
  owner: unknown;
  /** Called once, before anybody else learns of the end. */
  settled?(end: { result: R } | { error: unknown }): void;
}

type Step<C> = IteratorResult<C, undefined>;
type Waiter<C> = { resolve(step: Step<C>): void; reject(error: unknown): void };

const DONE = { done: true, value: undefined } as const;
/** At most 20 progress calls a second, the last one included. */
const PROGRESS_MS = 53;

export class Run<C, R> {
  readonly promise: Promise<R>;
  state: 'running' | 'done' | 'failed' = 'running';
  #resolve!: (result: R) => void;
  #reject!: (error: unknown) => void;
  #error: unknown;
  #prepared: Prepared<C, R> | null = null;
  #unread: C[] = [];
  #waiters: Waiter<C>[] = [];
  #claimed = false;
  #watched = false;
  #lifted = false;
  #stopped = false;
  /** What a callback threw; the task rejects with it. */
  #thrown: { error: unknown } | null = null;
  #progressAt = -Infinity;
  #wake: (() => void) | null = null;
  #onAbort: (() => void) | null = null;

  private constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // A failure that nobody awaits is a warning, not an unhandled rejection.
    this.promise.catch(() => {});
  }

  static start<C, R>(prepare: () => Prepared<C, R>): Run<C, R> {
    const run = new Run<C, R>();
    try {
      const prepared = prepare();
      run.#prepared = prepared;
      run.#watchSignal(prepared);
      void run.#pump(prepared);
    } catch (error) {
      run.#fail(error);
    }
    return run;
  }

  /** Takes the one right to read chunks. */
  claim(): boolean {
    if (this.#claimed) return false;
    this.#claimed = true;
    this.#watched = true;
    return true;
  }

  read(): Promise<Step<C>> {
    if (this.#stopped) return Promise.resolve(DONE);
    if (this.#waiters.length === 0 && this.#unread.length > 0) {
      return Promise.resolve({ done: false, value: this.#unread.shift() as C });
    }
    if (this.state === 'done') return Promise.resolve(DONE);
    if (this.state === 'failed') {
      this.#stopped = true;
      return Promise.reject(this.#error);
    }
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#demand();
    });
  }

  /** Somebody waits for the end: no chunk holds it back any more. */
  lift(): void {
    this.#watched = true;
    if (this.#lifted || this.state !== 'running') return;
    this.#lifted = true;
    this.#prepared?.source.lift();
    this.#wakeUp();
  }

  cancel(): void {
    if (this.state === 'running') this.#prepared?.source.cancel(true);
  }

  /** The reader is done: call it off and wait until it has ended, however it does. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#unread = [];
    for (const waiter of this.#waiters.splice(0)) waiter.resolve(DONE);
    if (this.state !== 'running') return;
    this.cancel();
    this.#lifted = true;
    this.#prepared?.source.lift();
    this.#wakeUp();
    await this.promise.catch(() => {});
  }

  /** Nobody can read it or wait for it any more. */
  drop(): void {
    if (this.state === 'running') void this.stop();
  }

  async #pump({ source }: Prepared<C, R>): Promise<void> {
    try {
      for (;;) {
        const batch = await source.next();
        if (batch.progress !== null) this.#progress(batch.progress);
        this.#deliver(batch.chunks);
        if (batch.end !== null) return this.#end(batch.end);
        if (batch.full && !this.#lifted && this.#waiters.length === 0) {
          // Nothing is pending now: an idle process may end.
          await new Promise<void>((resolve) => (this.#wake = resolve));
        }
      }
    } catch (error) {
      this.#end({ error: fromNative(error), partial: null });
    }
  }

  #deliver(chunks: readonly C[]): void {
    if (this.#stopped) return;
    for (const chunk of chunks) {
      const waiter = this.#waiters.shift();
      if (waiter === undefined) this.#unread.push(chunk);
      else waiter.resolve({ done: false, value: chunk });
    }
    if (this.#waiters.length > 0) this.#demand();
  }

  /** Half of the bound at a time: what was handed over counts as unread until more is demanded. */
  #demand(): void {
    const { source, queueSize } = this.#prepared as Prepared<C, R>;
    if (!this.#lifted) source.demand(Math.max(1, queueSize >> 1));
    this.#wakeUp();
  }

  #wakeUp(): void {
    this.#wake?.();
    this.#wake = null;
  }

  #progress([done, total]: readonly [number, number]): void {
    const call = this.#prepared?.onProgress;
    const now = performance.now();
    if (call === undefined || this.#thrown !== null) return;
    if (done < total && now - this.#progressAt < PROGRESS_MS) return;
    this.#progressAt = now;
    report(call, { phase: 'prompt', unit: 'tokens', done, total }, (error) => {
      this.#thrown ??= { error };
      this.#prepared?.source.cancel(false);
    });
  }

  #end(end: End<R>): void {
    if (this.#thrown !== null) this.#fail(this.#thrown.error);
    else if ('result' in end) this.#succeed(end.result);
    else if (isChordError(end.error, 'ABORT_ERR')) {
      this.#fail(aborted(this.#prepared?.signal?.reason, end.partial));
    } else this.#fail(end.error);
  }

  #succeed(result: R): void {
    this.#prepared?.settled?.({ result });
    this.#release();
    this.state = 'done';
    this.#resolve(result);
    for (const waiter of this.#waiters.splice(0)) waiter.resolve(DONE);
  }

  #fail(error: unknown): void {
    this.#prepared?.settled?.({ error });
    this.#release();
    this.state = 'failed';
    this.#error = error;
    this.#reject(error);
    if (this.#waiters.length > 0) this.#stopped = true;
    const [first, ...others] = this.#waiters.splice(0);
    first?.reject(error);
    for (const waiter of others) waiter.resolve(DONE);
    setImmediate(() => {
      if (!this.#watched) warn(error);
    });
  }

  #watchSignal({ signal, source }: Prepared<C, R>): void {
    if (signal === undefined) return;
    this.#onAbort = () => source.cancel(false);
    signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Lets go of the addon's objects and the signal. */
  #release(): void {
    if (this.#onAbort !== null) {
      this.#prepared?.signal?.removeEventListener('abort', this.#onAbort);
      this.#onAbort = null;
    }
    this.#prepared = null;
  }
}

function warn(error: unknown): void {
  const code = isChordError(error) ? error.code : 'ERR_INTERNAL';
  const text = error instanceof Error ? error.message : String(error);
  process.emitWarning(`a generation failed unwatched: ${text}`, { type: 'ChordWarning', code });
}
