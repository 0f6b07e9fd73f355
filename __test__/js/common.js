// What the tests of the real addon share: the embedded model, and child processes.
'use strict';

const { spawn } = require('node:child_process');
const path = require('node:path');

const ROOT = path.join(__dirname, '..', '..');
const chord = require(ROOT);
const MODEL = path.join(ROOT, 'models', 'chord-5m-Q4_K_M.gguf');

/** Greedy, so that texts can be compared. */
const GREEDY = { temperature: 0 };

/** Runs a test body with a model that is closed afterwards. */
async function withModel(body, options) {
  const model = await chord.loadModel(MODEL, options);
  try {
    return await body(model);
  } finally {
    await model.close();
  }
}

/** Expects a rejection with this code; gives the error. */
async function rejects(code, promise) {
  const error = await promise.then(
    () => {
      throw new Error(`expected ${code}, but it resolved`);
    },
    (caught) => caught,
  );
  if (error?.code !== code) throw error;
  return error;
}

/** The same for what throws. */
function throws(code, call) {
  try {
    call();
  } catch (error) {
    if (error?.code !== code) throw error;
    return error;
  }
  throw new Error(`expected ${code}, but it returned`);
}

/** Runs a script with `chord` and `MODEL` in scope; resolves with how it ended. */
function script(body, { flags = [], env = {}, limit = 60_000 } = {}) {
  const [root, model] = [ROOT, MODEL].map((text) => JSON.stringify(text));
  const head = `const chord = require(${root}); const MODEL = ${model};`;
  const child = spawn(process.execPath, [...flags, '-e', `${head}\n${body}`], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (data) => (output.stdout += data));
  child.stderr.on('data', (data) => (output.stderr += data));
  const timer = setTimeout(() => child.kill('SIGKILL'), limit);
  return new Promise((resolve) => {
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, ...output });
    });
  });
}

module.exports = { chord, MODEL, ROOT, GREEDY, withModel, rejects, throws, script };
