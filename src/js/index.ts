/** The CommonJS core: everything that `index.d.ts` declares. */

import type * as api from '../../index.js';
import { native, platform } from './native.js';

export { ChordError, isChordError } from './errors.js';
export { estimate } from './estimate.js';
export { devices, inspect, loadModel, loadTokenizer } from './load.js';
export { Model } from './model.js';
export { Session } from './session.js';
export { Tokenizer } from './tokenizer.js';

const addon = native();

export const version: string = addon.version();
export const features: api.Features = { platform: platform(), ...JSON.parse(addon.features()) };

// `exit` comes before the environment is torn down, also after an uncaught exception: no engine
// works while Node takes itself apart.
process.on('exit', () => addon.shutdown());
