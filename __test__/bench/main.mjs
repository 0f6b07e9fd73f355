#!/usr/bin/env node
// `npm run bench -- COMMAND`: benches end to end, their records, and the page made of them.
// Builds nothing but the Rust benches: run `npm run build` before; an old addon is refused.

import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import { curves } from './curves.mjs';
import { draw } from './page.mjs';
import { PEER, peer } from './peer.mjs';
import { rust } from './rust.mjs';

const count = (text) => {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('a whole number above 0');
  return Number(text);
};
const counts = (text) => text.split(',').map(count);
const minutes = (text) => {
  if (!(Number(text) > 0)) throw new InvalidArgumentError('a number above 0');
  return Number(text);
};

const program = new Command('bench').description('Measures, records and draws.');

output(program.command('peer'))
  .description(`node-chord and node-llama-cpp ${PEER} side by side, in alternating runs`)
  .argument('<file...>', 'GGUF files')
  .option('--folder <path>', 'scratch folder', join(tmpdir(), `node-chord-peer-${PEER}`))
  .option('--rounds <n>', 'rounds', count, 5)
  .option('--default-rounds <n>', "rounds that also run the peer's slow default", count, 2)
  .option('--tokens <n>', 'tokens to decode', count, 128)
  .option('--prompt <n>', 'tokens of the prompt (512; 128 for files above 3 GB)', count)
  .option('--decode-seconds <s>', 'decode no longer than this', count, 15)
  .option('--limit <s>', 'kill a run after this', count, 90)
  .option('--minutes <m>', 'start no run that would end later', minutes, 8)
  .option('--fresh', 'forget what an earlier, stopped command measured')
  .action(async (files, options) => (process.exitCode = await peer(files, options)));

output(program.command('curves'))
  .description('rates against context, prompt length and sessions, through the API')
  .argument('<file>', 'GGUF file')
  .option('--contexts <n,..>', 'tokens held', counts, [128, 256, 512, 1024, 2048, 4096, 8192])
  .option('--prompts <n,..>', 'lengths of prompts', counts, [16, 64, 128, 512, 1024, 2048, 4096])
  .option('--sessions <n,..>', 'sessions at once', counts, [1, 2, 4, 8, 16, 32, 64])
  .option('--minutes <m>', 'stop after this', minutes, 8)
  .action(async (file, options) => (process.exitCode = await curves(file, options)));

for (const [name, what] of Object.entries({
  kernels: 'kernels by type and rows, [threads] [types] [rows]',
  model: 'passes of so many rows, FILE [threads] [rows]',
  context: 'the CPU backend against context and KV type, FILE [--kv f16,q8_0] ..',
})) {
  output(program.command(name))
    .description(`cargo bench --bench ${name} as a record: ${what}`)
    .argument('[arguments...]', 'its own, after --')
    .action(async (args, options) => (process.exitCode = await rust(name, args, options)));
}

program
  .command('plots')
  .description('draws docs/benchmarks.md and its plots from the records')
  .action(() => draw());

try {
  await program.parseAsync();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}

function output(command) {
  return command
    .option('--json <file>', 'write the record there')
    .option('--record [name]', 'write it to __test__/bench/records, for the page');
}
