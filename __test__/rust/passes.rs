//! Passes of few rows run as few jobs: with the bits of steps that run one by one, as a probe has
//! them, and with as few barriers as `Cpu::barriers` states.

use crate::runner::{Model, unpacked};
use node_chord::backend::cpu::{Config, Cpu};
use node_chord::backend::{Backend, Batch, PAGE_TOKENS, PageId, Row};
use node_chord::plan::{GroupKind, Op};
use node_chord::store::Lease;

/// Rows of the passes, taken by two sequences in turn: many, then few.
const PASSES: &[usize] = &[37, 1, 1, 4, 1, 3, 5, 2, 16, 1, 11];

fn toy(name: &str) -> Model {
    Model::open(&unpacked(&format!("logits/toys/{name}.gguf")))
}

/// Bits of all logits of all passes, and the barriers of each.
fn run(model: &Model, threads: usize, is_probed: bool) -> (Vec<u32>, Vec<u64>) {
    let slices = model.slices();
    let lease = Lease::new(&slices);
    let config = Config { threads: Some(threads), ..Config::default() };
    let mut cpu = Cpu::new(model.plan.clone(), config).unwrap();
    let pages = 4;
    let sequences: Vec<Vec<PageId>> =
        (0..2).map(|s| (0..pages).map(|p| PageId(2 * p + s)).collect()).collect();
    sequences.iter().flatten().for_each(|page| cpu.page_commit(*page).unwrap());
    let (mut bits, mut barriers, mut next) = (Vec::new(), Vec::new(), [0, 0]);
    for (pass, n) in PASSES.iter().enumerate() {
        let mut rows = Vec::new();
        // The second half of a pass is the other sequence's.
        for (sequence, count) in [(0, n - n / 2), (1, n / 2)] {
            for _ in 0..count {
                let position = next[sequence as usize];
                assert!((position as usize) < pages as usize * PAGE_TOKENS);
                next[sequence as usize] += 1;
                let token = (position * 37 + pass as u32 * 11) % 250;
                // Some passes give logits of some rows only, one of none.
                let wants_logits = pass != 4 && (pass % 2 == 0 || position % 2 == 0);
                rows.push(Row { token, position, sequence, wants_logits });
            }
        }
        let before = cpu.barriers();
        cpu.begin(&Batch { rows, sequences: sequences.clone() }).unwrap();
        for group in model.plan.group_ids() {
            let mut probe = |_, _, _, _: &[f32]| {};
            cpu.run(group, &lease, if is_probed { Some(&mut probe) } else { None }).unwrap();
        }
        barriers.push(cpu.barriers() - before);
        bits.extend(cpu.logits().iter().map(|x| x.to_bits()));
    }
    (bits, barriers)
}

#[test]
fn jobs_give_the_bits_of_single_steps() {
    for name in [
        "llama",
        "llama-mqa-bias",
        "llama-rope-llama3",
        "llama-tied-mha",
        "mixtral",
        "q-q4_k",
        "q-q8_0",
        "q-iq4_nl",
        "q-zoo",
    ] {
        let model = toy(name);
        let (want, _) = run(&model, 1, true);
        for threads in [1, 2, 5] {
            assert!(run(&model, threads, false).0 == want, "{name}, {threads} threads");
        }
    }
}

#[test]
fn a_dense_layer_has_four_barriers_and_a_layer_of_experts_five() {
    for (name, expected) in [("q-q4_k", 4), ("llama-mqa-bias", 4), ("mixtral", 5)] {
        let model = toy(name);
        let groups = &model.plan.groups;
        let is_layer = |kind: &GroupKind| matches!(kind, GroupKind::Attention { .. });
        let layers = groups.iter().filter(|group| is_layer(&group.kind)).count() as u64;
        let has_experts = groups.iter().flat_map(|group| &group.steps);
        let has_experts = has_experts.into_iter().any(|step| matches!(step.op, Op::Experts(_)));
        assert_eq!(has_experts, expected == 5, "{name}");
        let (_, barriers) = run(&model, 2, false);
        for (rows, barriers) in PASSES.iter().zip(barriers).filter(|(rows, _)| **rows <= 16) {
            // One more for the logits, if any are wanted.
            let most = layers * expected + 1;
            assert!((most - 1..=most).contains(&barriers), "{name}: {barriers} of {rows} rows");
        }
    }
}
