/** The flags: options of the API in kebab-case, how they are read, and who gets which. */

import { type Command, InvalidArgumentError } from 'commander';
import type { ChatOptions, GenerateOptions, LoadOptions } from '../../../index.js';

/** How it is typed, what it means, how its text is read. */
type Flag = readonly [usage: string, description: string, read?: Read];
type Read = (text: string, before: unknown) => unknown;

/** What commander hands to a command: values by their names in camelCase. */
export type Flags = Record<string, unknown> & { json?: boolean };

export const loadFlags: readonly Flag[] = [
  ['--device <id>', "where to compute: auto, cpu, or several: 'cuda:0,cuda:1'", list],
  ['--memory <bytes>', "all that it may take: '2GiB', '2GiB,kv=1GiB', 'vram=8GiB'", memory],
  ['--prefetch <groups>', 'groups read ahead while it is streamed, or auto', autoOr(number)],
  ['--io <way>', 'how weights are read: auto, mmap, direct, buffered'],
  ['--context-length <tokens>', 'tokens that a session may hold, or auto', autoOr(number)],
  ['--kv-type <type>', "how the KV cache is stored: f16, f32, bf16, q8_0, q4_0, or 'k,v'", kvType],
  ['--threads <count>', 'threads that compute, or auto', autoOr(number)],
  ['--cpu <tier>', 'kernel tier, or auto'],
  ['--chat-template <jinja>', "chat template instead of the file's own"],
];

export const generateFlags: readonly Flag[] = [
  ['--max-tokens <count>', 'end after so many tokens', number],
  ['--temperature <t>', '0 is greedy', number],
  ['--top-k <count>', 'only the likeliest so many', number],
  ['--top-p <p>', 'only the likeliest that sum up to this', number],
  ['--min-p <p>', 'only those at least so likely, relative to the best', number],
  ['--typical-p <p>', 'only the most typical that sum up to this', number],
  ['--top-n-sigma <n>', 'only logits within so many standard deviations of the best', number],
  ['--xtc <probability,threshold>', 'at this chance drop the likeliest above the threshold', xtc],
  ['--repeat-penalty <x>', 'divides the logits of tokens seen', number],
  ['--frequency-penalty <x>', 'for each time that a token was seen', number],
  ['--presence-penalty <x>', 'once for a token that was seen', number],
  ['--repeat-last-tokens <count>', 'window of these three', number],
  ['--logit-bias <id=bias>', 'adds to the logit of a token; may be repeated', bias],
  ['--seed <n>', 'the same seed gives the same text', number],
  ['--stop <text>', 'ends the answer; may be repeated', repeated],
  ['--stop-tokens <ids>', "token ids that end the answer: '2,13'", numbers],
  ['--ignore-eos', 'go on past the end'],
  ['--logprobs <count>', 'with --json: log-probabilities and so many alternatives', number],
  ['--no-special', 'control tokens in the text are just text'],
  ['--overflow <how>', 'context full: error or shift'],
  ['--keep <tokens>', 'tokens at the front that shift never drops', number],
];

export const chatFlags: readonly Flag[] = [
  ['--system <text>', 'system message'],
  ['--template-args <json>', 'more variables for the chat template', json],
];

export const diffFlags: readonly Flag[] = [
  ['--a <backend>', "the one that is right: 'reference' (the default) or 'cpu'"],
  ['--b <backend>', "the one to check: 'cpu' (the default) or 'reference'"],
  ['--prompt <text>', 'what both evaluate'],
  ['--threads <count>', 'threads of the CPU backend, or auto', autoOr(number)],
  ['--cpu <tier>', 'kernel tier of the CPU backend, or auto'],
  ['--steps', 'list every step, not only the worst'],
];

export const statsFlag: readonly Flag[] = [
  ['--stats', 'figures of reading and waiting, live on a terminal, else a line at the end'],
];

export const estimateFlags: readonly Flag[] = [
  ['--disk <bytes>', "bytes a second that the disk gives, such as '3GB', instead of measuring"],
];

export const benchFlags: readonly Flag[] = [
  ['--seconds <count>', 'how long it may take in all; 60', number],
  ['--trace <file>', 'writes what was read and computed when, as JSON'],
];

export const inspectFlags: readonly Flag[] = [
  ['--tensors', 'list every tensor'],
  ['--plan', 'show what the model computes instead, step by step'],
];

export const jsonFlag: readonly Flag[] = [['--json', 'print JSON for a script']];

/** Declares flags on a command. */
export function addFlags(command: Command, groups: readonly (readonly Flag[])[]): Command {
  for (const [usage, description, read] of groups.flat()) {
    if (read) command.option(usage, description, read);
    else command.option(usage, description);
  }
  return command;
}

/** Those flags that are options of `loadModel`. */
export function loadOptions(flags: Flags): LoadOptions {
  return picked(flags, loadFlags) as LoadOptions;
}

/** Those flags that are options of `generate`. */
export function generateOptions(flags: Flags): GenerateOptions {
  return picked(flags, generateFlags) as GenerateOptions;
}

/** Those flags that are options of `chat`. */
export function chatOptions(flags: Flags): ChatOptions {
  const { system: _, ...options } = picked(flags, [...generateFlags, ...chatFlags]);
  return options as ChatOptions;
}

/** What was typed, of these flags; the API sees nothing else and so keeps its own defaults. */
function picked(flags: Flags, known: readonly Flag[]): Record<string, unknown> {
  const names = known.map(([usage]) => camelCase(usage));
  const chosen = names.filter((name) => flags[name] !== undefined);
  return Object.fromEntries(chosen.map((name) => [name, flags[name]]));
}

/** `--max-tokens <count>` -> maxTokens; `--no-special` -> special. */
function camelCase(usage: string): string {
  const name = usage.split(' ')[0]!.replace(/^--(no-)?/, '');
  return name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || Number.isNaN(value)) throw new InvalidArgumentError('Not a number.');
  return value;
}

function numbers(text: string): number[] {
  return text.split(',').map(number);
}

function autoOr(read: (text: string) => number): Read {
  return (text) => (text === 'auto' ? text : read(text));
}

/** `2GiB`, `2GiB,512MiB` (ram, kv), or parts by name: `ram=2GiB,vram=8GiB`. */
function memory(text: string): unknown {
  const order = ['ram', 'kv'];
  const parts = text.split(',').map((part, index) => {
    const [name, bytes, more] = part.includes('=') ? part.split('=') : [order[index], part];
    if (name === undefined || more !== undefined) {
      throw new InvalidArgumentError("Write '2GiB', 'ram,kv' or 'ram=2GiB,vram=8GiB'.");
    }
    return [name, bytes] as const;
  });
  return Object.fromEntries(parts);
}

function list(text: string): string | string[] {
  const parts = text.split(',').map((part) => part.trim());
  return parts.length === 1 ? text : parts;
}

function kvType(text: string): unknown {
  const [k, v, more] = text.split(',');
  if (more !== undefined) throw new InvalidArgumentError("One type, or two: 'k,v'.");
  return v === undefined ? k : { k, v };
}

function xtc(text: string): unknown {
  const [probability, threshold, more] = numbers(text);
  const whole = threshold !== undefined && more === undefined;
  if (!whole) throw new InvalidArgumentError('Two numbers: probability,threshold.');
  return { probability, threshold };
}

function bias(text: string, before: unknown): unknown {
  const [id, value, more] = text.split('=');
  if (value === undefined || more !== undefined) throw new InvalidArgumentError('Write id=bias.');
  return { ...(before as object | undefined), [number(id!)]: number(value) };
}

function repeated(text: string, before: unknown): unknown {
  return [...((before as string[] | undefined) ?? []), text];
}

function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InvalidArgumentError(`Not JSON: ${(error as Error).message}`);
  }
}
