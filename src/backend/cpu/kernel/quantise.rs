//! Activations to bytes. A row becomes blocks of 256 or 32, with the sums of every 16 and every 32:
//! x ~ d * q, q in -127..=127, d = max |x| / 127.
//!
//! A block with NaN or infinity gets d = NaN, which reaches every output that it touches.

use super::super::simd::{Kernel, LANES, Simd};

/// How a weight type wants its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActKind {
    /// As they are.
    Float,
    /// Bytes with a scale for every 32.
    Block32,
    /// Bytes with a scale for every 256.
    Block256,
}

impl ActKind {
    /// Values under one scale.
    #[must_use]
    pub fn block(self) -> usize {
        match self {
            ActKind::Float => 1,
            ActKind::Block32 => 32,
            ActKind::Block256 => 256,
        }
    }
}

/// Quantised rows: `qs [n_rows, k]`, `ds [n_rows, k / block]`, `sums [n_rows, k / 16]`,
/// `sums32` and `starts [n_rows, k / 32]`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// Values.
    pub qs: &'a [i8],
    /// Scales.
    pub ds: &'a [f32],
    /// Sums of 16 values.
    pub sums: &'a [i16],
    /// Sums of 32.
    pub sums32: &'a [i16],
    /// -8 times them: where products with codes that are 8 too large begin.
    pub starts: &'a [i32],
}

impl<'a> Bytes<'a> {
    /// One row of `k` values.
    #[must_use]
    pub fn row(self, row: usize, k: usize, kind: ActKind) -> Bytes<'a> {
        let part = |width: usize| row * width..(row + 1) * width;
        Bytes {
            qs: &self.qs[part(k)],
            ds: &self.ds[part(k / kind.block())],
            sums: &self.sums[part(k / 16)],
            sums32: &self.sums32[part(k / 32)],
            starts: &self.starts[part(k / 32)],
        }
    }
}

/// One row to bytes.
pub struct QuantiseRow<'a> {
    /// 32 or 256 values a block.
    pub kind: ActKind,
    /// The row, a whole number of blocks.
    pub x: &'a [f32],
    /// As long.
    pub qs: &'a mut [i8],
    /// One a block.
    pub ds: &'a mut [f32],
    /// One for every 16.
    pub sums: &'a mut [i16],
    /// One for every 32.
    pub sums32: &'a mut [i16],
    /// The same.
    pub starts: &'a mut [i32],
}

impl Kernel for QuantiseRow<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let block = self.kind.block();
        let blocks = self.x.chunks_exact(block).zip(self.qs.chunks_exact_mut(block));
        let outs = self.ds.iter_mut().zip(self.sums.chunks_exact_mut(block / 16));
        for ((x, qs), (d, sums)) in blocks.zip(outs) {
            *d = quantise_block(s, x, qs);
            for (qs, out) in qs.as_chunks::<16>().0.iter().zip(sums) {
                *out = qs.iter().map(|q| i16::from(*q)).sum();
            }
        }
        let outs = self.sums32.iter_mut().zip(self.starts);
        for ((out, start), [a, b]) in outs.zip(self.sums.as_chunks().0) {
            *out = a + b;
            *start = -8 * i32::from(*out);
        }
    }
}

/// Quantises one block, gives its scale.
#[inline(always)]
fn quantise_block<S: Simd>(s: S, x: &[f32], qs: &mut [i8]) -> f32 {
    let mut max = s.splat(0.0);
    for x in x.as_chunks::<LANES>().0 {
        max = s.magnitude_max(max, s.load(x));
    }
    let mut lanes = [0.0; LANES];
    s.store(max, &mut lanes);
    let bits = lanes.iter().map(|m| m.to_bits()).max().unwrap_or(0);
    let max = f32::from_bits(bits);
    let inverse = 127.0 / max;
    if !max.is_finite() || inverse == f32::INFINITY {
        qs.fill(0);
        return if max.is_finite() { 0.0 } else { f32::NAN };
    }
    let inverse = s.splat(inverse);
    for (x, q) in x.as_chunks::<LANES>().0.iter().zip(qs.as_chunks_mut::<LANES>().0) {
        s.store_i8(s.round(s.mul(s.load(x), inverse)), q);
    }
    max / 127.0
}
