/** The ESM entry: the CommonJS core's own objects, so that there is one set of classes. */

export {
  ChordError,
  Model,
  Session,
  Tokenizer,
  devices,
  estimate,
  features,
  inspect,
  isChordError,
  loadModel,
  loadTokenizer,
  version,
} from './index.js';
