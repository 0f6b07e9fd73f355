//! Models whose numbers go wrong: a weight that is not finite is named, whether it is mapped or
//! streamed and in whichever pass it did its harm; finite weights that overflow are another matter.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use node_chord::engine::command::{Cancel, Command};
use node_chord::error::{Code, Error, Field};
use node_chord::gguf::File;
use node_chord::load::{LoadOptions, Loaded, load};
use node_chord::model;
use node_chord::place::Io;

use crate::engine::client::{request, run, score, send};
use crate::malformed;
use crate::runner::unpacked;
use crate::special::Folder;

fn open(path: &Path, options: &LoadOptions) -> Loaded {
    load(path, options, &mut |_, _| {}, &AtomicBool::new(false)).expect("loads")
}

fn field(error: &Error, name: &str) -> String {
    match error.fields.iter().find(|(known, _)| *known == name) {
        Some((_, Field::Text(text))) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// Loads it mapped, and streamed from the least memory that does; each way is used twice.
fn each_way(path: &Path, mut check: impl FnMut(&Loaded)) {
    let base = LoadOptions { n_ctx: Some(64), threads: Some(2), ..LoadOptions::default() };
    let chunked = LoadOptions { chunk: Some(1), ..base.clone() };
    let tight = LoadOptions { ram_bytes: Some(1), io: Io::Direct, ..base.clone() };
    let refused = load(path, &tight, &mut |_, _| {}, &AtomicBool::new(false)).err();
    let refused = refused.expect("a byte is too little");
    let least = refused.fields.iter().find(|(name, _)| *name == "required");
    let Some((_, Field::Number(least))) = least else { panic!("{refused}") };
    let streamed = LoadOptions { ram_bytes: Some(*least as u64), ..tight };
    for options in [base, chunked, streamed] {
        let loaded = open(path, &options);
        assert_eq!(loaded.placement.streamed.is_some(), options.ram_bytes.is_some());
        check(&loaded);
        check(&loaded);
    }
}

/// A toy with one weight's values replaced from `at` on.
fn tampered(
    folder: &Folder,
    toy: &str,
    weight: &str,
    at: usize,
    values: &[f32],
) -> std::path::PathBuf {
    let source = unpacked(&format!("logits/toys/{toy}.gguf"));
    let plan = model::plan(&File::open(&source).unwrap()).unwrap();
    let found = plan.weights.iter().find(|known| known.name == weight).expect("a weight");
    assert_eq!(found.kind.name(), "F32");
    let mut bytes = fs::read(&source).unwrap();
    let start = found.extent.offset as usize + 4 * at;
    for (index, value) in values.iter().enumerate() {
        bytes[start + 4 * index..][..4].copy_from_slice(&value.to_le_bytes());
    }
    let path = folder.path("m.gguf");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_weight_that_is_not_finite_is_an_invalid_model_and_is_named() {
    for (file, weight, place) in [
        ("scale_nan.gguf", "blk.0.ffn_up.weight", "row 0, column 0 is NaN"),
        ("scale_inf.gguf", "blk.0.ffn_up.weight", "row 0, column 0 is"),
        ("weight_nan.gguf", "output_norm.weight", "element 0 is NaN"),
        ("weight_inf.gguf", "output_norm.weight", "element 0 is infinite"),
        ("weight_nan_in_one_row.gguf", "token_embd.weight", "row 10, column 0 is NaN"),
    ] {
        each_way(&malformed::file(file), |loaded| {
            let failed = [
                run(&loaded.handle, request(None, &[1, 5, 6], 4)).error(),
                score(&loaded.handle, &[1, 5, 6], 0).unwrap_err(),
            ];
            for error in failed {
                assert_eq!(error.code, Code::ModelInvalid, "{file}: {error}");
                assert_eq!(field(&error, "at"), weight);
                assert!(field(&error, "path").ends_with(file));
                assert!(error.message.contains(place), "{error}");
            }
        });
    }
}

#[test]
fn an_experts_weight_is_found_among_all_experts() {
    let folder = Folder::new("expert-nan");
    let weight = "blk.1.ffn_gate_exps.weight";
    let source = unpacked("logits/toys/mixtral.gguf");
    let plan = model::plan(&File::open(&source).unwrap()).unwrap();
    let shape = plan.weights.iter().find(|known| known.name == weight).unwrap().shape.clone();
    let [n_expert, n_ff, n_embd] = shape[..] else { panic!("{shape:?}") };
    // The last value of every expert, so that whoever is routed to meets one.
    let source = fs::read(source).unwrap();
    let at = |expert: usize| (expert + 1) * n_ff * n_embd - 1;
    let mut path = tampered(&folder, "mixtral", weight, at(0), &[f32::NEG_INFINITY]);
    let first = fs::read(&path).unwrap();
    let mut all = first.clone();
    for expert in 1..n_expert {
        path = tampered(&folder, "mixtral", weight, at(expert), &[f32::NEG_INFINITY]);
        let one = fs::read(&path).unwrap();
        for (byte, (new, old)) in all.iter_mut().zip(one.iter().zip(&source)) {
            if new != old {
                *byte = *new;
            }
        }
    }
    fs::write(&path, all).unwrap();
    each_way(&path, |loaded| {
        let error = run(&loaded.handle, request(None, &[7, 8], 2)).error();
        assert_eq!((error.code, field(&error, "at").as_str()), (Code::ModelInvalid, weight));
        let place = format!("expert 0, row {}, column {} is infinite", n_ff - 1, n_embd - 1);
        assert!(error.message.contains(&place), "{error}");
    });
}

#[test]
fn a_token_of_an_earlier_pass_is_found_through_the_keys_that_it_left() {
    let folder = Folder::new("early-nan");
    // Row 9 of 16 columns; the token stands two passes before the one that gives logits.
    let path = tampered(&folder, "llama", "token_embd.weight", 9 * 16, &[f32::NAN]);
    each_way(&path, |loaded| {
        let error = run(&loaded.handle, request(None, &[9, 5, 6], 2)).error();
        assert_eq!(field(&error, "at"), "token_embd.weight", "{error}");
        assert!(error.message.contains("row 9, column 0 is NaN"), "{error}");
        let outcome = run(&loaded.handle, request(None, &[5, 6], 2)).outcome();
        assert_eq!(outcome.tokens.len(), 2, "who does not meet it is answered");
    });
}

#[test]
fn finite_weights_that_overflow_are_a_numeric_error_that_names_the_step() {
    let folder = Folder::new("overflow");
    let path = tampered(&folder, "llama", "blk.1.ffn_up.weight", 0, &[f32::MAX; 32]);
    each_way(&path, |loaded| {
        let error = run(&loaded.handle, request(None, &[5, 6, 7], 2)).error();
        assert_eq!(error.code, Code::Numeric, "{error}");
        assert_eq!(error.fields, [("token", Field::Number(2.0))]);
        assert!(error.message.contains("first in layer 1 ffn_up"), "{error}");
    });
}

#[test]
fn calling_off_and_closing_do_not_wait_for_the_reason() {
    let path = malformed::file("weight_nan.gguf");
    let loaded = open(&path, &LoadOptions::default());
    for _ in 0..50 {
        let called_off = send(&loaded.handle, request(None, &[1, 5, 6], 4));
        called_off.cancel(&loaded.handle, Cancel::Reject);
        let code = called_off.wait().error().code;
        assert!(matches!(code, Code::Abort | Code::ModelInvalid), "{code:?}");
    }
    let last = send(&loaded.handle, request(None, &[1, 5, 6], 4));
    loaded.handle.send(Command::Close).unwrap();
    let code = last.wait().error().code;
    assert!(matches!(code, Code::Closed | Code::ModelInvalid), "{code:?}");
    assert!(loaded.handle.join(Duration::from_secs(30)));
}
