// node-chord and node-llama-cpp side by side on given files: A B A B, each run in a process of its
// own, the machine's limits measured between the runs. Figures are medians over the rounds.

import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { measured } from './child.mjs';
import { Journal } from './journal.mjs';
import { addons, checkBuilt, limitsMeter, ROOT, versions } from './machine.mjs';
import { begin, save } from './record.mjs';
import { columns, digits, figure, median, percent, summary } from './stats.mjs';
import { better, shares, stamp, workload } from './workload.mjs';

export const PEER = '3.22.1';
/** Files larger than this get a prompt of 128 tokens, others one of 512, if not told. */
const LARGE = 3e9;
/** Ours as it comes; the peer as it is best on two cores, and as it comes. */
const SIDES = [
  { name: 'node-chord', engine: 'node-chord', options: {} },
  { name: 'node-llama-cpp, threads: 2', engine: 'node-llama-cpp', options: { threads: 2 } },
  { name: 'node-llama-cpp, default', engine: 'node-llama-cpp', options: {}, isSlow: true },
];
const METRICS = [
  'importMs',
  'loadMs',
  'readyMs',
  'firstTokenMs',
  'decodeTps',
  'decodeShare',
  'promptTps',
  'promptShare',
  'peakRssMiB',
  'hugeMiB',
];

/** Runs the bench; the exit status: 3 if time was over and the same command would go on. */
export async function peer(files, options) {
  checkBuilt();
  installPeer(options.folder);
  const paths = files.map((file) => resolve(file));
  const subject = [paths.map(stamp), options.rounds, options.defaultRounds, options.tokens];
  subject.push(
    options.prompt ?? 'auto',
    addons().map((path) => stamp(join(ROOT, path))),
  );
  subject.push(versions());
  const journal = new Journal(options.folder, subject, options.fresh);
  if (journal.size > 0) console.log(`Going on after ${journal.size} runs that began earlier.`);
  const finish = begin('peer', journal.began);
  const models = [];
  for (const path of paths) models.push({ path, work: await workload(path) });
  const isWhole = await allRuns(models, journal, options);
  const record = finish({
    versions: { 'node-llama-cpp': PEER },
    options: { rounds: options.rounds, tokens: options.tokens },
    models: models.map((model) => summed(model, journal, options)),
  });
  for (const model of record.models) console.log(`\n${table(model)}`);
  save(record, options);
  if (isWhole) journal.end();
  else console.log('\nTime is over before all rounds are done: the same command goes on.');
  return isWhole ? 0 : 3;
}

/** Installs the peer into a folder outside of this repository, unless it is there. */
function installPeer(folder) {
  const inside = relative(ROOT, resolve(folder));
  if (!inside.startsWith('..')) throw new Error('--folder must lie outside of the repository');
  const manifest = join(folder, 'node_modules', 'node-llama-cpp', 'package.json');
  if (fs.existsSync(manifest) && JSON.parse(fs.readFileSync(manifest)).version === PEER) return;
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  const args = ['install', '--prefix', folder, '--ignore-scripts', '--no-audit', '--no-fund'];
  console.log(`Installing node-llama-cpp ${PEER} in ${folder}`);
  const installed = spawnSync('npm', [...args, `node-llama-cpp@${PEER}`], {
    cwd: folder,
    stdio: 'inherit',
    shell: process.platform === 'win32',
  });
  if (installed.status !== 0) throw new Error(`npm install node-llama-cpp@${PEER} failed`);
}

/** True once every run is in the journal; false when time is over before. */
async function allRuns(models, journal, options) {
  const deadline = performance.now() + options.minutes * 60_000;
  const limits = limitsMeter();
  const longest = {};
  for (const { path, work } of models) {
    const due = runs(work, options).filter(({ key }) => journal.get(key) === undefined);
    if (due.length > 0) warm(path);
    let before = null;
    for (const { key, side, round } of due) {
      const guess = longest[work.file + side.name] ?? (side.isSlow ? 30 : 15);
      if (performance.now() + guess * 1000 > deadline) return false;
      before ??= await limits();
      const result = await measured(
        'run-side.mjs',
        request(path, work, side, options),
        options.limit,
      );
      const after = await limits();
      journal.add(key, { ...result, before, after });
      before = after;
      longest[work.file + side.name] = Math.max(guess, result.seconds);
      const rates = `${figure(result.decodeTps)} tok/s, prompt ${figure(result.promptTps)} tok/s`;
      const end = result.failed ? `, ${result.failed}` : '';
      console.log(`${work.file} ${round + 1}/${options.rounds} ${side.name}: ${rates}${end}`);
    }
  }
  return true;
}

/** The runs of a model in their order. */
function runs({ file }, { rounds, defaultRounds }) {
  return Array.from({ length: rounds }, (_, round) => round).flatMap((round) =>
    SIDES.filter(({ isSlow }) => !isSlow || round < defaultRounds).map((side) => ({
      key: `${file} ${round} ${side.name}`,
      round,
      side,
    })),
  );
}

function request(path, work, side, { tokens, prompt, decodeSeconds, folder }) {
  return {
    side,
    model: path,
    vocabSize: work.vocabSize,
    tokens,
    prompt: prompt ?? promptOf(path),
    decodeSeconds,
    folder: resolve(folder),
  };
}

function promptOf(path) {
  return fs.statSync(path).size > LARGE ? 128 : 512;
}

/** Reads a file once, so that no run is the one that reads it from disk. */
function warm(path) {
  const file = fs.openSync(path);
  const buffer = Buffer.alloc(8 << 20);
  while (fs.readSync(file, buffer) > 0);
  fs.closeSync(file);
}

/** Medians of a model's runs; shares are against the better limit measured around each run. */
function summed({ path, work }, journal, options) {
  const all = runs(work, options).map(({ key, side }) => ({ side, run: journal.get(key) }));
  const done = all.filter(({ run }) => run);
  const limits = done.flatMap(({ run }) => [run.before, run.after]);
  const sides = SIDES.map((side) => {
    const own = done.filter((each) => each.side === side).map(({ run }) => run);
    const rows = own.map((run) => ({
      ...run,
      readyMs: run.importMs + run.loadMs,
      ...shares(work, better(run.before, run.after), run),
    }));
    const metrics = METRICS.map((name) => [name, summary(rows.map((row) => row[name]))]);
    return {
      side: side.name,
      runs: own.length,
      failed: own.flatMap(({ failed }) => failed ?? []),
      threads: median(own.map(({ threads }) => threads)),
      ...Object.fromEntries(metrics),
    };
  });
  return {
    ...work,
    prompt: options.prompt ?? promptOf(path),
    limits: {
      readGBs: summary(limits.map(({ readGBs }) => readGBs)),
      int8Gops: summary(limits.map(({ int8Gops }) => int8Gops)),
      f32Gflops: summary(limits.map(({ f32Gflops }) => f32Gflops)),
    },
    sides: sides.filter((side) => side.runs > 0),
  };
}

/** A model's figures as text. */
function table(model) {
  const { limits, prompt } = model;
  const head = ['', 'ready ms', 'first token ms', 'decode tok/s', 'of read limit'];
  head.push(`pp${prompt} tok/s`, 'of peak', 'peak RSS MiB', 'threads', 'runs');
  const rows = model.sides.map((side) => {
    const of = (name) => figure(side[name]?.median);
    const [decode, ahead] = [percent(side.decodeShare?.median), percent(side.promptShare?.median)];
    const row = [side.side, of('readyMs'), of('firstTokenMs'), of('decodeTps'), decode];
    return [...row, of('promptTps'), ahead, of('peakRssMiB'), side.threads ?? '-', side.runs];
  });
  const between = ({ median, min, max }) => `${figure(median)} (${figure(min)}-${figure(max)})`;
  const read = limits.readGBs ? between(limits.readGBs) : '-';
  const peak = limits[model.peak] ? between(limits[model.peak]) : '-';
  const ratios = model.sides.slice(1).map((side) => {
    const ratio = (name) => figure(digits(model.sides[0][name]?.median / side[name]?.median));
    return `${side.side}: decode ${ratio('decodeTps')}x, prompt ${ratio('promptTps')}x`;
  });
  return [
    `${model.name} (${model.file}), ${figure(model.fileMiB)} MiB`,
    columns([head, ...rows]),
    `limits: read ${read} GB/s, ${model.peak} ${peak}; ours against ${ratios.join('; ')}`,
  ].join('\n');
}
