//! Stored keys and values as vectors of f32, for each KV type. Every stored number is exact in f32,
//! so it does not matter to the result whether a page is read as it is or converted first.
//!
//! A head of a page, with `unit` bytes a value (q4_0: for two, 16 values apart):
//! ```text
//! keys    [unit][32 tokens], quantised: then scales f16 [head_dim / 32][32 tokens]
//! values  [32 tokens][unit], quantised: then scales f16 [32 tokens][head_dim / 32]
//! ```

use super::super::super::simd::Simd;
use super::super::float::FloatType;
use crate::backend::{KV_BLOCK, PAGE_TOKENS};
use std::ops::Range;

/// Some rows of a head's values, 32 columns of them.
#[derive(Clone)]
pub struct Values<'a> {
    /// The head.
    pub head: &'a [u8],
    /// Values of a token.
    pub head_dim: usize,
    /// First column, a multiple of 32.
    pub column: usize,
    /// Tokens.
    pub rows: Range<usize>,
    /// The same head of the page that is wanted next.
    pub next: *const u8,
}

/// What is done with one step's vectors. A trait and no closure, since closures are compiled
/// without the tier's features.
pub trait Each<S: Simd> {
    /// Step `index`: 32 keys of dimension `index`, or 32 columns of the `index`-th row.
    fn each(&mut self, s: S, index: usize, vectors: [S::F; 2]);
}

/// A KV type's way to f32.
pub trait Stored {
    /// The keys of 32 tokens, dimension after dimension.
    fn keys<S: Simd>(s: S, head: &[u8], next: *const u8, to: &mut impl Each<S>);

    /// 32 columns of values, row after row; zeros beyond the head.
    fn values<S: Simd>(s: S, values: &Values<'_>, to: &mut impl Each<S>);
}

impl<T: FloatType> Stored for T {
    #[inline(always)]
    fn keys<S: Simd>(s: S, head: &[u8], next: *const u8, to: &mut impl Each<S>) {
        let half = PAGE_TOKENS / 2 * T::BYTES;
        for (d, line) in head.chunks_exact(2 * half).enumerate() {
            for at in (0..2 * half).step_by(64) {
                s.prefetch(next.wrapping_add(d * 2 * half + at));
            }
            to.each(s, d, [T::load(s, &line[..half]), T::load(s, &line[half..])]);
        }
    }

    #[inline(always)]
    fn values<S: Simd>(s: S, values: &Values<'_>, to: &mut impl Each<S>) {
        let (row, half) = (values.head_dim * T::BYTES, KV_BLOCK / 2 * T::BYTES);
        let (start, n) = (values.rows.start, values.rows.len());
        let from = start * row + values.column * T::BYTES;
        let wide = (row - values.column * T::BYTES).min(2 * half);
        let lines = values.head.get(from..).unwrap_or(&[]).chunks(row).take(n);
        if wide < 2 * half {
            for (j, line) in lines.enumerate() {
                let (a, b) = line[..wide].split_at(half.min(wide));
                to.each(s, j, [T::load(s, a), T::load(s, b)]);
            }
            return;
        }
        for (j, line) in lines.enumerate() {
            for at in (0..2 * half).step_by(64) {
                s.prefetch(values.next.wrapping_add(from + j * row + at));
            }
            to.each(s, j, [T::load(s, &line[..half]), T::load(s, &line[half..2 * half])]);
        }
    }
}

/// Bytes with a scale a block.
pub struct Q8;

impl Stored for Q8 {
    #[inline(always)]
    fn keys<S: Simd>(s: S, head: &[u8], next: *const u8, to: &mut impl Each<S>) {
        let (codes, scales) = split(head, KV_BLOCK);
        let blocks = codes.as_chunks::<1024>().0.iter().zip(scales.as_chunks::<64>().0);
        for (b, (block, scales)) in blocks.enumerate() {
            let scales = both(s, scales);
            for (i, line) in block.as_chunks::<32>().0.iter().enumerate() {
                s.prefetch(next.wrapping_add(1024 * b + 32 * i));
                let [k0, k1] = line.as_chunks::<16>().0 else { return };
                let k = [s.mul(s.load_i8(k0), scales[0]), s.mul(s.load_i8(k1), scales[1])];
                to.each(s, KV_BLOCK * b + i, k);
            }
        }
    }

    #[inline(always)]
    fn values<S: Simd>(s: S, values: &Values<'_>, to: &mut impl Each<S>) {
        let (codes, scales, blocks) = lines::<32>(values);
        let rows = codes.iter().step_by(blocks).zip(scales.iter().step_by(blocks));
        for (j, (line, scale)) in rows.enumerate() {
            s.prefetch(values.next.wrapping_add(j * values.head_dim + values.column));
            let scale = s.splat(s.half(u16::from_le_bytes(*scale)));
            let [v0, v1] = line.as_chunks::<16>().0 else { return };
            to.each(s, j, [s.mul(s.load_i8(v0), scale), s.mul(s.load_i8(v1), scale)]);
        }
    }
}

/// Nibbles with a scale a block.
pub struct Q4;

impl Stored for Q4 {
    #[inline(always)]
    fn keys<S: Simd>(s: S, head: &[u8], next: *const u8, to: &mut impl Each<S>) {
        let (codes, scales) = split(head, KV_BLOCK / 2);
        let blocks = codes.as_chunks::<512>().0.iter().zip(scales.as_chunks::<64>().0);
        for (b, (block, scales)) in blocks.enumerate() {
            let scales = both(s, scales);
            for (high, from) in [(false, 0), (true, KV_BLOCK / 2)] {
                for (i, line) in block.as_chunks::<32>().0.iter().enumerate() {
                    s.prefetch(next.wrapping_add(512 * b + 32 * i));
                    let [k0, k1] = line.as_chunks::<16>().0 else { return };
                    let (k0, k1) = (s.load_nibbles(k0, high), s.load_nibbles(k1, high));
                    let k = [s.mul(k0, scales[0]), s.mul(k1, scales[1])];
                    to.each(s, KV_BLOCK * b + from + i, k);
                }
            }
        }
    }

    #[inline(always)]
    fn values<S: Simd>(s: S, values: &Values<'_>, to: &mut impl Each<S>) {
        let (codes, scales, blocks) = lines::<16>(values);
        let rows = codes.iter().step_by(blocks).zip(scales.iter().step_by(blocks));
        for (j, (line, scale)) in rows.enumerate() {
            s.prefetch(values.next.wrapping_add((j * values.head_dim + values.column) / 2));
            let scale = s.splat(s.half(u16::from_le_bytes(*scale)));
            let (v0, v1) = (s.load_nibbles(line, false), s.load_nibbles(line, true));
            to.each(s, j, [s.mul(v0, scale), s.mul(v1, scale)]);
        }
    }
}

/// Codes and scales of a head whose blocks have so many bytes of codes.
#[inline(always)]
fn split(head: &[u8], codes: usize) -> (&[u8], &[u8]) {
    head.split_at(head.len() / (codes + 2) * codes)
}

/// Scales of 32 tokens.
#[inline(always)]
fn both<S: Simd>(s: S, scales: &[u8; 64]) -> [S::F; 2] {
    let (halves, _) = scales.as_chunks::<32>();
    [s.load_f16(&halves[0]), s.load_f16(&halves[1])]
}

/// Codes and scales from the first row's block on, and blocks of a row.
#[inline(always)]
fn lines<'a, const CODES: usize>(values: &Values<'a>) -> (&'a [[u8; CODES]], &'a [[u8; 2]], usize) {
    let (codes, scales) = split(values.head, CODES);
    let (blocks, block) = (values.head_dim / KV_BLOCK, values.column / KV_BLOCK);
    let (start, end) = (values.rows.start * blocks + block, values.rows.end * blocks);
    let codes = codes.as_chunks::<CODES>().0.get(start..end).unwrap_or(&[]);
    let scales = scales.as_chunks::<2>().0.get(start..end).unwrap_or(&[]);
    (codes, scales, blocks)
}
