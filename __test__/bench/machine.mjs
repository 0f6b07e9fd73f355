// The machine that figures come from: what it is, its limits as `machine.rs` measures them, and how
// much of it other work took meanwhile. Linux tells most; elsewhere what it cannot tell is null.

import { execFile, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Flags of a CPU that kernels care about, in the spelling of /proc/cpuinfo. */
const FEATURES =
  'avx2 fma f16c avx_vnni avx512f avx512bw avx512vl avx512_vnni avx512_vbmi avx512_bf16 amx_int8 ' +
  'asimd asimddp i8mm sve bf16';

/** What the machine is. */
export function machine() {
  const flags = /^(?:flags|Features)\s*:(.*)$/m.exec(text('/proc/cpuinfo'))?.[1].split(' ') ?? [];
  const pages = /\[(\w+)\]/.exec(text('/sys/kernel/mm/transparent_hugepage/enabled'));
  return {
    cpu: os.cpus()[0]?.model.trim() ?? null,
    family: Number(/^cpu family\s*: (\d+)/m.exec(text('/proc/cpuinfo'))?.[1] ?? NaN) || null,
    features: FEATURES.split(' ').filter((flag) => flags.includes(flag)),
    cores: os.cpus().length,
    memoryGiB: Math.round((10 * os.totalmem()) / 2 ** 30) / 10,
    virtual: flags.includes('hypervisor'),
    kernel: `${os.type()} ${os.release()}`,
    hugePages: pages?.[1] ?? null,
  };
}

/** What of this repository an addon or a bench is built from. */
const SOURCES = ['src', 'Cargo.toml', 'Cargo.lock'];

/** What was measured: Node, and the last commit of the sources ('+': with changes since). */
export function versions() {
  const changed = git('status', '--porcelain', '--', ...SOURCES);
  const commit = git('log', '-1', '--format=%h', '--abbrev=12', '--', ...SOURCES);
  const { version } = JSON.parse(text(join(ROOT, 'package.json')));
  return {
    node: process.versions.node,
    'node-chord': version,
    commit: commit ? commit + (changed ? '+' : '') : null,
  };
}

/** Throws if a source is newer than the addon in dist/, which would be measured in its place. */
export function checkBuilt() {
  const time = (path) => fs.statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const newest = (paths) => Math.max(0, ...paths.map((path) => time(join(ROOT, path))));
  const sources = git('ls-files', '--', ...SOURCES).split('\n');
  if (newest(sources) > newest(addons())) {
    throw new Error('the addon is older than its sources: npm run build');
  }
}

/** The built addons, as paths below the root. */
export function addons() {
  const names = fs.existsSync(join(ROOT, 'dist')) ? fs.readdirSync(join(ROOT, 'dist')) : [];
  return names.filter((name) => name.endsWith('.node')).map((name) => join('dist', name));
}

function git(...args) {
  return spawnSync('git', args, { cwd: ROOT, encoding: 'utf8' }).stdout?.trim() ?? '';
}

/**
 * Builds a bench of Cargo.toml and gives the path of its executable, so that it can be run many
 * times without cargo. Throws if it cannot be built.
 */
export function benchPath(name) {
  const args = ['bench', '--bench', name, '--no-run', '--message-format=json'];
  const built = spawnSync('cargo', args, {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 2 ** 28,
  });
  const found = /^.*"executable":"([^"]+)".*$/gm;
  const paths = [...(built.stdout ?? '').matchAll(found)].map((match) => match[1]);
  const path = paths.find((each) => each.includes(`${name}-`));
  if (built.status !== 0 || !path) throw new Error(`cargo ${args.join(' ')} failed`);
  return JSON.parse(`"${path}"`);
}

/** A function that measures the machine's limits once (GB/s, Gop/s, Gflop/s), in 0.2 s. */
export function limitsMeter() {
  const path = benchPath('machine');
  const run = promisify(execFile);
  return async () => JSON.parse((await run(path, [], { timeout: 20_000 })).stdout);
}

/** Counts what others take: `watch()`, then later `told()` gives shares of all processor time. */
export function watch() {
  const [from, own] = [processors(), ownTicks()];
  const load = os.loadavg()[0];
  return function told() {
    const to = processors();
    if (!from || !to) return { loadAtStart: load, steal: null, others: null };
    const total = to.total - from.total || 1;
    const share = (ticks) => Math.round((1000 * Math.max(0, ticks)) / total) / 1000;
    const others = to.busy - from.busy - (ownTicks() - own);
    return {
      loadAtStart: Math.round(10 * load) / 10,
      steal: share(to.steal - from.steal),
      others: share(others),
    };
  };
}

/** Ticks of all processors since the start: all, busy (steal not counted), stolen. */
function processors() {
  const line = /^cpu +(.*)$/m.exec(text('/proc/stat'));
  if (!line) return null;
  const [user, nice, system, idle, wait, irq, soft, steal] = line[1].split(' ').map(Number);
  const busy = user + nice + system + irq + soft;
  return { total: busy + idle + wait + steal, busy, steal };
}

/** Ticks of this process and of its children that have ended. */
function ownTicks() {
  const fields = text('/proc/self/stat')
    .replace(/^.*\) /, '')
    .split(' ')
    .slice(11, 15);
  return fields.reduce((sum, field) => sum + Number(field), 0);
}

function text(path) {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
