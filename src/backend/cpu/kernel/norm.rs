//! RMS norm of rows: x / sqrt(mean(x^2) + eps) * weight.

use super::super::simd::{Kernel, LANES, Simd};
use super::math::{load_padded, store_padded};

/// One row. The squares are summed in 16 lanes, then by halves.
pub struct RmsNorm<'a> {
    /// The row.
    pub x: &'a [f32],
    /// Factors, as wide.
    pub weight: &'a [f32],
    /// Added to the mean square.
    pub eps: f32,
    /// As wide.
    pub out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Out = ();

    #[inline(always)]
    #[allow(clippy::cast_precision_loss, reason = "widths are small")]
    fn run<S: Simd>(self, s: S) {
        let mut sum = s.splat(0.0);
        for x in self.x.chunks(LANES) {
            let x = load_padded(s, x);
            sum = s.fma(x, x, sum);
        }
        let mean = s.reduce_add(sum) / self.x.len() as f32;
        let scale = s.splat(1.0 / (mean + self.eps).sqrt());
        let weights = self.weight.chunks(LANES);
        for ((x, w), out) in self.x.chunks(LANES).zip(weights).zip(self.out.chunks_mut(LANES)) {
            let y = s.mul(s.mul(load_padded(s, x), scale), load_padded(s, w));
            store_padded(s, y, out);
        }
    }
}
