// Sessions: going on, forking, rewinding, rolling back.
'use strict';

const assert = require('node:assert/strict');
const { test, before, after } = require('node:test');
const { chord, MODEL, GREEDY, rejects, throws } = require('./common.js');

let model;
before(async () => {
  model = await chord.loadModel(MODEL);
});
after(() => model.close());

const TURN = { ...GREEDY, maxTokens: 16 };

test('generate goes on from where it was, as one run over the whole text would', async () => {
  const session = model.createSession();
  assert.equal(session.model, model);
  assert.equal(session.length, 0);
  const first = await session.generate('Once upon a time', TURN);
  assert.equal(session.length, first.usage.promptTokens + 16);
  const second = await session.generate(' Then', TURN);
  assert.ok(second.usage.cachedTokens >= session.length - 20);
  const prompt = await model.tokenize('Once upon a time', { bos: true });
  const more = await model.tokenize(' Then');
  const whole = await model.generate([...prompt, ...first.tokens, ...more], TURN);
  assert.deepEqual(second.tokens, whole.tokens);
  assert.deepEqual(session.messages, []);
  await session.close();
});

test('nothing new goes on too', async () => {
  const session = model.createSession();
  await rejects('ERR_INVALID_ARG', session.generate([], TURN));
  const first = await session.generate('Once upon a time', TURN);
  const more = await session.generate([], TURN);
  const whole = await model.generate('Once upon a time', { ...TURN, maxTokens: 32 });
  assert.deepEqual([...first.tokens, ...more.tokens], [...whole.tokens]);
  await session.close();
});

test('chat keeps the conversation and evaluates only what is new', async () => {
  const system = { role: 'system', content: 'Be brief.' };
  const session = model.createSession({ messages: [system] });
  assert.deepEqual(session.messages, [system]);
  const first = await session.chat('Tell me a story.', TURN);
  const [answer] = first.messages;
  const question = { role: 'user', content: 'Tell me a story.' };
  assert.deepEqual(session.messages, [system, question, answer]);
  const second = await session.chat('More!', TURN);
  assert.ok(second.usage.cachedTokens >= first.usage.promptTokens);
  const list = [system, question, answer, { role: 'user', content: 'More!' }];
  const whole = await model.chat(list, TURN);
  assert.equal(second.text, whole.text);
  assert.equal(second.usage.promptTokens, whole.usage.promptTokens);
  assert.equal(session.messages.length, 5);
  assert.ok(Object.isFrozen(session.messages) && Object.isFrozen(session.messages[0]));
  assert.deepEqual(structuredClone(session.messages), session.messages);
  await session.close();
});

test('a fork goes its own way', async () => {
  const session = model.createSession();
  await session.chat('Tell me a story.', TURN);
  const fork = session.fork();
  assert.deepEqual([fork.length, fork.messages], [session.length, session.messages]);
  const [a, b] = await Promise.all([
    session.chat('About a cat.', TURN),
    fork.chat('About a dog.', TURN),
  ]);
  assert.equal(a.finishReason, 'length');
  const messages = [...session.messages.slice(0, 2), { role: 'user', content: 'About a dog.' }];
  assert.equal(b.text, (await model.chat(messages, TURN)).text);
  assert.equal(session.messages.length, 4);
  assert.ok(b.usage.cachedTokens > 16);
  await Promise.all([session.close(), fork.close()]);
});

test('forks and rewinds keep to the text with every KV type', async () => {
  const kept = [];
  for (const kvType of ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', { k: 'q8_0', v: 'q4_0' }]) {
    const other = await chord.loadModel(MODEL, { kvType });
    const session = other.createSession();
    const first = await session.generate('Once upon a time', TURN);
    const fork = session.fork();
    const second = await session.generate(' Then', TURN);
    assert.deepEqual((await fork.generate(' Then', TURN)).tokens, second.tokens);
    fork.rewind(first.usage.promptTokens + 3);
    fork.rewind(0);
    assert.deepEqual((await fork.generate('Once upon a time', TURN)).tokens, first.tokens);
    kept.push(other.stats().ram.kv);
    await other.close();
  }
  const [f32, f16, bf16, q8, q4] = kept;
  assert.ok(f32 > 1.8 * f16 && f16 === bf16, `${kept}`);
  assert.ok(q8 < 0.6 * f16 && q4 < 0.36 * f16, `${kept}`);
});

test('rewind forgets tokens', async () => {
  const session = model.createSession();
  const first = await session.generate('Once upon a time', TURN);
  const { length } = session;
  const second = await session.generate(' Then', TURN);
  session.rewind(length);
  assert.equal(session.length, length);
  assert.deepEqual((await session.generate(' Then', TURN)).tokens, second.tokens);
  session.rewind(first.usage.promptTokens + 3);
  session.rewind(0);
  assert.deepEqual((await session.generate('Once upon a time', TURN)).tokens, first.tokens);
  const error = throws('ERR_INVALID_ARG', () => session.rewind(session.length + 1));
  assert.equal(error.details.name, 'length');
  throws('ERR_INVALID_ARG', () => session.rewind(-1));
  throws('ERR_INVALID_ARG', () => session.rewind(1.5));
  await session.close();
});

test("rewind with messages goes to a message's border", async () => {
  const system = { role: 'system', content: 'Be brief.' };
  const session = model.createSession({ messages: [system] });
  const lengths = [session.length];
  const texts = [];
  for (const content of ['One', 'Two', 'Three']) {
    texts.push((await session.chat(content, TURN)).text);
    lengths.push(session.length);
  }
  throws('ERR_INVALID_ARG', () => session.rewind(lengths[1] + 1));
  session.rewind(lengths[1]);
  assert.deepEqual([session.length, session.messages.length], [lengths[1], 3]);
  assert.equal((await session.chat('Two', TURN)).text, texts[1]);
  session.rewind(0);
  assert.deepEqual(session.messages, [system]);
  assert.equal((await session.chat('One', TURN)).text, texts[0]);
  await session.close();
});

test('a session runs one generation at a time', async () => {
  const session = model.createSession();
  const running = session.generate('Once', { ignoreEos: true });
  await running[Symbol.asyncIterator]().next();
  await rejects('ERR_SESSION_BUSY', session.generate('x'));
  await rejects('ERR_SESSION_BUSY', session.chat('x'));
  throws('ERR_SESSION_BUSY', () => session.fork());
  throws('ERR_SESSION_BUSY', () => session.rewind(0));
  const result = await running.cancel();
  assert.equal(result.finishReason, 'cancelled');
  assert.equal(session.length, result.usage.promptTokens + result.usage.completionTokens);
  await session.generate('x', { maxTokens: 1 });
  await session.close();
});

test('what rejects is rolled back, what is cancelled is kept', async () => {
  const session = model.createSession();
  await session.chat('Tell me a story.', TURN);
  const { length, messages } = session;
  const controller = new AbortController();
  const options = { ...GREEDY, ignoreEos: true, signal: controller.signal };
  const aborted = session.chat('More!', options);
  const reader = aborted[Symbol.asyncIterator]();
  for (let i = 0; i < 5; i++) await reader.next();
  controller.abort();
  const error = await rejects('ABORT_ERR', aborted);
  assert.ok(error.details.partial.text.length > 0);
  assert.equal(error.details.partial.finishReason, 'cancelled');
  assert.deepEqual([session.length, session.messages], [length, messages]);
  for await (const _ of session.chat('More!', { ...GREEDY, ignoreEos: true })) break;
  assert.equal(session.messages.length, 4);
  assert.ok(session.length > length);
  await session.close();
});

test('an overflow leaves it as it was', async () => {
  const session = model.createSession();
  await session.chat('Tell me a story.', TURN);
  const { length, messages } = session;
  await rejects('ERR_CONTEXT_OVERFLOW', session.chat('word '.repeat(2000), TURN));
  assert.deepEqual([session.length, session.messages], [length, messages]);
  await session.chat('More!', TURN);
  await session.close();
});

test('closing ends what it generates, and is idempotent', async () => {
  const session = model.createSession();
  const running = session.generate('Once', { ignoreEos: true });
  await running[Symbol.asyncIterator]().next();
  const ended = rejects('ERR_CLOSED', running);
  await Promise.all([session.close(), session.close(), session[Symbol.asyncDispose]()]);
  assert.deepEqual((await ended).details, { what: 'session' });
  assert.equal(session.closed, true);
  const error = await rejects('ERR_CLOSED', session.generate('x'));
  assert.deepEqual(error.details, { what: 'session' });
  throws('ERR_CLOSED', () => session.fork());
  throws('ERR_CLOSED', () => session.rewind(0));
  assert.equal(model.closed, false);
});

test('closed and collected sessions give their pages back', async () => {
  const before = model.stats();
  const sessions = Array.from({ length: 10 }, () => model.createSession());
  await Promise.all(sessions.map((session) => session.generate('Once', TURN)));
  assert.equal(model.stats().sessions, before.sessions + 10);
  await Promise.all(sessions.map((session) => session.close()));
  const after = model.stats();
  assert.deepEqual([after.sessions, after.kvTokens.used], [before.sessions, before.kvTokens.used]);
});
