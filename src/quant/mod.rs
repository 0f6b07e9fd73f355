//! The one table of tensor types: id, name, block sizes, scalar dequantise. Knows no SIMD and no
//! device. A new type is one row here and one block struct in the family's file.

pub mod float;
pub mod fp4;
pub mod grids;
pub mod iq;
pub mod k;
pub mod legacy;
pub mod ternary;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::error::{Error, Result};

macro_rules! tensor_types {
    ($($name:ident = $id:literal, $len:literal values in $bytes:literal bytes;)*) => {
        /// A GGML tensor type: how the values of a weight row are stored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, reason = "the names are GGUF's own")]
        pub enum TensorType { $(#[doc = stringify!($name)] $name,)* }

        impl TensorType {
            /// Every type, by id.
            pub const ALL: &'static [TensorType] = &[$(TensorType::$name,)*];

            /// The type behind a number in a file.
            #[must_use]
            pub fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(TensorType::$name),)* _ => None }
            }

            /// The number in a file.
            #[must_use]
            pub fn id(self) -> u32 {
                match self { $(TensorType::$name => $id,)* }
            }

            /// GGUF's name, such as `Q4_K`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(TensorType::$name => stringify!($name),)* }
            }

            /// Values in a block; 1 for plain floats. A row is a whole number of blocks.
            #[must_use]
            pub const fn block_len(self) -> usize {
                match self { $(TensorType::$name => $len,)* }
            }

            /// Bytes of a block.
            #[must_use]
            pub const fn block_bytes(self) -> usize {
                match self { $(TensorType::$name => $bytes,)* }
            }
        }
    };
}

tensor_types! {
    F32 = 0, 1 values in 4 bytes;
    F16 = 1, 1 values in 2 bytes;
    Q4_0 = 2, 32 values in 18 bytes;
    Q4_1 = 3, 32 values in 20 bytes;
    Q5_0 = 6, 32 values in 22 bytes;
    Q5_1 = 7, 32 values in 24 bytes;
    Q8_0 = 8, 32 values in 34 bytes;
    Q2_K = 10, 256 values in 84 bytes;
    Q3_K = 11, 256 values in 110 bytes;
    Q4_K = 12, 256 values in 144 bytes;
    Q5_K = 13, 256 values in 176 bytes;
    Q6_K = 14, 256 values in 210 bytes;
    Q8_K = 15, 256 values in 292 bytes;
    IQ2_XXS = 16, 256 values in 66 bytes;
    IQ2_XS = 17, 256 values in 74 bytes;
    IQ3_XXS = 18, 256 values in 98 bytes;
    IQ1_S = 19, 256 values in 50 bytes;
    IQ4_NL = 20, 32 values in 18 bytes;
    IQ3_S = 21, 256 values in 110 bytes;
    IQ2_S = 22, 256 values in 82 bytes;
    IQ4_XS = 23, 256 values in 136 bytes;
    IQ1_M = 29, 256 values in 56 bytes;
    BF16 = 30, 1 values in 2 bytes;
    TQ1_0 = 34, 256 values in 54 bytes;
    TQ2_0 = 35, 256 values in 66 bytes;
    MXFP4 = 39, 32 values in 17 bytes;
    NVFP4 = 40, 64 values in 36 bytes;
    Q1_0 = 41, 128 values in 18 bytes;
    Q2_0 = 42, 64 values in 18 bytes;
}

impl TensorType {
    /// Bytes of a row of `n` values; `None` unless `n` is a whole number of blocks, or on overflow.
    #[must_use]
    pub fn row_bytes(self, n: usize) -> Option<usize> {
        if !n.is_multiple_of(self.block_len()) {
            return None;
        }
        (n / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The exact f32 values of whole blocks: the definition that every kernel is compared with.
    /// Multiplications and additions are rounded one by one, in the order of the type's definition.
    ///
    /// # Errors
    /// `ERR_INTERNAL` unless `out` has as many values as `blocks` hold.
    pub fn dequantise(self, blocks: &[u8], out: &mut [f32]) -> Result<()> {
        if self.row_bytes(out.len()) != Some(blocks.len()) {
            let (name, bytes, values) = (self.name(), blocks.len(), out.len());
            let what = format!("{bytes} bytes of {name} are not {values} values");
            return Err(Error::internal("quant::dequantise", what));
        }
        match self {
            TensorType::F32 => all::<float::F32>(blocks, out),
            TensorType::F16 => all::<float::F16>(blocks, out),
            TensorType::BF16 => all::<float::BF16>(blocks, out),
            TensorType::Q4_0 => all::<legacy::Q4_0>(blocks, out),
            TensorType::Q4_1 => all::<legacy::Q4_1>(blocks, out),
            TensorType::Q5_0 => all::<legacy::Q5_0>(blocks, out),
            TensorType::Q5_1 => all::<legacy::Q5_1>(blocks, out),
            TensorType::Q8_0 => all::<legacy::Q8_0>(blocks, out),
            TensorType::Q2_K => all::<k::Q2K>(blocks, out),
            TensorType::Q3_K => all::<k::Q3K>(blocks, out),
            TensorType::Q4_K => all::<k::Q4K>(blocks, out),
            TensorType::Q5_K => all::<k::Q5K>(blocks, out),
            TensorType::Q6_K => all::<k::Q6K>(blocks, out),
            TensorType::Q8_K => all::<k::Q8K>(blocks, out),
            TensorType::IQ1_S => all::<iq::Iq1S>(blocks, out),
            TensorType::IQ1_M => all::<iq::Iq1M>(blocks, out),
            TensorType::IQ2_XXS => all::<iq::Iq2Xxs>(blocks, out),
            TensorType::IQ2_XS => all::<iq::Iq2Xs>(blocks, out),
            TensorType::IQ2_S => all::<iq::Iq2S>(blocks, out),
            TensorType::IQ3_XXS => all::<iq::Iq3Xxs>(blocks, out),
            TensorType::IQ3_S => all::<iq::Iq3S>(blocks, out),
            TensorType::IQ4_NL => all::<iq::Iq4Nl>(blocks, out),
            TensorType::IQ4_XS => all::<iq::Iq4Xs>(blocks, out),
            TensorType::TQ1_0 => all::<ternary::Tq1_0>(blocks, out),
            TensorType::TQ2_0 => all::<ternary::Tq2_0>(blocks, out),
            TensorType::Q1_0 => all::<ternary::Q1_0>(blocks, out),
            TensorType::Q2_0 => all::<ternary::Q2_0>(blocks, out),
            TensorType::MXFP4 => all::<fp4::Mxfp4>(blocks, out),
            TensorType::NVFP4 => all::<fp4::Nvfp4>(blocks, out),
        }
        Ok(())
    }
}

/// A block as it lies in a file: bytes only, so any address will do.
pub trait Block: FromBytes + Immutable + KnownLayout + Sized {
    /// Values in a block.
    const LEN: usize;

    /// Writes the block's [`Block::LEN`] values to `out`, which has room for exactly these.
    fn dequantise(&self, out: &mut [f32]);
}

/// Bytes seen as blocks of one type; `None` unless they are a whole number of blocks.
#[must_use]
pub fn blocks<B: Block>(bytes: &[u8]) -> Option<&[B]> {
    <[B]>::ref_from_bytes(bytes).ok()
}

fn all<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let blocks = blocks::<B>(bytes).unwrap_or_default();
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::LEN)) {
        block.dequantise(out);
    }
}

/// A little-endian half as f32.
#[must_use]
pub fn half(bytes: [u8; 2]) -> f32 {
    half::f16::from_le_bytes(bytes).to_f32()
}

/// Ties block structs to the table's sizes while compiling.
macro_rules! sizes {
    ($($kind:ident: $block:ty),* $(,)?) => {
        const _: () = {
            $(
                let kind = crate::quant::TensorType::$kind;
                assert!(size_of::<$block>() == kind.block_bytes());
                assert!(align_of::<$block>() == 1);
                assert!(<$block as crate::quant::Block>::LEN == kind.block_len());
            )*
        };
    };
}
use sizes;
