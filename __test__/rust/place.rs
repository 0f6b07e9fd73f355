//! Placement over random plans' units: within the budget, complete, monotone, and the smallest
//! budget really is the smallest.

use node_chord::gguf::File;
use node_chord::model;
use node_chord::place::{Io, Placement, Request, place};
use node_chord::plan::residency::Units;
use node_chord::plan::{Extent, Group, GroupKind, Op, Plan, Step, ValueId, Weight, WeightId};
use node_chord::quant::TensorType;
use proptest::prelude::*;

use crate::runner::{root, unpacked};

/// A plan of groups with so many bytes each.
fn plan(sizes: &[u64]) -> Plan {
    let mut offset = 1000;
    let weights = sizes.iter().map(|bytes| {
        offset += bytes + 32;
        let extent = Extent { part: 0, offset: offset - bytes, bytes: *bytes };
        Weight { name: "w".to_owned(), kind: TensorType::F32, shape: vec![4, 4], extent }
    });
    let group = |index: usize| {
        let weights = vec![WeightId(index as u32)];
        let step = Step { op: Op::Linear, inputs: Vec::new(), output: ValueId(0), weights };
        Group { kind: GroupKind::Attention { layer: index as u32 }, steps: vec![step] }
    };
    Plan {
        weights: weights.collect(),
        values: Vec::new(),
        groups: (0..sizes.len()).map(group).collect(),
        kv_layers: Vec::new(),
        logits: ValueId(0),
        n_vocab: 10,
        n_embd: 4,
        n_ctx_train: 4096,
    }
}

fn request(limit: u64, io: Io, prefetch: Option<usize>) -> Request {
    Request {
        limit: Some(limit),
        n_ctx: Some(1024),
        page_bytes: 1000,
        page_tokens: 32,
        scratch_bytes: 100,
        row_bytes: 700,
        selected_bytes: 60,
        logits_rows: 4,
        generations_least: 1,
        generations: 3,
        prefetch,
        io,
        ..Request::default()
    }
}

/// What must hold of any placement.
fn check(plan: &Plan, units: &Units, limit: u64, placement: &Placement) {
    assert!(placement.budget.total() <= limit, "{placement:?} in {limit}");
    let Some(residence) = &placement.streamed else { return };
    let of = |want: bool| {
        let groups = units.groups.iter().zip(&residence.pinned);
        groups.filter(|(_, pinned)| **pinned == want).map(|(g, _)| g.own.bytes).sum::<u64>()
    };
    assert_eq!(residence.pinned.len(), plan.groups.len());
    let total: u64 = units.groups.iter().map(|group| group.own.bytes).sum();
    assert_eq!(of(true) + of(false), total);
    for (group, pinned) in units.groups.iter().zip(&residence.pinned) {
        assert!(*pinned || group.own.room <= residence.slot_bytes, "a slot holds any group");
    }
    assert!(of(false) == 0 || residence.slots > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_budget_is_kept_and_more_never_reads_more(
        sizes in prop::collection::vec(1u64..3_000_000, 1..40),
        prefetch in prop::option::of(0usize..5),
        direct in any::<bool>(),
    ) {
        let plan = plan(&sizes);
        let units = Units::of(&plan);
        let io = if direct { Io::Direct } else { Io::Auto };
        let least = place(&plan, &units, &request(u64::MAX, io, prefetch)).unwrap().minimum;
        let error = place(&plan, &units, &request(least - 1, io, prefetch)).unwrap_err();
        prop_assert_eq!(error.code.as_str(), "ERR_INSUFFICIENT_MEMORY");
        prop_assert_eq!(&error.fields[1].1, &least.into());
        let most = least + sizes.iter().sum::<u64>() * 2 + 10_000_000;
        let mut before = u64::MAX;
        for step in 0..=40 {
            let limit = least + (most - least) * step / 40;
            let placement = place(&plan, &units, &request(limit, io, prefetch)).unwrap();
            check(&plan, &units, limit, &placement);
            prop_assert_eq!(placement.minimum, least);
            prop_assert!(placement.bytes_per_pass <= before, "{} at {}", before, limit);
            before = placement.bytes_per_pass;
        }
        prop_assert_eq!(before, 0);
    }
}

#[test]
fn pins_are_spread_evenly() {
    let plan = plan(&[1 << 20; 64]);
    let units = Units::of(&plan);
    let limit = place(&plan, &units, &request(u64::MAX, Io::Direct, Some(1))).unwrap().minimum;
    let placement = place(&plan, &units, &request(limit + (20 << 20), Io::Direct, Some(1)));
    let residence = placement.unwrap().streamed.unwrap();
    let pinned: Vec<usize> = (0..64).filter(|i| residence.pinned[*i]).collect();
    assert!(pinned.len() > 12 && pinned.len() < 20, "{pinned:?}");
    let widest = pinned.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(widest <= 8, "{pinned:?}");
}

#[test]
fn real_models_have_units_that_make_up_the_model() {
    let paths = [
        root("models/chord-5m-Q4_K_M.gguf"),
        unpacked("logits/toys/mixtral.gguf"),
        unpacked("logits/toys/llama-tied-mha.gguf"),
        unpacked("logits/toys/llama-rope-llama3.gguf"),
    ];
    for path in paths {
        let plan = model::plan(&File::open(&path).unwrap()).unwrap();
        let units = Units::of(&plan);
        let all: u64 = plan.weights.iter().map(|weight| weight.extent.bytes).sum();
        let is_loaded = |id: &WeightId| {
            let groups = units.groups.iter().any(|group| group.own.piece(*id).is_some());
            groups || units.shared.piece(*id).is_some()
        };
        let only_gathered = units.gathered.iter().filter(|(id, _)| !is_loaded(id));
        let gathered: u64 = only_gathered.map(|(id, _)| plan.weight(*id).extent.bytes).sum();
        assert_eq!(units.loaded_bytes() + gathered, all, "{}", path.display());
        for limit in [1u64 << 20, 4 << 20, 64 << 20] {
            for io in [Io::Auto, Io::Direct, Io::Mapped] {
                if let Ok(placement) = place(&plan, &units, &request(limit, io, None)) {
                    check(&plan, &units, limit, &placement);
                    assert!(io != Io::Mapped || placement.streamed.is_none());
                }
            }
        }
    }
}

#[test]
fn a_context_gives_way_to_weights_down_to_4096_tokens_and_not_further() {
    let plan = Plan { n_ctx_train: 131_072, ..plan(&[1 << 20; 16]) };
    let units = Units::of(&plan);
    let at = |limit: u64| {
        let request = Request { n_ctx: None, ..request(limit, Io::Auto, None) };
        place(&plan, &units, &request).unwrap()
    };
    // Everything fits, the whole context (4 MB) too.
    let whole = at(1 << 30);
    assert_eq!((whole.streamed.is_none(), whole.n_ctx), (true, 131_072));
    // Weights 16 MiB, 1 MB for activations and such: the rest goes to the context.
    let most = at(18_500_000);
    assert!(most.streamed.is_none() && most.n_ctx > 4096 && most.n_ctx < 131_072);
    assert!(most.budget.total() <= 18_500_000);
    let none = at(16_800_000);
    assert!(none.streamed.is_some() && none.n_ctx > 4096);
    let mut before = u64::MAX;
    for limit in (at(1 << 30).minimum..20_000_000).step_by(50_000) {
        let placement = at(limit);
        check(&plan, &units, limit, &placement);
        assert!(placement.bytes_per_pass <= before, "{limit}");
        before = placement.bytes_per_pass;
    }
}
