/** What is special about a terminal: colour and a progress bar there, plain text elsewhere. */

import { once } from 'node:events';
import { Presets, SingleBar } from 'cli-progress';
import pico from 'picocolors';
import type { Progress } from '../../../index.js';

/** Colours for what goes to a stream: none unless it is a terminal and nobody objects. */
export function colours(stream: NodeJS.WriteStream): ReturnType<typeof pico.createColors> {
  const { NO_COLOR, TERM } = process.env;
  return pico.createColors(Boolean(stream.isTTY) && !NO_COLOR && TERM !== 'dumb');
}

/** Whether a stream is a terminal that moves its cursor. */
export function canDraw(stream: NodeJS.WriteStream): boolean {
  return Boolean(stream.isTTY) && process.env['TERM'] !== 'dumb';
}

/** A reader that has seen enough (`| head`) is no failure; a disk that is full is one. */
export function leaveWhereNobodyReads(): void {
  process.stderr.on('error', () => process.exit());
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    printError(`writing to stdout: ${error.message}`);
    process.exit(1);
  });
}

/** Writes to stdout and waits where the reader is slow. */
export async function print(text: string): Promise<void> {
  if (text !== '' && !process.stdout.write(text)) await once(process.stdout, 'drain');
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, jsonItem, 2)}\n`);
}

export function printError(message: string): void {
  process.stderr.write(`${colours(process.stderr).red('chord:')} ${message}\n`);
}

/** A line beside the answer: on stderr, where it disturbs no pipe. */
export function printNote(line: string): void {
  process.stderr.write(`${colours(process.stderr).dim(line)}\n`);
}

/** A progress bar for a task's `onProgress`, on a terminal; `stop` takes it away. */
export function progressBar(title: string): { update(progress: Progress): void; stop(): void } {
  if (!process.stderr.isTTY) return { update() {}, stop() {} };
  const format = `${title} {bar} {percentage} % of {size}`;
  // Signals are ours: its own handler would swallow the first SIGTERM.
  const options = { format, stream: process.stderr, clearOnComplete: true, gracefulExit: false };
  const bar = new SingleBar(options, Presets.shades_classic);
  let started = false;
  return {
    update({ done, total }) {
      if (started) return bar.update(done);
      started = true;
      bar.start(total, done, { size: bytes(total) });
    },
    stop: () => bar.stop(),
  };
}

/** `3.3 MB`. */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(count || 1) / 3)));
  return `${(count / 1000 ** step).toFixed(step === 0 ? 0 : 1)} ${units[step]}`;
}

/** JSON has no bigint, no typed arrays and no maps. */
function jsonItem(_: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  return ArrayBuffer.isView(value) ? Array.from(value as Uint8Array) : value;
}
