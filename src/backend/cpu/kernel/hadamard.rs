//! The Walsh-Hadamard transform of heads, normalised, hence its own inverse.
//!
//! For width 1, 2, 4 .. n/2: pairs (a, b) that far apart become (a + b, a - b); then all times
//! 1/sqrt(n), where n is the largest power of two that divides the head. Only additions of f32 in
//! this order, so every tier gives the same bits.

use super::super::simd::{LANES, Simd};
use super::math::{load_padded, store_padded};
use crate::backend::rotated_together;

/// Transforms a head in place.
#[inline(always)]
pub fn rotate<S: Simd>(s: S, head: &mut [f32]) {
    for part in head.chunks_exact_mut(rotated_together(head.len())) {
        transform(s, part);
    }
}

/// Transforms a power of two of values.
#[inline(always)]
#[allow(clippy::cast_precision_loss, reason = "heads are small")]
fn transform<S: Simd>(s: S, x: &mut [f32]) {
    let n = x.len();
    let mut width = 1;
    while width < n {
        for pair in x.chunks_exact_mut(2 * width) {
            let (a, b) = pair.split_at_mut(width);
            for (a, b) in a.chunks_mut(LANES).zip(b.chunks_mut(LANES)) {
                if width < LANES {
                    for (a, b) in a.iter_mut().zip(b) {
                        (*a, *b) = (*a + *b, *a - *b);
                    }
                } else {
                    let (va, vb) = (load_padded(s, a), load_padded(s, b));
                    store_padded(s, s.add(va, vb), a);
                    store_padded(s, s.sub(va, vb), b);
                }
            }
        }
        width *= 2;
    }
    let scale = s.splat(1.0 / (n as f32).sqrt());
    for x in x.chunks_mut(LANES) {
        store_padded(s, s.mul(load_padded(s, x), scale), x);
    }
}
