/**
 * Every environment variable that JavaScript reads. Options win over them.
 *
 * NODE_CHORD_DEVICE   device; 'auto'
 * NODE_CHORD_THREADS  threads; 'auto'
 * NODE_CHORD_CPU      kernel tier; 'auto'
 * NODE_CHORD_RAM      memory.ram; 'auto'
 * NODE_CHORD_VRAM     memory.vram; 'auto'
 * NODE_CHORD_LOG      log to stderr: off, error (failures), warn, info (loads), debug (generations,
 *                     kernels), trace (starts); off
 * NODE_CHORD_ADDON    the .node file to load; the package of this platform
 */

/** Defaults for `loadModel`, as the options of those names. */
export function loadDefaults(): Record<string, unknown> {
  const { NODE_CHORD_DEVICE, NODE_CHORD_THREADS, NODE_CHORD_CPU } = process.env;
  const defaults: Record<string, unknown> = {};
  if (NODE_CHORD_DEVICE) {
    const ids = NODE_CHORD_DEVICE.split(',').map((id) => id.trim());
    defaults['device'] = ids.length === 1 ? ids[0] : ids;
  }
  if (NODE_CHORD_THREADS) {
    const isNumber = /^-?\d+(\.\d+)?$/.test(NODE_CHORD_THREADS);
    defaults['threads'] = isNumber ? Number(NODE_CHORD_THREADS) : NODE_CHORD_THREADS;
  }
  if (NODE_CHORD_CPU) defaults['cpu'] = NODE_CHORD_CPU;
  return defaults;
}

/** Defaults for `memory`, by the names of their variables. */
export function memoryDefaults(): Record<'ram' | 'vram', [name: string, bytes?: string]> {
  const of = (name: string): [string, string?] => {
    const value = process.env[name];
    return value ? [name, value] : [name];
  };
  return { ram: of('NODE_CHORD_RAM'), vram: of('NODE_CHORD_VRAM') };
}

export function logLevel(): string {
  return process.env['NODE_CHORD_LOG'] || 'off';
}

export function addonPath(): string | undefined {
  return process.env['NODE_CHORD_ADDON'] || undefined;
}
