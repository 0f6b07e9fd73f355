/** Mistakes in a command line that only a command itself can see. */

import { CommanderError } from 'commander';
import { printError } from './terminal.js';

/** Says what is wrong; to be thrown, it ends `chord` with the status for wrong usage. */
export function usageError(message: string): CommanderError {
  printError(message);
  return new CommanderError(2, 'chord.usage', message);
}
