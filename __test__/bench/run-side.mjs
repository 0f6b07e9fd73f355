// One run of one side of `peer.mjs`: the same steps over node-chord or node-llama-cpp, each used as
// its users do. Times are of this process' clock, from a call to what it gives.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { task, tell, words } from './child.mjs';

/** Enough for the steps below; the peer allocates what it is told, ours what is used. */
const CONTEXT = 1024;

const { side, model, vocabSize, tokens, prompt, decodeSeconds, folder } = task();
const open = { 'node-chord': openOurs, 'node-llama-cpp': openPeer }[side.engine];
const draw = words(vocabSize);

const engine = await open();
await tell({ importMs: engine.importMs, loadMs: engine.loadMs });
await engine.reset();
await tell({ firstTokenMs: (await timed(draw(32), 1)).first });
await engine.reset();
const { first, last, count } = await timed(draw(8), tokens);
if (count > 1) await tell({ decodeTps: (1000 * (count - 1)) / (last - first) });
await tell({ threads: engine.threads() });
await engine.reset();
const started = performance.now();
await engine.prefill(draw(prompt));
await tell({ promptTps: (1000 * prompt) / (performance.now() - started) });
await tell({ peakRssMiB: peakRss(), hugeMiB: hugePages(), done: true });
process.exit(0);

/** Generates up to so many tokens; when the first and the last came, after how many. */
async function timed(text, most) {
  const began = performance.now();
  let [first, last, count] = [0, 0, 0];
  for await (const more of engine.generate(text, most)) {
    last = performance.now() - began;
    if (count === 0) [first, count] = [last, 1];
    else count += more;
    if (count >= most || last - first > decodeSeconds * 1000) break;
  }
  return { first, last, count };
}

/** With default options throughout. */
async function openOurs() {
  const began = performance.now();
  const { loadModel } = await import('node-chord');
  const imported = performance.now();
  const loaded = await loadModel(model);
  const ready = performance.now();
  const greedy = { temperature: 0, ignoreEos: true };
  return {
    importMs: imported - began,
    loadMs: ready - imported,
    threads: () => loaded.stats().threads,
    reset: () => {},
    async *generate(text, most) {
      for await (const chunk of loaded.generate(text, { ...greedy, maxTokens: most })) {
        if (chunk.tokens.length > 0) yield chunk.tokens.length;
      }
    },
    prefill: (text) => loaded.generate(text, { ...greedy, maxTokens: 1 }),
  };
}

/** On the CPU, from the prebuilt binaries; options of the side (threads) on top. */
async function openPeer() {
  const began = performance.now();
  const entry = createRequire(join(folder, 'package.json')).resolve('node-llama-cpp');
  const { getLlama } = await import(pathToFileURL(entry).href);
  const only = { gpu: false, build: 'never', skipDownload: true };
  const llama = await getLlama({ ...only, logLevel: 'error', progressLogs: false });
  const imported = performance.now();
  const loaded = await llama.loadModel({ modelPath: model, gpuLayers: 0 });
  const sizes = { contextSize: CONTEXT, batchSize: 512 };
  const context = await loaded.createContext({ ...sizes, ...side.options });
  const sequence = context.getSequence();
  const ready = performance.now();
  return {
    importMs: imported - began,
    loadMs: ready - imported,
    threads: () => context.currentThreads || context.idealThreads,
    reset: () => sequence.clearHistory(),
    async *generate(text) {
      const options = { temperature: 0, yieldEogToken: true };
      for await (const _ of sequence.evaluate(text, options)) yield 1;
    },
    prefill: (text) => sequence.evaluateWithoutGeneratingNewTokens(text),
  };
}

/** What lies in huge pages, mapped or not; where the system tells. */
function hugePages() {
  try {
    const lines = readFileSync('/proc/self/smaps_rollup', 'utf8');
    const sizes = lines.matchAll(/^(?:AnonHugePages|FilePmdMapped):\s+(\d+) kB$/gm);
    return [...sizes].reduce((sum, [, kib]) => sum + kib / 1024, 0);
  } catch {
    return undefined;
  }
}

/** The most that was resident at once, pages of mapped files included. */
function peakRss() {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
  } catch {
    return process.resourceUsage().maxRSS / 1024;
  }
}
