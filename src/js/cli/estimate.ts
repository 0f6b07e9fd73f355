/** `chord estimate`: what loading a model would lead to, and how fast it would run. */

import type { Estimate } from '../../../index.js';
import { estimateOn } from '../estimate.js';
import { type Flags, loadOptions } from './flags.js';
import { onInterrupt, Interrupted } from './interrupt.js';
import { bytes, colours, print, printJson } from './terminal.js';

/** The exit status: 1 if it does not fit. */
export async function estimate(path: string, flags: Flags): Promise<number> {
  const controller = new AbortController();
  const interrupt = onInterrupt(() => controller.abort());
  const disk = (flags['disk'] as string | undefined) ?? null;
  try {
    const options = { ...loadOptions(flags), signal: controller.signal };
    const { estimate, disk: counted } = await estimateOn(path, options, disk);
    if (flags.json) printJson({ ...estimate, disk: counted });
    else await show(path, estimate, counted);
    return estimate.fits ? 0 : 1;
  } catch (error) {
    if (interrupt.happened) throw new Interrupted();
    throw error;
  } finally {
    interrupt.off();
  }
}

async function show(path: string, estimate: Estimate, disk: number | null): Promise<void> {
  const { bold, green, red } = colours(process.stdout);
  const { ram, minimum, groups } = estimate;
  const verdict = estimate.fits ? green('fits') : red('does not fit');
  await print(`${bold(path)} ${verdict} into ${bytes(ram.limit)}\n`);
  if (!estimate.fits) await print(`the smallest budget that works is shown instead\n`);
  const parts = ['weights', 'ring', 'kv', 'activations', 'scratch', 'staging'] as const;
  const used = parts.filter((part) => ram[part] > 0);
  const line = used.map((part) => `${part} ${bytes(ram[part])}`).join(', ');
  await print(`takes ${bytes(ram.total)}: ${line}\n`);
  await print(`needs at least ${bytes(minimum.ram)} (${minimum.ram} bytes)\n`);
  const count = (place: string) => groups.filter((group) => group.place === place).length;
  const places = ['pinned', 'streamed', 'cached'].filter((place) => count(place) > 0);
  const where = places.map((place) => `${count(place)} ${place}`).join(', ');
  await print(`groups: ${where}; a session holds ${estimate.contextLength} tokens\n`);
  if (disk !== null) {
    await print(`reads ${bytes(estimate.bytesPerPass)} a pass from a disk of ${bytes(disk)}/s\n`);
  }
  const [decode, prompt] = [estimate.tokensPerSecond, estimate.promptTokensPerSecond];
  await print(`expect ${rate(decode)} tokens/s, ${rate(prompt)} of a long prompt\n`);
}

/** Three digits that matter. */
export function rate(value: number): string {
  return value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
