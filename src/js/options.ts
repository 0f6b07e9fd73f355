/** Every option of every call: its name, how it is checked, what it defaults to. */

import type * as api from '../../index.js';
import type { Check } from './check.js';
import * as is from './check.js';
import { invalidArg, invalidText } from './errors.js';

/** One option: how it is read, and what stands for it when absent. */
interface Rule<T> {
  check: Check<T>;
  fallback?: T;
}

type Table = Record<string, Rule<unknown>>;
type Checked<R> = R extends { fallback: infer T }
  ? T
  : R extends Rule<infer T>
    ? T | undefined
    : never;
/** What a table reads. */
export type Read<T extends Table> = { [K in keyof T]: Checked<T[K]> };

/** Reads options by a table: unknown names and wrong values are coded errors. */
export function read<T extends Table>(table: T, options: unknown, prefix = ''): Read<T> {
  const given = is.optionsObject(options, prefix === '' ? 'options' : prefix.slice(0, -1));
  is.onlyKnown(given, Object.keys(table), prefix);
  const result: Record<string, unknown> = {};
  for (const [name, rule] of Object.entries(table)) {
    const value = given[name];
    result[name] = value === undefined ? rule.fallback : rule.check(value, prefix + name);
  }
  return result as Read<T>;
}

/** The largest context that the addon plans for. */
const CONTEXT_MAX = 2 ** 24;
const KV_TYPES = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0'] as const;
const DEVICE = /^(cpu|cuda|vulkan|metal|dx12)(:\d{1,4})?$/;

const abortable = { signal: rule(is.signal) };
const task = {
  ...abortable,
  onProgress: rule(is.callback as Check<(progress: api.Progress) => void>),
};

/** `loadModel`. */
export const load = {
  ...task,
  device: rule(devices, 'auto'),
  memory: rule(memory, { ram: 'auto', vram: 'auto', kv: 'auto' }),
  prefetch: rule(is.wordOr('auto', is.integer(0, 64)), 'auto'),
  io: rule(is.oneOf('auto', 'mmap', 'direct', 'buffered'), 'auto'),
  contextLength: rule(is.wordOr('auto', is.integer(1, CONTEXT_MAX)), 'auto'),
  kvType: rule(kvTypes, { k: 'f16', v: 'f16' }),
  threads: rule(is.wordOr('auto', is.integer(1, 256)), 'auto'),
  cpu: rule(is.string, 'auto'),
  chatTemplate: rule(is.string),
  maxConcurrent: rule(is.wordOr('auto', is.integer(1, 256)), 'auto'),
  maxQueued: rule(is.count(0), 1024),
};

/** `loadModel` with one argument. */
export const loadWithPath = { ...load, path: rule(is.path) };

/** `model.configure`. Of the memory, too, only what is given changes. */
export const configure = {
  ...abortable,
  memory: rule(memoryChange, {}),
  prefetch: rule(load.prefetch.check),
  threads: rule(load.threads.check),
};

/** `inspect`, `loadTokenizer`. */
export const abort = abortable;

/** `tokenize`, `detokenize`, `countTokens`, `createSession`; messages are checked apart. */
export const tokenize = { special: rule(is.boolean, false), bos: rule(is.boolean, false) };
export const detokenize = { special: rule(is.boolean, false) };
export const countTokens = {};

/** `score`. */
export const score = { ...abortable, top: rule(is.integer(0, 20), 0) };

/** What a file's `general.sampling.*` may replace. */
export type SamplingDefaults = Partial<
  Record<
    | 'temperature'
    | 'topK'
    | 'topP'
    | 'minP'
    | 'typicalP'
    | 'topNSigma'
    | 'repeatPenalty'
    | 'frequencyPenalty'
    | 'presencePenalty'
    | 'repeatLastTokens',
    number
  >
>;

/** `generate`, for a model of so many tokens. */
export function generate(vocabSize: number, defaults: SamplingDefaults = {}) {
  return {
    ...task,
    temperature: rule(is.number(0), defaults.temperature ?? 0.8),
    topK: rule(is.count(0), defaults.topK ?? 40),
    topP: rule(is.number(0, 1), defaults.topP ?? 0.95),
    minP: rule(is.number(0, 1), defaults.minP ?? 0.05),
    typicalP: rule(is.number(0, 1), defaults.typicalP ?? 1),
    topNSigma: rule(is.number(0), defaults.topNSigma ?? 0),
    xtc: rule(xtc),
    repeatPenalty: rule(is.number(0, Infinity, true), defaults.repeatPenalty ?? 1),
    frequencyPenalty: rule(is.number(-2, 2), defaults.frequencyPenalty ?? 0),
    presencePenalty: rule(is.number(-2, 2), defaults.presencePenalty ?? 0),
    repeatLastTokens: rule(is.count(0), defaults.repeatLastTokens ?? 64),
    logitBias: rule(logitBias(vocabSize), { ids: [], biases: [] }),
    seed: rule(is.integer(0, 2 ** 32 - 1)),
    maxTokens: rule(is.count(1)),
    stop: rule(stops, []),
    stopTokens: rule(is.tokens(vocabSize), new Uint32Array()),
    ignoreEos: rule(is.boolean, false),
    logprobs: rule(is.integer(0, 20)),
    special: rule(is.boolean, true),
    overflow: rule(is.oneOf('error', 'shift'), 'error'),
    keep: rule(is.count(0), 0),
    queueSize: rule(is.integer(1, 4096), 64),
  };
}

/** `chat`: the same and what the template needs. */
export function chat(vocabSize: number, defaults: SamplingDefaults = {}) {
  return { ...generate(vocabSize, defaults), templateArgs: rule(templateArgs, '{}') };
}

export type LoadRead = Read<typeof load>;
export type ConfigureRead = Read<typeof configure>;
export type GenerateRead = Read<ReturnType<typeof generate>>;
export type ChatRead = Read<ReturnType<typeof chat>>;

function rule<T>(check: Check<T>): Rule<T>;
function rule<T>(check: Check<T>, fallback: NoInfer<T>): Rule<T> & { fallback: T };
function rule<T>(check: Check<T>, fallback?: T): Rule<T> {
  return fallback === undefined ? { check } : { check, fallback };
}

function devices(value: unknown, name: string): 'auto' | string[] {
  if (value === 'auto') return 'auto';
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  const expected = "'auto', a device such as 'cpu' or 'cuda:1', or an array of them";
  if (ids.length === 0) throw invalidText(name, expected, 'an empty array');
  for (const id of ids) {
    if (typeof id !== 'string' || !DEVICE.test(id)) throw invalidArg(name, expected, id);
  }
  return ids as string[];
}

type Share = 'auto' | number;

function memory(value: unknown, name: string): { ram: Share; vram: Share; kv: Share } {
  return { ram: 'auto', vram: 'auto', kv: 'auto', ...memoryChange(value, name) };
}

function memoryChange(value: unknown, name: string): { ram?: Share; vram?: Share; kv?: Share } {
  const given = is.optionsObject(value, name);
  const names = ['ram', 'vram', 'kv'] as const;
  is.onlyKnown(given, names, `${name}.`);
  const part = is.wordOr('auto', is.bytes);
  const chosen = names.filter((key) => given[key] !== undefined);
  return Object.fromEntries(chosen.map((key) => [key, part(given[key], `${name}.${key}`)]));
}

function kvTypes(value: unknown, name: string): { k: api.KvType; v: api.KvType } {
  const one = is.oneOf(...KV_TYPES);
  if (!is.isOptions(value)) {
    const kind = one(value, name);
    return { k: kind, v: kind };
  }
  const { k, v } = is.optionsObject(value, name);
  is.onlyKnown(value, ['k', 'v'], `${name}.`);
  return { k: one(k, `${name}.k`), v: one(v, `${name}.v`) };
}

function xtc(value: unknown, name: string): { probability: number; threshold: number } {
  const given = is.optionsObject(value, name);
  is.onlyKnown(given, ['probability', 'threshold'], `${name}.`);
  const part = is.number(0, 1);
  return {
    probability: part(given['probability'], `${name}.probability`),
    threshold: part(given['threshold'], `${name}.threshold`),
  };
}

function logitBias(vocabSize: number): Check<{ ids: number[]; biases: number[] }> {
  const expected = `token ids below ${vocabSize}`;
  return (value, name) => {
    const [ids, biases]: [number[], number[]] = [[], []];
    for (const [key, bias] of Object.entries(is.optionsObject(value, name))) {
      const id = /^(0|[1-9]\d*)$/.test(key) ? Number(key) : NaN;
      if (!(id < vocabSize)) throw invalidArg(name, expected, key);
      if (bias === undefined) continue;
      if (typeof bias !== 'number' || Number.isNaN(bias) || bias === Infinity) {
        throw invalidArg(`${name}.${key}`, 'a number or -Infinity', bias);
      }
      ids.push(id);
      biases.push(bias);
    }
    return { ids, biases };
  };
}

function stops(value: unknown, name: string): string[] {
  const texts: unknown[] = Array.isArray(value) ? Array.from(value) : [value]; // no holes
  const expected = 'a string or an array of at most 64 strings, none empty';
  if (texts.length > 64) throw invalidText(name, expected, `${texts.length} of them`);
  return texts.map((text, index) => {
    const place = Array.isArray(value) ? `${name}[${index}]` : name;
    if (typeof text !== 'string' || text === '') throw invalidArg(place, expected, text);
    return is.wellFormed(text);
  });
}

/** As JSON: what a template may see is data. */
function templateArgs(value: unknown, name: string): string {
  const given = is.optionsObject(value, name);
  const expected = 'an object that JSON can hold';
  try {
    const json = JSON.stringify(given, is.wellFormedItem) ?? '{}';
    if (json.startsWith('{')) return json;
  } catch (error) {
    const [line = ''] = String((error as Error)?.message).split('\n');
    throw invalidText(name, expected, line);
  }
  throw invalidText(name, expected, 'one whose toJSON gives something else');
}
