//! Toys of known architectures and of quantisation against values by transformers: logits at some
//! positions, all logits at the last, the residual stream layer by layer.

use serde_json::Value as Json;

use crate::runner::{Make, Model, Run, json, nll, reference, relative_l2, unpacked};

/// What the toys' README allows f32 arithmetic, relative L2 a position.
const F32_TOLERANCE: f64 = 1e-4;
/// Values are rounded to 1e-5; in a vector of norm 2 that is below this.
const ROUNDING: f64 = 1e-5;

#[test]
fn every_llama_toy_has_the_right_logits_on_the_reference() {
    every_toy(reference, F32_TOLERANCE);
}

#[test]
fn quantised_toys_have_the_logits_of_their_exact_weights_on_the_reference() {
    quantised_toys(reference, "float", F32_TOLERANCE, &[]);
}

/// `arch.json`: every toy within `tolerance`.
pub fn every_toy(make: Make, tolerance: f64) {
    let oracle = json("logits/arch.json");
    let toys = oracle["toys"].as_array().expect("toys");
    assert_eq!(toys.len(), 7);
    for toy in toys {
        let name = toy["name"].as_str().expect("a name");
        let model = Model::open(&unpacked(&format!("logits/toys/{name}.gguf")));
        let mut worst = 0f64;
        for sequence in array(toy, "sequences") {
            let tokens = tokens(sequence);
            let mut hidden = Vec::new();
            let mut run = Run::new(&model, make);
            let width = model.plan.n_embd;
            let logits = run.feed_probed(&tokens, true, &mut |value, data| {
                let name = &model.plan.value(value).name;
                let residual = name == "embedding" || name.ends_with("ffn_residual");
                if residual || name == "output_norm" {
                    hidden.push((name.clone(), data[data.len() - width..].to_vec()));
                }
            });
            let place = format!("{name}, {} tokens", tokens.len());
            worst = worst.max(positions(&place, &array(sequence, "positions"), &logits));
            worst = worst.max(last(&array(sequence, "last_logits"), &logits));
            let mean = mean_nll(&tokens, &logits);
            let wanted = sequence["nll"].as_f64().expect("nll");
            assert!((mean - wanted).abs() <= tolerance, "{place}: nll {mean}, wanted {wanted}");
            if let Some(entries) = sequence["hidden_last"].as_array() {
                worst = worst.max(residuals(&place, entries, hidden));
            }
        }
        println!("{name}: worst relative difference {worst:.2e}");
        assert!(worst <= tolerance, "{name}: {worst:.2e} is beyond {tolerance:.0e}");
    }
}

/// A toy that may be further off than the others: its name, how far, and why.
pub type Further = (&'static str, f64, &'static str);

/// `quant.json`'s toys: the values under `column` within `tolerance`, but for those `further` off.
pub fn quantised_toys(make: Make, column: &str, tolerance: f64, further: &[Further]) {
    let oracle = json("logits/quant-toys.json");
    for toy in array(&oracle, "toys") {
        let name = toy["name"].as_str().expect("a name");
        let model = Model::open(&unpacked(&format!("logits/toys/{name}.gguf")));
        let mut worst = 0f64;
        for sequence in array(toy, "sequences") {
            let tokens = tokens(sequence);
            let logits = Run::new(&model, make).feed(&tokens, true);
            let place = format!("{name}, {} tokens", tokens.len());
            worst = worst.max(positions(&place, &array(sequence, column), &logits));
            worst = worst.max(last(&array(sequence, &format!("{column}_last")), &logits));
        }
        let exception = further.iter().find(|(known, ..)| *known == name);
        let limit = exception.map_or(tolerance, |(_, limit, _)| *limit);
        let why = exception.map_or("", |(.., why)| *why);
        println!("{name}: worst relative difference to {column} {worst:.2e} {why}");
        assert!(worst <= limit, "{name}: {worst:.2e} is beyond {limit:.1e}");
        assert!(exception.is_none() || worst > tolerance, "{name} is an exception no more");
    }
}

/// Norm, projections and ten best of the stored positions; the worst relative difference.
fn positions(place: &str, positions: &[&Json], logits: &[Vec<f32>]) -> f64 {
    let mut worst = 0f64;
    for position in positions {
        let at = position["pos"].as_u64().expect("a position") as usize;
        let got: Vec<f64> = logits[at].iter().map(|x| f64::from(*x)).collect();
        let size = norm(&got);
        let wanted = position["l2"].as_f64().expect("l2");
        worst = worst.max((size - wanted).abs() / wanted);
        // A sum of n differences with random signs is as large as their norm.
        let wanted_sums = numbers(position, "proj");
        let sums: Vec<f64> = (0..wanted_sums.len()).map(|row| projection(row, &got)).collect();
        let apart: Vec<f64> = sums.iter().zip(&wanted_sums).map(|(a, b)| a - b).collect();
        worst = worst.max(norm(&apart) / (wanted_sums.len() as f64).sqrt() / wanted);
        let apart = array(position, "top").into_iter().map(|pair| {
            let (id, logit) =
                (pair[0].as_u64().expect("an id"), pair[1].as_f64().expect("a logit"));
            got[id as usize] - logit
        });
        let apart = norm(&apart.collect::<Vec<_>>()) / wanted;
        assert!(apart.is_finite(), "{place}, position {at}");
        worst = worst.max(apart);
    }
    worst
}

fn last(wanted: &[&Json], logits: &[Vec<f32>]) -> f64 {
    let wanted: Vec<f64> = wanted.iter().map(|x| x.as_f64().expect("a logit")).collect();
    let got: Vec<f64> = logits[logits.len() - 1].iter().map(|x| f64::from(*x)).collect();
    relative_l2(&got, &wanted)
}

/// The residual stream of the last row: embeddings, after each layer but the last, after the norm.
fn residuals(place: &str, entries: &[Json], mut seen: Vec<(String, Vec<f32>)>) -> f64 {
    let last_layer = seen.iter().rposition(|(name, _)| name.ends_with("ffn_residual"));
    seen.remove(last_layer.expect("a layer"));
    assert_eq!(seen.len(), entries.len(), "{place}: residuals seen");
    let mut worst = 0f64;
    for ((name, got), entry) in seen.iter().zip(entries) {
        let got: Vec<f64> = got.iter().map(|x| f64::from(*x)).collect();
        let (size, wanted) = (norm(&got), entry["l2"].as_f64().expect("l2"));
        let first: Vec<f64> =
            got[..8].iter().zip(numbers(entry, "first8")).map(|(a, b)| a - b).collect();
        let apart = (size - wanted).abs().max(norm(&first)) / wanted;
        assert!(apart <= F32_TOLERANCE + ROUNDING, "{place}: {name} differs by {apart:.2e}");
        worst = worst.max(apart);
    }
    worst
}

fn projection(row: usize, values: &[f64]) -> f64 {
    let sign = |column: usize| {
        let mut z = (((row as u64) << 32) | column as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        if (z ^ (z >> 31)) >> 63 == 1 { -1.0 } else { 1.0 }
    };
    values.iter().enumerate().map(|(column, value)| value * sign(column)).sum()
}

fn mean_nll(tokens: &[u32], logits: &[Vec<f32>]) -> f64 {
    let sum: f64 = tokens[1..].iter().zip(logits).map(|(next, row)| nll(row, *next)).sum();
    sum / (tokens.len() - 1) as f64
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn array<'a>(value: &'a Json, key: &str) -> Vec<&'a Json> {
    value[key].as_array().unwrap_or_else(|| panic!("no array '{key}'")).iter().collect()
}

fn numbers(value: &Json, key: &str) -> Vec<f64> {
    array(value, key).into_iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn tokens(sequence: &Json) -> Vec<u32> {
    array(sequence, "tokens").into_iter().map(|x| x.as_u64().expect("an id") as u32).collect()
}
