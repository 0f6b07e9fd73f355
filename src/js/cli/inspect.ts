/** `chord inspect`: what a GGUF file holds, and whether it can be run. */

import type { GgufInfo, Meta } from '../../../index.js';
import { inspect as read } from '../index.js';
import type { Flags } from './flags.js';
import { bytes, colours, print, printJson } from './terminal.js';

/** Longer texts and lists are cut; `--json` shows all. */
const TEXT_LENGTH = 72;
const LIST_LENGTH = 6;

/** The exit status. */
export async function inspect(path: string, flags: Flags): Promise<number> {
  const info = await read(path);
  if (flags.json) {
    printJson(info);
    return 0;
  }
  const { bold, green, red } = colours(process.stdout);
  const verdict = info.supported ? green('can be run') : red('cannot be run');
  const parts = info.files.length === 1 ? '' : `, ${info.files.length} files`;
  await print(`${bold(path)}: GGUF version ${info.version}, ${bytes(info.fileBytes)}${parts}\n`);
  await print(`${verdict}${info.reasons.map((reason) => `\n  ${reason}`).join('')}\n`);
  await print(`\n${bold('metadata')} (${Object.keys(info.metadata).length})\n`);
  for (const [key, value] of Object.entries(info.metadata))
    await print(`  ${key} = ${shown(value)}\n`);
  await print(`\n${bold('tensors')} (${info.tensors.length})\n`);
  for (const line of flags['tensors'] ? tensors(info) : types(info)) await print(`  ${line}\n`);
  return 0;
}

/** One line a tensor. */
function* tensors({ tensors }: GgufInfo): Generator<string> {
  const width = Math.max(...tensors.map(({ name }) => name.length));
  for (const { name, type, shape, bytes: size } of tensors) {
    yield `${name.padEnd(width)}  ${type.padEnd(7)} [${shape.join(', ')}]  ${bytes(size)}`;
  }
}

/** One line a tensor type, the heaviest first. */
function* types({ tensors }: GgufInfo): Generator<string> {
  const sums = new Map<string, { count: number; size: number }>();
  for (const { type, bytes: size } of tensors) {
    const sum = sums.get(type) ?? { count: 0, size: 0 };
    sums.set(type, { count: sum.count + 1, size: sum.size + size });
  }
  for (const [type, { count, size }] of [...sums].sort((a, b) => b[1].size - a[1].size)) {
    yield `${type.padEnd(7)} ${String(count).padStart(5)} tensors  ${bytes(size)}`;
  }
}

/** A value on one line. */
function shown(value: Meta): string {
  if (Array.isArray(value)) {
    const first = value.slice(0, LIST_LENGTH).map(shown).join(', ');
    return value.length > LIST_LENGTH ? `[${first}, ... ${value.length} in all]` : `[${first}]`;
  }
  if (typeof value !== 'string') return String(value);
  const line = JSON.stringify(value);
  return line.length > TEXT_LENGTH ? `${line.slice(0, TEXT_LENGTH)}...` : line;
}
