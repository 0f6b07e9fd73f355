//! Sessions and their pages: turns, forks, rewinds, rollback, eviction.

use std::sync::atomic::Ordering;

use node_chord::engine::command::{Cancel, Finish, Generate};
use node_chord::engine::sampler::Sampling;
use node_chord::error::Code;

use super::client::{close, fork, greedy, open, request, rewind, run, send, until};
use super::double::{EOG, SHAPE, Shape, expected, start};
use super::{endless, prompt};

#[test]
fn a_session_turn_by_turn_is_one_long_run() {
    let (handle, control) = start(SHAPE);
    let session = open(&handle);
    let mut all = Vec::new();
    for turn in 0..6 {
        let more = prompt(turn, 13);
        all.extend(&more);
        let outcome = run(&handle, request(Some(session), &more, 9)).outcome();
        assert_eq!(outcome.tokens, expected(&all, &greedy(), 9).0);
        assert_eq!(outcome.prompt_tokens, all.len());
        if turn > 0 {
            // The last drawn token is not evaluated, unless the end of generation followed it.
            assert!(outcome.cached_tokens >= all.len() - 14);
        }
        all.extend(outcome.tokens);
        assert_eq!(outcome.session_length, all.len());
    }
    close(&handle, session).unwrap();
    until("pages are free", || control.pages.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_whole_prompt_keeps_what_the_session_has_of_it() {
    let (handle, _) = start(SHAPE);
    let session = open(&handle);
    let mut all = prompt(1, 40);
    all.extend(run(&handle, request(Some(session), &all, 5)).outcome().tokens);
    all.truncate(43);
    all.extend([5, 6]);
    let whole = Generate { is_whole: true, ..request(Some(session), &all, 9) };
    let outcome = run(&handle, whole).outcome();
    assert_eq!(outcome.tokens, expected(&all, &greedy(), 9).0);
    assert_eq!((outcome.prompt_tokens, outcome.cached_tokens), (45, 43));
    let again = Generate { is_whole: true, ..request(Some(session), &all, 9) };
    let outcome = run(&handle, again).outcome();
    assert_eq!(outcome.tokens, expected(&all, &greedy(), 9).0, "nothing is new");
    assert_eq!(outcome.session_length, 45 + 9);
}

#[test]
fn rejected_generations_leave_their_session_as_it_was() {
    let (handle, control) = start(SHAPE);
    let session = open(&handle);
    let first = prompt(1, 40);
    let mut all = first.clone();
    all.extend(run(&handle, request(Some(session), &first, 5)).outcome().tokens);
    control.group_us.store(2000, Ordering::SeqCst);
    let mut generate = endless(Some(session), &prompt(2, 10));
    generate.keep_tokens = Some(7);
    let rejected = send(&handle, generate);
    until("it generates", || rejected.events.unread() > 2);
    assert_eq!(run(&handle, request(Some(session), &[1], 1)).error().code, Code::SessionBusy);
    assert_eq!(fork(&handle, session).unwrap_err().code, Code::SessionBusy);
    rejected.cancel(&handle, Cancel::Reject);
    let (error, partial) = rejected.wait().result.unwrap_err();
    assert_eq!(error.code, Code::Abort);
    let partial = partial.expect("what there was");
    assert_eq!((partial.finish, partial.session_length), (Finish::Cancelled, all.len()));
    assert!(!partial.tokens.is_empty());
    control.group_us.store(0, Ordering::SeqCst);
    all.extend([5, 6]);
    let outcome = run(&handle, request(Some(session), &[5, 6], 9)).outcome();
    assert_eq!(outcome.tokens, expected(&all, &greedy(), 9).0);
    assert!(outcome.cached_tokens > 40, "the pages were kept");
}

#[test]
fn cancelled_generations_keep_what_they_have() {
    let (handle, control) = start(SHAPE);
    let session = open(&handle);
    control.group_us.store(1000, Ordering::SeqCst);
    let tokens = prompt(4, 10);
    let cancelled = send(&handle, endless(Some(session), &tokens));
    until("it generates", || cancelled.events.unread() > 2);
    cancelled.cancel(&handle, Cancel::Keep);
    let outcome = cancelled.wait().outcome();
    assert_eq!(outcome.finish, Finish::Cancelled);
    control.group_us.store(0, Ordering::SeqCst);
    let all = [tokens, outcome.tokens, vec![3]].concat();
    assert_eq!(outcome.session_length, all.len() - 1);
    let outcome = run(&handle, request(Some(session), &[3], 9)).outcome();
    assert_eq!(outcome.tokens, expected(&all, &greedy(), 9).0);
}

#[test]
fn forks_share_pages_until_they_differ() {
    let (handle, control) = start(SHAPE);
    let session = open(&handle);
    let first = prompt(1, 150);
    let answer = run(&handle, request(Some(session), &first, 3)).outcome().tokens;
    let pages = control.pages.load(Ordering::SeqCst);
    let other = fork(&handle, session).unwrap();
    assert_eq!(control.pages.load(Ordering::SeqCst), pages);
    let all = [first, answer].concat();
    let runs: Vec<_> = [(session, 7), (other, 9)]
        .map(|(session, token)| (token, send(&handle, request(Some(session), &[token], 20))))
        .into_iter()
        .collect();
    for (token, run) in runs {
        let history = [all.clone(), vec![token]].concat();
        assert_eq!(run.wait().outcome().tokens, expected(&history, &greedy(), 20).0);
    }
    assert!(handle.stats().kv_shared >= 4 * 32, "{:?}", handle.stats());
    rewind(&handle, other, 70).unwrap();
    let outcome = run(&handle, request(Some(other), &[8], 5)).outcome();
    let history = [&all[..70], &[8]].concat();
    assert_eq!(outcome.tokens, expected(&history, &greedy(), 5).0);
    assert_eq!(outcome.cached_tokens, 70);
    assert_eq!(rewind(&handle, other, 1000).unwrap_err().code, Code::InvalidArg);
    close(&handle, session).unwrap();
    close(&handle, other).unwrap();
    assert_eq!(close(&handle, other).unwrap_err().code, Code::Closed);
    until("pages are free", || control.pages.load(Ordering::SeqCst) == 0);
}

#[test]
fn when_pages_run_out_the_youngest_waits_and_says_the_same() {
    let (handle, control) = start(Shape { kv_pages: 8, n_ctx: 256, ..SHAPE });
    let idle = open(&handle);
    let first = prompt(8, 60);
    let answer = run(&handle, request(Some(idle), &first, 4)).outcome().tokens;
    let tokens: Vec<_> = (0..4).map(|seed| prompt(seed, 40)).collect();
    let runs: Vec<_> = tokens
        .iter()
        .map(|tokens| {
            let mut generate = request(None, tokens, 150);
            generate.limits.ignore_eos = true;
            generate.sampling.logit_bias = vec![(EOG, f64::NEG_INFINITY)];
            send(&handle, generate)
        })
        .collect();
    let sampling = Sampling { logit_bias: vec![(EOG, f64::NEG_INFINITY)], ..greedy() };
    for (tokens, run) in tokens.iter().zip(runs) {
        assert_eq!(run.wait().outcome().tokens, expected(tokens, &sampling, 150).0);
    }
    assert!(control.pages_peak.load(Ordering::SeqCst) <= 8);
    let all = [first, answer, vec![5]].concat();
    let outcome = run(&handle, request(Some(idle), &[5], 9)).outcome();
    assert_eq!(outcome.tokens, expected(&all, &greedy(), 9).0, "the idle session lost pages only");
    assert!(outcome.cached_tokens < all.len() - 1);
}

#[test]
fn a_session_fills_the_whole_pool_and_still_rolls_back() {
    let (handle, _) = start(Shape { kv_pages: 4, n_ctx: 128, ..SHAPE });
    let session = open(&handle);
    let tokens = prompt(1, 70);
    let mut all = tokens.clone();
    all.extend(run(&handle, request(Some(session), &tokens, 10)).outcome().tokens);
    let outcome = run(&handle, endless(Some(session), &[])).outcome();
    assert_eq!(outcome.finish, Finish::Context);
    assert_eq!(outcome.session_length, 128);
    all.extend(outcome.tokens);
    rewind(&handle, session, 100).unwrap();
    let history = [&all[..100], &[4, 5]].concat();
    let outcome = run(&handle, request(Some(session), &[4, 5], 9)).outcome();
    assert_eq!(outcome.tokens, expected(&history, &greedy(), 9).0);
}

#[test]
fn closing_a_session_ends_its_generation() {
    let (handle, control) = start(SHAPE);
    control.group_us.store(500, Ordering::SeqCst);
    let session = open(&handle);
    let run = send(&handle, endless(Some(session), &prompt(1, 20)));
    until("it generates", || run.events.unread() > 1);
    close(&handle, session).unwrap();
    let error = run.wait().error();
    assert_eq!((error.code, error.fields), (Code::Closed, vec![("what", "session".into())]));
    until("its pages are free", || control.pages.load(Ordering::SeqCst) == 0);
}
