#!/usr/bin/env node
/** The command `chord`: which commands there are, and what their ends mean to a shell. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, CommanderError } from 'commander';
import * as flagGroups from './flags.js';
import { addFlags } from './flags.js';
import { Interrupted } from './interrupt.js';
import { leaveWhereNobodyReads, printError, printJson } from './terminal.js';

/** What `chord` exits with. */
export const EXIT = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** Mistakes of whoever typed the command, not of a file or the machine. */
const USAGE_CODES = ['ERR_INVALID_ARG', 'ERR_UNKNOWN_OPTION'];

leaveWhereNobodyReads();
void main();

async function main(): Promise<void> {
  try {
    await program().parseAsync();
  } catch (error) {
    process.exitCode = failed(error);
  }
}

function program(): Command {
  const { loadFlags, generateFlags, chatFlags, diffFlags, statsFlag, jsonFlag } = flagGroups;
  const { estimateFlags, benchFlags, inspectFlags } = flagGroups;
  const { version } = JSON.parse(readFileSync(join(__dirname, '../../package.json'), 'utf8'));
  const chord = new Command('chord')
    .description('Runs GGUF language models.')
    .version(version)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error:/, 'chord:')) })
    .showHelpAfterError('(chord <command> --help tells more)')
    .helpCommand(false);
  const add = (usage: string, description: string) =>
    // A command inherits exitOverride from the program that makes it.
    chord.command(usage).description(description).allowExcessArguments(false);

  addFlags(
    add('run <model> [prompt]', "Continues a text; '-' or no prompt: the text comes from stdin."),
    [loadFlags, generateFlags, statsFlag, jsonFlag],
  ).action(async (model, prompt, flags) => {
    const { run } = await import('./run.js');
    process.exitCode = await run(model, prompt, flags);
  });
  addFlags(
    add('chat <model> [message]', 'Answers a message, or talks as long as there are lines.'),
    [loadFlags, chatFlags, generateFlags, jsonFlag],
  ).action(async (model, message, flags) => {
    const { chat } = await import('./chat.js');
    process.exitCode = await chat(model, message, flags);
  });
  addFlags(add('inspect <model>', 'Shows what a file holds and whether it can be run.'), [
    inspectFlags,
    jsonFlag,
  ]).action(async (model, flags) => {
    if (flags.plan) {
      const { plan } = await import('./plan.js');
      process.exitCode = await plan(model, Boolean(flags.json));
      return;
    }
    const { inspect } = await import('./inspect.js');
    process.exitCode = await inspect(model, flags);
  });
  addFlags(add('estimate <model>', 'Tells what loading would take, and how fast it would run.'), [
    loadFlags,
    estimateFlags,
    jsonFlag,
  ]).action(async (model, flags) => {
    const { estimate } = await import('./estimate.js');
    process.exitCode = await estimate(model, flags);
  });
  addFlags(add('bench <model>', 'Measures a model, beside what was predicted, in a minute.'), [
    loadFlags,
    benchFlags,
    jsonFlag,
  ]).action(async (model, flags) => {
    const { bench } = await import('./bench.js');
    process.exitCode = await bench(model, flags);
  });
  addFlags(
    add('diff <model>', 'Runs two backends side by side and names the first step that differs.'),
    [diffFlags, jsonFlag],
  ).action(async (model, flags) => {
    const { diff } = await import('./diff.js');
    process.exitCode = await diff(model, flags);
  });
  addFlags(add('devices', 'Lists what could compute here.'), [jsonFlag]).action(async (flags) => {
    const { devices } = await import('./devices.js');
    process.exitCode = await devices(flags);
  });
  return chord;
}

/** Says what went wrong; the exit status that it earns. */
function failed(error: unknown): number {
  if (error instanceof Interrupted) return EXIT.interrupted;
  // commander has said it already; help and version are no failures.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
  const { code, message } = error as { code?: string; message?: string };
  if (process.argv.includes('--json')) {
    const known = error as { toJSON?: () => object };
    printJson({
      error: known.toJSON?.() ?? { code: code ?? null, message: message ?? `${error}` },
    });
  } else {
    printError(message ?? String(error));
  }
  return code !== undefined && USAGE_CODES.includes(code) ? EXIT.usage : EXIT.failed;
}
