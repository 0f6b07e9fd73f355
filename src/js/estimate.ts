/** `estimate`: what loading a model would lead to. */

import * as os from 'node:os';
import type * as api from '../../index.js';
import * as is from './check.js';
import { awaiting } from './errors.js';
import { nativeOptions, readLoadOptions } from './load-options.js';
import { native as addon } from './native.js';
import { abortable } from './task.js';

export async function estimate(path: api.Path, given?: api.LoadOptions): Promise<api.Estimate> {
  return (await estimateOn(path, given, null)).estimate;
}

/** The same for a disk of so many bytes a second, and what it counts on; null: it is measured. */
export async function estimateOn(
  path: api.Path,
  given: api.LoadOptions | undefined,
  disk: api.Bytes | null,
): Promise<{ estimate: api.Estimate; disk: number | null }> {
  const file = is.path(path, 'path');
  const read = readLoadOptions(given);
  const rate = disk === null ? null : is.bytes(disk, 'disk');
  const cancel = new (addon().NativeCancel)();
  const work = () => awaiting(() => addon().estimate(file, nativeOptions(read), rate, cancel));
  const json = await abortable(read.signal, () => cancel.cancel(), work);
  const { disk: counted, ...estimate } = JSON.parse(json);
  estimate.ram.limit ??= machineBytes();
  return { estimate, disk: counted };
}

/** Bytes that this process could have at most. */
export function machineBytes(): number {
  const constrained = process.constrainedMemory();
  const total = os.totalmem();
  return constrained > 0 ? Math.min(constrained, total) : total;
}
