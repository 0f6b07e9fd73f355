/** What opens files: `loadModel`, `loadTokenizer`, `inspect`; and what this machine has. */

import * as os from 'node:os';
import type * as api from '../../index.js';
import * as is from './check.js';
import { aborted, awaiting, calling, invalidArg } from './errors.js';
import { nativeOptions, readLoadOptions } from './load-options.js';
import { logWay, traceLoad } from './log.js';
import { readMetadataInTurns } from './metadata.js';
import { makeModel, type Model } from './model.js';
import { native as addon, type NativeLoad } from './native.js';
import * as options from './options.js';
import { abortable, report } from './task.js';
import { makeTokenizer, type Tokenizer } from './tokenizer.js';

export async function loadModel(
  first: api.Path | (api.LoadOptions & { path: api.Path }),
  second?: api.LoadOptions,
): Promise<Model> {
  const { path, given } = readArguments(first, second);
  const read = readLoadOptions(given);
  const { signal, onProgress } = read;
  if (signal?.aborted) throw aborted(signal.reason, null);
  const trace = traceLoad(path);
  const started = performance.now();
  try {
    const load = calling(() => addon().load(path, nativeOptions(read)));
    const run = () => follow(load, onProgress, given);
    const model = await abortable(
      signal,
      () => load.cancel(),
      run,
      (late) => void late.close(),
    );
    const ms = performance.now() - started;
    trace.end(() => ({ info: model.info, ms }), `${path} in ${ms.toFixed()} ms`);
    logWay(path, () => model.stats().io);
    return model;
  } catch (error) {
    trace.error(error);
    throw error;
  }
}

export async function loadTokenizer(path: api.Path, given?: api.Abortable): Promise<Tokenizer> {
  const file = is.path(path, 'path');
  const { signal } = options.read(options.abort, given);
  const cancel = new (addon().NativeCancel)();
  const open = () => awaiting(() => addon().openTokenizer(file, cancel));
  return makeTokenizer(await abortable(signal, () => cancel.cancel(), open));
}

export async function inspect(path: api.Path, given?: api.Abortable): Promise<api.GgufInfo> {
  const file = is.path(path, 'path');
  const { signal } = options.read(options.abort, given);
  const cancel = new (addon().NativeCancel)();
  const open = async () => {
    const inspection = await awaiting(() => addon().inspect(file, cancel));
    const info: Omit<api.GgufInfo, 'metadata'> = JSON.parse(inspection.info());
    const { files, version, fileBytes, ...rest } = info;
    const metadata = await readMetadataInTurns(inspection.metadata());
    return { files, version, fileBytes, metadata, ...rest };
  };
  return abortable(signal, () => cancel.cancel(), open);
}

export async function devices(): Promise<api.Device[]> {
  const [first] = os.cpus();
  return [
    {
      id: 'cpu',
      kind: 'cpu',
      name: first?.model.trim() || os.arch(),
      usable: true,
      reason: null,
      total: os.totalmem(),
      free: os.freemem(),
      unified: true,
      driver: null,
    },
  ];
}

/** `(path, options?)` or `({ path, ...options })`. */
function readArguments(first: unknown, second: unknown): { path: string; given: unknown } {
  // A URL, also of another realm, is no object of options.
  if (!is.isOptions(first) || second !== undefined) {
    return { path: is.path(first, 'path'), given: second };
  }
  const { path, ...given } = first;
  if (path === undefined) {
    is.onlyKnown(given, Object.keys(options.loadWithPath));
    throw invalidArg('path', 'a path or a file: URL', path);
  }
  return { path: is.path(path, 'path'), given };
}

/** Reports progress until it is loaded; what the callback throws ends it. */
async function follow(
  load: NativeLoad,
  onProgress: ((progress: api.Progress) => void) | undefined,
  given: unknown,
): Promise<Model> {
  const thrown: unknown[] = [];
  const failed = (error: unknown) => {
    thrown.push(error);
    load.cancel();
  };
  const next = () =>
    awaiting(() => load.next()).catch((error: unknown) => {
      throw thrown.length > 0 ? thrown[0] : error;
    });
  for (;;) {
    const step = await next();
    if (step === null) {
      const model = makeModel(load.take(), given as api.LoadOptions | undefined);
      if (thrown.length === 0) return model;
      void model.close();
      throw thrown[0];
    }
    const [done = 0, total = 0] = step;
    if (onProgress) report(onProgress, { phase: 'load', unit: 'bytes', done, total }, failed);
  }
}
