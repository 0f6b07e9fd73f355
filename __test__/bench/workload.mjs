// What a model asks of a machine, from its tensors: bytes read for a token, operations of a prompt.

import { statSync } from 'node:fs';
import { basename } from 'node:path';
import { inspect } from 'node-chord';

/** Types without blocks: their peak is that of f32, the others' that of int8. */
const FLOATS = ['F32', 'F16', 'BF16', 'F64'];

/**
 * `bytesPerToken`: weights read for one token, the embedding's row neglected; experts count as far
 * as they are used. `layerWeights`: those that every token of a prompt is multiplied with (the
 * output runs for one row). `peak`: the limit that its prompts are held to.
 */
export async function workload(path) {
  const { metadata, tensors, fileBytes } = await inspect(path);
  const arch = metadata['general.architecture'];
  const used = metadata[`${arch}.expert_used_count`] ?? 1;
  const experts = metadata[`${arch}.expert_count`] ?? 1;
  const is_tied = !tensors.some(({ name }) => name === 'output.weight');
  let [bytesPerToken, layerWeights, floats] = [0, 0, 0];
  for (const { name, type, shape, bytes } of tensors) {
    if (name === 'token_embd.weight' && !is_tied) continue;
    const share = name.includes('_exps') ? used / experts : 1;
    bytesPerToken += bytes * share;
    if (!name.startsWith('blk.') || shape.length < 2) continue;
    const weights = shape.reduce((a, b) => a * b, 1) * share;
    layerWeights += weights;
    if (FLOATS.includes(type)) floats += weights;
  }
  return {
    name: metadata['general.name'] ?? basename(path),
    file: basename(path),
    fileMiB: Math.round(fileBytes / 2 ** 20),
    vocabSize: metadata['tokenizer.ggml.tokens'].length,
    bytesPerToken: Math.round(bytesPerToken),
    layerWeights: Math.round(layerWeights),
    peak: floats > layerWeights / 2 ? 'f32Gflops' : 'int8Gops',
  };
}

/** Shares of the limits that a decode rate and a prompt rate (tokens a second) mean. */
export function shares(work, limits, { decodeTps, promptTps }) {
  const read = (decodeTps * work.bytesPerToken) / 1e9 / limits.readGBs;
  const peak = (promptTps * 2 * work.layerWeights) / 1e9 / limits[work.peak];
  return { decodeShare: read, promptShare: peak };
}

/** The better of two measurements of the limits, each by itself. */
export function better(a, b) {
  const best = (key) => Math.max(a[key], b[key]);
  return {
    readGBs: best('readGBs'),
    int8Gops: best('int8Gops'),
    f32Gflops: best('f32Gflops'),
  };
}

/** Something that changes when a file does. */
export function stamp(path) {
  const { size, mtimeMs } = statSync(path);
  return [basename(path), size, mtimeMs];
}
