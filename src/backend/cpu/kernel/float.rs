//! Rows of any tensor type as f32: plain floats, and a block at a time for everything else.

use super::super::simd::{LANES, Simd};
use super::math::load_padded;
use crate::error::Result;
use crate::quant::TensorType;
use half::{bf16, f16};

/// A row whose values are plain floats in memory.
pub trait FloatType: 'static {
    /// Bytes of a value.
    const BYTES: usize;
    /// Name in kernels' names.
    const NAME: &'static str;
    /// Sixteen values from the start of `b`, zeros where it ends.
    fn load<S: Simd>(s: S, b: &[u8]) -> S::F;
}

/// f32.
pub struct F32;
impl FloatType for F32 {
    const BYTES: usize = 4;
    const NAME: &'static str = "f32";
    #[inline(always)]
    fn load<S: Simd>(s: S, b: &[u8]) -> S::F {
        let mut x = [0.0; LANES];
        for (x, b) in x.iter_mut().zip(b.as_chunks::<4>().0) {
            *x = f32::from_le_bytes(*b);
        }
        s.load(&x)
    }
}

/// f16.
pub struct F16;
impl FloatType for F16 {
    const BYTES: usize = 2;
    const NAME: &'static str = "f16";
    #[inline(always)]
    fn load<S: Simd>(s: S, b: &[u8]) -> S::F {
        if let Some(whole) = b.first_chunk::<32>() {
            return s.load_f16(whole);
        }
        let mut x = [0.0; LANES];
        for (x, b) in x.iter_mut().zip(b.as_chunks::<2>().0) {
            *x = f16::from_le_bytes(*b).to_f32();
        }
        s.load(&x)
    }
}

/// bf16.
pub struct BF16;
impl FloatType for BF16 {
    const BYTES: usize = 2;
    const NAME: &'static str = "bf16";
    #[inline(always)]
    fn load<S: Simd>(s: S, b: &[u8]) -> S::F {
        if let Some(whole) = b.first_chunk::<32>() {
            return s.load_bf16(whole);
        }
        let mut x = [0.0; LANES];
        for (x, b) in x.iter_mut().zip(b.as_chunks::<2>().0) {
            *x = bf16::from_le_bytes(*b).to_f32();
        }
        s.load(&x)
    }
}

/// Sum of w * x in 16 lanes over K, then by halves.
#[inline(always)]
pub fn dot<S: Simd, T: FloatType>(s: S, w: &[u8], x: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (w, x) in w.chunks(LANES * T::BYTES).zip(x.chunks(LANES)) {
        sum = s.fma(T::load(s, w), load_padded(s, x), sum);
    }
    s.reduce_add(sum)
}

/// Whole blocks of any type to f32.
///
/// # Errors
/// `ERR_INTERNAL` if the lengths do not belong together.
pub fn dequantise(kind: TensorType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    kind.dequantise(bytes, out)
}
