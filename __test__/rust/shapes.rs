//! What a model must be to be planned: shapes of the family that run alike on both backends, and
//! faults that are refused by code and name. Then the corpus of broken files, which lies beside the
//! repository.

use std::fs;

use node_chord::backend::KvType;
use node_chord::backend::cpu::{Config, Cpu};
use node_chord::error::Code;
use node_chord::store::Lease;
use node_chord::tools::diff;
use node_chord::{gguf, model};

use crate::draft::{Draft, F16, Meta, Q8_0};
use crate::runner::{Model, reference, root};

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
        d.set("llama.attention.key_length", Meta::U32(16));
        d.set("llama.attention.value_length", Meta::U64(4));
        for layer in 0..2 {
            d.tensor(&format!("blk.{layer}.attn_q.weight"), &[64, 32]);
            d.tensor(&format!("blk.{layer}.attn_k.weight"), &[32, 32]);
            d.tensor(&format!("blk.{layer}.attn_v.weight"), &[8, 32]);
            d.tensor(&format!("blk.{layer}.attn_output.weight"), &[32, 16]);
        }
    }),
    ("half of each head rotated", |d| d.set("llama.rope.dimension_count", Meta::U32(4))),
    ("every layer its own heads and width", |d| {
        d.set("llama.attention.head_count", Meta::List(vec![4, 2]));
        d.set("llama.attention.head_count_kv", Meta::List(vec![2, 1]));
        d.set("llama.feed_forward_length", Meta::List(vec![48, 24]));
        d.set("llama.attention.key_length", Meta::U32(8));
        d.set("llama.attention.value_length", Meta::U32(8));
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
    ("a factor under its old name", |d| d.set("llama.rope.scale_linear", Meta::F32(2.0))),
    ("factors on the frequencies", |d| d.tensor("rope_freqs.weight", &[4])),
    ("experts", |d| experts(d, 4, 2)),
    ("every expert used", |d| experts(d, 3, 3)),
    ("experts with a router's bias", |d| {
        experts(d, 4, 2);
        d.tensor("blk.0.ffn_gate_inp.bias", &[4]);
    }),
    ("a window that no context reaches", |d| {
        d.set("llama.attention.sliding_window", Meta::U32(128));
    }),
];

/// Faults; code; what the message must name.
const FAULTS: &[(Change, Code, &str)] = &[
    (|d| d.unset("general.architecture"), Code::ModelInvalid, "general.architecture"),
    (|d| d.set("general.type", Meta::Text("adapter")), Code::ModelInvalid, "general.type"),
    (|d| d.set("general.architecture", Meta::Text("x")), Code::UnsupportedArchitecture, "'x'"),
    (|d| d.set("llama.new", Meta::Bool(true)), Code::ModelInvalid, "llama.new"),
    (|d| d.set("llama.block_count", Meta::U32(0)), Code::ModelInvalid, "block_count"),
    (|d| d.set("llama.block_count", Meta::U32(513)), Code::ModelInvalid, "block_count"),
    (|d| d.set("llama.block_count", Meta::U32(3)), Code::ModelInvalid, "blk.2."),
    (|d| d.set("llama.block_count", Meta::U32(1)), Code::ModelInvalid, "blk.1."),
    (|d| d.set("llama.context_length", Meta::U64(1 << 31)), Code::ModelInvalid, "context_length"),
    (|d| d.set("llama.embedding_length", Meta::I32(-32)), Code::ModelInvalid, "embedding_length"),
    (|d| d.set("llama.attention.head_count", Meta::U32(3)), Code::ModelInvalid, "head_count"),
    (|d| d.set("llama.attention.head_count", Meta::F32(4.0)), Code::ModelInvalid, "head_count"),
    (|d| heads(d, vec![4, 0]), Code::ModelInvalid, "head_count"),
    (|d| heads(d, vec![4, 4, 4]), Code::ModelInvalid, "head_count"),
    (|d| d.set("llama.attention.key_length", Meta::U32(1 << 30)), Code::ModelInvalid, "key_length"),
    (|d| d.set("llama.rope.dimension_count", Meta::U32(0)), Code::ModelInvalid, "dimension_count"),
    (|d| d.set("llama.rope.dimension_count", Meta::U32(5)), Code::ModelInvalid, "dimension_count"),
    (|d| d.set("llama.rope.freq_base", Meta::F32(f32::INFINITY)), Code::ModelInvalid, "freq_base"),
    (|d| scaling(d, "longrope"), Code::Unsupported, "longrope"),
    (|d| scaling(d, "cubic"), Code::ModelInvalid, "cubic"),
    (|d| window(d, 64), Code::Unsupported, "sliding_window"),
    (|d| d.set("llama.vocab_size", Meta::U32(41)), Code::ModelInvalid, "vocab_size"),
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
    (|d| d.set("llama.expert_count", Meta::U32(4)), Code::ModelInvalid, "expert_used_count"),
    (|d| d.set("llama.expert_used_count", Meta::U32(2)), Code::ModelInvalid, "expert_used_count"),
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
fn broken_models_are_refused_with_the_code_that_the_corpus_wants() {
    let folder = root("../shared/oracles/malformed");
    let Ok(cases) = fs::read_to_string(folder.join("cases.jsonl")) else {
        println!("skipped: {} is not there", folder.display());
        return;
    };
    let mut wrong = Vec::new();
    for line in cases.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("a case");
        let text = |key: &str| case[key].as_str().unwrap_or_default();
        let path = folder.join(text("file"));
        let result = gguf::File::open(&path).and_then(|file| model::plan(&file));
        let mut codes = vec![text("code")];
        codes.extend(case["or"].as_array().into_iter().flatten().filter_map(|code| code.as_str()));
        // Faults of tokenizers and templates, and those that a run finds, are not found here.
        let ours = text("stage") != "run"
            && text("stage") != "template"
            && !matches!(text("code"), "ERR_TOKENIZER_INVALID" | "ERR_TEMPLATE");
        let accepted = text("expect") == "accept" || text("also") == "accept" || !ours;
        match &result {
            Ok(_) if accepted => {}
            Err(error) if codes.contains(&error.code.as_str()) => {
                assert!(error.message.contains(".gguf"), "{error}");
            }
            Ok(_) => wrong.push(format!("{}: accepted, wanted {codes:?}", text("file"))),
            Err(error) => wrong.push(format!("{}: {error}, wanted {codes:?}", text("file"))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn key_heads(draft: &mut Draft, n: usize) {
    draft.set("llama.attention.head_count_kv", Meta::U32(n as u32));
    for layer in 0..2 {
        draft.tensor(&format!("blk.{layer}.attn_k.weight"), &[8 * n, 32]);
        draft.tensor(&format!("blk.{layer}.attn_v.weight"), &[8 * n, 32]);
    }
}

fn heads(draft: &mut Draft, list: Vec<u32>) {
    draft.set("llama.attention.head_count", Meta::List(list));
}

fn window(draft: &mut Draft, n: u32) {
    draft.set("llama.attention.sliding_window", Meta::U32(n));
}

fn scaling(draft: &mut Draft, kind: &'static str) {
    draft.set("llama.rope.scaling.type", Meta::Text(kind));
    draft.set("llama.rope.scaling.factor", Meta::F32(4.0));
    draft.set("llama.rope.scaling.original_context_length", Meta::U32(32));
}

fn experts(draft: &mut Draft, n: u32, used: u32) {
    draft.set("llama.expert_count", Meta::U32(n));
    draft.set("llama.expert_used_count", Meta::U32(used));
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
