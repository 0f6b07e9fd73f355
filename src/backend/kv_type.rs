//! How keys and values are stored in the KV cache: types, sizes, and which head sizes they take.

use crate::error::{Error, Result};
use crate::plan::KvLayer;

/// Values that share a scale in the quantised types.
pub const KV_BLOCK: usize = 32;

/// How KV cache entries are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// bfloat16.
    BF16,
    /// Bytes, an f16 scale for every 32 values of a head.
    Q8_0,
    /// Nibbles, an f16 scale for every 32 values of a head, which is rotated first.
    Q4_0,
}

impl KvType {
    /// All of them.
    pub const ALL: [KvType; 5] =
        [KvType::F32, KvType::F16, KvType::BF16, KvType::Q8_0, KvType::Q4_0];

    /// As in options: `q8_0`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::BF16 => "bf16",
            KvType::Q8_0 => "q8_0",
            KvType::Q4_0 => "q4_0",
        }
    }

    /// Bytes of a head of one token, with its scales.
    #[must_use]
    pub fn head_bytes(self, head_dim: usize) -> usize {
        match self {
            KvType::F32 => 4 * head_dim,
            KvType::F16 | KvType::BF16 => 2 * head_dim,
            KvType::Q8_0 => head_dim / KV_BLOCK * (KV_BLOCK + 2),
            KvType::Q4_0 => head_dim / KV_BLOCK * (KV_BLOCK / 2 + 2),
        }
    }

    /// Whether values share scales.
    #[must_use]
    pub fn is_quantised(self) -> bool {
        matches!(self, KvType::Q8_0 | KvType::Q4_0)
    }

    /// Whether heads are multiplied by a Hadamard matrix before they are stored. It spreads
    /// outliers over the head, so that four bits suffice (QuaRot, Ashkboos et al. 2024). The matrix
    /// is its own inverse: queries are multiplied alike, outputs once more, nothing else changes.
    #[must_use]
    pub fn is_rotated(self) -> bool {
        self == KvType::Q4_0
    }

    /// Checks that every head of these layers is a whole number of blocks.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG` naming the head size.
    pub fn check(layers: &[KvLayer], k: KvType, v: KvType) -> Result<()> {
        let odd = |kind: KvType, dim: usize| kind.is_quantised() && !dim.is_multiple_of(KV_BLOCK);
        for layer in layers {
            for (name, kind, dim) in [("k", k, layer.head_dim_k), ("v", v, layer.head_dim_v)] {
                if odd(kind, dim) {
                    let expected = format!(
                        "'f32', 'f16' or 'bf16' for {name}, since this model's heads of {dim} \
                         values are no whole number of blocks of {KV_BLOCK}"
                    );
                    return Err(Error::invalid_arg(
                        "kvType",
                        &expected,
                        &format!("'{}'", kind.name()),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Values of a head that are rotated together: the largest power of two that divides the head.
#[must_use]
pub fn rotated_together(head_dim: usize) -> usize {
    1 << head_dim.trailing_zeros()
}
