/** Checks of single values: each returns the value in our form or throws ERR_INVALID_ARG. */

import { fileURLToPath } from 'node:url';
import { failure, invalidArg, invalidText } from './errors.js';
import { suggest } from './suggest.js';

/** Reads `value`, which the caller knows as `name`. */
export type Check<T> = (value: unknown, name: string) => T;

export const boolean: Check<boolean> = (value, name) => {
  if (typeof value !== 'boolean') throw invalidArg(name, 'true or false', value);
  return value;
};

/** A string; the addon makes lone surrogates U+FFFD. */
export const text: Check<string> = (value, name) => {
  if (typeof value !== 'string') throw invalidArg(name, 'a string', value);
  return value;
};

/** A string; lone surrogates become U+FFFD. */
export const string: Check<string> = (value, name) => {
  if (typeof value !== 'string') throw invalidArg(name, 'a string', value);
  return wellFormed(value);
};

/** `least <= value <= most`; `open` leaves `least` itself out. */
export function number(least: number, most = Infinity, open = false): Check<number> {
  const expected = range('a number', least, most, open);
  return (value, name) => {
    const good = typeof value === 'number' && (open ? value > least : value >= least);
    if (!good || value > most || !Number.isFinite(value)) throw invalidArg(name, expected, value);
    return value;
  };
}

export function integer(least: number, most = Number.MAX_SAFE_INTEGER): Check<number> {
  const expected = range('an integer', least, most, false);
  return (value, name) => {
    if (!Number.isSafeInteger(value) || (value as number) < least || (value as number) > most) {
      throw invalidArg(name, expected, value);
    }
    return (value as number) + 0; // -0 becomes 0
  };
}

const UNITS: Record<string, number> = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

/** Bytes above 0: an integer, or text such as '512MiB' or '1.5 GB'. */
export const bytes: Check<number> = (value, name) => {
  const [, digits, unit = ''] =
    typeof value === 'string' ? (/^(\d+(?:\.\d+)?) ?([a-z]*)$/i.exec(value.trim()) ?? []) : [];
  const factor = UNITS[unit.toLowerCase()];
  const parsed =
    digits === undefined || factor === undefined ? value : Math.floor(Number(digits) * factor);
  if (!Number.isSafeInteger(parsed) || (parsed as number) <= 0) {
    throw invalidArg(name, "bytes: an integer > 0 or text such as '512MiB'", value);
  }
  return parsed as number;
};

/** A number of things: larger ones than the addon can count mean as many as there are. */
export function count(least: number): Check<number> {
  const check = integer(least);
  return (value, name) => Math.min(check(value, name), 2 ** 31 - 1);
}

export function oneOf<const T extends string>(...words: readonly T[]): Check<T> {
  const expected = list(words.map((word) => `'${word}'`));
  return (value, name) => {
    if (!(words as readonly unknown[]).includes(value)) throw invalidArg(name, expected, value);
    return value as T;
  };
}

/** `word` itself, or what `check` takes; its complaint then also names the word. */
export function wordOr<const W extends string, T>(word: W, check: Check<T>): Check<W | T> {
  return (value, name) => {
    if (value === word) return word;
    try {
      return check(value, name);
    } catch (error) {
      const expected = (error as { details?: { expected?: unknown } }).details?.expected;
      if (typeof expected !== 'string') throw error;
      throw invalidArg(name, `'${word}' or ${expected}`, value);
    }
  };
}

export const callback: Check<(...args: never[]) => unknown> = (value, name) => {
  if (typeof value !== 'function') throw invalidArg(name, 'a function', value);
  return value as (...args: never[]) => unknown;
};

/** Also a signal of another realm. */
export const signal: Check<AbortSignal> = (value, name) => {
  const candidate = value as Partial<AbortSignal> | null;
  const good =
    typeof candidate === 'object' &&
    candidate !== null &&
    typeof candidate.aborted === 'boolean' &&
    typeof candidate.addEventListener === 'function';
  if (!good) throw invalidArg(name, 'an AbortSignal', value);
  return value as AbortSignal;
};

/** A path as text. */
export const path: Check<string> = (value, name) => {
  if (typeof value === 'string') {
    if (value === '') throw invalidText(name, 'a path', "''");
    if (value.includes('\0')) throw invalidArg(name, 'a path without null bytes', value);
    return value;
  }
  if (!isUrl(value)) throw invalidArg(name, 'a path or a file: URL', value);
  try {
    return fileURLToPath(value);
  } catch {
    throw invalidText(name, 'a path or a file: URL', `the URL '${value.href}'`);
  }
};

/** An object of options, an absent one included. */
export function optionsObject(value: unknown, name = 'options'): Record<string, unknown> {
  if (value === undefined) return {};
  if (!isOptions(value)) throw invalidArg(name, 'an object', value);
  return value;
}

/** What built-in objects have inside, such as a Map or a signal, is no option and would be lost. */
export function isOptions(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false;
  return ['[object Object]', '[object Module]'].includes(Object.prototype.toString.call(value));
}

/** Options that are not known are errors, so that a misspelt one does not go unnoticed. */
export function onlyKnown(given: object, known: readonly string[], prefix = ''): void {
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue;
    const name = prefix + key;
    const near = suggest(key, known);
    const suggestion = near === null ? null : prefix + near;
    const hint = suggestion === null ? '' : `; did you mean '${suggestion}'?`;
    const message = `unknown option '${shown(name)}'${hint}`;
    throw failure('ERR_UNKNOWN_OPTION', message, { name, suggestion });
  }
}

/** Token ids below `vocabSize`. The addon copies them at once. */
export function tokens(vocabSize: number): Check<Uint32Array> {
  const expected = `token ids below ${vocabSize}`;
  return (value, name) => {
    if (!(value instanceof Uint32Array) && !Array.isArray(value)) {
      throw invalidArg(name, 'an array of token ids', value);
    }
    if (value instanceof Uint32Array && areBelow(vocabSize, value)) return value;
    const copy = new Uint32Array(value.length);
    for (let i = 0; i < copy.length; i++) {
      const id: unknown = value[i];
      if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= vocabSize) {
        throw invalidArg(`${name}[${i}]`, expected, id);
      }
      copy[i] = id as number;
    }
    return copy;
  };
}

export function wellFormed(text: string): string {
  return text.isWellFormed() ? text : text.toWellFormed();
}

/** A JSON value's replacer or reviver: strings and names of properties become well-formed. */
export function wellFormedItem(_: string, item: unknown): unknown {
  if (typeof item === 'string') return wellFormed(item);
  if (typeof item !== 'object' || item === null || Array.isArray(item)) return item;
  if (Object.keys(item).every((key) => key.isWellFormed())) return item;
  return Object.fromEntries(Object.entries(item).map(([key, value]) => [wellFormed(key), value]));
}

function areBelow(limit: number, ids: Uint32Array): boolean {
  for (let i = 0; i < ids.length; i++) if ((ids[i] as number) >= limit) return false;
  return true;
}

function isUrl(value: unknown): value is URL {
  return value instanceof URL || Object.prototype.toString.call(value) === '[object URL]';
}

function range(what: string, least: number, most: number, open: boolean): string {
  const bounded = most !== Infinity && most !== Number.MAX_SAFE_INTEGER;
  if (!bounded) return `${what} ${open ? '>' : '>='} ${least}`;
  return open ? `${what} > ${least} and <= ${most}` : `${what} from ${least} to ${most}`;
}

function list(words: readonly string[]): string {
  return words.length < 2
    ? words.join('')
    : `${words.slice(0, -1).join(', ')} or ${words[words.length - 1]}`;
}

function shown(name: string): string {
  return name.length > 60 ? `${name.slice(0, 60)}…` : name;
}
