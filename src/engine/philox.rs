//! Philox4x32-10: random numbers as a pure function of key and counter, so that the n-th draw of
//! an answer is the same however it is scheduled. Salmon, Moraes, Dror, Shaw: "Parallel Random
//! Numbers: As Easy as 1, 2, 3" (SC 2011); known answers from their Random123 distribution.

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The four words that belong to a counter under a key.
#[must_use]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..ROUNDS {
        let (high_0, low_0) = multiply(MULTIPLIER[0], c[0]);
        let (high_1, low_1) = multiply(MULTIPLIER[1], c[2]);
        c = [high_1 ^ c[1] ^ k[0], low_1, high_0 ^ c[3] ^ k[1], low_0];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// The two uniform numbers in [0, 1) of the `index`-th token under a seed: the first picks the
/// token, the second decides whether `xtc` applies.
#[must_use]
pub fn uniform_pair(seed: u32, index: u64) -> [f64; 2] {
    let counter = [low(index), low(index >> 32), 0, 0];
    let words = philox4x32(counter, [seed, 0]);
    [unit(words[0], words[1]), unit(words[2], words[3])]
}

/// 53 bits of two words as a number in [0, 1).
#[allow(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
fn unit(high: u32, low: u32) -> f64 {
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}

fn multiply(a: u32, b: u32) -> (u32, u32) {
    let product = u64::from(a) * u64::from(b);
    (low(product >> 32), low(product))
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
fn low(number: u64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `philox4x32 10` lines of Random123's `kat_vectors`.
    #[test]
    fn known_answers() {
        const ONES: u32 = 0xFFFF_FFFF;
        let cases = [
            ([0; 4], [0; 2], [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]),
            ([ONES; 4], [ONES; 2], [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]),
            (
                [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344],
                [0xA409_3822, 0x299F_31D0],
                [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }

    #[test]
    fn uniform_numbers_stay_in_the_unit_interval_and_differ() {
        let mut sum = 0.0;
        for index in 0..10_000 {
            let [a, b] = uniform_pair(7, index);
            assert!((0.0..1.0).contains(&a) && (0.0..1.0).contains(&b));
            sum += a;
        }
        assert!((sum / 10_000.0 - 0.5).abs() < 0.02, "mean {}", sum / 10_000.0);
    }
}
