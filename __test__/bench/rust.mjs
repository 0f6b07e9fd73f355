// The Rust benches (`cargo bench --bench NAME`) as records: their lines of JSON, with the head that
// all records have.

import { spawn } from 'node:child_process';
import { basename } from 'node:path';
import { benchPath } from './machine.mjs';
import { begin, save } from './record.mjs';
import { digits, figure } from './stats.mjs';

/** Runs a bench with its own arguments; the exit status. */
export async function rust(name, args, options) {
  const path = benchPath(name);
  const finish = begin(name);
  const rows = [];
  const status = await lines(path, [...args, '--json'], (row) => {
    rows.push(rounded(row));
    const figures = Object.entries(rows.at(-1)).filter(([, value]) => typeof value !== 'object');
    console.log(figures.map(([name, value]) => `${name} ${shown(value)}`).join('  '));
  });
  if (rows.length > 0) save(finish({ arguments: args.map(rounded), rows }), options);
  return status;
}

/** Calls `each` with every object that is a line, or in a line's array; the exit status. */
function lines(path, args, each) {
  const child = spawn(path, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let rest = '';
  child.stdout.setEncoding('utf8').on('data', (data) => {
    const whole = (rest + data).split('\n');
    rest = whole.pop();
    for (const line of whole) if (/^[[{]/.test(line)) [JSON.parse(line)].flat().forEach(each);
  });
  return new Promise((resolve) => child.on('close', (code) => resolve(code ?? 1)));
}

/** Four digits throughout, and no folders: a record names no place on a machine. */
function rounded(value) {
  if (typeof value === 'number') return digits(value);
  if (typeof value === 'string') return basename(value);
  if (Array.isArray(value)) return value.map(rounded);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, rounded(each)]));
}

function shown(value) {
  return typeof value === 'number' && !Number.isInteger(value) ? figure(value) : value;
}
