//! Rotary position embedding. Cos and sin come from f64 once a pass and are shared by all layers.

use crate::plan::{Rope, RopeKind};

/// Cos and sin for the rows of a batch: `[n_rows, n_rot / 2]` pairs (cos, sin).
#[derive(Debug, Default)]
pub struct Angles {
    pairs: Vec<(f32, f32)>,
    n: usize,
}

impl Angles {
    /// Fills the table for these positions. `factors`, if any, divide the frequencies.
    #[allow(clippy::cast_possible_truncation, reason = "rounded once, from f64")]
    pub fn fill(&mut self, rope: &Rope, factors: Option<&[f32]>, positions: &[u32]) {
        self.n = rope.freqs.len();
        self.pairs.clear();
        for position in positions {
            for (i, freq) in rope.freqs.iter().enumerate() {
                let factor = factors.and_then(|f| f.get(i)).map_or(1.0, |f| f64::from(*f));
                let (sin, cos) = (f64::from(*position) * freq / factor).sin_cos();
                let m = rope.magnitude;
                self.pairs.push((cos as f32 * m, sin as f32 * m));
            }
        }
    }

    /// The pairs of a row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[(f32, f32)] {
        self.pairs.get(row * self.n..(row + 1) * self.n).unwrap_or(&[])
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.pairs.capacity() * size_of::<(f32, f32)>()
    }
}

/// Rotates the heads of one row in place.
pub fn rotate(rope: &Rope, angles: &[(f32, f32)], x: &mut [f32]) {
    let half = rope.n_rot / 2;
    for head in x.chunks_exact_mut(rope.head_dim) {
        match rope.kind {
            RopeKind::Norm => {
                for (two, (cos, sin)) in head.chunks_exact_mut(2).zip(angles) {
                    let (a, b) = (two[0], two[1]);
                    two[0] = a * cos - b * sin;
                    two[1] = a * sin + b * cos;
                }
            }
            RopeKind::Neox => {
                let (first, rest) = head.split_at_mut(half);
                for ((a, b), (cos, sin)) in first.iter_mut().zip(rest).zip(angles) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
        }
    }
}
