// A model under a budget that it does not fit: same text, figures in stats, refusals with figures.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { chord, MODEL, GREEDY, withModel, rejects, script } = require('./common.js');

const PROMPT = 'Once upon a time';
const ANSWER = { ...GREEDY, maxTokens: 24 };

/** The smallest budget that works, from the refusal of one that does not. */
async function smallest(options = {}) {
  const memory = { ram: '64KiB' };
  const error = await rejects(
    'ERR_INSUFFICIENT_MEMORY',
    chord.loadModel(MODEL, { ...options, memory }),
  );
  assert.equal(error.details.memory, 'ram');
  assert.equal(error.details.available, 64 * 1024);
  return error.details.required;
}

test('the text is the same at every budget, depth and way to read', async () => {
  const whole = { contextLength: 128 };
  const expected = await withModel((model) => model.generate(PROMPT, ANSWER), whole);
  const least = await smallest(whole);
  for (const ram of [least, Math.ceil(least * 1.3), least * 2]) {
    for (const more of [{}, { io: 'buffered' }, { prefetch: 0 }, { prefetch: 4 }]) {
      const options = { ...whole, memory: { ram: more.prefetch ? ram * 2 : ram }, ...more };
      await withModel(async (model) => {
        const { text, tokens } = await model.generate(PROMPT, ANSWER);
        assert.equal(text, expected.text);
        assert.deepEqual(tokens, expected.tokens);
        assert.ok(model.stats().ram.total <= options.memory.ram);
      }, options);
    }
  }
});

test('without reading ahead every streamed group is a miss, and the text is the same', async () => {
  const contextLength = 128;
  const memory = { ram: await smallest({ contextLength, prefetch: 0 }) };
  const run = (options) =>
    withModel(
      async (model) => {
        const { text } = await model.generate(PROMPT, ANSWER);
        const { io, groups } = model.stats();
        const streamed = groups.filter((g) => g.place === 'streamed' && g.name !== 'embedding');
        const sum = (field) => streamed.reduce((all, group) => all + group[field], 0);
        return { text, stallMs: io.stallMs, hits: sum('hits'), misses: sum('misses') };
      },
      { contextLength, memory, ...options },
    );
  const [none, some] = [await run({ prefetch: 0 }), await run({})];
  assert.equal(none.text, some.text);
  assert.equal(none.hits, 0);
  assert.ok(none.misses > 24 && none.stallMs > 0);
});

test('stats tell what is streamed, read and waited for', async () => {
  const contextLength = 128;
  const ram = await smallest({ contextLength });
  await withModel(
    async (model) => {
      await model.generate(PROMPT, ANSWER);
      const { ram: budget, io, groups } = model.stats();
      assert.equal(budget.limit, ram);
      assert.ok(budget.ring > 0);
      assert.ok(io.bytesRead > 0 && io.bytesPerSecond > 0 && io.stallMs > 0);
      assert.match(io.backend, /direct|buffered/);
      const streamed = groups.filter(({ place }) => place === 'streamed');
      assert.ok(streamed.length > 1);
      assert.ok(streamed.some(({ hits, misses, late }) => hits + misses + late > 20));
    },
    { memory: { ram }, contextLength },
  );
  await withModel((model) => {
    assert.equal(model.stats().io.backend, 'mmap');
    assert.ok(model.stats().groups.every(({ place }) => place === 'pinned'));
  });
});

test('a budget below the smallest is refused by a byte, and the smallest is not', async () => {
  const ram = await smallest();
  await (await chord.loadModel(MODEL, { memory: { ram } })).close();
  const error = await rejects(
    'ERR_INSUFFICIENT_MEMORY',
    chord.loadModel(MODEL, { memory: { ram: ram - 1 } }),
  );
  assert.equal(error.details.required, ram);
  await rejects('ERR_INSUFFICIENT_MEMORY', chord.loadModel(MODEL, { memory: { ram }, io: 'mmap' }));
});

test('NODE_CHORD_RAM stands for memory.ram, which wins over it', async () => {
  const body = `
    const tell = (error) => console.log(error.code, error.details.available ?? error.details.name);
    chord.loadModel(MODEL).catch(tell).then(() =>
      chord.loadModel(MODEL, { memory: { ram: '32KiB' } }).catch(tell));`;
  const run = (NODE_CHORD_RAM) => script(body, { env: { NODE_CHORD_RAM } });
  const code = 'ERR_INSUFFICIENT_MEMORY';
  assert.equal((await run('64KiB')).stdout, `${code} 65536\n${code} 32768\n`);
  assert.equal((await run('much')).stdout, `ERR_INVALID_ARG NODE_CHORD_RAM\n${code} 32768\n`);
});
