// The error class, and the codes that files and life bring about.
'use strict';

const assert = require('node:assert/strict');
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { test, before, after } = require('node:test');
const { chord, MODEL, ROOT, rejects, throws, script } = require('./common.js');

let folder;
before(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'chord-'));
});
after(() => fs.rmSync(folder, { recursive: true }));

function write(name, data) {
  const file = path.join(folder, name);
  fs.writeFileSync(file, data);
  return file;
}

test('an error is an Error with code, details and JSON', async () => {
  const error = await rejects('ERR_FILE_NOT_FOUND', chord.loadModel('no.gguf'));
  assert.ok(error instanceof Error && error instanceof chord.ChordError);
  assert.equal(error.name, 'ChordError');
  assert.deepEqual(error.details, { path: 'no.gguf' });
  assert.match(error.message, /no\.gguf/);
  assert.match(error.stack, /no\.gguf/);
  const { name, code, message, details } = error;
  assert.deepEqual(JSON.parse(JSON.stringify(error)), { name, code, message, details });
  assert.ok(chord.isChordError(error));
  assert.ok(chord.isChordError(error, 'ERR_FILE_NOT_FOUND'));
  assert.ok(!chord.isChordError(error, 'ERR_IO'));
  for (const other of [null, undefined, 1, 'x', new Error('x'), { code: 'ERR_IO' }]) {
    assert.ok(!chord.isChordError(other));
  }
});

test('an error of another copy of the package is recognised', () => {
  const foreign = new Error('x');
  foreign[Symbol.for('node-chord.error')] = true;
  foreign.code = 'ERR_IO';
  assert.ok(chord.isChordError(foreign, 'ERR_IO'));
});

test('files that are no models get their codes from all that open them', async () => {
  const whole = fs.readFileSync(MODEL);
  const version9 = Buffer.from(whole);
  version9.writeUInt32LE(9, 4);
  const counts = Buffer.from(whole);
  counts.writeBigUInt64LE(2n ** 62n, 8);
  const cases = [
    [path.join(folder, 'missing.gguf'), 'ERR_FILE_NOT_FOUND'],
    [folder, 'ERR_FILE_UNREADABLE'],
    [write('empty.gguf', ''), 'ERR_NOT_GGUF'],
    [write('text.gguf', 'Once upon a time there was a file.\n'), 'ERR_NOT_GGUF'],
    [write('version.gguf', version9), 'ERR_GGUF_VERSION'],
    [write('counts.gguf', counts), 'ERR_GGUF_CORRUPT'],
    [write('cut.gguf', whole.subarray(0, 2000)), 'ERR_GGUF_CORRUPT'],
  ];
  for (const [file, code] of cases) {
    for (const open of [chord.loadModel, chord.loadTokenizer, chord.inspect]) {
      const error = await rejects(code, open(file));
      assert.equal(error.details.path, file);
      assert.ok(error.message.includes(path.basename(file)));
    }
  }
});

test('inspect tells a file without its weights', async () => {
  const info = await chord.inspect(MODEL);
  assert.equal(info.version, 3);
  assert.equal(info.fileBytes, fs.statSync(MODEL).size);
  assert.deepEqual([info.supported, info.reasons], [true, []]);
  assert.equal(info.tensors.length, 47);
  const embedding = info.tensors.find((tensor) => tensor.name === 'token_embd.weight');
  assert.deepEqual(embedding.shape, [4096, 256]);
  assert.equal(info.metadata['tokenizer.ggml.tokens'].length, 4096);
  assert.equal(info.metadata['general.architecture'], 'llama');
  assert.deepEqual(structuredClone(info), info);
});

test('inspect says why a model cannot be run', async () => {
  const data = fs.readFileSync(MODEL);
  const at = data.indexOf('llama', data.indexOf('general.architecture'));
  data.write('gnome', at);
  const file = write('gnome.gguf', data);
  const info = await chord.inspect(file);
  assert.equal(info.supported, false);
  assert.match(info.reasons.join(), /gnome/);
  const error = await rejects('ERR_UNSUPPORTED_ARCHITECTURE', chord.loadModel(file));
  assert.match(error.message, /gnome/);
});

test('a model without a template cannot chat, but generates', async () => {
  const data = fs.readFileSync(MODEL);
  data.write('tokenizer.chat_xemplate', data.indexOf('tokenizer.chat_template'));
  const model = await chord.loadModel(write('plain.gguf', data));
  assert.deepEqual(model.info.capabilities, []);
  const error = await rejects('ERR_TEMPLATE', model.chat('x'));
  assert.equal(error.details.line, null);
  await rejects('ERR_TEMPLATE', model.createSession().chat('x'));
  await model.generate('x', { maxTokens: 1 });
  await model.close();
});

test('a KV type that a head size does not allow is refused by name', async () => {
  const data = fs.readFileSync(MODEL);
  const set = (key, value) => data.writeUInt32LE(value, data.indexOf(key) + key.length + 4);
  set('llama.attention.head_count', 16);
  set('llama.attention.head_count_kv', 8);
  set('llama.rope.dimension_count', 16);
  const path = write('narrow.gguf', data);
  await (await chord.loadModel(path, { kvType: 'bf16' })).close();
  for (const kvType of ['q8_0', 'q4_0', { k: 'f16', v: 'q4_0' }]) {
    const error = await rejects('ERR_INVALID_ARG', chord.loadModel(path, { kvType }));
    assert.equal(error.details.name, 'kvType');
    assert.match(error.message, /heads of 16 values/);
  }
});

test('memory that is not there is refused before it is taken', async () => {
  const error = await rejects(
    'ERR_INSUFFICIENT_MEMORY',
    chord.loadModel(MODEL, { contextLength: 2 ** 24, kvType: 'f32' }),
  );
  assert.ok(error.details.required > error.details.available);
});

test('threads that the system does not start are told with figures', async (t) => {
  // The superuser has no such limit, so it is somebody else's.
  const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups', 'prlimit', '--nproc=60'];
  const run = (body) => {
    const head = `const chord = require(${JSON.stringify(ROOT)});`;
    const args = [...nobody, process.execPath, '-e', `${head}${body}`];
    return spawnSync('setpriv', args, { encoding: 'utf8', timeout: 60_000 });
  };
  if (run(`chord.inspect(${JSON.stringify(MODEL)})`).status !== 0) return t.skip('needs root');
  const { stdout, stderr } = run(`
    const tell = ({ code, message, details }) => console.log(code, message, details.required);
    chord.loadModel(${JSON.stringify(MODEL)}, { threads: 200 }).catch(tell);`);
  const expected = /^ERR_INSUFFICIENT_MEMORY threads: the system starts \d+ of 200 for .* 200\n$/;
  assert.match(stdout, expected, stderr);
});

test('a missing addon says what was tried', async () => {
  const env = { NODE_CHORD_ADDON: path.join(folder, 'no.node') };
  const { code, stderr } = await script('', { env });
  assert.equal(code, 1);
  assert.match(stderr, /ERR_ADDON/);
  assert.match(stderr, /NODE_CHORD_ADDON: expected an addon for .*no\.node/);
  const other = path.join(folder, 'other.js');
  fs.writeFileSync(other, 'module.exports = {};');
  for (const file of [other, folder, MODEL]) {
    const { stderr } = await script('', { env: { NODE_CHORD_ADDON: file } });
    assert.match(stderr, /ChordError: NODE_CHORD_ADDON: expected an addon for /, file);
    assert.match(stderr, /code: 'ERR_ADDON'/, file);
  }
});

test('environment variables stand for options, and are checked', async () => {
  const body = `
    chord.loadModel(MODEL).then(
      async (model) => { console.log(model.stats().threads); await model.close(); },
      (error) => console.log(error.message),
    );`;
  const run = async (env) => (await script(body, { env })).stdout.trim();
  assert.equal(await run({ NODE_CHORD_THREADS: '1' }), '1');
  assert.match(await run({ NODE_CHORD_THREADS: 'many' }), /NODE_CHORD_THREADS: expected/);
  assert.match(await run({ NODE_CHORD_THREADS: '0' }), /NODE_CHORD_THREADS: expected/);
  assert.match(await run({ NODE_CHORD_THREADS: '10000' }), /NODE_CHORD_THREADS: expected/);
  for (const text of [' ', '1e', '0x', 'Infinity', '1.5', '-1']) {
    const message = await run({ NODE_CHORD_THREADS: text });
    assert.match(message, /^NODE_CHORD_THREADS: expected .*, got /);
    assert.ok(/got '?(.*?)'?$/.exec(message)[1] === text, message);
  }
  const tier = /^NODE_CHORD_CPU: expected a tier that this CPU has \('auto', 'portable'.*'z80'$/;
  assert.match(await run({ NODE_CHORD_CPU: 'z80' }), tier);
  assert.match(await run({ NODE_CHORD_DEVICE: 'cuda' }), /cuda/);
});

test('the log names the kernels of a model once, and levels that there are', async () => {
  const body = `
    chord.loadModel(MODEL).then(async (model) => {
      console.log(model.stats().cpu);
      await model.generate('Once', { maxTokens: 2 });
      await model.close();
    });`;
  const run = (level) => script(body, { env: { NODE_CHORD_LOG: level } });
  const debug = await run('debug');
  const lines = debug.stderr.match(/^\[node-chord\] debug: kernels: .*$/gm);
  assert.equal(lines?.length, 1, debug.stderr);
  assert.match(lines[0], new RegExp(`linear_\\w+_${debug.stdout.trim()}\\b`));
  assert.match(debug.stderr, /debug: generate \d+: 2 tokens in /);
  assert.doesNotMatch(debug.stderr, /trace: /);
  assert.match((await run('trace')).stderr, /trace: load 1 starts\n/);
  assert.match((await run('info')).stderr, /^\[node-chord\] info: load 1: .* in \d+ ms\n$/);
  for (const level of ['warn', 'error', 'off']) assert.equal((await run(level)).stderr, '');
  const failing = `chord.loadModel('no.gguf').catch(() => {});
    chord.loadModel(MODEL).then(async (model) => {
      const signal = AbortSignal.timeout(1);
      await model.generate('Once', { signal, ignoreEos: true, overflow: 'shift' }).catch(() => {});
      await model.close();
    });`;
  const { stderr } = await script(failing, { env: { NODE_CHORD_LOG: 'error' } });
  assert.match(stderr, /^\[node-chord\] error: load 1 failed: ChordError: no\.gguf: .*\n$/);
  const unknown = (await run('verbose')).stderr;
  assert.match(
    unknown,
    /^\[node-chord\] NODE_CHORD_LOG: expected 'off', 'error', .* got "verbose"/,
  );
  assert.equal(unknown.trim().split('\n').length, 1);
});

test('a slower way of reading is a warning, asked for only where somebody hears it', () => {
  const { channel } = require('node:diagnostics_channel');
  const { logWay } = require(path.join(ROOT, 'dist', 'log.js'));
  logWay('m.gguf', () => assert.fail('nobody listens'));
  const heard = [];
  const listen = (event) => heard.push(event);
  channel('node-chord:log').subscribe(listen);
  logWay('m.gguf', () => ({ backend: 'mmap', reason: null }));
  logWay('m.gguf', () => ({ backend: 'pread direct', reason: 'io_uring: EPERM' }));
  channel('node-chord:log').unsubscribe(listen);
  const message = 'm.gguf is read by pread direct (io_uring: EPERM)';
  assert.deepEqual(heard, [{ level: 'warn', message }]);
});

test('a model whose engine broke is closed, as its calls say', async () => {
  const { makeModel } = require(path.join(ROOT, 'dist', 'model.js'));
  const broken = { info: { path: 'm.gguf', vocabSize: 10 }, sampling: {} };
  const session = { length: () => 0, close: () => Promise.reject(new Error('never called')) };
  let closed = false;
  const model = makeModel({
    info: () => JSON.stringify(broken),
    text: () => ({}),
    closed: () => closed,
    close: async () => {},
    openSession: () => session,
    stats: () => JSON.stringify({ ram: { limit: 1 } }),
  });
  const open = model.createSession();
  assert.deepEqual([model.closed, open.closed], [false, false]);
  closed = true; // a panic in the engine
  assert.deepEqual([model.closed, open.closed], [true, true]);
  for (const call of [
    () => model.generate('a'),
    () => open.generate('a'),
    () => model.score('a'),
  ]) {
    await rejects('ERR_CLOSED', call());
  }
  await rejects('ERR_CLOSED', model.tokenize('a'));
  for (const call of [() => model.createSession(), () => open.fork()]) throws('ERR_CLOSED', call);
  await Promise.all([open.close(), model.close()]);
});
