/** Opens the model of a command with a progress bar, and reads what was piped in. */

import type { Model } from '../../../index.js';
import { loadModel } from '../index.js';
import { type Flags, loadOptions } from './flags.js';
import { Interrupted, onInterrupt } from './interrupt.js';
import { progressBar } from './terminal.js';

/** A loaded model and how long that took. */
export interface Opened {
  model: Model;
  loadMs: number;
}

/** Loads a model; Ctrl-C calls that off. */
export async function open(path: string, flags: Flags): Promise<Opened> {
  const started = performance.now();
  const bar = progressBar(`loading ${path}`);
  const { signal, abort } = abortController();
  const interrupt = onInterrupt(abort);
  try {
    const options = { ...loadOptions(flags), signal, onProgress: bar.update };
    const model = await loadModel(path, options);
    return { model, loadMs: performance.now() - started };
  } catch (error) {
    if (interrupt.happened) throw new Interrupted();
    throw error;
  } finally {
    interrupt.off();
    bar.stop();
  }
}

/** All of stdin as text; a line break at its end is the shell's, not the text's. */
export async function readInput(): Promise<string> {
  process.stdin.setEncoding('utf8');
  let text = '';
  for await (const piece of process.stdin) text += piece;
  return text.replace(/\r?\n$/, '');
}

function abortController(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController();
  return { signal: controller.signal, abort: () => controller.abort() };
}
