/** `chord run`: continues a text as `model.generate` does, and exits. */

import { answer, printFigures, summary } from './answer.js';
import { type Flags, generateOptions } from './flags.js';
import { open, readInput } from './open.js';
import { status } from './status.js';
import { colours, print, printJson } from './terminal.js';
import { usageError } from './usage.js';

/** The exit status. */
export async function run(path: string, given: string | undefined, flags: Flags): Promise<number> {
  if (given === undefined && process.stdin.isTTY) {
    throw usageError("no prompt: give one, or '-' to type it on stdin");
  }
  const prompt = given === undefined || given === '-' ? await readInput() : given;
  const opened = await open(path, flags);
  try {
    const start = () => opened.model.generate(prompt, generateOptions(flags));
    const shown = flags['stats'] ? status(opened.model) : undefined;
    // Whoever watches sees the whole text; a pipe gets what is new.
    if (!flags.json && process.stdout.isTTY) await print(colours(process.stdout).dim(prompt));
    const { result, interrupted } = await answer(start, Boolean(flags.json)).finally(() =>
      shown?.stop(),
    );
    if (flags.json) printJson(summary(opened, result));
    else printFigures(opened, result);
    return interrupted ? 130 : 0;
  } finally {
    await opened.model.close();
  }
}
