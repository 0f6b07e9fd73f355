/**
 * A running generation: a promise and an async iterable over one run. The caller holds a
 * Generation, the pump holds the Run; neither the pump nor a signal holds the Generation, so that a
 * dropped one is collected and called off.
 */

import { inspect } from 'node:util';
import type * as api from '../../index.js';
import { failure } from './errors.js';
import { Run, type Prepared } from './run.js';

/** How the result and the chunks of a kind of generation become answer text. */
export interface Reading<C, R> {
  text(result: R): string;
  chunkText(chunk: C): string;
}

/** Starts a generation; what `prepare` throws is its failure. Never throws itself. */
export function begin<C, R>(
  prepare: () => Prepared<C, R>,
  reading: Reading<C, R>,
): api.Generation<C, R> {
  return new Generation(new Handle(Run.start(prepare)), reading);
}

/** Who can still read: the generation itself, its iterator, its streams. */
class Handle<C, R> {
  readonly run: Run<C, R>;

  constructor(run: Run<C, R>) {
    this.run = run;
    dropped.register(this, run as Run<unknown, unknown>, run);
  }

  /** Somebody waits for the result: it goes on even if this is collected. */
  keep(): void {
    dropped.unregister(this.run);
    this.run.lift();
  }
}

const dropped = new FinalizationRegistry<Run<unknown, unknown>>((run) => run.drop());

class Generation<C, R> extends Promise<R> implements api.Generation<C, R> {
  readonly #handle: Handle<C, R>;
  readonly #reading: Reading<C, R>;

  /** Promises derived from it are plain ones. */
  static override get [Symbol.species]() {
    return Promise;
  }

  constructor(handle: Handle<C, R>, reading: Reading<C, R>) {
    super(() => {}); // its own state is never used: `then` goes to the run's promise
    this.#handle = handle;
    this.#reading = reading;
  }

  // eslint-disable-next-line unicorn/no-thenable
  override then<A = R, B = never>(
    resolved?: ((result: R) => A | PromiseLike<A>) | null,
    rejected?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#handle.keep();
    return this.#handle.run.promise.then(resolved, rejected);
  }

  text(): Promise<string> {
    return this.then((result) => this.#reading.text(result));
  }

  stream(): ReadableStream<C> {
    return this.#stream((chunk) => chunk);
  }

  textStream(): ReadableStream<string> {
    return this.#stream((chunk) => this.#reading.chunkText(chunk) || undefined);
  }

  cancel(): Promise<R> {
    this.#handle.keep();
    this.#handle.run.cancel();
    return this.#handle.run.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.run.stop();
  }

  [Symbol.asyncIterator](): AsyncIterator<C, undefined> {
    const handle = this.#claim();
    return {
      next: () => handle.run.read(),
      return: async () => {
        await handle.run.stop();
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    } as AsyncIterator<C, undefined>;
  }

  [inspect.custom](): string {
    return `Generation { ${this.#handle.run.state} }`;
  }

  #claim(): Handle<C, R> {
    if (!this.#handle.run.claim()) {
      const message = 'the chunks of this generation are read already; await it for the result';
      throw failure('ERR_CONSUMED', message, {});
    }
    return this.#handle;
  }

  /** Pulls only when asked, so that the bound on unread chunks holds. */
  #stream<T>(convert: (chunk: C) => T | undefined): ReadableStream<T> {
    const handle = this.#claim();
    const source = {
      async pull(controller: ReadableStreamDefaultController<T>) {
        for (;;) {
          const next = await handle.run.read();
          if (next.done) return controller.close();
          const item = convert(next.value);
          if (item !== undefined) return controller.enqueue(item);
        }
      },
      cancel: () => handle.run.stop(),
    };
    return new ReadableStream<T>(source, { highWaterMark: 0 });
  }
}
