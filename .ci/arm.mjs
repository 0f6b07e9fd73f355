#!/usr/bin/env node
// The ARM tiers under emulation: `npm run arm [-- filter ...]` builds the Rust tests for aarch64
// Linux and runs those of the kernels on three emulated CPUs, whose best tiers differ. Needs a
// cross gcc, qemu-user and Rust's library for the target; takes too long for `npm test`.

import { spawnSync } from 'node:child_process';

const TARGET = 'aarch64-unknown-linux-gnu';
/** CPUs as qemu names them, slowest first, and the best tier of each. */
const CPUS = { 'cortex-a72': 'neon', 'neoverse-n1': 'dotprod', max: 'i8mm' };
const FIRST = 'kernels::every_tier_type_and_row_count';
const FILTERS = ['kernels::', 'attend::every_type', 'attend::nan', 'cpu::every_tier'];

const qemu = ['qemu-aarch64', 'qemu-aarch64-static'].find((name) => has(name));
const gcc = 'aarch64-linux-gnu-gcc';
if (!qemu || !has(gcc)) {
  refuse(`${qemu ? gcc : 'qemu-aarch64'} was not found; CONTRIBUTING.md says what to install`);
}
const env = {
  QEMU_LD_PREFIX: '/usr/aarch64-linux-gnu',
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER: gcc,
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER: qemu,
  ...process.env,
};
const filters = process.argv.slice(2);

cargo({}, '--no-run');
for (const [cpu, tier] of Object.entries(CPUS)) {
  console.log(`\n${cpu}, ${version(qemu)}`);
  const emulated = { QEMU_CPU: cpu };
  const tiers = /^tiers: (.*)$/m.exec(cargo(emulated, '--', FIRST, '--nocapture'))?.[1];
  if (!tiers?.endsWith(` ${tier}`)) refuse(`${cpu} offers '${tiers}', expected up to '${tier}'`);
  cargo(emulated, '--', ...(filters.length > 0 ? filters : FILTERS));
}

/** Runs the tests with these arguments; what they printed. */
function cargo(more, ...args) {
  const all = ['test', '--release', '--target', TARGET, '--test', 'rust', ...args];
  const stdio = ['ignore', 'pipe', 'inherit'];
  const result = spawnSync('cargo', all, { env: { ...env, ...more }, stdio, encoding: 'utf8' });
  process.stdout.write(result.stdout ?? '');
  if (result.status !== 0) refuse(`cargo ${all.join(' ')}: status ${result.status}`);
  return result.stdout;
}

function has(name) {
  return spawnSync(name, ['--version']).status === 0;
}

function version(name) {
  return spawnSync(name, ['--version'], { encoding: 'utf8' }).stdout.split('\n')[0];
}

function refuse(text) {
  console.error(text);
  process.exit(1);
}
