#!/usr/bin/env node
// The project's chores: `node .ci/tasks.mjs demo|test|build|dist [step ...]`, which the scripts of
// package.json call. Plain Node without packages, since it also runs before anything is installed.
// A chore is a list of steps; naming steps after it runs those alone (`npm test -- js`).

import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const DIST = join(ROOT, 'dist');
const CI = Boolean(process.env.CI);
const MODEL = 'models/chord-5m-Q4_K_M.gguf';
/** What the tools of package-lock.json ask for; the published package runs from 20.9 on. */
const NODE_LEAST = '20.17.0';
const RUST_LEAST = /^rust-version = "([\d.]+)"/m.exec(read('Cargo.toml'))?.[1] ?? '1.90';

/** npm calls `dist` from `npm pack`, whose stdout is its own. */
const OUT = process.argv[2] === 'dist' ? process.stderr : process.stdout;

/** A failure that is explained in full by its message. */
class Refusal extends Error {}

const steps = {
  tools: { title: 'check Node and Rust', run: checkTools },
  install: { title: 'install the npm packages', run: install },
  addon: { title: 'build the addon (release)', run: buildAddon },
  dist: { title: 'compile src/js to dist', run: buildDist },
  story: { title: `tell a story with ${MODEL}`, run: tellStory, isLast: true },
  rustfmt: { title: 'Rust format', run: () => component('rustfmt', ['fmt', '--check']) },
  prettier: { title: 'JavaScript format', run: () => bin('prettier', '--check', '.') },
  rust: { title: 'Rust tests', run: () => cargo('test', '--release') },
  types: { title: 'type tests', run: typeTests },
  js: { title: 'JavaScript tests', run: () => jsTests() },
  clippy: { title: 'clippy', run: clippy },
};

/** `build`: what the rest needs, so a failure there ends the chore; a failed check does not. */
const chores = {
  demo: { build: ['tools', 'install', 'addon', 'dist', 'story'], checks: [] },
  test: {
    build: ['tools', 'install', 'addon', 'dist'],
    checks: ['rustfmt', 'prettier', 'types', 'js', 'rust', 'clippy'],
  },
  build: { build: ['tools', 'install', 'addon', 'dist'], checks: [] },
  dist: { build: ['install', 'dist'], checks: [] },
};

await main(process.argv.slice(2));

async function main([name, ...only]) {
  const chore = chores[name];
  const known = chore && [...chore.build, ...chore.checks];
  const unknown = chore && only.find((step) => !known.includes(step));
  if (!chore || unknown) {
    say(chore ? `No step '${unknown}'.` : `Usage: node .ci/tasks.mjs <chore> [step ...]`);
    say(`One of: ${(known ?? Object.keys(chores)).join(' ')}`);
    process.exit(2);
  }
  // The child in the foreground gets Ctrl-C too and says how it ends.
  process.on('SIGINT', () => {});
  process.chdir(ROOT);
  const wanted = known.filter((step) => only.length === 0 || only.includes(step));
  const failed = [];
  for (const [index, step] of wanted.entries()) {
    const code = await runStep(step, `${index + 1}/${wanted.length}`);
    if (code === 0) continue;
    if (code >= 128 || chore.build.includes(step)) process.exit(code);
    failed.push(step);
  }
  if (name === 'test')
    say(failed.length ? red(`Failed: ${failed.join(', ')}`) : green('All passed'));
  process.exit(failed.length ? 1 : 0);
}

/** Runs one step between two lines that name it; the exit status it earns. */
async function runStep(step, place) {
  const started = Date.now();
  const { title, run, isLast } = steps[step];
  say(bold(`[${place}] ${title}`));
  try {
    const note = await run();
    if (!isLast) say(`${green('ok')} ${title}${note ? `: ${note}` : ''} (${seconds(started)})\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    say(`${red('failed')} ${title}: ${error.message} (${seconds(started)})\n`);
    return error.status ?? 1;
  }
}

function checkTools() {
  if (older(process.versions.node, NODE_LEAST)) {
    throw new Refusal(
      `building needs Node ${NODE_LEAST} or newer, this is ${process.versions.node}`,
    );
  }
  const [rustc] = ['rustc', 'cargo'].map((tool) => {
    const version = output(tool, '--version');
    const number = version && /\d+\.\d+\.\d+/.exec(version)?.[0];
    if (!number) {
      throw new Refusal(
        `${tool} ${version === null ? 'was not found' : 'gives no version'}. The addon is built ` +
          `here from its Rust sources: install Rust ${RUST_LEAST} or newer (https://rustup.rs)`,
      );
    }
    if (older(number, RUST_LEAST)) {
      throw new Refusal(`${tool} is ${number}; ${RUST_LEAST} or newer is needed (rustup update)`);
    }
    return number;
  });
  return `Node ${process.versions.node}, Rust ${rustc}`;
}

/** Runs `npm ci` unless the same lock file is installed already. */
async function install() {
  const hash = createHash('sha256').update(read('package.json')).update(read('package-lock.json'));
  hash.update(`${process.platform} ${process.arch}`);
  const wanted = hash.digest('hex');
  const stamp = join(ROOT, 'node_modules', '.cache', 'node-chord', 'installed');
  if (fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === wanted) return 'up to date';
  await npm('ci', '--include=dev', '--include=optional', '--no-audit', '--no-fund');
  fs.mkdirSync(dirname(stamp), { recursive: true });
  fs.writeFileSync(stamp, wanted);
}

/** Builds the library and puts it where the loader of dist/ looks first. */
async function buildAddon() {
  await cargo('build', '--release', '--lib');
  const host = /^host: (.+)$/m.exec(output('rustc', '-vV') ?? '')?.[1] ?? '';
  const target = process.env.CARGO_TARGET_DIR ?? join(ROOT, 'target');
  const [prefix, suffix] = host.includes('windows')
    ? ['', '.dll']
    : ['lib', host.includes('apple') ? '.dylib' : '.so'];
  const built = join(target, 'release', `${prefix}node_chord${suffix}`);
  const placed = join(DIST, `node-chord.${platform(host)}.node`);
  fs.mkdirSync(DIST, { recursive: true });
  // A rename leaves the old file to those that have it loaded.
  fs.copyFileSync(built, `${placed}.new`);
  fs.renameSync(`${placed}.new`, placed);
  return `${relative(ROOT, placed)}, ${(fs.statSync(placed).size / 1e6).toFixed(1)} MB`;
}

/** `x86_64-unknown-linux-gnu` -> `linux-x64-gnu`: the names of the folders in npm/. */
function platform(host) {
  const cpu = { x86_64: 'x64', aarch64: 'arm64' }[host.split('-')[0]] ?? host.split('-')[0];
  if (host.includes('apple')) return `darwin-${cpu}`;
  if (host.includes('windows')) return `win32-${cpu}-msvc`;
  return `linux-${cpu}-${host.includes('musl') ? 'musl' : 'gnu'}`;
}

async function buildDist() {
  fs.mkdirSync(DIST, { recursive: true });
  for (const entry of fs.readdirSync(DIST)) {
    if (!entry.endsWith('.node')) fs.rmSync(join(DIST, entry), { recursive: true });
  }
  await bin('tsc', '--project', 'tsconfig.json');
  // The types of the ESM entry: the same declarations, seen from an ES module.
  fs.writeFileSync(join(DIST, 'index.d.mts'), "export * from '../index.js';\n");
  const cli = join(DIST, 'cli', 'main.js');
  if (fs.existsSync(cli)) fs.chmodSync(cli, 0o755);
}

async function tellStory() {
  const prompt = 'Tell me a story about a girl called Lily.';
  // Its figures go where the story goes, and are the last line.
  const stdio = ['ignore', 'inherit', 1];
  await child(process.execPath, ['dist/cli/main.js', 'chat', MODEL, prompt], { stdio });
}

async function typeTests() {
  if (!fs.existsSync('__test__/types/tsconfig.json')) return 'none';
  await bin('tsc', '--project', '__test__/types/tsconfig.json', '--noEmit');
}

/** `node --test` takes no patterns before Node 21. */
async function jsTests() {
  const files = fs.existsSync('__test__/js') ? fs.readdirSync('__test__/js').sort() : [];
  const tests = files.filter((file) => /\.test\.[cm]?js$/.test(file));
  if (tests.length === 0) return 'none';
  const flags = ['--test', '--test-concurrency=1', '--test-reporter=spec'];
  await child(process.execPath, [...flags, ...tests.map((file) => `__test__/js/${file}`)]);
}

function clippy() {
  return component('clippy', ['clippy', '--release', '--all-targets'], ['--', '-D', 'warnings']);
}

/** A cargo command that a minimal installation of Rust lacks: required in CI, else left out. */
async function component(name, args, last = []) {
  if (output('cargo', args[0], '--version') === null) {
    const remedy = `cargo ${args[0]} is not installed (rustup component add ${name})`;
    if (CI) throw new Refusal(remedy);
    return `left out: ${remedy}`;
  }
  await (name === 'rustfmt' ? child('cargo', args) : cargo(...args, ...last));
}

/** Cargo.lock is binding in CI; elsewhere a changed Cargo.toml may update it. */
function cargo(command, ...args) {
  return child('cargo', [command, ...(CI ? ['--locked'] : []), ...args]);
}

function npm(...args) {
  const script = process.env.npm_execpath;
  if (script?.endsWith('.js')) return child(process.execPath, [script, ...args]);
  return child('npm', args, { shell: process.platform === 'win32' });
}

function bin(name, ...args) {
  const manifest = JSON.parse(
    read(`node_modules/${name === 'tsc' ? 'typescript' : name}/package.json`),
  );
  const script = typeof manifest.bin === 'string' ? manifest.bin : manifest.bin[name];
  const folder = name === 'tsc' ? 'typescript' : name;
  return child(process.execPath, [join('node_modules', folder, script), ...args]);
}

/** Runs a command in the foreground; rejects with a Refusal that carries its exit status. */
function child(command, args, options = {}) {
  say(dim(`$ ${command === process.execPath ? 'node' : command} ${args.join(' ')}`));
  return new Promise((resolve, reject) => {
    const running = spawn(command, args, { stdio: ['ignore', OUT.fd, 'inherit'], ...options });
    running.on('error', (error) => reject(new Refusal(`${command}: ${error.message}`)));
    running.on('close', (code, signal) => {
      if (code === 0) return resolve();
      const refusal = new Refusal(signal ? `ended by ${signal}` : `exit status ${code}`);
      refusal.status = signal === 'SIGINT' ? 130 : signal ? 128 : code;
      reject(refusal);
    });
  });
}

/** What a command prints, or null where it is missing or fails. */
function output(command, ...args) {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  return result.status === 0 ? result.stdout : null;
}

function older(version, least) {
  const [a, b] = [version, least].map((text) => text.split('.').map(Number));
  const index = a.findIndex((part, i) => part !== (b[i] ?? 0));
  return index >= 0 && a[index] < (b[index] ?? 0);
}

function read(path) {
  return fs.readFileSync(join(ROOT, path), 'utf8');
}

function seconds(started) {
  return `${((Date.now() - started) / 1000).toFixed(1)} s`;
}

function say(line) {
  OUT.write(`${line}\n`);
}

function paint(code, text) {
  const coloured = OUT.isTTY && !process.env.NO_COLOR;
  return coloured ? `\x1b[${code}m${text}\x1b[0m` : text;
}
function bold(text) {
  return paint(1, text);
}
function dim(text) {
  return paint(2, text);
}
function red(text) {
  return paint(31, text);
}
function green(text) {
  return paint(32, text);
}
