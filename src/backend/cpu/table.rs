//! The one table of kernels of a tier: what serves each tensor type, and under which name.

use super::kernel::float::{BF16, F16, F32};
use super::kernel::linear::Linear;
use super::kernel::parts::{NVFP4, Q10, Q20};
use super::kernel::quantise::ActKind;
use super::kernel::unpack::{Q2K, Q3K, Q4K, Q5K, Q40, Q41, Q50, Q51, Q80};
use super::kernel::unpack_grid::{
    Gridded, IQ1M, IQ1S, IQ2S, IQ2XS, IQ2XXS, IQ3S, IQ3XXS, IQ4NL, IQ4XS, MXFP4, Q8K, TQ10, TQ20,
};
use super::simd::Tier;
use crate::quant::TensorType;

/// Kernels of one tier, by tensor type.
pub struct Table {
    tier: Tier,
}

impl Table {
    /// The kernels of a tier.
    #[must_use]
    pub fn new(tier: Tier) -> Self {
        Table { tier }
    }

    /// The tier.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The kernel of a tensor type.
    #[must_use]
    pub fn linear(&self, kind: TensorType) -> Linear {
        linear(kind, self.tier)
    }

    /// A kernel's full name, such as `linear_q4_k_q8_k_avx512`.
    #[must_use]
    pub fn name(&self, kind: TensorType) -> String {
        let linear = self.linear(kind);
        let act = match linear.act {
            ActKind::Float => "f32",
            ActKind::Block32 => "q8_32",
            ActKind::Block256 => "q8_k",
        };
        format!("linear_{}_{act}_{}", linear.weight, self.tier.name())
    }
}

fn linear(kind: TensorType, tier: Tier) -> Linear {
    match kind {
        TensorType::F32 => Linear::of_float::<F32>(kind),
        TensorType::F16 => Linear::of_float::<F16>(kind),
        TensorType::BF16 => Linear::of_float::<BF16>(kind),
        TensorType::Q4_0 => Linear::of32::<Q40>(kind),
        TensorType::Q4_1 => Linear::of32::<Q41>(kind),
        TensorType::Q5_0 => Linear::of32::<Q50>(kind),
        TensorType::Q5_1 => Linear::of32::<Q51>(kind),
        TensorType::Q8_0 => Linear::of32::<Q80>(kind),
        TensorType::Q2_K => Linear::of256::<Q2K>(kind),
        TensorType::Q3_K => Linear::of256::<Q3K>(kind),
        TensorType::Q4_K => Linear::of256::<Q4K>(kind),
        TensorType::Q5_K => Linear::of256::<Q5K>(kind),
        TensorType::Q6_K => Linear::of_q6_k(kind),
        TensorType::Q8_K => Linear::of_table256::<Q8K>(kind),
        TensorType::IQ4_NL => Linear::of32::<IQ4NL>(kind),
        TensorType::IQ4_XS => Linear::of_order256::<IQ4XS>(kind, tier),
        TensorType::MXFP4 => Linear::of32::<MXFP4>(kind),
        TensorType::IQ1_S => Linear::of_order256::<Gridded<IQ1S>>(kind, tier),
        TensorType::IQ1_M => Linear::of_order256::<Gridded<IQ1M>>(kind, tier),
        TensorType::IQ2_XXS => Linear::of_order256::<Gridded<IQ2XXS>>(kind, tier),
        TensorType::IQ2_XS => Linear::of_order256::<Gridded<IQ2XS>>(kind, tier),
        TensorType::IQ2_S => Linear::of_order256::<Gridded<IQ2S>>(kind, tier),
        TensorType::IQ3_XXS => Linear::of_order256::<Gridded<IQ3XXS>>(kind, tier),
        TensorType::IQ3_S => Linear::of_order256::<Gridded<IQ3S>>(kind, tier),
        TensorType::TQ1_0 => Linear::of_order256::<Gridded<TQ10>>(kind, tier),
        TensorType::TQ2_0 => Linear::of_order256::<TQ20>(kind, tier),
        TensorType::NVFP4 => Linear::of_parts::<NVFP4>(kind),
        TensorType::Q1_0 => Linear::of_parts::<Q10>(kind),
        TensorType::Q2_0 => Linear::of_parts::<Q20>(kind),
    }
}
