//! Log-probabilities of the raw distribution: natural logarithm of the softmax of the logits as the
//! model gave them, sums in f64 in order of id.

use crate::engine::command::TokenLogprob;
use crate::engine::vocabulary::Vocabulary;

/// A token's log-probability and those of the `top` most likely, lower id first on a tie.
#[must_use]
pub fn describe(logits: &[f32], token: u32, top: u32, words: &dyn Vocabulary) -> TokenLogprob {
    let log_sum = log_sum_exp(logits);
    let log = |logit: f32| narrow(f64::from(logit) - log_sum);
    let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let top = largest(logits, top as usize)
        .into_iter()
        .map(|(id, logit)| (id, words.bytes(id), log(logit)))
        .collect();
    TokenLogprob { token, bytes: words.bytes(token), logprob: log(own), top }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    max + sum.ln()
}

/// The `count` largest, descending, lower id first on a tie.
fn largest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (&logit, id) in logits.iter().zip(0u32..) {
        if top.len() == count && top.last().is_none_or(|last| logit <= last.1) {
            continue;
        }
        let place = top.partition_point(|&(_, other)| other >= logit);
        top.insert(place, (id, logit));
        top.truncate(count);
    }
    top
}

#[allow(clippy::cast_possible_truncation, reason = "the answer is an f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_are_descending_with_lower_ids_first() {
        let logits = [1.0, 3.0, 2.0, 3.0, -1.0];
        assert_eq!(largest(&logits, 3), vec![(1, 3.0), (3, 3.0), (2, 2.0)]);
        assert_eq!(largest(&logits, 0), vec![]);
        assert_eq!(largest(&logits, 9).len(), 5);
    }

    #[test]
    fn log_probabilities_sum_to_one_and_survive_large_logits() {
        let logits = [1000.0, 999.0, -1000.0, f32::NEG_INFINITY];
        let sum: f64 = logits.iter().map(|&l| (f64::from(l) - log_sum_exp(&logits)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    }
}
