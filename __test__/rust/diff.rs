//! `tools::diff` finds what was put in: the reference beside itself with one fault.

use std::sync::Arc;

use node_chord::backend::cpu::{Config, Cpu};
use node_chord::backend::reference::Reference;
use node_chord::backend::{Backend, Batch, KvType, Probe};
use node_chord::error::{Code, Result};
use node_chord::plan::{GroupId, NormKind, Op, Plan, RopeKind, Step, WeightId};
use node_chord::store::Lease;
use node_chord::tools::diff::{Report, Setup, run};

use crate::over::{Over, RunGroup};
use crate::runner::{Model, chord_path, json, reference, unpacked};

const TOKENS: [u32; 40] = {
    let mut tokens = [0; 40];
    let mut index = 0;
    while index < tokens.len() {
        tokens[index] = (index as u32 * 89 + 7) % 272;
        index += 1;
    }
    tokens
};

#[test]
fn a_backend_does_not_differ_from_itself() {
    let model = toy("mixtral");
    let report = compare(&model, reference(model.plan.clone()));
    assert_eq!(report.difference, None);
    assert_eq!(report.not_finite, None);
    assert!(report.other_best.is_empty());
    let steps: usize = model.plan.groups.iter().map(|group| group.steps.len()).sum();
    assert_eq!(report.steps.len(), steps);
    assert!(report.steps.iter().all(|step| step.rows == TOKENS.len() && step.relative == 0.0));
}

#[test]
fn a_fault_in_a_step_is_found_there_and_not_after_it() {
    type Fault = fn(&mut Step);
    let cases: [(&str, Fault); 4] = [
        ("layer 1 attn_norm", |step| step.op = Op::Norm(NormKind::Rms { eps: 0.02 })),
        ("layer 1 k_rope", |step| match &mut step.op {
            Op::Rope(rope) => rope.kind = RopeKind::Neox,
            op => panic!("{op:?}"),
        }),
        ("layer 0 attend", |step| match &mut step.op {
            Op::Attend(attend) => attend.scale *= 1.1,
            op => panic!("{op:?}"),
        }),
        ("layer 0 ffn_route", |step| match &mut step.op {
            Op::Route(route) => route.normalise = false,
            op => panic!("{op:?}"),
        }),
    ];
    let model = toy("mixtral");
    for (name, fault) in cases {
        let mut plan = Plan::clone(&model.plan);
        let value = plan.values.iter().position(|value| value.name == name).expect("a value");
        let mut steps = plan.groups.iter_mut().flat_map(|group| &mut group.steps);
        fault(steps.find(|step| step.output.0 as usize == value).expect("a step"));
        let report = compare(&model, reference(Arc::new(plan)));
        let difference = report.difference.expect("a difference");
        assert_eq!(report.steps[difference.index].output, name, "{difference:?}");
        assert!(difference.relative > difference.allowed, "{difference:?}");
    }
}

#[test]
fn a_number_that_is_not_finite_is_found_where_it_arises() {
    let model = toy("llama");
    let name = "blk.1.ffn_up.weight";
    let weight = model.plan.weights.iter().position(|weight| weight.name == name);
    let weight = WeightId(u32::try_from(weight.expect("a weight")).expect("small"));
    let mut bytes = model.slices()[weight.0 as usize].expect("bytes").to_vec();
    // Row 3, of 16 columns.
    bytes[3 * 16 * 4..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let tampered = Over::new(reference(model.plan.clone()), Tampered { weight, bytes });
    let report = compare(&model, Box::new(tampered));
    let difference = report.difference.expect("one is finite there, the other is not");
    assert!(difference.step.starts_with("layer 1 ffn_up"), "{difference:?}");
    let found = report.not_finite.expect("a number");
    assert!(found.step.starts_with("layer 1 ffn_up"), "{found:?}");
    assert_eq!((found.position, found.element), (0, 3));
    assert!(found.value.ends_with("inf"), "{found:?}");
    assert!(found.backend.starts_with("reference"), "{found:?}");
}

#[test]
fn the_cpu_backend_stays_within_the_tolerance_of_every_step() {
    let text: Vec<u32> = {
        let ids = &json("logits/chord.json")["inputs"]["chord"]["sequences"]["story"];
        let ids = ids.as_array().expect("ids").iter();
        ids.map(|id| id.as_u64().expect("an id") as u32).collect()
    };
    let toys = ["llama", "mixtral", "q-q4_0", "q-q4_k", "q-zoo"].map(toy).map(Some);
    let chords = ["chord-5m-Q4_K_M", "chord-29m-Q4_K_M", "chord-27m-moe-Q4_K_M"].map(chord);
    for (model, tokens) in toys
        .iter()
        .map(|toy| (toy, &TOKENS[..]))
        .chain(chords.iter().map(|chord| (chord, &text[..])))
    {
        let Some(model) = model else { continue };
        let config = Config { threads: Some(2), tier: None, kv_k: KvType::F32, kv_v: KvType::F32 };
        let mut a = reference(model.plan.clone());
        let mut b = Cpu::new(model.plan.clone(), config).expect("a CPU");
        let report = with(model, tokens, a.as_mut(), &mut b).expect("a report");
        assert_eq!((&report.difference, &report.not_finite), (&None, &None), "{}", report.b);
        assert!(report.steps.iter().filter(|step| step.rows > 0).count() > 4);
    }
}

#[test]
fn a_kv_type_means_what_the_reference_keeps_of_it() {
    // A number beside a border may be rounded to either side, so each is a step off at times.
    let types = KvType::ALL.into_iter().zip([0.0, 5e-4, 4e-3, 8e-3, 0.14]);
    let Some(model) = chord("chord-5m-Q4_K_M") else { return };
    for (kind, rounding) in types {
        let config = Config { threads: Some(2), tier: None, kv_k: kind, kv_v: kind };
        let mut a = Reference::new(model.plan.clone(), kind, kind).expect("a reference");
        let mut b = Cpu::new(model.plan.clone(), config).expect("a CPU");
        let report = rounded(&model, &TOKENS, rounding, &mut a, &mut b).expect("a report");
        assert_eq!(report.difference, None, "{kind:?}");
    }
}

#[test]
fn tokens_beyond_the_vocabulary_and_none_at_all_are_refused() {
    let model = toy("llama");
    for tokens in [&[][..], &[5, 272][..]] {
        let (mut a, mut b) = (reference(model.plan.clone()), reference(model.plan.clone()));
        let error = with(&model, tokens, a.as_mut(), b.as_mut()).expect_err("a refusal");
        assert_eq!(error.code, Code::InvalidArg);
    }
}

fn chord(name: &str) -> Option<Model> {
    let found = chord_path(name);
    if found.is_none() {
        println!("skipped {name}: it is not there");
    }
    found.map(|path| Model::open(&path))
}

fn toy(name: &str) -> Model {
    Model::open(&unpacked(&format!("logits/toys/{name}.gguf")))
}

/// The reference, and beside it another backend.
fn compare(model: &Model, mut other: Box<dyn Backend>) -> Report {
    let mut a = reference(model.plan.clone());
    with(model, &TOKENS, a.as_mut(), other.as_mut()).expect("a report")
}

fn with(model: &Model, tokens: &[u32], a: &mut dyn Backend, b: &mut dyn Backend) -> Result<Report> {
    rounded(model, tokens, 0.0, a, b)
}

/// The same, where stored keys and values may be rounded apart.
fn rounded(
    model: &Model,
    tokens: &[u32],
    kv_rounding: f64,
    a: &mut dyn Backend,
    b: &mut dyn Backend,
) -> Result<Report> {
    let slices = model.slices();
    let setup = Setup {
        plan: model.plan.clone(),
        weights: &|_, use_lease| use_lease(&Lease::new(&slices)),
        tokens,
        rows: 7,
        kv_rounding,
        cancelled: &|| false,
    };
    run(&setup, a, b)
}

/// Reads other bytes for one weight.
struct Tampered {
    weight: WeightId,
    bytes: Vec<u8>,
}

impl RunGroup for Tampered {
    fn run(
        &mut self,
        inner: &mut dyn Backend,
        _: &Batch,
        group: GroupId,
        weights: &Lease<'_>,
        probe: Option<Probe<'_>>,
    ) -> Result<()> {
        let all = 0..=self.weight.0 + 64;
        let mut slices: Vec<_> = all.map(|id| Some(weights.bytes(WeightId(id)))).collect();
        slices[self.weight.0 as usize] = Some(&self.bytes);
        inner.run(group, &Lease::new(&slices), probe)
    }
}
