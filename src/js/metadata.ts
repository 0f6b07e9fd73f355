/** A file's metadata, which the addon hands over as JSON by key. */

import type * as api from '../../index.js';

/**
 * Each entry is `[key, kind, JSON ...]`: kind `v` is one value, `a` an array whose pieces follow
 * each other, `n` either with numbers that JSON cannot hold written as strings.
 */
export function readMetadata(entries: readonly string[][]): Record<string, api.Meta> {
  const metadata: Record<string, api.Meta> = {};
  for (const entry of entries) put(metadata, entry);
  return metadata;
}

/** The same, giving way to other work between big keys. */
export async function readMetadataInTurns(
  entries: readonly string[][],
): Promise<Record<string, api.Meta>> {
  const metadata: Record<string, api.Meta> = {};
  let read = 0;
  for (const entry of entries) {
    put(metadata, entry);
    read += entry.reduce((sum, piece) => sum + piece.length, 0);
    if (read < 500_000) continue;
    read = 0;
    await new Promise(setImmediate);
  }
  return metadata;
}

function put(metadata: Record<string, api.Meta>, [key = '', kind, ...pieces]: string[]): void {
  const parsed = pieces.map((piece) => JSON.parse(piece, kind?.includes('n') ? odd : undefined));
  const value: api.Meta = kind?.includes('a') ? parsed.flat(1) : parsed[0];
  // A key may be called __proto__.
  Object.defineProperty(metadata, key, {
    value,
    enumerable: true,
    writable: true,
    configurable: true,
  });
}

/** An integer beyond 2^53, or NaN or an infinity. */
function odd(_: string, item: unknown): unknown {
  if (typeof item !== 'string') return item;
  return /^-?\d+$/.test(item) ? BigInt(item) : Number(item);
}
