/** `chord diff`: two backends side by side on one model, step by step. */

import { calling, awaiting } from '../errors.js';
import { readLoadOptions } from '../load-options.js';
import { native, type Native, type NativeCancel } from '../native.js';
import type { Flags } from './flags.js';
import { Interrupted, onInterrupt } from './interrupt.js';
import { colours, print, printJson } from './terminal.js';

/** Steps that are shown when none differs. */
const WORST_COUNT = 5;
const PROMPT = 'Once upon a time, there was a little girl called Lily. She had a red ball.';

/** The addon's own comparison, which is no part of the public surface: JSON in, JSON out. */
interface Comparing {
  diff(request: string, cancel: NativeCancel): Promise<string>;
}

/** What it reports. */
interface Report {
  a: string;
  b: string;
  tokens: number;
  difference: Difference | null;
  notFinite: { step: string; backend: string; position: number; value: string } | null;
  steps: Step[];
  /** Positions at which the two have another best token. */
  otherBest: number[];
}

/** What is not finite comes as text. */
type Figure = number | 'inf' | '-inf' | 'NaN';

interface Difference {
  step: string;
  relative: Figure;
  allowed: Figure;
  position: number;
  element: number;
  a: Figure;
  b: Figure;
}

interface Step {
  group: string;
  op: string;
  output: string;
  rows: number;
  relative: Figure;
  allowed: Figure;
}

/** The exit status: 1 if the backends differ. */
export async function diff(path: string, flags: Flags): Promise<number> {
  const report = await compare(path, flags);
  const differ = report.difference !== null || report.notFinite !== null;
  if (flags.json) printJson(report);
  else await show(report, Boolean(flags['steps']));
  return differ ? 1 : 0;
}

async function compare(path: string, flags: Flags): Promise<Report> {
  const addon = native() as Native & Comparing;
  const cancel = new addon.NativeCancel();
  const interrupt = onInterrupt(() => cancel.cancel());
  const { a = 'reference', b = 'cpu', prompt = PROMPT } = flags;
  // As everywhere, the environment stands for what is absent.
  const { threads, cpu } = readLoadOptions({ threads: flags['threads'], cpu: flags['cpu'] });
  const request = JSON.stringify({ path, a, b, prompt, threads, cpu });
  try {
    return JSON.parse(await awaiting(() => calling(() => addon.diff(request, cancel)))) as Report;
  } catch (error) {
    throw interrupt.happened ? new Interrupted() : error;
  } finally {
    interrupt.off();
  }
}

async function show(report: Report, all: boolean): Promise<void> {
  const { bold, green, red, dim } = colours(process.stdout);
  const { a, b, tokens, difference, notFinite, steps, otherBest } = report;
  await print(`${bold(a)} and ${bold(b)}: ${steps.length} steps over ${tokens} tokens\n`);
  if (notFinite) {
    const { step, backend, position, value } = notFinite;
    await print(`${red(`${value} in ${backend}`)} at token ${position}: ${step}\n`);
  }
  if (difference) {
    const { step, relative, allowed, position, element } = difference;
    await print(`${red('first step that differs')}: ${step}\n`);
    await print(`  ${figures(relative, allowed)}; most at token ${position}, number ${element}: `);
    await print(`${difference.a} and ${difference.b}\n`);
  } else if (!notFinite) {
    await print(`${green('no step differs')} by more than it may\n`);
  }
  if (otherBest.length) await print(`another best token at ${otherBest.join(', ')}\n`);
  for (const step of all ? steps : worst(steps)) {
    const shown = step.rows ? figures(step.relative, step.allowed) : 'fused away';
    await print(dim(`  ${step.group} ${step.op} ${step.output}: ${shown}\n`));
  }
}

/** Those that came nearest to what they may differ by. */
function worst(steps: Step[]): Step[] {
  const size = (figure: Figure) => (typeof figure === 'number' ? figure : Number.MAX_VALUE);
  const share = ({ relative, allowed }: Step) => size(relative) / (size(allowed) || 1);
  const shown = steps.filter(({ rows }) => rows > 0);
  return shown.sort((x, y) => share(y) - share(x)).slice(0, WORST_COUNT);
}

function figures(relative: Figure, allowed: Figure): string {
  const text = (figure: Figure) => (typeof figure === 'number' ? figure.toExponential(1) : figure);
  return `${text(relative)} apart, ${text(allowed)} allowed`;
}
