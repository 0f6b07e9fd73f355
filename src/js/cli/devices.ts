/** `chord devices`: what could compute here, and why some cannot. */

import { devices as list } from '../index.js';
import type { Flags } from './flags.js';
import { bytes, colours, print, printJson } from './terminal.js';

/** The exit status. */
export async function devices(flags: Flags): Promise<number> {
  const found = await list();
  if (flags.json) {
    printJson(found);
    return 0;
  }
  const { bold, dim } = colours(process.stdout);
  for (const { id, name, usable, reason, total, free } of found) {
    const state = usable ? `${bytes(free)} of ${bytes(total)} free` : `unusable: ${reason}`;
    await print(`${bold(id.padEnd(10))} ${name}  ${dim(state)}\n`);
  }
  return 0;
}
