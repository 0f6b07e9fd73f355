/** The options of `loadModel` and `estimate`, with what the environment adds. */

import * as is from './check.js';
import { loadDefaults, memoryDefaults } from './env.js';
import { invalidArg } from './errors.js';
import { native, type NativeLoadOptions } from './native.js';
import * as options from './options.js';

/** What was given; environment variables stand for options that are absent. */
export function readLoadOptions(given: unknown): options.LoadRead {
  const own = options.read(options.load, given);
  const chosen = is.optionsObject(given);
  for (const [name, value] of Object.entries(loadDefaults())) {
    if (chosen[name] !== undefined) continue;
    const variable = `NODE_CHORD_${name.toUpperCase()}`;
    const rule = options.load[name as 'device' | 'threads' | 'cpu'];
    Object.assign(own, { [name]: rule.check(value, variable) });
  }
  checkTier(own.cpu, chosen['cpu'] === undefined ? 'NODE_CHORD_CPU' : 'cpu');
  const memory = is.optionsObject(chosen['memory']);
  for (const [part, [variable, bytes]] of Object.entries(memoryDefaults())) {
    if (bytes === undefined || memory[part] !== undefined) continue;
    own.memory = { ...own.memory, [part]: is.wordOr('auto', is.bytes)(bytes, variable) };
  }
  return own;
}

/** Here rather than in the addon, which does not know where it came from. */
function checkTier(tier: string, name: string): void {
  const known = ['auto', ...native().tiers()];
  if (known.includes(tier)) return;
  const list = known.map((one) => `'${one}'`).join(', ');
  throw invalidArg(name, `a tier that this CPU has (${list})`, tier);
}

/** As the addon takes them. */
export function nativeOptions(read: options.LoadRead): NativeLoadOptions {
  const orNull = <T>(value: 'auto' | T) => (value === 'auto' ? null : (value as T));
  return {
    device: orNull(read.device),
    contextLength: orNull(read.contextLength),
    kvTypeK: read.kvType.k,
    kvTypeV: read.kvType.v,
    threads: orNull(read.threads),
    cpu: orNull(read.cpu),
    chatTemplate: read.chatTemplate ?? null,
    maxConcurrent: orNull(read.maxConcurrent),
    maxQueued: read.maxQueued,
    ram: orNull(read.memory.ram),
    kv: orNull(read.memory.kv),
    vram: orNull(read.memory.vram),
    prefetch: orNull(read.prefetch),
    io: read.io,
  };
}
