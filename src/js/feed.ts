/**
 * Long texts on their way into the addon: converting one takes a while, so it goes over in pieces,
 * other work between them.
 */

import { calling } from './errors.js';
import { native as addon, type NativeString } from './native.js';
import type { Batch, Source } from './run.js';

/** Characters of a piece: about a millisecond. */
const PIECE = 1 << 17;

/** A text as the addon takes it. */
export type Fed = string | NativeString;

/** Whether a text has to go over in pieces. */
export function isLong(text: string): boolean {
  return text.length > 2 * PIECE;
}

/** Hands a text over; no more of it once nobody wants it. */
export async function feed(text: string, isOver = () => false): Promise<Fed> {
  if (!isLong(text)) return text;
  const whole = new (addon().NativeString)();
  for (let from = 0; from < text.length && !isOver();) {
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

/**
 * A source that exists once its text is fed; until then it remembers what it was asked for. `make`
 * hears whether it was called off meanwhile, and how: then no text can fail any more.
 */
export class LateSource<C, R> implements Source<C, R> {
  readonly #real: Promise<Source<C, R>>;
  #known: Source<C, R> | null = null;
  #demanded = 0;
  #isLifted = false;
  #cancelled: boolean | null = null;

  constructor(text: string, make: (text: Fed, cancelled: boolean | null) => Source<C, R>) {
    this.#real = feed(text, () => this.#cancelled !== null).then((fed) => {
      const source = make(fed, this.#cancelled);
      this.#known = source;
      if (this.#demanded > 0) source.demand(this.#demanded);
      if (this.#isLifted) source.lift();
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
