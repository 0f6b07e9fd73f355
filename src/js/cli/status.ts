/**
 * Figures of a streaming model at the bottom of the terminal while its text scrolls above: the last
 * lines are kept out of the part that scrolls. Elsewhere than on a terminal one line at the end.
 */

import type { Model, Stats } from '../../../index.js';
import { bytes, canDraw, colours, printNote } from './terminal.js';

const EVERY_MS = 250;
const LINES = 2;

/** Shows a model's figures until `stop`. */
export function status(model: Model): { stop(): void } {
  const out = process.stderr;
  const first = model.stats();
  const began = performance.now();
  const last = () => {
    const now = model.stats();
    printNote(figures(first, now, performance.now() - began).join(' | '));
  };
  const isLive = canDraw(out) && (out.rows ?? 0) > 2 * LINES;
  if (!isLive) return { stop: last };
  const { dim } = colours(out);
  let [before, at] = [first, began];
  const reserve = () => {
    // Scrolls what stands there up, then keeps the last lines for us.
    out.write(`${'\n'.repeat(LINES)}\x1b7\x1b[1;${out.rows - LINES}r\x1b8\x1b[${LINES}A`);
  };
  const draw = () => {
    const [now, time] = [model.stats(), performance.now()];
    const lines = [figures(before, now, time - at).join(' | '), map(now, out.columns)];
    [before, at] = [now, time];
    const shown = lines.map((line, index) => {
      return `\x1b[${out.rows - LINES + 1 + index};1H\x1b[2K${dim(line.slice(0, out.columns))}`;
    });
    out.write(`\x1b7${shown.join('')}\x1b8`);
  };
  const clear = () => {
    const rows = Array.from({ length: LINES }, (_, i) => `\x1b[${out.rows - i};1H\x1b[2K`);
    out.write(`\x1b7\x1b[r${rows.join('')}\x1b8`);
  };
  reserve();
  const timer = setInterval(draw, EVERY_MS);
  out.on('resize', reserve);
  return {
    stop() {
      clearInterval(timer);
      out.off('resize', reserve);
      clear();
      last();
    },
  };
}

/** What happened between two moments. */
export function figures(before: Stats, now: Stats, ms: number): string[] {
  const read = now.io.bytesRead - before.io.bytesRead;
  const waited = Math.min(1, (now.io.stallMs - before.io.stallMs) / Math.max(ms, 1));
  const some = (of: 'hits' | 'misses' | 'late' | 'guessed' | 'guessedRight') => {
    const sum = (stats: Stats) => stats.groups.reduce((total, group) => total + group[of], 0);
    return sum(now) - sum(before);
  };
  const [hits, misses, late] = [some('hits'), some('misses'), some('late')];
  const percent = (part: number, all: number) => `${((part / all) * 100).toFixed(0)} %`;
  const all = hits + misses + late;
  const inTime = all === 0 ? '-' : percent(hits, all);
  const guessed = some('guessed');
  return [
    `read ${bytes((read / Math.max(ms, 1)) * 1e3)}/s, ${bytes(now.io.bytesRead)} in all`,
    `${now.io.inFlight} in flight`,
    `waited ${(waited * 100).toFixed(0)} %`,
    `in time ${inTime} (${misses} missed, ${late} late)`,
    ...(guessed === 0
      ? []
      : [`${guessed} guessed, ${percent(some('guessedRight'), guessed)} right`]),
    now.io.backend,
  ];
}

/** A letter a group: `#` stays, `=` is there, `>` comes, `.` is on disk only. */
function map(stats: Stats, columns: number): string {
  const marks = { pinned: '#', ready: '=', loading: '>', cold: '.' };
  const line = stats.groups.map(({ state }) => marks[state]).join('');
  return line.length <= columns ? line : `${line.slice(0, columns - 1)}…`;
}
