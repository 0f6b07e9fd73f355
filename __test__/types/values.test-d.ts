// The exports that exist are the ones that are declared: the compiled sources against the page.

import { expectTypeOf } from 'expect-type';
import type * as declared from '../../index.js';
import type * as real from '../../src/js/index.js';

type Declared = typeof declared;
type Real = typeof real;

expectTypeOf<keyof Real>().toEqualTypeOf<keyof Declared>();
// A class differs by its constructor, which is nobody's business: what it makes has to fit.
expectTypeOf<InstanceType<Real['Model']>>().toExtend<declared.Model>();
expectTypeOf<InstanceType<Real['Session']>>().toExtend<declared.Session>();
expectTypeOf<InstanceType<Real['Tokenizer']>>().toExtend<declared.Tokenizer>();
expectTypeOf<InstanceType<Real['ChordError']>>().toExtend<declared.ChordError>();
// And it makes nothing more.
expectTypeOf<keyof InstanceType<Real['Model']>>().toEqualTypeOf<keyof declared.Model>();
expectTypeOf<keyof InstanceType<Real['Session']>>().toEqualTypeOf<keyof declared.Session>();
expectTypeOf<keyof InstanceType<Real['Tokenizer']>>().toEqualTypeOf<keyof declared.Tokenizer>();
expectTypeOf<keyof InstanceType<Real['ChordError']>>().toEqualTypeOf<keyof declared.ChordError>();
type Functions = 'loadModel' | 'loadTokenizer' | 'inspect' | 'devices' | 'isChordError';
expectTypeOf<Real['version']>().toEqualTypeOf<Declared['version']>();
expectTypeOf<Real['features']>().toEqualTypeOf<Declared['features']>();
expectTypeOf<Pick<Real, Exclude<Functions, 'loadModel'>>>().toExtend<{
  [K in Exclude<Functions, 'loadModel'>]: (...args: Parameters<Declared[K]>) => unknown;
}>();
