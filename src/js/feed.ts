/**
 * Long texts on their way into the addon: converting one takes a while, so it goes over in pieces,
 * other work between them.
 */

import { calling } from './errors.js';
import { native as addon, type NativeString } from './native.js';
import type { Batch, Source } from './run.js';

/** Characters of a piece: about a millisecond. */
const PIECE = 1 << 17;

/** Whether a text has to go over in pieces. */
export function isLong(text: string): boolean {
  return text.length > 2 * PIECE;
}

/** The text as the addon takes it. */
export async function feed(text: string): Promise<string | NativeString> {
  if (!isLong(text)) return text;
  const whole = new (addon().NativeString)();
  for (let from = 0; from < text.length;) {
    const end = from + PIECE;
    // A pair of surrogates is not torn apart.
    const torn = (text.charCodeAt(end - 1) & 0xfc00) === 0xd800;
    const next = torn ? end + 1 : end;
    calling(() => whole.push(text.slice(from, next)));
    from = next;
    await new Promise(setImmediate);
  }
  return whole;
}

/** A source that exists later; until then it remembers what it was asked for. */
export class LateSource<C, R> implements Source<C, R> {
  readonly #real: Promise<Source<C, R>>;
  #known: Source<C, R> | null = null;
  #demanded = 0;
  #isLifted = false;
  #cancelled: boolean | null = null;

  constructor(real: Promise<Source<C, R>>) {
    this.#real = real.then((source) => {
      this.#known = source;
      if (this.#demanded > 0) source.demand(this.#demanded);
      if (this.#isLifted) source.lift();
      if (this.#cancelled !== null) source.cancel(this.#cancelled);
      return source;
    });
    this.#real.catch(() => {}); // `next` tells
  }

  async next(): Promise<Batch<C, R>> {
    return (await this.#real).next();
  }

  demand(chunks: number): void {
    this.#demanded = chunks;
    this.#known?.demand(chunks);
  }

  lift(): void {
    this.#isLifted = true;
    this.#known?.lift();
  }

  cancel(keep: boolean): void {
    this.#cancelled ??= keep;
    this.#known?.cancel(keep);
  }
}
