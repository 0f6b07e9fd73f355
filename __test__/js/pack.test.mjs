// The published package: what is in it, and that it works from an empty project as an ES module,
// as CommonJS, from TypeScript and from a shell. The README's example runs there as printed.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { features } from 'node-chord';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const MODEL = 'node_modules/node-chord/models/chord-5m-Q4_K_M.gguf';
const WINDOWS = process.platform === 'win32';

let folder;
let project;
let packed;

before(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'node-chord-pack-'));
  packed = pack(ROOT);
  project = join(folder, 'project');
  fs.mkdirSync(project);
  write('package.json', '{ "private": true }');
  const tarballs = [packed.filename, pack(platformPackage()).filename];
  const args = ['install', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error'];
  npm(project, ...args, ...tarballs.map((name) => join(folder, name)));
});

after(() => fs.rmSync(folder, { recursive: true, force: true }));

test('the tarball holds the package and nothing else', () => {
  const paths = packed.files.map(({ path }) => path);
  const wanted = ['package.json', 'index.d.ts', 'dist/index.js', 'dist/index.mjs'];
  wanted.push('dist/index.d.mts', 'dist/cli/main.js', 'models/chord-5m-Q4_K_M.gguf', 'README.md');
  wanted.push('models/README.md', 'LICENSE-MIT', 'LICENSE-APACHE');
  for (const path of wanted) assert.ok(paths.includes(path), `${path} is missing`);
  const known = /^(package\.json|index\.d\.ts|(README|LICENSE)[\w.-]*|models\/.*|dist\/.*)$/;
  const built = /^dist\/[\w/-]+(\.d)?\.[cm]?[jt]s$|^models\//;
  for (const path of paths) {
    assert.match(path, known);
    if (path.includes('/')) assert.match(path, built);
  }
});

test('no package runs a script at installation', () => {
  for (const name of ['node-chord', `node-chord-${features.platform}`]) {
    const { scripts = {}, gypfile } = manifest(join(project, 'node_modules', name));
    for (const hook of ['preinstall', 'install', 'postinstall', 'prepare']) {
      assert.equal(scripts[hook], undefined, `${name} has a script '${hook}'`);
    }
    assert.equal(gypfile, undefined);
  }
});

test('all packages and the crate have one version', () => {
  const { version, napi } = manifest(ROOT);
  const crate = fs.readFileSync(join(ROOT, 'Cargo.toml'), 'utf8');
  assert.equal(/^version = "(.+)"/m.exec(crate)[1], version);
  const folders = fs.readdirSync(join(ROOT, 'npm'));
  assert.equal(folders.length, napi.targets.length);
  for (const name of folders) {
    const { name: full, version: own, main } = manifest(join(ROOT, 'npm', name));
    assert.deepEqual([full, own], [`node-chord-${name}`, version]);
    assert.equal(main, `node-chord.${name}.node`);
  }
});

test("the README's example runs as printed", () => {
  const readme = fs.readFileSync(join(ROOT, 'README.md'), 'utf8');
  const examples = [...readme.matchAll(/^```js\n(.*?)^```$/gms)];
  assert.ok(examples.length >= 1);
  for (const [, example] of examples) {
    write('example.mjs', example);
    assert.match(node('example.mjs'), /\w+ \w+ \w+/);
  }
});

test('ES modules and CommonJS get the same objects', () => {
  write(
    'both.cjs',
    `const required = require('node-chord');
    import('node-chord').then((imported) => {
      const names = Object.keys(imported).sort();
      const same = names.every((name) => imported[name] === required[name]);
      console.log(JSON.stringify({ names, same, required: Object.keys(required).sort() }));
    });`,
  );
  const { names, same, required } = JSON.parse(node('both.cjs'));
  assert.equal(same, true);
  assert.deepEqual(names, required);
  assert.ok(names.includes('loadModel'));
});

test('CommonJS generates', () => {
  write(
    'generate.cjs',
    `const { loadModel } = require('node-chord');
    loadModel('${MODEL}').then(async (model) => {
      console.log((await model.generate('Once upon a time', { maxTokens: 8 })).text);
      await model.close();
    });`,
  );
  assert.match(node('generate.cjs'), /\w/);
});

for (const extension of ['mts', 'cts']) {
  test(`TypeScript compiles and runs .${extension}`, () => {
    const source = `import { type GenerateResult, isChordError, loadModel } from 'node-chord';
      async function main(): Promise<void> {
        const model = await loadModel('${MODEL}', { threads: 1 });
        const result: GenerateResult = await model.generate('Once', { maxTokens: 4 });
        const tokens: number = result.usage.completionTokens;
        // @ts-expect-error: a misspelt option
        await model.generate('Once', { temprature: 1 }).catch((error: unknown) => {
          if (isChordError(error, 'ERR_UNKNOWN_OPTION')) console.log(error.details.suggestion);
        });
        await model.close();
        console.log(tokens);
      }
      void main();`;
    write(`main.${extension}`, source);
    const options = ['--module', 'nodenext', '--target', 'es2022', '--strict', '--types', ''];
    const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
    node(tsc, ...options, `main.${extension}`);
    assert.equal(node(`main.${extension.replace('ts', 'js')}`), 'temperature\n4\n');
  });
}

test('the command chord is installed', () => {
  const chord = join(project, 'node_modules', '.bin', WINDOWS ? 'chord.cmd' : 'chord');
  const run = (...args) => execFileSync(chord, args, { ...here(), shell: WINDOWS });
  assert.equal(run('--version').trim(), manifest(ROOT).version);
  assert.match(run('inspect', MODEL), /can be run/);
});

function here() {
  return { cwd: project, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] };
}

function node(...args) {
  return execFileSync(process.execPath, args, here());
}

function npm(cwd, ...args) {
  const script = process.env.npm_execpath;
  const options = { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] };
  if (script?.endsWith('.js')) return execFileSync(process.execPath, [script, ...args], options);
  return execFileSync('npm', args, { ...options, shell: WINDOWS });
}

/** What `npm pack` would publish from a folder: the tarball's name and its files. */
function pack(from) {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder];
  const listed = JSON.parse(npm(from, ...args));
  // npm 12 gives an object by package name.
  return Array.isArray(listed) ? listed[0] : Object.values(listed)[0];
}

/** The package of this platform as the workflow fills it: its manifest and the addon. */
function platformPackage() {
  const addon = `node-chord.${features.platform}.node`;
  const from = join(folder, features.platform);
  fs.cpSync(join(ROOT, 'npm', features.platform), from, { recursive: true });
  fs.copyFileSync(join(ROOT, 'dist', addon), join(from, addon));
  return from;
}

function manifest(at) {
  return JSON.parse(fs.readFileSync(join(at, 'package.json'), 'utf8'));
}

function write(name, text) {
  fs.writeFileSync(join(project, name), text);
}
