//! A loaded model's budget changes while it runs: the same text, the placement that a load with
//! that budget has, refusals that change nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use node_chord::engine::command::Command;
use node_chord::error::Result;
use node_chord::load::share::Change;
use node_chord::load::{LoadOptions, Loaded, load};

use crate::engine::client::{request, run, send};
use crate::runner::root;

fn open(ram_bytes: Option<u64>) -> Result<Loaded> {
    let options = LoadOptions { n_ctx: Some(256), ram_bytes, ..LoadOptions::default() };
    let path = root("models/chord-5m-Q4_K_M.gguf");
    load(&path, &options, &mut |_, _| {}, &AtomicBool::new(false))
}

fn configure(loaded: &Loaded, change: Change) -> Result<()> {
    loaded.share.configure(change, &Arc::default())
}

fn ram(bytes: u64) -> Change {
    Change { ram: Some(Some(bytes)), ..Change::default() }
}

/// Bytes of groups that a pass reads, from many.
fn read_by(loaded: &Loaded, act: impl FnOnce()) -> u64 {
    let bytes = || {
        let stats = loaded.store.upgrade().expect("open").stats();
        stats.bytes_read - stats.gathered_bytes
    };
    let before = bytes();
    act();
    bytes() - before
}

#[test]
fn a_budget_that_changes_while_generations_run_changes_no_token() {
    let loaded = open(Some(64 << 20)).expect("loads");
    assert!(loaded.placement.streamed.is_none());
    let least = loaded.placement.minimum;
    let prompts: Vec<Vec<u32>> = (1..4).map(|i| vec![i * 40, i * 90 + 3]).collect();
    let one = |prompt: &[u32]| {
        let mut request = request(None, prompt, 200);
        request.limits.ignore_eos = true;
        request
    };
    let expected: Vec<_> =
        prompts.iter().map(|p| run(&loaded.handle, one(p)).outcome().tokens).collect();
    for limits in [[least, 64 << 20], [least + (1 << 20), least], [64 << 20, least + 12_345]] {
        let running: Vec<_> = prompts.iter().map(|p| send(&loaded.handle, one(p))).collect();
        for limit in limits {
            configure(&loaded, ram(limit)).expect("fits");
            let memory = loaded.share.memory();
            assert!(memory.total() <= limit && memory.limit == Some(limit));
        }
        for (run, expected) in running.into_iter().zip(&expected) {
            assert_eq!(run.wait().outcome().tokens, *expected, "{limits:?}");
        }
    }
}

#[test]
fn a_configured_budget_leads_where_loading_with_it_leads() {
    let first = open(None).expect("loads");
    let least = first.placement.minimum;
    for limit in [least, least + 300_000, least + 1_500_000, 64 << 20] {
        configure(&first, ram(limit)).expect("fits");
        let fresh = open(Some(limit)).expect("loads");
        assert_eq!(first.share.placement(), fresh.placement);
        fresh.handle.close();
        // The first passes fill pins and ring; the ring is full again after every later one.
        run(&first.handle, request(None, &[7, 8], 3)).outcome();
        let mut many = request(None, &[7, 8], 41);
        many.limits.ignore_eos = true;
        let read = read_by(&first, || drop(run(&first.handle, many).outcome()));
        let a_pass = first.share.placement().bytes_per_pass;
        let slack = first.share.memory().ring;
        assert!(read.abs_diff(41 * a_pass) <= slack, "{read}, not 41 of {a_pass}, at {limit}");
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let loaded = open(Some(64 << 20)).expect("loads");
    let least = loaded.placement.minimum;
    configure(&loaded, ram(least + 500_000)).expect("fits");
    let before = loaded.share.placement();
    let check = |change, required: u64, available: u64| {
        let error = configure(&loaded, change).expect_err("refused");
        assert_eq!(error.code.as_str(), "ERR_INSUFFICIENT_MEMORY", "{error}");
        let fields: Vec<_> = error.fields.iter().map(|field| field.1.clone()).collect();
        assert_eq!(fields[1..], [required.into(), available.into()], "{error}");
        assert_eq!(loaded.share.placement(), before);
    };
    check(ram(least - 1), least, least - 1);
    check(ram(1), least, 1);
    let kv = before.budget.kv;
    check(Change { kv: Some(Some(kv - 1)), ..Change::default() }, kv, kv - 1);
    run(&loaded.handle, request(None, &[7, 8], 3)).outcome();
    loaded.handle.close();
    let error = configure(&loaded, ram(least)).expect_err("closed");
    assert_eq!(error.code.as_str(), "ERR_CLOSED");
}

#[test]
fn read_ahead_changes_at_run_time() {
    let loaded = open(Some(64 << 20)).expect("loads");
    let least = loaded.placement.minimum;
    configure(&loaded, ram(least + (2 << 20))).expect("fits");
    for prefetch in [Some(0), Some(3), None] {
        let change = Change { prefetch: Some(prefetch), ..Change::default() };
        configure(&loaded, change).expect("fits");
        let residence = loaded.share.placement().streamed.expect("streams");
        assert!(prefetch.is_none_or(|groups| residence.read_ahead <= groups));
        run(&loaded.handle, request(None, &[7, 8], 3)).outcome();
    }
}

#[test]
fn scores_side_by_side_keep_to_the_rows_of_logits_that_were_budgeted() {
    let alone = open(Some(64 << 20)).expect("loads");
    let tight = open(Some(alone.placement.minimum)).expect("loads");
    assert_eq!(tight.placement.size.logits_rows, 0);
    let score = |loaded: &Loaded, seed: u32| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let tokens = (0..60).map(|i| (i * seed + 5) % 4096).collect();
        let reply = Box::new(move |result| drop(sender.send(result)));
        let command = Command::Score { tokens, top: 0, cancelled: Arc::default(), reply };
        loaded.handle.send(command).expect("open");
        receiver
    };
    let wait = |receiver: std::sync::mpsc::Receiver<Result<Vec<_>>>| -> Vec<u32> {
        let scores: Vec<node_chord::engine::command::TokenLogprob> =
            receiver.recv().expect("an answer").expect("scores");
        scores.iter().map(|score| score.logprob.to_bits()).collect()
    };
    let expected: Vec<_> = (1..6).map(|seed| wait(score(&alone, seed))).collect();
    for loaded in [&alone, &tight] {
        let all: Vec<_> = (1..6).map(|seed| score(loaded, seed)).collect();
        for (receiver, expected) in all.into_iter().zip(&expected) {
            assert_eq!(wait(receiver), *expected);
        }
        let held = loaded.handle.stats().scratch_bytes as u64;
        let memory = loaded.share.memory();
        assert!(held <= memory.activations + memory.scratch, "{held} of {memory:?}");
    }
}
