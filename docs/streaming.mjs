#!/usr/bin/env node
// Makes the picture and the tables of docs/streaming.md:
//
//   node docs/streaming.mjs picture MODEL.gguf --memory 2GiB   a real run, by `chord bench --trace`
//   node docs/streaming.mjs table --disk 3GB                   by `chord estimate`, on this machine
//   node docs/streaming.mjs experts MODEL.gguf TOKENS 6MB ...  real runs at these budgets, recorded
//
// The first table needs no models: it estimates files that have the shapes of real ones and no
// contents.

import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const HERE = dirname(fileURLToPath(import.meta.url));
const CHORD = join(HERE, '..', 'dist', 'cli', 'main.js');
const PAGE = join(HERE, 'streaming.md');
const GIB = 2 ** 30;

/** Runs chord; what it printed as JSON. */
function chord(...args) {
  const options = { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28 };
  const { stdout } = spawnSync(process.execPath, [CHORD, ...args, '--json'], options);
  const result = JSON.parse(stdout);
  if (result.error) throw new Error(result.error.message);
  return result;
}

function picture([model, ...flags]) {
  const file = join(tmpdir(), `chord-trace-${process.pid}.jsonl`);
  const { predicted, measured } = chord('bench', model, ...flags, '--trace', file);
  const [about, ...events] = fs.readFileSync(file, 'utf8').trim().split('\n').map(JSON.parse);
  fs.rmSync(file);
  fs.writeFileSync(join(HERE, 'streaming.svg'), draw(about, events));
  const [rate, expected] = [measured, predicted].map((side) => side.tokensPerSecond.toFixed(2));
  console.log(`${rate} tokens/s, ${expected} predicted, ${measured.tokens} tokens`);
}

/** Two passes from the middle of a run: what the disk did, and what the processor did. */
function draw(about, events) {
  const first = 1;
  const starts = events.filter((e) => e.what === 'compute' && e.group === first);
  const from = starts[Math.max(0, (starts.length >> 1) - 1)];
  const to = starts[(starts.length >> 1) + 1] ?? events.at(-1);
  const [left, right] = [from.start, to.start];
  const [width, margin, top, lane] = [960, 90, 34, 54];
  const x = (seconds) => margin + ((seconds - left) / (right - left)) * (width - margin - 10);
  const shown = events.filter((event) => event.end > left && event.start < right);
  const bar = ({ what, group, start, end }) => {
    const lanes = { read: 0, compute: 1, wait: 1 };
    const fill = { read: ['#3b76af', '#6fa3d4'][group % 2], compute: '#4f9d58', wait: '#d98c4a' };
    const [a, b] = [Math.max(start, left), Math.min(end, right)].map(x);
    const y = top + lanes[what] * (lane + 14);
    const [name] = about.groups[group];
    const ms = ((end - start) * 1e3).toFixed(1);
    const title = `<title>${name}: ${what} ${ms} ms</title>`;
    const size = `x="${a.toFixed(1)}" y="${y}" width="${Math.max(0.3, b - a).toFixed(1)}"`;
    return `<rect ${size} height="${lane}" fill="${fill[what]}">${title}</rect>`;
  };
  const bottom = top + 2 * lane + 14;
  const step = niceStep((right - left) * 1e3);
  const ticks = [];
  for (let ms = 0; ms <= (right - left) * 1e3; ms += step) {
    const at = x(left + ms / 1e3).toFixed(1);
    ticks.push(`<path d="M${at} ${bottom + 4}v6" stroke="#666"/>`);
    ticks.push(`<text x="${at}" y="${bottom + 24}" text-anchor="middle">${ms} ms</text>`);
  }
  const label = (text, y) => `<text x="${margin - 10}" y="${y}" text-anchor="end">${text}</text>`;
  const legend = [
    ['#3b76af', 'reading a group'],
    ['#4f9d58', 'computing a group'],
    ['#d98c4a', 'waiting for one'],
  ].map(([colour, text], i) => {
    const at = margin + i * 190;
    const box = `<rect x="${at}" y="10" width="12" height="12" fill="${colour}"/>`;
    return `${box}<text x="${at + 18}" y="21">${text}</text>`;
  });
  const height = bottom + 36;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}"`,
    ' font-family="sans-serif" font-size="13" fill="#222">',
    `<title>Reading and computing of two passes</title>`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    ...legend,
    label('disk', top + lane / 2 + 4),
    label('processor', top + lane * 1.5 + 18),
    ...shown.map(bar),
    ...ticks,
    '</svg>\n',
  ].join('\n');
}

/** A round number that gives about eight ticks. */
function niceStep(ms) {
  const power = 10 ** Math.floor(Math.log10(ms / 8));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => ms / n <= 9) ?? 10 * power;
}

const RECORD = join(HERE, 'records', 'experts.json');

/** Runs a mixture of experts at some budgets; records what its cache was good for. */
async function experts([path, tokens, ...budgets]) {
  const { loadModel } = await import(new URL('../dist/index.mjs', import.meta.url));
  const rows = [];
  for (const budget of budgets) {
    const memory = { ram: /^\d+$/.test(budget) ? Number(budget) : budget };
    const model = await loadModel(path, { memory, contextLength: 512, io: 'direct' });
    const row = await expertRow(model, Number(tokens));
    rows.push({ budget, ...row });
    console.log(JSON.stringify(rows.at(-1)));
    await model.close();
  }
  const all = fs.existsSync(RECORD) ? JSON.parse(fs.readFileSync(RECORD, 'utf8')) : {};
  const name = basename(path, '.gguf');
  const others = all[name]?.rows.filter((row) => !budgets.includes(row.budget)) ?? [];
  all[name] = {
    fileBytes: fs.statSync(path).size,
    tokens: Number(tokens),
    rows: [...others, ...rows],
  };
  fs.writeFileSync(RECORD, `${JSON.stringify(all, null, 2)}\n`);
  const text = Object.entries(all).flatMap(([of, model]) =>
    model.rows.map((row) => {
      const cached = `${(100 * row.cachedPart).toFixed(0)} %`;
      const hits = `${(100 * row.hitRate).toFixed(0)} %`;
      const mb = short(row.bytesPerToken / 1e6);
      const rate = short(row.tokensPerSecond);
      const late = `${(100 * row.lateRate).toFixed(0)} %`;
      return `| ${of} | ${row.budget} | ${cached} | ${hits} | ${late} | ${mb} MB | ${rate} |`;
    }),
  );
  const head = '| | budget | experts cached | hits | on their way | read a token | tokens/s |';
  put('experts', [head, `|${' --- |'.repeat(7)}`, ...text].join('\n'));
}

/** What some tokens cost once the cache is full. */
async function expertRow(model, maxTokens) {
  const prompt = Uint32Array.of(1);
  const draw = (seed) =>
    model.generate(prompt, { maxTokens, seed, temperature: 1, ignoreEos: true });
  await draw(1);
  const before = model.stats();
  const { timings, usage } = await draw(2);
  const after = model.stats();
  const passes = usage.completionTokens;
  const cached = ({ groups }, field) =>
    groups.filter(({ place }) => place === 'cached').reduce((sum, group) => sum + group[field], 0);
  const figures = ['hits', 'late', 'misses', 'guessed', 'guessedRight'];
  const [hits, late, misses, guessed, guessedRight] = figures.map(
    (field) => cached(after, field) - cached(before, field),
  );
  const pinned = after.groups.filter(({ place }) => place === 'pinned');
  const stays = after.ram.weights - pinned.reduce((sum, { bytes }) => sum + bytes, 0);
  return {
    cachedPart: Math.min(1, Math.max(0, stays) / cached(after, 'bytes')),
    hitRate: hits / (hits + late + misses),
    lateRate: late / (hits + late + misses),
    guessesRight: guessed === 0 ? null : guessedRight / guessed,
    bytesPerToken: (after.io.bytesRead - before.io.bytesRead) / passes,
    tokensPerSecond: timings.tokensPerSecond,
  };
}

/** Puts a text between the marks of the page that bear a name. */
function put(name, text) {
  const page = fs.readFileSync(PAGE, 'utf8');
  const before = page.split(`<!-- ${name} -->`)[0];
  const after = page.split(`<!-- /${name} -->`)[1];
  fs.writeFileSync(PAGE, `${before}<!-- ${name} -->\n\n${text}\n\n<!-- /${name} -->${after}`);
}

const SHAPES = [
  { name: 'TinyLlama 1.1B', layers: 22, embd: 2048, ff: 5632, heads: 32, kv: 4 },
  { name: 'Llama 2 7B', layers: 32, embd: 4096, ff: 11008, heads: 32, kv: 32 },
  { name: 'Llama 2 13B', layers: 40, embd: 5120, ff: 13824, heads: 40, kv: 40 },
  { name: 'Llama 2 70B', layers: 80, embd: 8192, ff: 28672, heads: 64, kv: 8 },
  { name: 'Mixtral 8x7B', layers: 32, embd: 4096, ff: 14336, heads: 32, kv: 8, experts: 8 },
];
const BUDGETS = [1, 2, 4, 8, 16, 32, 64];

/** Tokens a second by model and budget, between the marks in the page. */
function table(flags) {
  const at = flags.indexOf('--disk');
  const disk = at < 0 ? '3GB' : flags[at + 1];
  const rows = SHAPES.map((shape) => {
    const file = join(tmpdir(), `chord-shape-${process.pid}.gguf`);
    const size = writeShape(file, shape);
    const cells = BUDGETS.map((gib) => {
      if (size < gib * (GIB / 3)) return '';
      const memory = ['--memory', `${gib}GiB`, '--context-length', '512'];
      // What this machine lacks is estimated all the same, for one that has it.
      const guess = chord('estimate', file, ...memory, '--disk', disk);
      const fits = guess.ram.total <= guess.ram.limit;
      const streams = guess.bytesPerPass > 0;
      const rate = short(guess.tokensPerSecond);
      return fits ? (streams ? rate : `**${rate}**`) : '-';
    });
    fs.rmSync(file);
    return `| ${shape.name} | ${(size / GIB).toFixed(1)} GiB | ${cells.join(' | ')} |`;
  });
  const head = `| Q4_K_M | size | ${BUDGETS.map((gib) => `${gib} GiB`).join(' | ')} |`;
  const line = `| --- |${' --- |'.repeat(BUDGETS.length + 1)}`;
  put('table', [head, line, ...rows].join('\n'));
}

function short(rate) {
  return rate >= 10 ? rate.toFixed(0) : String(Number(rate.toPrecision(2)));
}

/** A file with the header of a Q4_K_M model of this shape, and as many bytes; sparse. */
function writeShape(file, { layers, embd, ff, heads, kv, experts = 0 }) {
  const [F32, Q4_K, Q6_K, Q8_0] = [0, 12, 14, 8];
  const bytes = { [F32]: [1, 4], [Q4_K]: [256, 144], [Q6_K]: [256, 210], [Q8_0]: [32, 34] };
  const vocab = 32000;
  const kvWidth = (embd / heads) * kv;
  const tensors = [['token_embd.weight', [embd, vocab], Q4_K]];
  for (let i = 0; i < layers; i++) {
    const more = i < layers >> 3 || i >= (7 * layers) >> 3 || (i - (layers >> 3)) % 3 === 2;
    const add = (name, shape, type) => tensors.push([`blk.${i}.${name}.weight`, shape, type]);
    add('attn_norm', [embd], F32);
    add('attn_q', [embd, embd], Q4_K);
    add('attn_k', [embd, kvWidth], experts ? Q8_0 : Q4_K);
    add('attn_v', [embd, kvWidth], experts ? Q8_0 : more ? Q6_K : Q4_K);
    add('attn_output', [embd, embd], Q4_K);
    add('ffn_norm', [embd], F32);
    const part = experts ? '_exps' : '';
    const of = (shape) => (experts ? [...shape, experts] : shape);
    if (experts) add('ffn_gate_inp', [embd, experts], F32);
    add(`ffn_gate${part}`, of([embd, ff]), Q4_K);
    add(`ffn_up${part}`, of([embd, ff]), Q4_K);
    add(`ffn_down${part}`, of([ff, embd]), more ? Q6_K : Q4_K);
  }
  tensors.push(['output_norm.weight', [embd], F32], ['output.weight', [embd, vocab], Q6_K]);
  const [U32, FLOAT, STRING] = [4, 6, 8];
  const meta = [
    ['general.architecture', STRING, 'llama'],
    ['llama.block_count', U32, layers],
    ['llama.context_length', U32, 4096],
    ['llama.embedding_length', U32, embd],
    ['llama.feed_forward_length', U32, ff],
    ['llama.attention.head_count', U32, heads],
    ['llama.attention.head_count_kv', U32, kv],
    ['llama.attention.layer_norm_rms_epsilon', FLOAT, 1e-5],
    ['llama.rope.dimension_count', U32, embd / heads],
  ];
  if (experts) {
    meta.push(['llama.expert_count', U32, experts], ['llama.expert_used_count', U32, 2]);
  }
  const chunks = [];
  const u32 = (n) => chunks.push(Buffer.from(Uint32Array.of(n).buffer));
  const u64 = (n) => chunks.push(Buffer.from(BigUint64Array.of(BigInt(n)).buffer));
  const text = (value) => {
    u64(Buffer.byteLength(value));
    chunks.push(Buffer.from(value));
  };
  chunks.push(Buffer.from('GGUF'));
  u32(3);
  u64(tensors.length);
  u64(meta.length);
  for (const [key, type, value] of meta) {
    text(key);
    u32(type);
    if (type === STRING) text(value);
    else if (type === U32) u32(value);
    else chunks.push(Buffer.from(Float32Array.of(value).buffer));
  }
  let offset = 0;
  for (const [name, shape, type] of tensors) {
    const [block, size] = bytes[type];
    text(name);
    u32(shape.length);
    for (const n of shape) u64(n);
    u32(type);
    u64(offset);
    const length = (shape.reduce((product, n) => product * n, 1) / block) * size;
    offset += Math.ceil(length / 32) * 32;
  }
  const header = Buffer.concat(chunks);
  const start = Math.ceil(header.length / 32) * 32;
  fs.writeFileSync(file, header);
  fs.truncateSync(file, start + offset);
  return start + offset;
}

const [what, ...rest] = process.argv.slice(2);
if (what === 'picture') picture(rest);
else if (what === 'table') table(rest);
else if (what === 'experts') await experts(rest);
else {
  const ways =
    'picture MODEL.gguf [flags] | table [--disk RATE] | experts MODEL.gguf TOKENS BUDGET ...';
  console.error(`Usage: node docs/streaming.mjs ${ways}`);
  process.exitCode = 2;
}
