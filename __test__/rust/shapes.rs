//! What a model must be to be planned: shapes of the family that run alike on both backends, and
//! faults that are refused by code and name; then the corpus of broken files.

use std::fs;

use node_chord::backend::KvType;
use node_chord::backend::cpu::{Config, Cpu};
use node_chord::error::Code;
use node_chord::gguf::{Array, Value};
use node_chord::plan::Plan;
use node_chord::store::Lease;
use node_chord::tools::diff;
use node_chord::{gguf, model};

use crate::draft::{Draft, F16, Q8_0};
use crate::malformed;
use crate::runner::{Model, reference};

/// What a case does to a draft.
type Change = fn(&mut Draft);

const FAMILY: &[(&str, Change)] = &[
    ("as it is", |_| {}),
    ("tied output", |d| d.remove("output.weight")),
    ("one key head", |d| key_heads(d, 1)),
    ("as many key heads as heads", |d| key_heads(d, 4)),
    ("key heads by default", |d| {
        key_heads(d, 4);
        d.unset("llama.attention.head_count_kv");
    }),
    ("heads larger than the width's share, values smaller than keys", |d| {
        d.set("llama.attention.key_length", Value::U32(16));
        d.set("llama.attention.value_length", Value::U64(4));
        for layer in 0..2 {
            d.tensor(&format!("blk.{layer}.attn_q.weight"), &[64, 32]);
            d.tensor(&format!("blk.{layer}.attn_k.weight"), &[32, 32]);
            d.tensor(&format!("blk.{layer}.attn_v.weight"), &[8, 32]);
            d.tensor(&format!("blk.{layer}.attn_output.weight"), &[32, 16]);
        }
    }),
    ("half of each head rotated", |d| d.set("llama.rope.dimension_count", Value::U32(4))),
    ("every layer its own heads and width", |d| {
        d.set("llama.attention.head_count", list(vec![4, 2]));
        d.set("llama.attention.head_count_kv", list(vec![2, 1]));
        d.set("llama.feed_forward_length", list(vec![48, 24]));
        d.set("llama.attention.key_length", Value::U32(8));
        d.set("llama.attention.value_length", Value::U32(8));
        d.tensor("blk.1.attn_q.weight", &[16, 32]);
        d.tensor("blk.1.attn_k.weight", &[8, 32]);
        d.tensor("blk.1.attn_v.weight", &[8, 32]);
        d.tensor("blk.1.attn_output.weight", &[32, 16]);
        d.tensor("blk.1.ffn_gate.weight", &[24, 32]);
        d.tensor("blk.1.ffn_up.weight", &[24, 32]);
        d.tensor("blk.1.ffn_down.weight", &[32, 24]);
    }),
    ("a bias on every linear", |d| {
        for tensor in d.tensors.clone() {
            if tensor.shape.len() == 2 && tensor.name != "token_embd.weight" {
                d.tensor(&tensor.name.replace(".weight", ".bias"), &tensor.shape[..1]);
            }
        }
    }),
    ("linear scaling", |d| scaling(d, "linear")),
    ("yarn", |d| scaling(d, "yarn")),
    ("a factor under its old name", |d| d.set("llama.rope.scale_linear", Value::F32(2.0))),
    ("factors on the frequencies", |d| d.tensor("rope_freqs.weight", &[4])),
    ("experts", |d| experts(d, 4, 2)),
    ("every expert used", |d| experts(d, 3, 3)),
    ("experts with a router's bias", |d| {
        experts(d, 4, 2);
        d.tensor("blk.0.ffn_gate_inp.bias", &[4]);
    }),
    ("a window that no context reaches", |d| {
        d.set("llama.attention.sliding_window", Value::U32(128));
    }),
];

/// Faults; code; what the message must name.
const FAULTS: &[(Change, Code, &str)] = &[
    (|d| d.unset("general.architecture"), Code::ModelInvalid, "general.architecture"),
    (|d| d.set("general.type", text("adapter")), Code::ModelInvalid, "general.type"),
    (|d| d.set("general.architecture", text("x")), Code::UnsupportedArchitecture, "'x'"),
    (|d| d.set("llama.new", Value::Bool(true)), Code::ModelInvalid, "llama.new"),
    (|d| d.set("llama.block_count", Value::U32(0)), Code::ModelInvalid, "block_count"),
    (|d| d.set("llama.block_count", Value::U32(513)), Code::ModelInvalid, "block_count"),
    (|d| d.set("llama.block_count", Value::U32(3)), Code::ModelInvalid, "blk.2."),
    (|d| d.set("llama.block_count", Value::U32(1)), Code::ModelInvalid, "blk.1."),
    (|d| d.set("llama.context_length", Value::U64(1 << 31)), Code::ModelInvalid, "context_length"),
    (|d| d.set("llama.embedding_length", Value::I32(-32)), Code::ModelInvalid, "embedding_length"),
    (|d| d.set("llama.attention.head_count", Value::U32(3)), Code::ModelInvalid, "head_count"),
    (|d| d.set("llama.attention.head_count", Value::F32(4.0)), Code::ModelInvalid, "head_count"),
    (|d| heads(d, vec![4, 0]), Code::ModelInvalid, "head_count"),
    (|d| heads(d, vec![4, 4, 4]), Code::ModelInvalid, "head_count"),
    (
        |d| d.set("llama.attention.key_length", Value::U32(1 << 30)),
        Code::ModelInvalid,
        "key_length",
    ),
    (|d| d.set("llama.rope.dimension_count", Value::U32(0)), Code::ModelInvalid, "dimension_count"),
    (|d| d.set("llama.rope.dimension_count", Value::U32(5)), Code::ModelInvalid, "dimension_count"),
    (|d| d.set("llama.rope.freq_base", Value::F32(f32::INFINITY)), Code::ModelInvalid, "freq_base"),
    (|d| scaling(d, "longrope"), Code::Unsupported, "longrope"),
    (|d| scaling(d, "cubic"), Code::ModelInvalid, "cubic"),
    (|d| window(d, 64), Code::Unsupported, "sliding_window"),
    (|d| d.set("llama.vocab_size", Value::U32(41)), Code::ModelInvalid, "vocab_size"),
    (|d| d.tensor("token_embd.weight", &[41, 32]), Code::ModelInvalid, "token_embd.weight"),
    (|d| d.remove("output_norm.weight"), Code::ModelInvalid, "output_norm.weight"),
    (|d| d.tensor("blk.0.attn_qkv.weight", &[64, 32]), Code::ModelInvalid, "attn_qkv"),
    (|d| d.tensor("blk.0.attn_q.bias", &[31]), Code::ModelInvalid, "blk.0.attn_q.bias"),
    (|d| d.tensor("blk.1.ffn_up.weight", &[32, 48]), Code::ModelInvalid, "blk.1.ffn_up.weight"),
    (|d| d.tensor("rope_freqs.weight", &[8]), Code::ModelInvalid, "rope_freqs.weight"),
    (
        |d| d.retype("blk.0.ffn_norm.weight", Q8_0),
        Code::UnsupportedTensorType,
        "blk.0.ffn_norm.weight",
    ),
    (|d| d.set("llama.expert_count", Value::U32(4)), Code::ModelInvalid, "expert_used_count"),
    (|d| d.set("llama.expert_used_count", Value::U32(2)), Code::ModelInvalid, "expert_used_count"),
    (|d| experts(d, 4, 5), Code::ModelInvalid, "expert_used_count"),
    (|d| experts(d, 2000, 2), Code::ModelInvalid, "expert_count"),
];

#[test]
fn every_shape_of_the_family_runs_alike_on_both_backends() {
    let tokens: Vec<u32> = (0..70).map(|i| (i * 7 + i * i) % 40).collect();
    for (name, change) in FAMILY {
        let mut draft = Draft::llama();
        change(&mut draft);
        let path = draft.write();
        let model = Model::open(&path);
        fs::remove_file(path).expect("a file of ours");
        let slices = model.slices();
        let setup = diff::Setup {
            plan: model.plan.clone(),
            weights: &|_, use_lease| use_lease(&Lease::new(&slices)),
            tokens: &tokens,
            rows: 0,
            kv_rounding: 0.0,
            cancelled: &|| false,
        };
        let config = Config { threads: Some(2), tier: None, kv_k: KvType::F32, kv_v: KvType::F32 };
        let mut b = Cpu::new(model.plan.clone(), config).expect("a CPU");
        let mut a = reference(model.plan.clone());
        let report = diff::run(&setup, a.as_mut(), &mut b).expect("a report");
        assert_eq!((report.difference, report.not_finite), (None, None), "{name}");
    }
}

#[test]
fn every_fault_is_refused_by_code_and_name() {
    for (change, code, named) in FAULTS {
        let mut draft = Draft::llama();
        change(&mut draft);
        let path = draft.write();
        let result = gguf::File::open(&path).and_then(|file| model::plan(&file));
        let error = result.err().unwrap_or_else(|| panic!("{named} is accepted"));
        assert_eq!(error.code, *code, "{error}");
        assert!(error.message.contains(named), "'{named}' is not named: {error}");
        let file = path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(error.message.contains(file), "the file is not named: {error}");
        fs::remove_file(path).expect("a file of ours");
    }
}

#[test]
fn weights_of_any_type_and_written_dimensions_of_one_are_taken() {
    let mut draft = Draft::llama();
    draft.retype("blk.0.attn_q.weight", Q8_0);
    draft.retype("blk.0.attn_norm.weight", F16);
    draft.tensor("blk.1.attn_q.weight", &[1, 1, 32, 32]);
    let path = draft.write();
    let file = gguf::File::open(&path).expect("a sound file");
    let plan = model::plan(&file).expect("a plan");
    fs::remove_file(path).expect("a file of ours");
    let spec = model::describe(&file).expect("a spec");
    assert_eq!((spec.n_layer(), spec.n_vocab, spec.architecture), (2, 40, "llama"));
    assert_eq!(plan.groups.len(), 6);
    let text = plan.printed().to_string();
    let line = "layer 0 attn_q[32] = linear(layer 0 attn_norm, blk.0.attn_q.weight Q8_0)";
    assert!(text.contains(line), "{text}");
}

#[test]
fn a_plan_that_breaks_its_own_rules_is_named_by_its_step() {
    let path = Draft::llama().write();
    let plan = model::plan(&gguf::File::open(&path).expect("a file")).expect("a plan");
    fs::remove_file(path).expect("a file of ours");
    assert_eq!(plan.check(), Ok(()));
    type Break = fn(&mut Plan);
    let breaks: [(Break, &str); 7] = [
        (|p| p.groups[1].steps.swap(0, 1), "layer 0 attention step 0 (linear)"),
        (|p| p.groups[1].steps[2].output = p.groups[1].steps[1].output, "step 2 (linear)"),
        (|p| p.weights[2].shape = vec![32, 31], "step 1 (linear)"),
        (|p| p.kv_layers[1].n_head_kv = 1, "layer 1 attention step 6 (attend)"),
        (|p| p.values[3].width = 8, "step 2 (linear)"),
        (|p| p.groups[5].steps.truncate(2), "logits"),
        (|p| p.groups[2].steps[4].weights.clear(), "feed-forward step 4 (linear)"),
    ];
    for (index, (break_it, named)) in breaks.into_iter().enumerate() {
        let mut broken = plan.clone();
        break_it(&mut broken);
        let error = broken.check().expect_err("a refusal");
        assert_eq!(error.code, Code::Internal);
        assert!(error.message.contains(named), "case {index}: {error}");
    }
}

#[test]
fn broken_models_are_refused_with_the_code_that_the_corpus_wants() {
    let mut wrong = Vec::new();
    for case in malformed::cases() {
        let result = gguf::File::open(&case.path).and_then(|file| model::plan(&file));
        // Faults of tokenizers and templates, and those that a run finds, are not found here.
        let elsewhere = ["ERR_TOKENIZER_INVALID", "ERR_TEMPLATE"];
        let ours = case.stage <= malformed::Stage::Load
            && !case.codes.iter().any(|code| elsewhere.contains(&code.as_str()));
        match result {
            Ok(_) if case.is_accepted || case.may_be_accepted || !ours => {}
            Err(error) if case.codes.iter().any(|code| code == error.code.as_str()) => {
                assert!(error.message.contains(".gguf"), "{error}");
            }
            Ok(_) => wrong.push(format!("{}: accepted, wanted {:?}", case.name, case.codes)),
            Err(error) => wrong.push(format!("{}: {error}, wanted {:?}", case.name, case.codes)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn text(text: &str) -> Value {
    Value::String(text.as_bytes().to_vec())
}

fn list(numbers: Vec<u32>) -> Value {
    Value::Array(Array::U32(numbers))
}

fn key_heads(draft: &mut Draft, n: usize) {
    draft.set("llama.attention.head_count_kv", Value::U32(n as u32));
    for layer in 0..2 {
        draft.tensor(&format!("blk.{layer}.attn_k.weight"), &[8 * n, 32]);
        draft.tensor(&format!("blk.{layer}.attn_v.weight"), &[8 * n, 32]);
    }
}

fn heads(draft: &mut Draft, numbers: Vec<u32>) {
    draft.set("llama.attention.head_count", list(numbers));
}

fn window(draft: &mut Draft, n: u32) {
    draft.set("llama.attention.sliding_window", Value::U32(n));
}

fn scaling(draft: &mut Draft, kind: &'static str) {
    draft.set("llama.rope.scaling.type", text(kind));
    draft.set("llama.rope.scaling.factor", Value::F32(4.0));
    draft.set("llama.rope.scaling.original_context_length", Value::U32(32));
}

fn experts(draft: &mut Draft, n: u32, used: u32) {
    draft.set("llama.expert_count", Value::U32(n));
    draft.set("llama.expert_used_count", Value::U32(used));
    let n = n as usize;
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.ffn_{part}.weight");
        ["gate", "up", "down"].into_iter().for_each(|part| draft.remove(&name(part)));
        draft.tensor(&name("gate_inp"), &[n, 32]);
        draft.tensor(&name("gate_exps"), &[n, 48, 32]);
        draft.tensor(&name("up_exps"), &[n, 48, 32]);
        draft.tensor(&name("down_exps"), &[n, 32, 48]);
    }
}
