/**
 * What happens, for those who listen: diagnostics channels `node-chord:log`, `node-chord:load`,
 * `node-chord:generate`, and lines on stderr where NODE_CHORD_LOG asks for them.
 */

import { channel } from 'node:diagnostics_channel';
import type * as api from '../../index.js';
import { logLevel } from './env.js';
import { isChordError } from './errors.js';

const LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;
export type Level = (typeof LEVELS)[number];

const logs = channel('node-chord:log');
const loads = channel('node-chord:load');
const generations = channel('node-chord:generate');

export function log(level: Level, message: string): void {
  if (logs.hasSubscribers) logs.publish({ level, message });
  if (LEVELS.indexOf(level) > wanted()) return;
  process.stderr.write(`[node-chord] ${level}: ${message}\n`);
}

/** What was refused last. */
let refused = 'off';

/** Index of the level that the environment asks for, -1 for none; an unknown one is told once. */
function wanted(): number {
  const level = logLevel();
  const index = LEVELS.indexOf(level as Level);
  if (index < 0 && level !== 'off' && level !== refused) {
    refused = level;
    const expected = `expected 'off', '${LEVELS.join("', '")}', got ${JSON.stringify(level)}`;
    process.stderr.write(`[node-chord] NODE_CHORD_LOG: ${expected}; nothing is logged\n`);
  }
  return index;
}

/** Which kernel each type of a model's weights has. */
export function logKernels(kernels: Record<string, string> = {}): void {
  const list = Object.entries(kernels).map(([type, kernel]) => `${type} ${kernel}`);
  if (list.length > 0) log('debug', `kernels: ${list.join(', ')}`);
}

/** In what slower way a loaded model is read than it could be, and why; asks only if heard. */
export function logWay(path: string, io: () => api.Stats['io']): void {
  if (!logs.hasSubscribers && wanted() < LEVELS.indexOf('warn')) return;
  const { backend, reason } = io();
  if (reason !== null) log('warn', `${path} is read by ${backend} (${reason})`);
}

/** `start`, then `end` or `error`, each with the same `id`. */
export interface Trace {
  end(particulars: () => object, line: string): void;
  error(error: unknown): void;
}

export const traceLoad = (path: string): Trace => trace('load', 'info', loads, { path });
export const traceGenerate = (about: object): Trace =>
  trace('generate', 'debug', generations, about);

let lastId = 0;

/** `level`: of a good end. A start is a matter of tracing; who calls something off knows it. */
function trace(what: string, level: Level, out: typeof logs, about: object): Trace {
  const id = ++lastId;
  const publish = (type: string, more: object) => {
    if (out.hasSubscribers) out.publish({ type, id, ...about, ...more });
  };
  publish('start', {});
  log('trace', `${what} ${id} starts`);
  return {
    end(particulars, line) {
      publish('end', particulars());
      log(level, `${what} ${id}: ${line}`);
    },
    error(error) {
      publish('error', { error });
      const isCalledOff = isChordError(error, 'ABORT_ERR');
      log(isCalledOff ? level : 'error', `${what} ${id} failed: ${String(error)}`);
    },
  };
}
