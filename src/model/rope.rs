//! Rotary position embedding: its keys, and the frequencies that follow from them. Scaling none,
//! linear and yarn; llama3's factors are a tensor (`rope_freqs.weight`) that divides them.

use std::f64::consts::PI;
use std::sync::Arc;

use crate::error::Result;

use super::keys::Keys;

/// How positions are stretched beyond the trained context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// All frequencies are divided by the factor.
    Linear {
        /// How many times longer.
        factor: f64,
    },
    /// YaRN (Peng et al. 2023): low frequencies are divided, high ones kept, in between a ramp.
    Yarn {
        /// How many times longer.
        factor: f64,
        /// Context before stretching.
        n_ctx_original: f64,
        /// Turns over the original context above which a frequency is kept.
        beta_fast: f64,
        /// Turns below which it is divided.
        beta_slow: f64,
        /// Share of kept frequencies that is really kept, usually 1.
        ext_factor: f64,
        /// Factor on cos and sin.
        magnitude: f64,
    },
}

/// Position embedding of all heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeSpec {
    /// Rotated values of a head, even.
    pub n_rot: usize,
    /// Base of the frequencies.
    pub freq_base: f64,
    /// Stretching.
    pub scaling: Scaling,
    /// `rope.scaling.attn_factor`: one more factor on cos and sin.
    pub attn_factor: f64,
}

impl RopeSpec {
    /// Reads `rope.*`. `n_rot` is the whole head unless the file says less.
    pub(super) fn read(keys: &mut Keys<'_>, head_dim: usize, n_ctx_train: usize) -> Result<Self> {
        const DIMENSIONS: &str = "rope.dimension_count";
        let n_rot = keys.opt_u32(DIMENSIONS)?.map_or(head_dim, |n| n as usize);
        if n_rot < 2 || n_rot % 2 == 1 || n_rot > head_dim {
            let what =
                format!("is {n_rot}, expected an even number from 2 to the head's {head_dim}");
            return Err(keys.refuse(DIMENSIONS, what));
        }
        let freq_base = positive(keys, "rope.freq_base", 10_000.0)?;
        let attn_factor = positive(keys, "rope.scaling.attn_factor", 1.0)?;
        let scaling = Scaling::read(keys, n_ctx_train)?;
        keys.opt_bool("rope.scaling.finetuned")?; // a remark
        let rope = RopeSpec { n_rot, freq_base, scaling, attn_factor };
        let (freqs, magnitude) = (rope.freqs(), rope.magnitude() as f32);
        if freqs.iter().any(|freq| !freq.is_finite()) || !magnitude.is_normal() {
            let what = format!("is {freq_base}: frequencies or magnitude are not finite");
            return Err(keys.refuse("rope.freq_base", what));
        }
        Ok(rope)
    }

    /// Radians a position for each pair.
    #[must_use]
    pub fn freqs(&self) -> Arc<[f64]> {
        let n_rot = self.n_rot as f64;
        let freq = |pair: usize| self.freq_base.powf(-2.0 * pair as f64 / n_rot);
        let pairs = 0..self.n_rot / 2;
        match self.scaling {
            Scaling::None => pairs.map(freq).collect(),
            Scaling::Linear { factor } => pairs.map(|pair| freq(pair) / factor).collect(),
            Scaling::Yarn { factor, n_ctx_original, beta_fast, beta_slow, ext_factor, .. } => {
                // The pair that makes `turns` turns over the original context.
                let pair_of = |turns: f64| {
                    n_rot * (n_ctx_original / (turns * 2.0 * PI)).ln() / (2.0 * self.freq_base.ln())
                };
                let low = pair_of(beta_fast).floor().max(0.0);
                let high = pair_of(beta_slow).ceil().min(n_rot - 1.0);
                let kept = |pair: usize| {
                    let ramp = (pair as f64 - low) / (high - low).max(0.001);
                    (1.0 - ramp.clamp(0.0, 1.0)) * ext_factor
                };
                pairs
                    .map(|pair| freq(pair) / factor * (1.0 - kept(pair)) + freq(pair) * kept(pair))
                    .collect()
            }
        }
    }

    /// Factor on cos and sin.
    #[must_use]
    pub fn magnitude(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn { magnitude, .. } => self.attn_factor * magnitude,
            Scaling::None | Scaling::Linear { .. } => self.attn_factor,
        }
    }
}

impl Scaling {
    /// `rope.scaling.type`; a factor without a type is linear, as in llama.cpp.
    fn read(keys: &mut Keys<'_>, n_ctx_train: usize) -> Result<Scaling> {
        const TYPE: &str = "rope.scaling.type";
        let legacy = positive(keys, "rope.scale_linear", 1.0)?;
        // 0 is how some files write "no factor".
        let factor = match keys.opt_f32("rope.scaling.factor")? {
            None | Some(0.0) => legacy,
            Some(_) => positive(keys, "rope.scaling.factor", 1.0)?,
        };
        let yarn = Scaling::yarn(keys, n_ctx_train, factor)?;
        match keys.opt_str(TYPE)? {
            Some("none") => Ok(Scaling::None),
            None | Some("linear") if factor == 1.0 => Ok(Scaling::None),
            None | Some("linear") => Ok(Scaling::Linear { factor }),
            Some("yarn") => Ok(yarn),
            Some("longrope") => Err(keys.unsupported(TYPE, "rope scaling 'longrope'")),
            Some(other) => {
                let what =
                    format!("is '{}', expected none, linear or yarn", crate::error::shown(other));
                Err(keys.refuse(TYPE, what))
            }
        }
    }

    fn yarn(keys: &mut Keys<'_>, n_ctx_train: usize, factor: f64) -> Result<Scaling> {
        const ORIGINAL: &str = "rope.scaling.original_context_length";
        let n_ctx = keys.opt_count(ORIGINAL, 1..=i32::MAX as u32)?.unwrap_or(n_ctx_train);
        let beta_fast = positive(keys, "rope.scaling.yarn_beta_fast", 32.0)?;
        let beta_slow = positive(keys, "rope.scaling.yarn_beta_slow", 1.0)?;
        let attn_factor = positive(keys, "rope.scaling.yarn_attn_factor", 1.0)?;
        // Below 0 means: the type's own, which is 1.
        let ext_factor = keys.opt_f32("rope.scaling.yarn_ext_factor")?.filter(|x| *x >= 0.0);
        let ext_factor = ext_factor.map_or(1.0, f64::from);
        let log = f64::from(keys.opt_f32("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0));
        let stretch = |m: f64| if factor > 1.0 { 0.1 * m * factor.ln() + 1.0 } else { 1.0 };
        let magnitude = match (ext_factor == 0.0, log == 0.0) {
            (true, _) => 1.0,
            (false, true) => stretch(1.0),
            (false, false) => stretch(1.0) / stretch(log),
        };
        Ok(Scaling::Yarn {
            factor,
            n_ctx_original: n_ctx as f64,
            beta_fast,
            beta_slow,
            ext_factor,
            magnitude: magnitude * attn_factor,
        })
    }
}

/// A number above zero, or its default.
fn positive(keys: &mut Keys<'_>, key: &str, default: f64) -> Result<f64> {
    match keys.opt_f32(key)? {
        None => Ok(default),
        Some(value) if value > 0.0 => Ok(f64::from(value)),
        Some(value) => Err(keys.refuse(key, format!("is {value}, expected more than 0"))),
    }
}
