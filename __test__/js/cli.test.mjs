// The command `chord`: what it prints where, what its exit statuses mean, and how Ctrl-C ends it.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inspect, loadModel } from 'node-chord';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const CHORD = join(ROOT, 'dist', 'cli', 'main.js');
const MODEL = join(ROOT, 'models', 'chord-5m-Q4_K_M.gguf');
const GREEDY = ['--temperature', '0', '--max-tokens', '12'];
const ENDLESS = ['--ignore-eos', '--overflow', 'shift', '--seed', '1'];
const WINDOWS = process.platform === 'win32';

let expected;

before(async () => {
  const model = await loadModel(MODEL);
  expected = (await model.generate('Once upon a time', { temperature: 0, maxTokens: 12 })).text;
  await model.close();
});

/** Runs chord to its end. */
function chord(args, input = '') {
  const { status, stdout, stderr } = spawnSync(process.execPath, [CHORD, ...args], {
    encoding: 'utf8',
    input,
    timeout: 120_000,
  });
  return { status, stdout, stderr };
}

/** Starts chord with pipes, which are read as text. */
function started(args, env = {}) {
  const child = spawn(process.execPath, [CHORD, ...args], { env: { ...process.env, ...env } });
  const seen = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (text) => (seen[name] += text));
  }
  return { child, seen };
}

test('run --memory streams the model and prints the same text', () => {
  const flags = ['--memory', '3700KiB', '--io', 'direct', '--context-length', '128'];
  const { status, stdout } = chord(['run', MODEL, 'Once upon a time', ...GREEDY, ...flags]);
  assert.equal(status, 0);
  assert.equal(stdout.trimEnd(), expected.trimEnd());
  const refused = chord(['run', MODEL, 'Once', '--memory', '1KiB']);
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /ram: needs \d+ KiB, budget is 1024 bytes/);
});

test('help and version are no failures', () => {
  for (const flag of ['--help', '--version']) assert.equal(chord([flag]).status, 0);
  for (const name of ['run', 'chat', 'inspect', 'estimate', 'bench', 'diff', 'devices']) {
    const { status, stdout } = chord([name, '--help']);
    assert.equal(status, 0);
    assert.match(stdout, /--json/);
  }
});

test('wrong usage exits with 2 and says what was wrong', () => {
  const cases = [
    [[], /Usage/],
    [['dance'], /dance/],
    [['run'], /model/],
    [['run', MODEL, 'a', 'b'], /too many arguments/],
    [['run', MODEL, 'a', '--temprature', '1'], /--temperature/],
    [['run', MODEL, 'a', '--top-k', 'many'], /--top-k/],
    [['run', MODEL, 'a', '--top-k', '-1'], /topK/],
    [['run', MODEL, 'a', '--logit-bias', '3'], /id=bias/],
    [['run', MODEL, 'a', '--threads', '0'], /threads/],
    [['run', MODEL, 'a', '--threads', '10000'], /threads/],
    [['run', MODEL, 'a', '--threads', 'NaN'], /threads/],
    [['chat', MODEL, 'a', '--template-args', '{'], /JSON/],
    [['diff', MODEL, '--threads', '1.5'], /threads: expected 'auto' or an integer/],
  ];
  for (const [args, message] of cases) {
    const { status, stdout, stderr } = chord(args);
    assert.equal(status, 2, `chord ${args.join(' ')}: ${stderr}`);
    assert.match(stderr, message);
    assert.equal(stdout, '');
  }
});

test('a failure exits with 1, as text or as JSON', () => {
  const text = chord(['run', 'no-such-file.gguf', 'a']);
  assert.equal(text.status, 1);
  assert.match(text.stderr, /no-such-file\.gguf/);
  const json = chord(['inspect', 'no-such-file.gguf', '--json']);
  assert.equal(json.status, 1);
  assert.equal(JSON.parse(json.stdout).error.code, 'ERR_FILE_NOT_FOUND');
});

test('inspect --plan shows every step of every group, as text and as JSON', () => {
  const json = chord(['inspect', MODEL, '--plan', '--json']);
  assert.equal(json.status, 0, json.stderr);
  const plan = JSON.parse(json.stdout);
  const [first, second] = plan.groups;
  assert.equal(first.name, 'embedding');
  assert.equal(second.name, 'layer 0 attention');
  assert.equal(plan.groups.at(-1).name, 'output');
  assert.equal(plan.groups.length, 2 * plan.kvLayers + 2);
  const [norm, q] = second.steps;
  assert.deepEqual([norm.op, norm.output, q.inputs], ['norm', 'layer 0 attn_norm', [norm.output]]);
  const { name, type, shape } = q.weights[0];
  assert.deepEqual([name, type, shape[1]], ['blk.0.attn_q.weight', 'Q4_K', plan.embeddingLength]);
  const text = chord(['inspect', MODEL, '--plan']);
  assert.equal(text.status, 0, text.stderr);
  const lines = text.stdout.trimEnd().split('\n');
  const steps = plan.groups.flatMap((group) => group.steps);
  assert.equal(lines.length, 1 + plan.groups.length + steps.length);
  assert.ok(text.stdout.includes(`layer 0 attn_q[${q.width}] = linear(layer 0 attn_norm, ${name}`));
  assert.equal(chord(['inspect', 'no-such-file.gguf', '--plan']).status, 1);
});

test('run prints what generate gives and nothing else on stdout', () => {
  const { status, stdout, stderr } = chord(['run', MODEL, 'Once upon a time', ...GREEDY]);
  assert.equal(status, 0, stderr);
  assert.equal(stdout, `${expected}\n`);
  assert.match(stderr, /12 tokens \| .* tok\/s \| first token .* \| loaded in .* \| peak memory/);
  assert.doesNotMatch(stdout + stderr, /\x1b/, 'no colour and no bar without a terminal');
});

test('a full disk is a failure in one line', { skip: !existsSync('/dev/full') }, () => {
  const stdio = ['ignore', openSync('/dev/full', 'w'), 'pipe'];
  for (const args of [
    ['inspect', MODEL, '--json'],
    ['run', MODEL, 'Once', ...GREEDY],
  ]) {
    const { status, stderr } = spawnSync(process.execPath, [CHORD, ...args], { stdio });
    assert.equal(status, 1);
    assert.match(String(stderr), /^chord: writing to stdout: ENOSPC.*\n/);
    assert.doesNotMatch(String(stderr), / at /);
  }
});

test('run reads its prompt from a pipe', () => {
  for (const dash of [['-'], []]) {
    const { status, stdout } = chord(['run', MODEL, ...dash, ...GREEDY], 'Once upon a time\n');
    assert.equal(status, 0);
    assert.equal(stdout, `${expected}\n`);
  }
});

test('run --json is one object with the result and the figures', () => {
  const args = ['run', MODEL, 'Once upon a time', ...GREEDY, '--json', '--logprobs', '2'];
  const { status, stdout, stderr } = chord(args);
  assert.equal(status, 0, stderr);
  const result = JSON.parse(stdout);
  assert.equal(result.text, expected);
  assert.equal(result.tokens.length, 12);
  assert.equal(result.finishReason, 'length');
  assert.equal(result.logprobs.length, 12);
  assert.equal(result.logprobs[0].top.length, 2);
  assert.ok(result.peakRam > 0 && result.loadMs > 0);
  assert.deepEqual(result.devices, ['cpu']);
});

test('flags are options', () => {
  const stop = ['--stop', 'time', '--stop', 'the', '--stop-tokens', '6', '--no-special'];
  const more = ['--xtc', '0.1,0.2', '--kv-type', 'f32,f16', '--logit-bias', '5=-1', '--seed', '7'];
  const { status, stderr } = chord(['run', MODEL, 'A', '--max-tokens', '3', ...stop, ...more]);
  assert.equal(status, 0, stderr);
});

test('chat answers one message', async () => {
  const message = 'Tell me a story about a girl called Lily.';
  const { status, stdout, stderr } = chord(['chat', MODEL, message, ...GREEDY, '--json']);
  assert.equal(status, 0, stderr);
  const model = await loadModel(MODEL);
  const { text } = await model.chat(message, { temperature: 0, maxTokens: 12 });
  await model.close();
  assert.equal(JSON.parse(stdout).text, text);
});

test('chat takes a turn for each line of a pipe', () => {
  const { status, stdout, stderr } = chord(['chat', MODEL, ...GREEDY], 'Hello!\n\nThank you!\n');
  assert.equal(status, 0, stderr);
  assert.equal(stderr.match(/tok\/s/g).length, 2);
  assert.ok(stdout.trim().length > 0);
});

test('inspect shows a file, also as JSON', async () => {
  const { status, stdout } = chord(['inspect', MODEL]);
  assert.equal(status, 0);
  assert.match(stdout, /can be run/);
  assert.match(stdout, /general\.architecture = "llama"/);
  const info = JSON.parse(chord(['inspect', MODEL, '--json']).stdout);
  const { tensors } = await inspect(MODEL);
  assert.equal(info.tensors.length, tensors.length);
  assert.match(chord(['inspect', MODEL, '--tensors']).stdout, /blk\.0\.attn_q\.weight/);
});

test('devices lists the CPU', () => {
  assert.match(chord(['devices']).stdout, /^cpu/);
  assert.equal(JSON.parse(chord(['devices', '--json']).stdout)[0].id, 'cpu');
});

test('diff finds no difference between our backends', () => {
  const { status, stdout, stderr } = chord(['diff', MODEL, '--a', 'reference', '--b', 'cpu']);
  assert.equal(status, 0, stdout + stderr);
  assert.match(stdout, /no step differs/);
  const report = JSON.parse(chord(['diff', MODEL, '--json', '--prompt', 'Once']).stdout);
  assert.equal(report.difference, null);
  assert.ok(report.steps.length > 10);
  assert.equal(chord(['diff', MODEL, '--b', 'abacus']).status, 2);
});

test('diff takes tier and threads as loading does, from the environment too', async () => {
  const end = async (args, env) => {
    const { child, seen } = started(['diff', MODEL, '--prompt', 'Once', ...args], env);
    const [status] = await once(child, 'close');
    return { status, ...seen };
  };
  const portable = await end([], { NODE_CHORD_CPU: 'portable', NODE_CHORD_THREADS: '1' });
  assert.match(portable.stdout, /^reference .* and cpu \(portable\)/, portable.stderr);
  const refused = await end([], { NODE_CHORD_CPU: 'z80' });
  assert.deepEqual([refused.status, refused.stdout], [2, '']);
  assert.match(refused.stderr, /NODE_CHORD_CPU: expected a tier .* got 'z80'/);
  assert.match((await end(['--threads', '0'], {})).stderr, /threads: expected .* got 0/);
  assert.equal((await end(['--cpu', 'auto'], { NODE_CHORD_CPU: 'z80' })).status, 0);
});

test('diff tells of a weight that is no number, not of a difference', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'chord-nan-'));
  const file = join(folder, 'nan.gguf');
  const { tensors } = await inspect(MODEL);
  const name = 'blk.1.ffn_norm.weight';
  const bytes = readFileSync(MODEL);
  bytes.writeFloatLE(NaN, tensors.find((tensor) => tensor.name === name).offset);
  writeFileSync(file, bytes);
  const { status, stdout, stderr } = chord(['diff', file, '--prompt', 'Once']);
  assert.equal(status, 1, stderr);
  assert.equal(stderr, '');
  assert.match(stdout, /NaN in reference.* at token 0: layer 1 ffn_norm.*blk\.1\.ffn_norm\.weight/);
  assert.doesNotMatch(stdout, /first step that differs/);
  const report = JSON.parse(chord(['diff', file, '--prompt', 'Once', '--json']).stdout);
  assert.equal(report.notFinite.value, 'NaN');
  assert.equal(report.difference, null);
  rmSync(folder, { recursive: true });
});

test('bench refuses times and files that make no sense before it begins', () => {
  for (const seconds of ['0', '-1', '1e9', 'Infinity']) {
    const { status, stderr } = chord(['bench', MODEL, '--seconds', seconds]);
    assert.equal(status, 2);
    assert.match(stderr, /^chord: seconds: expected a number from 1 to 86400, got /);
  }
  const { status, stderr } = chord(['bench', MODEL, '--trace', join(MODEL, 'x')]);
  assert.equal(status, 2);
  assert.match(stderr, /^chord: trace: expected a file that can be written, got '.*' \(E\w+\)/);
});

test('Ctrl-C ends a generation with what there is', { skip: WINDOWS }, async () => {
  for (const flags of [[], ['--json']]) {
    const env = { NODE_CHORD_LOG: 'trace' };
    const { child, seen } = started(['run', MODEL, 'Once', ...ENDLESS, ...flags], env);
    while (!/generate \d+ starts/.test(seen.stderr)) await once(child.stderr, 'data');
    if (flags.length === 0) await once(child.stdout, 'data');
    child.kill('SIGINT');
    const [status] = await once(child, 'close');
    assert.equal(status, 130, seen.stderr);
    if (flags.length === 0) assert.match(seen.stderr, /tok\/s/);
    else assert.equal(JSON.parse(seen.stdout).finishReason, 'cancelled');
  }
});

test('a reader that leaves ends it quietly', { skip: WINDOWS }, async () => {
  const { child, seen } = started(['run', MODEL, 'Once', ...ENDLESS]);
  await once(child.stdout, 'data');
  child.stdout.destroy();
  const [status] = await once(child, 'close');
  assert.equal(status, 0);
  assert.equal(seen.stderr, '');
});

test('colour is for terminals that want it', { skip: !hasScript() }, () => {
  const run = (env) => {
    const command = `"${process.execPath}" "${CHORD}" run "${MODEL}" Once --max-tokens 2`;
    const options = { encoding: 'utf8', env: { ...process.env, ...env }, input: '' };
    return spawnSync('script', ['-qec', command, '/dev/null'], options).stdout;
  };
  assert.match(run({ TERM: 'xterm', NO_COLOR: '' }), /\x1b\[2m/);
  assert.doesNotMatch(run({ TERM: 'xterm', NO_COLOR: '1' }), /\x1b\[\d+m/);
});

/** util-linux's `script` gives a program a terminal. */
function hasScript() {
  const { stdout } = spawnSync('script', ['--version'], { encoding: 'utf8' });
  return Boolean(stdout?.includes('util-linux'));
}

test(
  'run --stats draws below the text on a terminal, and tidies up',
  { skip: !hasScript() },
  () => {
    const flags = '--max-tokens 40 --ignore-eos --io direct --stats';
    const run = `"${process.execPath}" "${CHORD}" run "${MODEL}" Once ${flags}`;
    const options = { encoding: 'utf8', env: { ...process.env, TERM: 'xterm' }, input: '' };
    const { stdout } = spawnSync(
      'script',
      ['-qec', `stty rows 24 cols 80; ${run}`, '/dev/null'],
      options,
    );
    assert.ok(stdout.includes('\x1b[1;22r'), 'the last two lines do not scroll');
    assert.ok(stdout.includes('\x1b[r'), 'all lines scroll again');
    assert.ok(stdout.lastIndexOf('in time') > stdout.lastIndexOf('\x1b[r'), 'the last line stays');
  },
);

test('bench is ended by Ctrl-C', { skip: WINDOWS }, async () => {
  const { child, seen } = started(['bench', MODEL]);
  while (!seen.stderr.includes('drawing')) await once(child.stderr, 'data');
  child.kill('SIGINT');
  const [status] = await once(child, 'close');
  assert.equal(status, 130, seen.stderr);
  assert.equal(seen.stdout, '');
});
