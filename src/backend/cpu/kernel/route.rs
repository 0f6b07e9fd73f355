//! The router: softmax over all experts, the largest chosen, the lower index winning ties.

use super::super::simd::Tier;
use super::math::Softmax;
use crate::plan::Route;

/// Chooses for one row. `scores` are overwritten; `out` holds `n_used` pairs (index, weight).
#[allow(clippy::cast_precision_loss, reason = "expert counts are small")]
pub fn route(tier: Tier, route: &Route, scores: &mut [f32], out: &mut [f32]) {
    tier.call(Softmax(scores));
    let n_used = route.n_used.min(out.len() / 2);
    let mut sum = 0.0;
    for k in 0..n_used {
        let mut best = 0;
        let mut best_p = f32::NEG_INFINITY;
        for (e, p) in scores.iter().enumerate() {
            // NaN never wins, but something must: the first that is left.
            if *p > best_p || (best_p == f32::NEG_INFINITY && p.is_nan() && !taken(out, k, e)) {
                if taken(out, k, e) {
                    continue;
                }
                best = e;
                best_p = if p.is_nan() { f32::MIN } else { *p };
            }
        }
        out[2 * k] = best as f32;
        out[2 * k + 1] = scores.get(best).copied().unwrap_or(0.0);
        sum += out[2 * k + 1];
    }
    // 2^-14, as the reference: a sum of almost nothing must not blow up.
    let sum = if sum < 6.103_515_6e-5 { 6.103_515_6e-5 } else { sum };
    for pair in out.chunks_exact_mut(2).take(n_used) {
        if route.normalise {
            pair[1] /= sum;
        }
        pair[1] *= route.scale;
    }
}

/// Whether expert `e` is among the first `k` choices.
#[allow(clippy::cast_precision_loss, reason = "expert counts are small")]
fn taken(out: &[f32], k: usize, e: usize) -> bool {
    out.chunks_exact(2).take(k).any(|pair| pair[0] == e as f32)
}
