/** Calls that a signal can call off, and the callbacks that they report to. */

import { aborted } from './errors.js';

/**
 * Runs a call; when the signal fires it is told so by `cancel` and the promise rejects at once.
 * `late` gets what it still brings.
 */
export function abortable<T>(
  signal: AbortSignal | undefined,
  cancel: () => void,
  run: () => Promise<T>,
  late: (value: T) => void = () => {},
): Promise<T> {
  if (signal === undefined) return run();
  if (signal.aborted) return Promise.reject(aborted(signal.reason, null));
  return new Promise((resolve, reject) => {
    let gone = false;
    const onAbort = () => {
      gone = true;
      cancel();
      reject(aborted(signal.reason, null));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    const done = () => signal.removeEventListener('abort', onAbort);
    run().then(
      (value) => {
        done();
        if (gone) late(value);
        else resolve(value);
      },
      (error: unknown) => {
        done();
        reject(error);
      },
    );
  });
}

/** Calls a callback; `failed` hears what it throws, or what its promise rejects with. */
export function report<T>(
  callback: (value: T) => unknown,
  value: T,
  failed: (error: unknown) => void,
): void {
  try {
    const given = callback(value);
    if (given instanceof Promise) given.catch(failed);
  } catch (error) {
    failed(error);
  }
}
