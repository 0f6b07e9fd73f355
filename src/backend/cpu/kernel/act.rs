//! Gated activations: act(gate) * up.

use super::super::simd::{Kernel, LANES, Simd};
use super::math::{exp, load_padded, store_padded};
use crate::plan::Act;

/// gate = act(gate) * up, in place.
pub struct GatedAct<'a> {
    /// Which activation.
    pub act: Act,
    /// Overwritten.
    pub gate: &'a mut [f32],
    /// As wide.
    pub up: &'a [f32],
}

impl Kernel for GatedAct<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (gate, up) in self.gate.chunks_mut(LANES).zip(self.up.chunks(LANES)) {
            let x = load_padded(s, gate);
            let y = match self.act {
                Act::Silu => {
                    let e = exp(s, s.sub(s.splat(0.0), x));
                    s.div(x, s.add(s.splat(1.0), e))
                }
            };
            store_padded(s, s.mul(y, load_padded(s, up)), gate);
        }
    }
}
