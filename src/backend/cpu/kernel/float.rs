//! Rows of any tensor type as f32: plain floats, and a block at a time for everything else.

use super::super::simd::{LANES, Simd};
use crate::error::Result;
use crate::quant::TensorType;
use half::{bf16, f16};

/// A row whose values are plain floats in memory.
pub trait FloatType: 'static {
    /// Bytes of a value.
    const BYTES: usize;
    /// Name in kernels' names.
    const NAME: &'static str;
    /// The bytes of sixteen values.
    type Sixteen: 'static;
    /// Whole sixteens, and the values after them.
    fn sixteens(b: &[u8]) -> (&[Self::Sixteen], &[u8]);
    /// Their values.
    fn sixteen<S: Simd>(s: S, b: &Self::Sixteen) -> S::F;
    /// Fewer than sixteen values, then zeros.
    fn tail<S: Simd>(s: S, b: &[u8]) -> S::F;
    /// Sixteen values from the start of `b`, zeros where it ends.
    #[inline(always)]
    fn load<S: Simd>(s: S, b: &[u8]) -> S::F {
        match Self::sixteens(b) {
            ([first, ..], _) => Self::sixteen(s, first),
            ([], rest) => Self::tail(s, rest),
        }
    }
}

/// f32.
pub struct F32;
impl FloatType for F32 {
    const BYTES: usize = 4;
    const NAME: &'static str = "f32";
    type Sixteen = [u8; 64];
    #[inline(always)]
    fn sixteens(b: &[u8]) -> (&[[u8; 64]], &[u8]) {
        b.as_chunks()
    }
    #[inline(always)]
    fn sixteen<S: Simd>(s: S, b: &[u8; 64]) -> S::F {
        s.load(&zerocopy::transmute!(*b))
    }
    #[inline(always)]
    fn tail<S: Simd>(s: S, b: &[u8]) -> S::F {
        padded(s, b.as_chunks().0, f32::from_le_bytes)
    }
}

/// f16.
pub struct F16;
impl FloatType for F16 {
    const BYTES: usize = 2;
    const NAME: &'static str = "f16";
    type Sixteen = [u8; 32];
    #[inline(always)]
    fn sixteens(b: &[u8]) -> (&[[u8; 32]], &[u8]) {
        b.as_chunks()
    }
    #[inline(always)]
    fn sixteen<S: Simd>(s: S, b: &[u8; 32]) -> S::F {
        s.load_f16(b)
    }
    #[inline(always)]
    fn tail<S: Simd>(s: S, b: &[u8]) -> S::F {
        padded(s, b.as_chunks().0, |bytes| f16::from_le_bytes(bytes).to_f32())
    }
}

/// bf16.
pub struct BF16;
impl FloatType for BF16 {
    const BYTES: usize = 2;
    const NAME: &'static str = "bf16";
    type Sixteen = [u8; 32];
    #[inline(always)]
    fn sixteens(b: &[u8]) -> (&[[u8; 32]], &[u8]) {
        b.as_chunks()
    }
    #[inline(always)]
    fn sixteen<S: Simd>(s: S, b: &[u8; 32]) -> S::F {
        s.load_bf16(b)
    }
    #[inline(always)]
    fn tail<S: Simd>(s: S, b: &[u8]) -> S::F {
        padded(s, b.as_chunks().0, |bytes| bf16::from_le_bytes(bytes).to_f32())
    }
}

/// Values that do not fill a vector, then zeros.
#[inline(always)]
fn padded<S: Simd, const N: usize>(s: S, b: &[[u8; N]], value: impl Fn([u8; N]) -> f32) -> S::F {
    let mut x = [0.0; LANES];
    for (x, bytes) in x.iter_mut().zip(b) {
        *x = value(*bytes);
    }
    s.load(&x)
}

/// Whole blocks of any type to f32.
///
/// # Errors
/// `ERR_INTERNAL` if the lengths do not belong together.
pub fn dequantise(kind: TensorType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    kind.dequantise(bytes, out)
}
