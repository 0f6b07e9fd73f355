//! What a type of the KV cache keeps of a head. A rotated type is rotated, rounded and rotated
//! back, which is what it means for scores and outputs.

use half::{bf16, f16};

use crate::backend::{KV_BLOCK, KvType, rotated_together};

/// Rounds a head in place.
pub fn round(kind: KvType, head: &mut [f32]) {
    match kind {
        KvType::F32 => {}
        KvType::F16 => head.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
        KvType::BF16 => head.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        KvType::Q8_0 => head.chunks_mut(KV_BLOCK).for_each(|block| {
            let largest = block.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            steps(block, largest / 127.0, (-127.0, 127.0));
        }),
        KvType::Q4_0 => {
            rotate(head);
            head.chunks_mut(KV_BLOCK).for_each(|block| {
                let further = |m: f32, x: &f32| if x.abs() > m.abs() { *x } else { m };
                let furthest = block.iter().fold(0.0f32, further);
                steps(block, furthest / -8.0, (-8.0, 7.0));
            });
            rotate(head);
        }
    }
}

/// Numbers to whole multiples of a step that is itself rounded to f16.
fn steps(block: &mut [f32], step: f32, (low, high): (f32, f32)) {
    let step = f16::from_f32(step).to_f32();
    for x in block {
        let count = if step == 0.0 { 0.0 } else { (*x / step).round_ties_even() };
        *x = step * count.clamp(low, high);
    }
}

/// Multiplies by the normalised Hadamard matrix: entry (i, j) is -1 to the number of bits that i
/// and j have in common, over sqrt(n).
fn rotate(head: &mut [f32]) {
    let n = rotated_together(head.len());
    let scale = 1.0 / (n as f64).sqrt();
    for part in head.chunks_mut(n) {
        let x: Vec<f64> = part.iter().map(|x| f64::from(*x)).collect();
        for (i, out) in part.iter_mut().enumerate() {
            let signed =
                |(j, x): (usize, &f64)| if (i & j).count_ones() % 2 == 0 { *x } else { -*x };
            *out = (x.iter().enumerate().map(signed).sum::<f64>() * scale) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_twice_changes_nothing() {
        for n in [32, 64, 96, 160] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 37 + 11) % 101) as f32 - 50.0).collect();
            let mut y = x.clone();
            rotate(&mut y);
            let energy = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>();
            assert!((energy(&x) / energy(&y) - 1.0).abs() < 1e-5 && x != y);
            rotate(&mut y);
            assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-4), "{n}");
        }
    }

    #[test]
    fn what_is_kept_is_as_near_as_the_bits_allow() {
        let x: Vec<f32> = (0..128).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
        let off = |kind| {
            let mut y = x.clone();
            round(kind, &mut y);
            let apart = x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum::<f32>();
            (apart / x.iter().map(|x| x * x).sum::<f32>()).sqrt()
        };
        assert!(off(KvType::F32) == 0.0 && off(KvType::F16) < 3e-4 && off(KvType::BF16) < 3e-3);
        assert!(off(KvType::Q8_0) < 6e-3 && off(KvType::Q4_0) < 0.12, "{}", off(KvType::Q4_0));
    }
}
