/** The one error class, how a failure of the addon becomes one, and the texts for callers. */

import type * as api from '../../index.js';

type Code = api.ErrorCode;
type Details<C extends Code> = api.ErrorDetails[C];

/** Set on every ChordError of every copy of this package. */
const MARKER: unique symbol = Symbol.for('node-chord.error') as never;

/** What the constructor takes beside the message; public only in that `cause` is standard. */
interface Init<C extends Code> {
  code?: C;
  details?: Details<C>;
  cause?: unknown;
}

export class ChordError<C extends Code = Code> extends Error implements api.ChordError<C> {
  readonly code: C;
  readonly details: Details<C>;

  constructor(message?: string, init: Init<C> = {}) {
    super(message, 'cause' in init ? { cause: init.cause } : undefined);
    this.code = init.code ?? ('ERR_INTERNAL' as C);
    this.details = init.details ?? ({} as Details<C>);
  }

  toJSON(): object {
    const { name, code, message, details } = this;
    const json: Record<string, unknown> = { name, code, message, details: plain(details) };
    if (this.cause !== undefined) json['cause'] = plainCause(this.cause);
    return json;
  }
}

Object.defineProperty(ChordError.prototype, MARKER, { value: true });
Object.defineProperty(ChordError.prototype, 'name', {
  configurable: true,
  get(this: ChordError) {
    return this.code === 'ABORT_ERR' ? 'AbortError' : 'ChordError';
  },
  set(this: ChordError, value: unknown) {
    Object.defineProperty(this, 'name', { value, writable: true, configurable: true });
  },
});

export function isChordError<C extends Code>(error: unknown, code?: C): error is api.ChordError<C> {
  if (typeof error !== 'object' || error === null) return false;
  const candidate = error as { [MARKER]?: unknown; code?: unknown };
  return candidate[MARKER] === true && (code === undefined || candidate.code === code);
}

/** Makes an error of our own. */
export function failure<C extends Code>(
  code: C,
  message: string,
  details: Details<C>,
  cause?: unknown,
): ChordError<C> {
  return new ChordError(
    message,
    cause === undefined ? { code, details } : { code, details, cause },
  );
}

export function invalidArg(name: string, expected: string, value: unknown): ChordError {
  return invalidText(name, expected, describe(value));
}

export function invalidText(name: string, expected: string, received: string): ChordError {
  const message = `${name}: expected ${expected}, got ${received}`;
  return failure('ERR_INVALID_ARG', message, { name, expected, received });
}

export function closed(what: 'model' | 'session'): ChordError {
  const message = `this ${what} was closed`;
  return failure('ERR_CLOSED', message, { what });
}

export function aborted(reason: unknown, partial: api.GenerateResult | null): ChordError {
  return failure('ABORT_ERR', 'The operation was aborted', { partial }, reason);
}

/** A value as the text of an error shows it: short, and never more than its kind for objects. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return `'${shorten(value)}'`;
    case 'bigint':
      return `${shorten(String(value))}n`;
    case 'function':
      return 'a function';
    case 'symbol':
      return 'a symbol';
    case 'object':
      return value === null ? 'null' : Array.isArray(value) ? 'an array' : describeObject(value);
    default:
      return Object.is(value, -0) ? '-0' : String(value);
  }
}

/**
 * What the addon rejects with carries `{code, message, fields}` as JSON in its message, since a
 * Node-API error has room for a code alone.
 */
export function fromNative(error: unknown): unknown {
  if (isChordError(error)) return error;
  const text = error instanceof Error ? error.message : String(error);
  return parseNative(text) ?? internal('the addon', text, error);
}

export function parseNative(text: string): ChordError | null {
  if (!text.startsWith('{"code":')) return null;
  try {
    const { code, message, fields } = JSON.parse(text) as {
      code: Code;
      message: string;
      fields: Details<Code>;
    };
    return new ChordError(message, { code, details: fields });
  } catch {
    return null;
  }
}

export function internal(where: string, what: string, cause?: unknown): ChordError {
  const message = `internal error in ${where}: ${what}; please report it`;
  return failure('ERR_INTERNAL', message, { where }, cause);
}

/** Runs a call into the addon; its failure is thrown as ours. */
export function calling<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw fromNative(error);
  }
}

/** The same for a call that returns a promise. */
export async function awaiting<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw fromNative(error);
  }
}

function describeObject(value: object): string {
  const name: unknown = Object.getPrototypeOf(value)?.constructor?.name;
  if (typeof name !== 'string' || name === '' || name === 'Object') return 'an object';
  return /^[aeio]/i.test(name) ? `an ${shorten(name)}` : `a ${shorten(name)}`;
}

function shorten(text: string): string {
  const clean = text.slice(0, 61).replace(/[\u0000-\u001f\u007f]/g, (c) => {
    return `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`;
  });
  return text.length > 60 ? `${clean.slice(0, 60)}…` : clean;
}

/** Typed arrays would print as objects with a key for each number. */
function plain(value: unknown): unknown {
  if (ArrayBuffer.isView(value)) return Array.from(value as Uint8Array);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}

function plainCause(cause: unknown): unknown {
  if (isChordError(cause)) return cause.toJSON();
  return cause instanceof Error ? { name: cause.name, message: cause.message } : cause;
}
