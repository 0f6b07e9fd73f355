// The page of figures says what the committed records say; the arithmetic under it, by hand.

import assert from 'node:assert/strict';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Journal } from '../bench/journal.mjs';
import { made, present } from '../bench/page.mjs';
import { bars, lines } from '../bench/plot.mjs';
import { figure, summary } from '../bench/stats.mjs';
import { better, shares, workload } from '../bench/workload.mjs';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

test('page and plots are what the script makes of the records', () => {
  const [wanted, found] = [made(), present()];
  const remedy = 'run: npm run bench -- plots';
  assert.deepEqual([...found.keys()].sort(), [...wanted.keys()].sort(), remedy);
  for (const [path, text] of wanted) assert.equal(found.get(path), text, `${path}; ${remedy}`);
});

test('a median of few, with its range, and figures as people write them', () => {
  assert.deepEqual(summary([4, 1, NaN, 2, undefined, 3]), {
    median: 2.5,
    min: 1,
    max: 4,
    count: 4,
  });
  assert.equal(summary([undefined]), null);
  const texts = [0.4, 12.345, 1234.5, 1234567, NaN].map(figure);
  assert.deepEqual(texts, ['0.40', '12.3', '1,235', '1,234,567', '-']);
});

test('a model asks for all its weights once a token, a tied embedding among them', async () => {
  const work = await workload(join(ROOT, 'models', 'chord-5m-Q4_K_M.gguf'));
  assert.equal(work.peak, 'int8Gops');
  // Five layers: q and output, k and v, gate, up and down.
  const weights = 5 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768);
  assert.equal(work.layerWeights, weights);
  // A block of 256 is 144 bytes as Q4_K and 210 as Q6_K; the output is the embedding, in Q6_K.
  const output = (4096 * 256 * 210) / 256;
  assert.ok(work.bytesPerToken > output + (weights * 144) / 256);
  assert.ok(work.bytesPerToken < output + (weights * 210) / 256);
  const limits = { readGBs: 20, int8Gops: 100, f32Gflops: 1 };
  const told = { bytesPerToken: 1e9, layerWeights: 1e9, peak: 'int8Gops' };
  const share = shares(told, limits, { decodeTps: 10, promptTps: 25 });
  assert.deepEqual(share, { decodeShare: 0.5, promptShare: 0.5 });
  const other = { readGBs: 10, int8Gops: 200, f32Gflops: 2 };
  assert.deepEqual(better(limits, other), { readGBs: 20, int8Gops: 200, f32Gflops: 2 });
});

test('a journal goes on after a cut line, and only for the same command', () => {
  const folder = fs.mkdtempSync(join(tmpdir(), 'node-chord-journal-'));
  try {
    const first = new Journal(folder, ['a']);
    first.add('run 1', { tps: 1 });
    const [name] = fs.readdirSync(folder);
    fs.appendFileSync(join(folder, name), '{"key":"run 2","val');
    const again = new Journal(folder, ['a']);
    assert.deepEqual(again.get('run 1'), { tps: 1 });
    assert.deepEqual([again.size, again.began], [1, first.began]);
    assert.equal(new Journal(folder, ['b']).size, 0);
    assert.equal(new Journal(folder, ['a'], true).size, 0);
    again.end();
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
});

test('plots place values on their axes and escape what they are told', () => {
  const series = [
    {
      name: 'a < b',
      points: [
        [1, 0],
        [4, 10],
      ],
    },
  ];
  const plot = lines({ title: 'T & U', x: 'x', y: 'y', series });
  assert.match(plot, /<title>T &amp; U<\/title>/);
  assert.match(plot, /d="M86 322L682 74"/);
  const groups = [{ name: 'g', bars: [{ value: 50, label: 'half' }, null] }];
  const chart = bars({ title: 'T', x: 'x', y: 'y', names: ['p', 'q<'], groups, most: 100 });
  assert.match(chart, /class="fill s0" x="\d+(\.\d)?" y="198" width="\d+(\.\d)?" height="124"/);
  assert.match(chart, /q&lt;/);
  assert.ok(!chart.includes('NaN') && !plot.includes('NaN'));
});
