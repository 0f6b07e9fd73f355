//! New keys and values into a page. Every token is written by itself, so it does not matter with
//! which others it came.
//!
//! q8_0: d = max |x| / 127 as f16, code = round(x / d), ties to even. q4_0: d = x / -8 as f16 for
//! the x of largest magnitude (the first of equals), code = round(x / d) + 8, at most 15, after the
//! rotation of the head. A block with NaN or infinity, or one that f16 cannot scale, gives NaN.

use super::super::super::simd::{Kernel, LANES, Simd};
use super::super::hadamard::rotate;
use super::super::math::{load_padded, store_padded};
use super::KvLayerView;
use crate::backend::{KV_BLOCK, KvType, PAGE_TOKENS};
use half::{bf16, f16};

/// Keys and values of consecutive tokens, all of one page.
pub struct Append<'a> {
    /// Shape and types.
    pub kv: KvLayerView,
    /// Slot of the first token.
    pub first: usize,
    /// `[n, n_head_kv * head_dim_k]`.
    pub k: &'a [f32],
    /// `[n, n_head_kv * head_dim_v]`.
    pub v: &'a [f32],
    /// The layer's keys in the page.
    pub k_out: &'a mut [u8],
    /// The layer's values in the page.
    pub v_out: &'a mut [u8],
    /// Room for a head.
    pub head: &'a mut Head,
}

/// One head on its way: as f32, as codes, and its scales.
#[derive(Debug, Default)]
pub struct Head {
    x: Vec<f32>,
    codes: Vec<u8>,
    scales: Vec<u8>,
}

impl Kernel for Append<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Append { kv, first, k, v, k_out, v_out, head } = self;
        let (n_head, dim) = (kv.layer.n_head_kv, kv.layer.head_dim_k);
        for (t, x) in k.chunks_exact(n_head * dim).enumerate() {
            let heads = x.chunks_exact(dim).zip(k_out.chunks_exact_mut(head_bytes(kv.k, dim)));
            for (x, out) in heads {
                head.encode(s, kv.k, x);
                head.put_key(out, first + t, dim);
            }
        }
        let dim = kv.layer.head_dim_v;
        for (t, x) in v.chunks_exact(n_head * dim).enumerate() {
            let heads = x.chunks_exact(dim).zip(v_out.chunks_exact_mut(head_bytes(kv.v, dim)));
            for (x, out) in heads {
                head.encode(s, kv.v, x);
                head.put_value(out, first + t);
            }
        }
    }
}

/// Bytes of a head of a page.
fn head_bytes(kind: KvType, dim: usize) -> usize {
    PAGE_TOKENS * kind.head_bytes(dim)
}

impl Head {
    /// Fills codes and scales.
    #[inline(always)]
    fn encode<S: Simd>(&mut self, s: S, kind: KvType, x: &[f32]) {
        self.x.clear();
        self.x.extend_from_slice(x);
        self.scales.clear();
        self.codes.clear();
        if kind.is_rotated() {
            rotate(s, &mut self.x);
        }
        match kind {
            KvType::F32 => self.codes.extend(self.x.iter().flat_map(|x| x.to_le_bytes())),
            KvType::F16 => {
                for x in self.x.chunks(LANES) {
                    let mut bytes = [0; 2 * LANES];
                    s.store_f16(load_padded(s, x), &mut bytes);
                    self.codes.extend_from_slice(&bytes[..2 * x.len()]);
                }
            }
            KvType::BF16 => {
                let bytes = self.x.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes());
                self.codes.extend(bytes);
            }
            KvType::Q8_0 => {
                for x in self.x.as_chunks_mut::<KV_BLOCK>().0 {
                    let scale = q8_block(s, x);
                    self.scales.extend_from_slice(&scale.to_le_bytes());
                    self.codes.extend(x.iter().map(|x| byte(*x)));
                }
            }
            KvType::Q4_0 => {
                for x in self.x.as_chunks_mut::<KV_BLOCK>().0 {
                    let scale = q4_block(s, x);
                    self.scales.extend_from_slice(&scale.to_le_bytes());
                    let (low, high) = x.split_at(KV_BLOCK / 2);
                    let pairs = low.iter().zip(high);
                    self.codes.extend(pairs.map(|(low, high)| byte(*low) | byte(*high) << 4));
                }
            }
        }
    }

    /// Tokens are the innermost index of keys.
    #[inline(always)]
    fn put_key(&self, out: &mut [u8], slot: usize, dim: usize) {
        let (codes, scales) = out.split_at_mut(PAGE_TOKENS * self.codes.len());
        match self.codes.len().checked_div(dim) {
            Some(4) => scatter::<4>(&self.codes, codes, slot),
            Some(2) => scatter::<2>(&self.codes, codes, slot),
            _ => scatter::<1>(&self.codes, codes, slot),
        }
        scatter::<2>(&self.scales, scales, slot);
    }

    /// Each token's values are together.
    #[inline(always)]
    fn put_value(&self, out: &mut [u8], slot: usize) {
        let (codes, scales) = out.split_at_mut(PAGE_TOKENS * self.codes.len());
        let (from, n) = (slot * self.codes.len(), self.codes.len());
        codes[from..from + n].copy_from_slice(&self.codes);
        let (from, n) = (slot * self.scales.len(), self.scales.len());
        scales[from..from + n].copy_from_slice(&self.scales);
    }
}

/// Units of so many bytes into a slot of each line of 32.
#[inline(always)]
fn scatter<const UNIT: usize>(from: &[u8], out: &mut [u8], slot: usize) {
    let lines = out.as_chunks_mut::<UNIT>().0.chunks_exact_mut(PAGE_TOKENS);
    for (line, unit) in lines.zip(from.as_chunks::<UNIT>().0) {
        line[slot] = *unit;
    }
}

/// A whole number of a byte's range; NaN is 0.
#[allow(clippy::cast_possible_truncation, reason = "the block was rounded and clamped")]
#[inline(always)]
fn byte(x: f32) -> u8 {
    (x as i32) as u8
}

/// x to codes of q8_0 as f32; gives the scale.
#[inline(always)]
fn q8_block<S: Simd>(s: S, x: &mut [f32; KV_BLOCK]) -> f16 {
    let mut most = s.splat(0.0);
    for x in x.as_chunks::<LANES>().0 {
        most = s.magnitude_max(most, s.load(x));
    }
    let mut lanes = [0.0; LANES];
    s.store(most, &mut lanes);
    let most = lanes.iter().fold(0, |most: u32, x| most.max(x.to_bits()));
    let (scale, inverse) = scales(f32::from_bits(most) / 127.0);
    codes(s, x, inverse, (-127.0, 127.0), 0.0);
    scale
}

/// x to codes of q4_0 as f32; gives the scale.
#[inline(always)]
fn q4_block<S: Simd>(s: S, x: &mut [f32; KV_BLOCK]) -> f16 {
    let mut most = 0.0f32;
    for x in x.iter() {
        // Magnitudes as bits: NaN is larger than everything.
        if x.to_bits() << 1 > most.to_bits() << 1 {
            most = *x;
        }
    }
    let (scale, inverse) = scales(most / -8.0);
    codes(s, x, inverse, (-8.0, 7.0), 8.0);
    scale
}

/// A scale as f16 and what numbers are multiplied with.
#[inline(always)]
fn scales(scale: f32) -> (f16, f32) {
    let stored = f16::from_f32(scale);
    let rounded = stored.to_f32();
    if !rounded.is_finite() {
        return (f16::NAN, 0.0);
    }
    let inverse = 1.0 / rounded;
    if inverse.is_finite() { (stored, inverse) } else { (f16::ZERO, 0.0) }
}

/// round(x * inverse) within limits, plus an offset.
#[inline(always)]
fn codes<S: Simd>(
    s: S,
    x: &mut [f32; KV_BLOCK],
    inverse: f32,
    (low, high): (f32, f32),
    offset: f32,
) {
    for x in x.as_chunks_mut::<LANES>().0 {
        let code = s.round(s.mul(load_padded(s, x), s.splat(inverse)));
        let code = s.max(s.splat(low), s.min(s.splat(high), code));
        store_padded(s, s.add(code, s.splat(offset)), x);
    }
}
