/** `chord inspect --plan`: what a model computes, step by step. */

import { awaiting, calling } from '../errors.js';
import { native, type Native, type NativeCancel } from '../native.js';
import { Interrupted, onInterrupt } from './interrupt.js';
import { print, printJson } from './terminal.js';

/** Steps and weights are the addon's own, and no part of the public surface. */
interface Planning {
  plan(path: string, asJson: boolean, cancel: NativeCancel): Promise<string>;
}

/** The exit status. */
export async function plan(path: string, asJson: boolean): Promise<number> {
  const addon = native() as Native & Planning;
  const cancel = new addon.NativeCancel();
  const interrupt = onInterrupt(() => cancel.cancel());
  try {
    const text = await awaiting(() => calling(() => addon.plan(path, asJson, cancel)));
    if (asJson) printJson(JSON.parse(text));
    else await print(text);
    return 0;
  } catch (error) {
    throw interrupt.happened ? new Interrupted() : error;
  } finally {
    interrupt.off();
  }
}
