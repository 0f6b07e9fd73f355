//! The sampler against known logits: order, masks, penalties, ties and draws.

use super::*;

const GREEDY: Sampling = Sampling {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    typical_p: 1.0,
    top_n_sigma: 0.0,
    xtc_probability: 0.0,
    xtc_threshold: 0.1,
    repeat_penalty: 1.0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    repeat_last_tokens: 64,
    logit_bias: Vec::new(),
    seed: 0,
};

/// Plain sampling at temperature 1: no filter.
fn plain() -> Sampling {
    Sampling { temperature: 1.0, ..GREEDY }
}

fn draw(sampling: Sampling, logits: &[f32], history: &[u32]) -> Result<u32> {
    Sampler::new(sampling, logits.len())?.draw(logits, history, 0)
}

/// Ids that ever come out of many draws.
fn support(sampling: &Sampling, logits: &[f32]) -> Vec<u32> {
    let mut sampler = Sampler::new(sampling.clone(), logits.len()).unwrap();
    let mut ids: Vec<u32> = (0..3000).map(|i| sampler.draw(logits, &[], i).unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn logs(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

#[test]
fn greedy_takes_the_largest_and_the_lowest_id_of_a_tie() {
    let check = |logits: &[f32], expected| assert_eq!(draw(GREEDY, logits, &[]), Ok(expected));
    check(&[1.0, 3.0, 2.0], 1);
    check(&[3.0, 1.0, 3.0], 0);
    check(&[-0.0, 0.0], 0);
    check(&[f32::NEG_INFINITY, -9.0], 1);
}

#[test]
fn draws_follow_the_distribution() {
    let expected = [0.5, 0.3, 0.15, 0.05f32];
    let logits = logs(&expected);
    let mut sampler = Sampler::new(Sampling { seed: 5, ..plain() }, 4).unwrap();
    let mut counts = [0u32; 4];
    for index in 0..40_000 {
        counts[sampler.draw(&logits, &[], index).unwrap() as usize] += 1;
    }
    // Chi-square with 3 degrees of freedom: 16.3 is exceeded once in a thousand seeds.
    let chi: f64 = counts
        .iter()
        .zip(expected)
        .map(|(&seen, p)| {
            let want = f64::from(p) * 40_000.0;
            (f64::from(seen) - want).powi(2) / want
        })
        .sum();
    assert!(chi < 16.3, "{counts:?}");
}

#[test]
fn a_draw_depends_on_seed_and_index_only() {
    let logits: Vec<f32> = (0..100u8).map(|i| f32::from(i % 7)).collect();
    let run = |seed| -> Vec<u32> {
        let mut sampler = Sampler::new(Sampling { seed, ..plain() }, 100).unwrap();
        (0..50).map(|i| sampler.draw(&logits, &[], i).unwrap()).collect()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
    let mut late = Sampler::new(Sampling { seed: 1, ..plain() }, 100).unwrap();
    assert_eq!(late.draw(&logits, &[], 49).unwrap(), run(1)[49]);
}

#[test]
fn filters_keep_what_llama_cpp_keeps() {
    let logits = logs(&[0.1, 0.4, 0.2, 0.3]);
    let check = |sampling: Sampling, expected: &[u32]| {
        assert_eq!(support(&sampling, &logits), expected, "{sampling:?}");
    };
    check(plain(), &[0, 1, 2, 3]);
    check(Sampling { top_k: 2, ..plain() }, &[1, 3]);
    check(Sampling { top_k: 99, ..plain() }, &[0, 1, 2, 3]);
    check(Sampling { top_p: 0.6, ..plain() }, &[1, 3]);
    check(Sampling { top_p: 0.75, ..plain() }, &[1, 2, 3]);
    check(Sampling { top_p: 0.0, ..plain() }, &[1]);
    check(Sampling { min_p: 0.6, ..plain() }, &[1, 3]);
    check(Sampling { min_p: 1.0, ..plain() }, &[1]);
    // Entropy 1.28 nats; surprises 2.30, 0.92, 1.61, 1.20: id 3 is the most typical.
    check(Sampling { typical_p: 0.2, ..plain() }, &[3]);
    check(Sampling { typical_p: 0.45, ..plain() }, &[2, 3]);
    check(Sampling { typical_p: 0.65, ..plain() }, &[1, 2, 3]);
    check(Sampling { xtc_probability: 1.0, xtc_threshold: 0.15, ..plain() }, &[0, 2]);
    check(Sampling { xtc_probability: 1.0, xtc_threshold: 0.6, ..plain() }, &[0, 1, 2, 3]);
    check(Sampling { top_n_sigma: 0.5, ..plain() }, &[1]);
}

#[test]
fn penalties_count_the_window_only() {
    let logits = [2.0, 1.9, -1.0];
    let check = |sampling: Sampling, history: &[u32], expected| {
        assert_eq!(draw(sampling, &logits, history), Ok(expected));
    };
    check(Sampling { repeat_penalty: 1.1, ..GREEDY }, &[0], 1);
    check(Sampling { repeat_penalty: 1.1, repeat_last_tokens: 1, ..GREEDY }, &[0, 2], 0);
    check(Sampling { repeat_penalty: 1.1, repeat_last_tokens: 0, ..GREEDY }, &[0], 0);
    check(Sampling { presence_penalty: 0.2, ..GREEDY }, &[0, 0, 0], 1);
    check(Sampling { frequency_penalty: 0.06, ..GREEDY }, &[0], 0);
    check(Sampling { frequency_penalty: 0.06, ..GREEDY }, &[0, 0], 1);
    // A negative logit is multiplied: the penalty never favours.
    check(Sampling { repeat_penalty: 3.0, ..GREEDY }, &[0, 1, 2], 0);
}

#[test]
fn biases_add_and_forbid() {
    let logits = [2.0, 1.0, 0.0];
    let biased = |logit_bias: &[(u32, f64)]| Sampling { logit_bias: logit_bias.to_vec(), ..GREEDY };
    assert_eq!(draw(biased(&[(1, 1.5)]), &logits, &[]), Ok(1));
    assert_eq!(draw(biased(&[(0, f64::NEG_INFINITY)]), &logits, &[]), Ok(1));
    assert_eq!(draw(biased(&[(2, f64::INFINITY)]), &logits, &[]), Ok(2));
    let all = [0, 1, 2].map(|id| (id, f64::NEG_INFINITY));
    for temperature in [0.0, 0.7] {
        let sampling = Sampling { temperature, ..biased(&all) };
        let error = draw(sampling, &logits, &[]).unwrap_err();
        assert_eq!(error.code, Code::InvalidArg);
        assert!(error.message.contains("logitBias"), "{error}");
    }
    let warm = Sampling { temperature: 1.0, ..biased(&[(0, f64::NEG_INFINITY)]) };
    assert_eq!(support(&warm, &logits), [1, 2]);
}

#[test]
fn logits_that_are_not_numbers_are_a_coded_error() {
    for (bad, sampling) in [(f32::NAN, GREEDY), (f32::INFINITY, plain())] {
        let error = draw(sampling, &[0.0, bad], &[4, 5, 6]).unwrap_err();
        assert_eq!(error.code, Code::Numeric);
        assert_eq!(error.fields, vec![("token", 2usize.into())]);
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let check = |sampling: Sampling, name: &str| {
        let error = Sampler::new(sampling, 3).err().expect(name);
        assert_eq!(error.code, Code::InvalidArg);
        assert!(error.message.starts_with(name), "{error}");
    };
    check(Sampling { temperature: f64::NAN, ..GREEDY }, "temperature");
    check(Sampling { temperature: -1.0, ..GREEDY }, "temperature");
    check(Sampling { repeat_penalty: 0.0, ..GREEDY }, "repeatPenalty");
    check(Sampling { top_p: f64::INFINITY, ..GREEDY }, "topP");
    check(Sampling { logit_bias: vec![(3, 1.0)], ..GREEDY }, "logitBias");
}

#[test]
fn extreme_temperatures_stay_finite() {
    let logits = [f32::MAX, f32::MIN, 0.0, 1e-30];
    assert_eq!(support(&Sampling { temperature: 1e-300, ..plain() }, &logits), [0]);
    assert_eq!(support(&Sampling { temperature: 1e300, ..plain() }, &logits), [0, 1, 2, 3]);
}
