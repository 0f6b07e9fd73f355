/** Prints a generation while it runs, ends it on Ctrl-C, and sums it up in figures. */

import type { ChatChunk, GenerateResult, Generation, TextChunk } from '../../../index.js';
import { onInterrupt } from './interrupt.js';
import type { Opened } from './open.js';
import { bytes, print, printNote } from './terminal.js';

/** How it ended: with a result in any case, since Ctrl-C keeps what there is. */
export interface Answer<R> {
  result: R;
  interrupted: boolean;
}

/** Reads the generation that `start` starts to its end; prints its text unless `quiet`. */
export async function answer<R extends GenerateResult>(
  start: () => Generation<TextChunk | ChatChunk, R>,
  quiet: boolean,
): Promise<Answer<R>> {
  let running: Generation<TextChunk | ChatChunk, R> | undefined;
  // The failure of a cancelled generation reaches the loop below too.
  const interrupt = onInterrupt(() => void running?.cancel().catch(() => {}));
  try {
    const generation = (running = start());
    for await (const chunk of generation) {
      if (!quiet && chunk.type === 'text') await print(chunk.text);
    }
    const result = await generation;
    if (!quiet) await print('\n');
    return { result, interrupted: interrupt.happened };
  } finally {
    interrupt.off();
  }
}

/** `212 tokens | 410 tok/s | first token 12 ms | loaded in 25 ms | peak 61.0 MB | cpu`. */
export function printFigures({ model, loadMs }: Opened, result: GenerateResult): void {
  const { usage, timings } = result;
  const { devices, cpu, threads, peakRam } = model.stats();
  const count = threads === 1 ? '1 thread' : `${threads} threads`;
  const figures = [
    `${usage.completionTokens} tokens`,
    `${timings.tokensPerSecond.toFixed(1)} tok/s`,
    `first token ${timings.firstTokenMs.toFixed(0)} ms`,
    `loaded in ${loadMs.toFixed(0)} ms`,
    `peak memory ${bytes(peakRam)}`,
    `${devices.map(({ id }) => id).join(', ')} (${cpu}, ${count})`,
  ];
  if (timings.bytesRead > 0) figures.push(`${bytes(timings.bytesRead)} read`);
  printNote(figures.join(' | '));
}

/** The same for a script. */
export function summary({ model, loadMs }: Opened, result: GenerateResult): object {
  const { devices, cpu, threads, peakRam } = model.stats();
  const ids = devices.map(({ id }) => id);
  return { model: model.info.path, ...result, loadMs, peakRam, devices: ids, cpu, threads };
}
