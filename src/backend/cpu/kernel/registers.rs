//! Blocks in registers: how the one-row kernels take 64 codes at a time out of a block, and which
//! scale goes with which lane. Layouts stand in `unpack`.

use super::super::simd::wide::Wide;
use super::matvec::{Dot32, Dot256, Parts};
use super::quantise::Bytes;
use super::unpack::{Q2K, Q3K, Q4K, Q5K, Q6K, Q40, Q41, Q50, Q51, Q80};

/// For [`Wide::pick8`]: the first 32 bytes take byte `a`, the others byte `b`, as i16.
const fn two(a: u8, b: u8) -> [u8; 64] {
    let mut index = [128; 64];
    let mut i = 0;
    while i < 64 {
        index[i] = if i < 32 { a } else { b };
        i += 2;
    }
    index
}

/// For [`Wide::pick16`]: each 16 bytes take the next byte from `first` on, as the high byte.
const fn four(first: u8) -> [u8; 64] {
    let mut index = [128; 64];
    let mut i = 0;
    while i < 64 {
        index[i + 1] = first + (i / 16) as u8;
        i += 2;
    }
    index
}

/// Sub-blocks 4 p, 4 p + 2 (low nibbles) and 4 p + 1, 4 p + 3 (high ones) of 64 bytes of Q4_K.
const NIBBLES: [[u8; 64]; 4] = [two(0, 2), two(1, 3), two(4, 6), two(5, 7)];
/// Sixteens of 64 codes in order.
const FOURS: [[u8; 64]; 4] = [four(0), four(4), four(8), four(12)];
#[inline(always)]
pub(super) fn bytes<const N: usize>(b: &[u8], at: usize) -> &[u8; N] {
    b[at..].first_chunk().unwrap_or(&[0; N])
}

#[inline(always)]
pub(super) fn half<S: Wide>(s: S, b: &[u8], at: usize) -> f32 {
    s.half(u16::from_le_bytes(*bytes(b, at)))
}

/// The eight 6-bit scales and mins of Q4_K and Q5_K, a byte each.
#[inline(always)]
fn scales_6bit(b: &[u8]) -> (u64, u64) {
    let word = |at: usize| u32::from_le_bytes(*bytes(b, at));
    let (a, m, h) = (word(4), word(8), word(12));
    let s = (h & 0x0f0f_0f0f) | ((a >> 2) & 0x3030_3030);
    let n = ((h >> 4) & 0x0f0f_0f0f) | ((m >> 2) & 0x3030_3030);
    let pair = |lo: u32, hi: u32| u64::from(lo & 0x3f3f_3f3f) | u64::from(hi) << 32;
    (pair(a, s), pair(m, n))
}

/// Where the halves of the code vectors of Q4_K and Q5_K belong.
const NIBBLE_HALVES: [[usize; 2]; 4] = [[0, 64], [32, 96], [128, 192], [160, 224]];
/// Where those of Q2_K and Q3_K belong.
pub(super) const PLANE_HALVES: [[usize; 2]; 4] = [[0, 128], [32, 160], [64, 192], [96, 224]];
/// Where those of Q6_K belong: in order.
pub(super) const IN_ORDER: [[usize; 2]; 4] = [[0, 32], [64, 96], [128, 160], [192, 224]];

/// The 64 activations that meet a code vector.
#[inline(always)]
fn x_of<S: Wide>(s: S, x: &[i8; 256], [a, b]: [usize; 2]) -> S::B {
    if b == a + 32 {
        return s.load_x(x[a..].first_chunk().unwrap_or(&[0; 64]));
    }
    let (a, b) = (x[a..].first_chunk(), x[b..].first_chunk());
    s.join_x(a.unwrap_or(&[0; 32]), b.unwrap_or(&[0; 32]))
}

/// A byte for each sixteen from a byte for each 32.
#[inline(always)]
fn twice(word: u64) -> [i8; 16] {
    let bytes = word.to_le_bytes();
    std::array::from_fn(|i| bytes[i / 2].cast_signed())
}

/// Lanes of T where eight scales, each for 32 values, stand in a word.
#[inline(always)]
fn dot_nibbles<S: Wide>(s: S, codes: [S::B; 4], x: &[i8; 256], scales: u64) -> S::I {
    let mut t = s.zero_i();
    for v in 0..4 {
        let scale = s.pick8(scales, &NIBBLES[v]);
        t = s.dot_scaled_b(t, codes[v], x_of(s, x, NIBBLE_HALVES[v]), scale);
    }
    t
}

/// Lanes of T where each sixteen has a signed scale.
#[inline(always)]
fn dot_sixteens<S: Wide>(
    s: S,
    codes: [S::B; 4],
    x: &[i8; 256],
    scales: &[i8; 16],
    (halves, index): (&[[usize; 2]; 4], &[[u8; 64]; 4]),
) -> S::I {
    let mut t = s.zero_i();
    for v in 0..4 {
        let scale = s.pick16(scales, &index[v]);
        t = s.dot_scaled_b(t, codes[v], x_of(s, x, halves[v]), scale);
    }
    t
}

impl Dot256 for Q4K {
    const HALVES: [[usize; 2]; 4] = NIBBLE_HALVES;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let mask = s.splat_b(15);
        let (p, q) = (s.load_b(bytes(b, 16)), s.load_b(bytes(b, 80)));
        let (p4, q4) = (s.shr_b::<4>(p), s.shr_b::<4>(q));
        [s.and_b(p, mask), s.and_b(p4, mask), s.and_b(q, mask), s.and_b(q4, mask)]
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        let (scales, mins) = scales_6bit(b);
        (twice(scales), twice(mins))
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 0), half(s, b, 2)]
    }
    #[inline(always)]
    fn four<S: Wide>(s: S, rows: [&[u8]; 4], x: Bytes<'_>) -> Option<[f32; 4]> {
        let (qs, sums) = (x.qs.as_chunks().0, x.sums.as_chunks().0);
        s.nibble_rows::<false>(rows, (qs, sums, x.ds))
    }
    #[inline(always)]
    fn dot<S: Wide>(s: S, b: &[u8], x: &[i8; 256], sums: &[i16; 16]) -> Parts<S> {
        let (scales, mins) = scales_6bit(b);
        let t = dot_nibbles(s, Self::codes(s, b), x, scales);
        Parts { t, m: Some(s.dot_mins(mins, sums)), d: half(s, b, 0), dmin: half(s, b, 2) }
    }
}

impl Dot256 for Q5K {
    const HALVES: [[usize; 2]; 4] = NIBBLE_HALVES;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let (mask, fifth) = (s.splat_b(15), s.splat_b(16));
        let h: &[u8; 32] = bytes(b, 16);
        // Bit 4 p + e of a byte of the first half, bit 4 p + 2 + e of the second.
        let h = s.shr_second::<2>(s.join(h, h));
        let (p, q) = (s.load_b(bytes(b, 48)), s.load_b(bytes(b, 112)));
        [
            merge(s, (p, mask), (s.shl_b::<4>(h), fifth)),
            merge(s, (s.shr_b::<4>(p), mask), (s.shl_b::<3>(h), fifth)),
            merge(s, (q, mask), (h, fifth)),
            merge(s, (s.shr_b::<4>(q), mask), (s.shr_b::<1>(h), fifth)),
        ]
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        let (scales, mins) = scales_6bit(b);
        (twice(scales), twice(mins))
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 0), half(s, b, 2)]
    }
    #[inline(always)]
    fn four<S: Wide>(s: S, rows: [&[u8]; 4], x: Bytes<'_>) -> Option<[f32; 4]> {
        let (qs, sums) = (x.qs.as_chunks().0, x.sums.as_chunks().0);
        s.nibble_rows::<true>(rows, (qs, sums, x.ds))
    }
    #[inline(always)]
    fn dot<S: Wide>(s: S, b: &[u8], x: &[i8; 256], sums: &[i16; 16]) -> Parts<S> {
        let (scales, mins) = scales_6bit(b);
        let t = dot_nibbles(s, Self::codes(s, b), x, scales);
        Parts { t, m: Some(s.dot_mins(mins, sums)), d: half(s, b, 0), dmin: half(s, b, 2) }
    }
}

/// Some bits of a and some of b.
#[inline(always)]
fn merge<S: Wide>(s: S, (a, a_mask): (S::B, S::B), (b, b_mask): (S::B, S::B)) -> S::B {
    s.or_b(s.and_b(a, a_mask), s.and_b(b, b_mask))
}

/// Codes of half `j` of a block of Q6_K.
#[inline(always)]
fn six_bits<S: Wide>(s: S, b: &[u8], j: usize) -> [S::B; 2] {
    let (mask, upper) = (s.splat_b(15), s.splat_b(48));
    let q = s.load_b(bytes(b, 64 * j));
    let h: &[u8; 32] = bytes(b, 128 + 32 * j);
    let h = s.shr_second::<2>(s.join(h, h));
    let low = merge(s, (q, mask), (s.shl_b::<4>(h), upper));
    [low, merge(s, (s.shr_b::<4>(q), mask), (h, upper))]
}

impl Dot256 for Q6K {
    const HALVES: [[usize; 2]; 4] = IN_ORDER;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let ([a, c], [e, g]) = (six_bits(s, b, 0), six_bits(s, b, 1));
        [a, c, e, g]
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        (bytes::<16>(b, 192).map(u8::cast_signed), [0; 16])
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 208), 0.0]
    }
    #[inline(always)]
    fn dot<S: Wide>(s: S, b: &[u8], x: &[i8; 256], sums: &[i16; 16]) -> Parts<S> {
        let (scales, _) = Self::scales(b);
        let t = dot_sixteens(s, Self::codes(s, b), x, &scales, (&IN_ORDER, &FOURS));
        let t = s.sub_shl::<5>(t, s.dot_sums(&scales, sums));
        Parts { t, m: None, d: half(s, b, 208), dmin: 0.0 }
    }
}

impl Dot256 for Q2K {
    const HALVES: [[usize; 2]; 4] = PLANE_HALVES;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let mask = s.splat_b(3);
        let q = s.load_b(bytes(b, 16));
        let (q2, q4, q6) = (s.shr_b::<2>(q), s.shr_b::<4>(q), s.shr_b::<6>(q));
        [s.and_b(q, mask), s.and_b(q2, mask), s.and_b(q4, mask), s.and_b(q6, mask)]
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        let word = u128::from_le_bytes(*bytes(b, 0));
        let low = u128::from_le_bytes([15; 16]);
        let signed = |word: u128| (word & low).to_le_bytes().map(u8::cast_signed);
        (signed(word), signed(word >> 4))
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 80), half(s, b, 82)]
    }
    #[inline(always)]
    fn dot<S: Wide>(s: S, b: &[u8], x: &[i8; 256], sums: &[i16; 16]) -> Parts<S> {
        let (scales, mins) = Self::scales(b);
        let t = dot_sixteens(s, Self::codes(s, b), x, &scales, (&PLANE_HALVES, &PLANES));
        let m = Some(s.dot_sums(&mins, sums));
        Parts { t, m, d: half(s, b, 80), dmin: half(s, b, 82) }
    }
}

impl Dot256 for Q3K {
    const HALVES: [[usize; 2]; 4] = PLANE_HALVES;
    #[inline(always)]
    fn codes<S: Wide>(s: S, b: &[u8]) -> [S::B; 4] {
        let (mask, third) = (s.splat_b(3), s.splat_b(4));
        let q = s.load_b(bytes(b, 32));
        let h: &[u8; 32] = bytes(b, 0);
        // Bit e of a byte of the first half, bit 4 + e of the second.
        let h = s.shr_second::<4>(s.join(h, h));
        [
            merge(s, (q, mask), (s.shl_b::<2>(h), third)),
            merge(s, (s.shr_b::<2>(q), mask), (s.shl_b::<1>(h), third)),
            merge(s, (s.shr_b::<4>(q), mask), (h, third)),
            merge(s, (s.shr_b::<6>(q), mask), (s.shr_b::<1>(h), third)),
        ]
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> ([i8; 16], [i8; 16]) {
        let (lo, hi) = (u64::from_le_bytes(*bytes(b, 96)), u32::from_le_bytes(*bytes(b, 104)));
        let pairs = |shift: u32| u64::from((hi >> shift) & 0x0303_0303) << 4;
        let nibbles = |shift: u32| (lo >> shift) & 0x0f0f_0f0f_0f0f_0f0f;
        let first = nibbles(0) | pairs(0) | pairs(2) << 32;
        let second = nibbles(4) | pairs(4) | pairs(6) << 32;
        let scales = (u128::from(first) | u128::from(second) << 64).to_le_bytes();
        (scales.map(|scale| scale.cast_signed() - 32), [0; 16])
    }
    #[inline(always)]
    fn factors<S: Wide>(s: S, b: &[u8]) -> [f32; 2] {
        [half(s, b, 108), 0.0]
    }
    #[inline(always)]
    fn dot<S: Wide>(s: S, b: &[u8], x: &[i8; 256], sums: &[i16; 16]) -> Parts<S> {
        let (scales, _) = Self::scales(b);
        let t = dot_sixteens(s, Self::codes(s, b), x, &scales, (&PLANE_HALVES, &PLANES));
        let t = s.sub_shl::<2>(t, s.dot_sums(&scales, sums));
        Parts { t, m: None, d: half(s, b, 108), dmin: 0.0 }
    }
}

/// Sixteens 2 e, 2 e + 1, 8 + 2 e, 9 + 2 e.
const PLANES: [[u8; 64]; 4] = [plane(0), plane(2), plane(4), plane(6)];

const fn plane(first: u8) -> [u8; 64] {
    let mut index = [128; 64];
    let mut i = 0;
    while i < 64 {
        let sixteen = (i / 16) as u8;
        index[i + 1] = first + sixteen + if sixteen > 1 { 6 } else { 0 };
        i += 2;
    }
    index
}

impl Dot32 for Q40 {
    const OFFSET: u8 = 8;
    #[inline(always)]
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B {
        s.nibbles(bytes(a, 2), bytes(b, 2))
    }
}

impl Dot32 for Q41 {
    const OFFSET: u8 = 0;
    #[inline(always)]
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B {
        s.nibbles(bytes(a, 4), bytes(b, 4))
    }
}

/// Nibbles with a fifth bit from two words.
#[inline(always)]
fn fives<S: Wide>(s: S, nibbles: S::B, a: [u8; 4], b: [u8; 4]) -> S::B {
    let bits = u64::from(u32::from_le_bytes(a)) | u64::from(u32::from_le_bytes(b)) << 32;
    s.or_b(nibbles, s.and_b(s.spread_bits(bits), s.splat_b(16)))
}

impl Dot32 for Q50 {
    const OFFSET: u8 = 16;
    #[inline(always)]
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B {
        let nibbles = s.nibbles(bytes(a, 6), bytes(b, 6));
        fives(s, nibbles, *bytes(a, 2), *bytes(b, 2))
    }
}

impl Dot32 for Q51 {
    const OFFSET: u8 = 0;
    #[inline(always)]
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B {
        let nibbles = s.nibbles(bytes(a, 8), bytes(b, 8));
        fives(s, nibbles, *bytes(a, 4), *bytes(b, 4))
    }
}

impl Dot32 for Q80 {
    const OFFSET: u8 = 128;
    #[inline(always)]
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B {
        s.flip_sign(s.join(bytes(a, 2), bytes(b, 2)))
    }
}
