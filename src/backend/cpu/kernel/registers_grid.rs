//! The types of `unpack_grid` in registers.

use super::super::simd::wide::Wide;
use super::registers::{Dot32, Dot256, IN_ORDER, PLANE_HALVES, bytes, half, two};
use super::unpack_grid::{
    FP4_CODES, Grid, Gridded, IQ4_CODES, IQ4NL, IQ4XS, MXFP4, Q8K, TQ20, iq4_scales,
};

impl<T: Grid> Dot256 for Gridded<T> {
    const HALVES: [[usize; 2]; 4] = IN_ORDER;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let mut codes = [s.splat_b(0); 4];
        for part in 0..4 {
            let (words, signs) = T::codes(b, part);
            codes[part] = s.join_words(words);
            if T::SIGNED {
                codes[part] = s.add_b(s.negate(codes[part], signs), s.splat_b(64));
            }
        }
        codes
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        (T::scales(b), [0; 16])
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [T::d(s, b), 0.0]
    }
}

impl Dot256 for TQ20 {
    const HALVES: [[usize; 2]; 4] = PLANE_HALVES;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let mask = s.splat_b(3);
        let q = s.load_b(bytes(b, 0));
        let (q2, q4, q6) = (s.shr_b::<2>(q), s.shr_b::<4>(q), s.shr_b::<6>(q));
        [s.and_b(q, mask), s.and_b(q2, mask), s.and_b(q4, mask), s.and_b(q6, mask)]
    }
    #[inline(always)]
    fn scales(_: &[u8]) -> ([i8; 16], [i8; 16]) {
        ([1; 16], [0; 16])
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 64), 0.0]
    }
}

impl Dot256 for Q8K {
    const HALVES: [[usize; 2]; 4] = IN_ORDER;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let mut codes = [s.splat_b(0); 4];
        for part in 0..4 {
            codes[part] = s.flip_sign(s.load_b(bytes(b, 4 + 64 * part)));
        }
        codes
    }
    #[inline(always)]
    fn scales(_: &[u8]) -> ([i8; 16], [i8; 16]) {
        ([1; 16], [0; 16])
    }
    #[inline(always)]
    fn factors<S: Wide>(_: S, b: &[u8]) -> [f32; 2] {
        [f32::from_le_bytes(*bytes(b, 0)), 0.0]
    }
}

impl Dot256 for IQ4XS {
    const HALVES: [[usize; 2]; 4] = IN_ORDER;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let mut codes = [s.splat_b(0); 4];
        for part in 0..4 {
            let nibbles = s.nibbles(bytes(b, 8 + 32 * part), bytes(b, 24 + 32 * part));
            codes[part] = s.look_up(&IQ4_CODES, nibbles);
        }
        codes
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        (iq4_scales(b), [0; 16])
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 0), 0.0]
    }
}

impl Dot32 for IQ4NL {
    const OFFSET: u8 = 128;
    #[inline(always)]
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B {
        let [a, b] = two::<Self>(blocks, pair);
        s.look_up(&IQ4_CODES, s.nibbles(bytes(a, 2), bytes(b, 2)))
    }
}

impl Dot32 for MXFP4 {
    const OFFSET: u8 = 16;
    #[inline(always)]
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B {
        let [a, b] = two::<Self>(blocks, pair);
        s.look_up(&FP4_CODES, s.nibbles(bytes(a, 1), bytes(b, 1)))
    }
}
