//! The chord models against logits of an independent float32 pass (NumPy): losses token by token,
//! the five best logits at some positions, and greedy text. One suite for every backend.

use serde_json::Value as Json;

use crate::runner::{Make, Model, Run, chord_path, json, nll, reference};

/// How far a way of computing may be from float32 on the same weights; the oracle's README gives
/// the figures and the faults that they find.
#[derive(Clone, Copy)]
pub struct Tolerance {
    /// Mean |difference of loss| over a sequence.
    pub a: f64,
    /// The same for `odd`, which is far from the training text.
    pub a_odd: f64,
    /// Mean |difference of the five best logits|.
    pub b: f64,
    /// Greedy text may part where the reference's best two logits are nearer than this.
    pub margin: f64,
    /// Largest difference of a single loss; none where a rounding may flip a router's choice.
    pub single: Option<f64>,
}

/// Float32 arithmetic on exact or dequantised weights.
pub const FLOAT: Tolerance =
    Tolerance { a: 0.0003, a_odd: 0.0003, b: 0.0005, margin: 0.002, single: Some(0.001) };
/// Activations rounded to int8 blocks.
#[allow(dead_code, reason = "for backends that compute so")]
pub const INT8: Tolerance = Tolerance { a: 0.04, a_odd: 0.06, b: 0.10, margin: 0.3, single: None };

/// What is computed of a model.
pub struct Share {
    /// The oracle's name of the model.
    pub model: &'static str,
    /// How far it may be off.
    pub tolerance: Tolerance,
    /// Sequences.
    pub sequences: &'static [&'static str],
    /// Greedy prompts, and tokens of each.
    pub greedy: &'static [(&'static str, usize)],
}

/// Every sequence.
pub const SEQUENCES: &[&str] = &["one", "story", "chat", "long", "odd"];
/// Every prompt, with all its tokens.
pub const GREEDY: &[(&str, usize)] = &[("plain", 64), ("chat", 64), ("system_chat", 64)];

/// Rows of a pass: prompts are cut into such chunks.
const CHUNK: usize = 64;

#[test]
fn reference_has_the_logits_of_chord_5m_f16() {
    whole("chord-5m-F16", FLOAT);
}

#[test]
fn reference_has_the_logits_of_chord_5m_q8_0() {
    whole("chord-5m-Q8_0", FLOAT);
}

#[test]
fn reference_has_the_logits_of_chord_5m_q4_k_m() {
    whole("chord-5m-Q4_K_M", FLOAT);
}

#[test]
fn reference_has_the_logits_of_chord_29m_q4_k_m() {
    whole("chord-29m-Q4_K_M", FLOAT);
}

#[test]
fn reference_has_the_logits_of_chord_27m_moe_q4_k_m() {
    // A near tie in the router may give one token another expert.
    whole("chord-27m-moe-Q4_K_M", Tolerance { single: None, ..FLOAT });
}

/// Everything that the oracle has of a model.
fn whole(model: &'static str, tolerance: Tolerance) {
    check(reference, &Share { model, tolerance, sequences: SEQUENCES, greedy: GREEDY });
}

/// One model's share on a backend; a model that is not here is skipped with a word.
pub fn check(make: Make, share: &Share) {
    let Some(model) = open(share.model) else { return };
    let oracle = json("logits/chord.json");
    let (inputs, wanted) = (&oracle["inputs"]["chord"], &oracle["models"][share.model]);
    for name in share.sequences {
        let tokens = ids(&inputs["sequences"][name]);
        let wanted = &wanted["sequences"][name]["reference"];
        let limit = if *name == "odd" { share.tolerance.a_odd } else { share.tolerance.a };
        let (a, single, b) = sequence(make, &model, &tokens, wanted);
        println!("{} {name}: A {a:.6} (largest {single:.6}), B {b:.6}", share.model);
        assert!(a <= limit, "{} {name}: A {a:.6} is beyond {limit}", share.model);
        assert!(b <= share.tolerance.b, "{} {name}: B {b:.6}", share.model);
        if let Some(limit) = share.tolerance.single {
            assert!(single <= limit, "{} {name}: a loss is off by {single:.6}", share.model);
        }
    }
    for (name, count) in share.greedy {
        let prompt = ids(&inputs["prompts"][name]);
        let wanted = &wanted["greedy"][name]["reference"];
        let (ids, margins) = (ids(&wanted["ids"]), numbers(&wanted["margin"]));
        let step = greedy(make, &model, &prompt, &ids[..*count]);
        println!("{} greedy {name}: the first {step} of {count} are the reference's", share.model);
        if let Some(margin) = margins[..*count].get(step) {
            let limit = share.tolerance.margin;
            assert!(*margin < limit, "{} {name}: parts at {step}, {margin}", share.model);
        }
    }
}

/// Mean and largest |difference of loss|, mean |difference of the stored best logits|.
fn sequence(make: Make, model: &Model, tokens: &[u32], wanted: &Json) -> (f64, f64, f64) {
    let mut run = Run::new(model, make);
    let chunks = tokens.chunks(CHUNK);
    let logits: Vec<Vec<f32>> = chunks.flat_map(|chunk| run.feed(chunk, true)).collect();
    let losses = tokens[1..].iter().zip(&logits).map(|(next, row)| nll(row, *next));
    let apart = losses.zip(numbers(&wanted["nll"])).map(|(a, b)| (a - b).abs());
    let apart: Vec<f64> = apart.collect();
    let largest = apart.iter().copied().fold(0.0, f64::max);
    let mut best = Vec::new();
    for position in wanted["top5"].as_array().expect("positions") {
        let row = &logits[position["pos"].as_u64().expect("a position") as usize];
        for (id, logit) in ids(&position["ids"]).iter().zip(numbers(&position["logits"])) {
            best.push((f64::from(row[*id as usize]) - logit).abs());
        }
    }
    assert!(!best.is_empty(), "there are stored logits");
    (mean(&apart), largest, mean(&best))
}

/// Steps until the greedy text leaves `wanted`.
fn greedy(make: Make, model: &Model, prompt: &[u32], wanted: &[u32]) -> usize {
    let mut run = Run::new(model, make);
    let mut logits = run.feed(prompt, false);
    for (step, id) in wanted.iter().enumerate() {
        if best(&logits[0]) != *id {
            return step;
        }
        logits = run.feed(&[*id], false);
    }
    wanted.len()
}

/// The lowest id of the highest logit.
fn best(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        assert!(logit.is_finite(), "logit {id} is {logit}");
        if *logit > logits[best] {
            best = id;
        }
    }
    u32::try_from(best).expect("an id")
}

fn open(name: &str) -> Option<Model> {
    match chord_path(name) {
        Some(path) => Some(Model::open(&path)),
        None => {
            println!("skipped {name}: neither in models/ nor in ../shared/models/");
            None
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

fn ids(value: &Json) -> Vec<u32> {
    let list = value.as_array().expect("ids");
    list.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

fn numbers(value: &Json) -> Vec<f64> {
    value.as_array().expect("numbers").iter().map(|x| x.as_f64().expect("a number")).collect()
}
