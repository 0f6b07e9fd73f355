//! The engine over a scripted backend: sessions, scheduling, pages, limits, call-offs, failures.

pub mod client;
pub mod double;
mod random;
mod sessions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{close, fork, greedy, limits, open, request, run, score, send, until};
use double::{EOG, N_VOCAB, SHAPE, Shape, expected, letter, logits, start};
use node_chord::backend::PAGE_TOKENS;
use node_chord::engine::command::{Cancel, Command, Finish, Generate, Limits, Overflow, StoppedBy};
use node_chord::engine::queue::EventQueue;
use node_chord::engine::sampler::Sampling;
use node_chord::error::{Code, Field};

const JOIN: Duration = Duration::from_secs(30);

/// Some tokens that depend on a number.
fn prompt(seed: u32, length: usize) -> Vec<u32> {
    (0..length as u32).map(|i| 1 + (seed * 31 + i * i * 7 + i) % (N_VOCAB as u32 - 1)).collect()
}

fn endless(session: Option<node_chord::engine::command::SessionId>, tokens: &[u32]) -> Generate {
    let limits = Limits { ignore_eos: true, max_tokens: None, ..limits(0) };
    Generate { limits, ..request(session, tokens, 1) }
}

#[test]
fn answers_are_those_of_an_isolated_run_whatever_the_chunks() {
    for chunk in [Some(1), Some(7), Some(64), Some(1000), None] {
        let (handle, control) = start(Shape { chunk, ..SHAPE });
        for length in [1, 2, 31, 32, 33, 64, 200] {
            let tokens = prompt(3, length);
            let outcome = run(&handle, request(None, &tokens, 40)).outcome();
            let (answer, is_over) = expected(&tokens, &greedy(), 40);
            assert_eq!(outcome.tokens, answer, "{length} tokens in chunks of {chunk:?}");
            assert_eq!(outcome.finish, if is_over { Finish::Stop } else { Finish::Length });
            assert_eq!(outcome.prompt_tokens, length);
        }
        let stats = handle.stats();
        assert_eq!((stats.running, stats.queued, stats.kv_used), (0, 0, 0));
        assert_eq!(control.pages.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn what_an_engine_holds_is_told_before_it_has_done_anything() {
    for kv_pages in [64, 32, 64, 32] {
        let (handle, _) = start(Shape { kv_pages, ..SHAPE });
        let stats = handle.stats();
        assert_eq!((stats.kv_total, stats.kv_used), (kv_pages * PAGE_TOKENS, 0));
    }
}

#[test]
fn generations_side_by_side_do_not_change_each_other() {
    let (handle, _) = start(Shape { max_concurrent: 3, ..SHAPE });
    let runs: Vec<_> = (0..12)
        .map(|seed| {
            let sampling = Sampling { seed, temperature: 1.0, ..Sampling::default() };
            let tokens = prompt(seed, 20 + 17 * seed as usize);
            let generate = Generate { sampling: sampling.clone(), ..request(None, &tokens, 50) };
            (expected(&tokens, &sampling, 50).0, send(&handle, generate))
        })
        .collect();
    for (answer, run) in runs {
        assert_eq!(run.wait().outcome().tokens, answer);
    }
}

#[test]
fn a_prompt_too_long_is_refused_before_any_work() {
    let (handle, control) = start(Shape { n_ctx: 100, ..SHAPE });
    let error = run(&handle, request(None, &prompt(1, 101), 5)).error();
    assert_eq!(error.code, Code::ContextOverflow);
    let fields = vec![("tokens", Field::from(101usize)), ("contextLength", 100usize.into())];
    assert_eq!(error.fields, fields);
    let session = open(&handle);
    run(&handle, request(Some(session), &prompt(1, 60), 5)).outcome();
    let error = run(&handle, request(Some(session), &prompt(1, 60), 5)).error();
    assert_eq!(error.code, Code::ContextOverflow);
    let passes = control.passes.load(Ordering::SeqCst);
    let outcome = run(&handle, request(None, &prompt(1, 100), 5)).outcome();
    assert_eq!((outcome.finish, outcome.tokens.len()), (Finish::Context, 0));
    assert_eq!(control.passes.load(Ordering::SeqCst), passes);
}

#[test]
fn a_full_context_ends_the_generation() {
    let (handle, _) = start(Shape { n_ctx: 50, ..SHAPE });
    let outcome = run(&handle, endless(None, &prompt(1, 30))).outcome();
    assert_eq!((outcome.finish, outcome.tokens.len()), (Finish::Context, 20));
}

#[test]
fn shift_equals_a_fresh_run_on_what_remains() {
    let (handle, _) = start(Shape { n_ctx: 50, chunk: Some(7), ..SHAPE });
    let (keep, max) = (5, 90);
    let tokens = prompt(9, 30);
    let mut generate = endless(None, &tokens);
    generate.limits.overflow = Overflow::Shift { keep };
    generate.limits.max_tokens = Some(max);
    let outcome = run(&handle, generate).outcome();
    let (mut all, mut answer) = (tokens, Vec::<u32>::new());
    for _ in 0..max {
        if all.len() >= 50 {
            let count = (all.len() - keep) / 2;
            all.drain(keep..keep + count);
        }
        let row = logits(&all);
        let best = (0..N_VOCAB).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)));
        all.push(best.unwrap() as u32);
        answer.extend(all.last());
    }
    assert_eq!(outcome.tokens, answer);
    assert_eq!(outcome.finish, Finish::Length);
}

#[test]
fn shift_cuts_a_prompt_too_long_and_keeps_what_it_must() {
    let (handle, _) = start(Shape { n_ctx: 50, ..SHAPE });
    let tokens = prompt(9, 300);
    let mut generate = request(None, &tokens, 1);
    generate.limits.overflow = Overflow::Shift { keep: 10 };
    let outcome = run(&handle, generate).outcome();
    assert!(outcome.prompt_tokens < 50);
    let rest = outcome.prompt_tokens - 10;
    let left = [&tokens[..10], &tokens[300 - rest..]].concat();
    assert_eq!(outcome.tokens, expected(&left, &greedy(), 1).0);
    let mut generate = request(None, &tokens, 1);
    generate.limits.overflow = Overflow::Shift { keep: 299 };
    assert_eq!(run(&handle, generate).error().code, Code::ContextOverflow);
}

#[test]
fn stop_strings_and_tokens_end_an_answer() {
    let (handle, _) = start(SHAPE);
    let tokens = prompt(2, 12);
    let whole = run(&handle, {
        let mut generate = endless(None, &tokens);
        generate.limits.max_tokens = Some(30);
        generate
    })
    .outcome();
    assert_eq!(whole.text, whole.tokens.iter().map(|&t| letter(t)).collect::<String>());
    let session = open(&handle);
    let mut generate = endless(Some(session), &tokens);
    let letters: Vec<String> = whole.tokens.iter().map(|&t| letter(t)).collect();
    let stop = letters[9..12].concat();
    generate.limits.stop = vec!["never there".to_owned(), stop.clone()];
    let end = whole.text.find(&stop).unwrap();
    let outcome = run(&handle, generate).outcome();
    assert_eq!(outcome.text, whole.text[..end]);
    assert_eq!(outcome.stopped_by, Some(StoppedBy::Text(stop)));
    assert_eq!(outcome.session_length, 12 + outcome.tokens.len(), "the stop string is not kept");
    let mut generate = endless(None, &tokens);
    generate.limits.stop_tokens = vec![whole.tokens[5]];
    let outcome = run(&handle, generate).outcome();
    assert_eq!(outcome.stopped_by, Some(StoppedBy::Token(whole.tokens[5])));
    assert!(!outcome.tokens.contains(&whole.tokens[5]));
}

#[test]
fn end_of_generation_stops_unless_ignored() {
    let (handle, _) = start(SHAPE);
    let sampling = Sampling { logit_bias: vec![(EOG, 100.0)], ..greedy() };
    let generate = Generate { sampling: sampling.clone(), ..request(None, &[1, 2], 5) };
    let outcome = run(&handle, generate).outcome();
    assert_eq!((outcome.finish, outcome.tokens.len()), (Finish::Stop, 0));
    assert_eq!(outcome.stopped_by, Some(StoppedBy::Token(EOG)));
    let mut generate = Generate { sampling, ..request(None, &[1, 2], 5) };
    generate.limits.ignore_eos = true;
    let outcome = run(&handle, generate).outcome();
    assert_eq!((outcome.finish, outcome.tokens), (Finish::Length, vec![EOG; 5]));
}

#[test]
fn bad_requests_are_coded_errors_and_harm_nothing() {
    let (handle, _) = start(SHAPE);
    let check = |generate: Generate, name: &str| {
        let error = run(&handle, generate).error();
        assert_eq!(error.code, Code::InvalidArg, "{error}");
        assert_eq!(error.fields[0], ("name", Field::from(name)));
    };
    check(request(None, &[], 5), "prompt");
    check(request(None, &[N_VOCAB as u32], 5), "prompt");
    let with = |change: fn(&mut Generate)| {
        let mut generate = request(None, &[1], 5);
        change(&mut generate);
        generate
    };
    check(with(|g| g.limits.stop = vec![String::new()]), "stop");
    check(with(|g| g.limits.stop = vec!["x".to_owned(); 65]), "stop");
    check(with(|g| g.limits.stop_tokens = vec![999]), "stopTokens");
    check(with(|g| g.sampling.temperature = f64::NAN), "temperature");
    let session = open(&handle);
    close(&handle, session).unwrap();
    assert_eq!(run(&handle, request(Some(session), &[1], 5)).error().code, Code::Closed);
    assert_eq!(run(&handle, request(None, &[1], 5)).outcome().prompt_tokens, 1);
    let stats = handle.stats();
    assert_eq!((stats.running, stats.queued, stats.kv_used), (0, 0, 0));
}

#[test]
fn a_long_prompt_is_called_off_within_a_group() {
    let (handle, control) = start(Shape { chunk: Some(512), ..SHAPE });
    control.group_us.store(20_000, Ordering::SeqCst);
    let long = send(&handle, request(None, &prompt(1, 1000), 5));
    until("it runs", || handle.stats().running == 0 && control.groups.load(Ordering::SeqCst) > 0);
    let groups = control.groups.load(Ordering::SeqCst);
    long.cancel(&handle, Cancel::Reject);
    assert_eq!(long.wait().error().code, Code::Abort);
    assert!(control.groups.load(Ordering::SeqCst) <= groups + 2);
    until("its pages are free", || control.pages.load(Ordering::SeqCst) == 0);
    control.group_us.store(0, Ordering::SeqCst);
    let outcome = run(&handle, request(None, &prompt(1, 1000), 5)).outcome();
    assert_eq!(outcome.tokens, expected(&prompt(1, 1000), &greedy(), 5).0);
}

#[test]
fn calling_one_off_does_not_disturb_the_others_of_its_pass() {
    let (handle, control) = start(Shape { chunk: Some(64), ..SHAPE });
    control.group_us.store(500, Ordering::SeqCst);
    let kept: Vec<_> = (0..2).map(|seed| prompt(seed, 300)).collect();
    let runs: Vec<_> = kept.iter().map(|tokens| send(&handle, request(None, tokens, 20))).collect();
    let doomed = send(&handle, request(None, &prompt(7, 900), 20));
    until("all run", || handle.stats().running == 3);
    std::thread::sleep(Duration::from_millis(3));
    doomed.cancel(&handle, Cancel::Keep);
    assert_eq!(doomed.wait().outcome().finish, Finish::Cancelled);
    for (tokens, run) in kept.iter().zip(runs) {
        assert_eq!(run.wait().outcome().tokens, expected(tokens, &greedy(), 20).0);
    }
}

#[test]
fn a_long_prompt_starves_no_decode() {
    let (handle, control) = start(Shape { chunk: Some(16), ..SHAPE });
    control.group_us.store(200, Ordering::SeqCst);
    let decode = send(&handle, endless(None, &[1]));
    until("it decodes", || decode.events.unread() > 2);
    let before = decode.events.unread();
    let outcome = run(&handle, request(None, &prompt(1, 800), 1)).outcome();
    assert_eq!(outcome.finish, Finish::Length);
    assert!(decode.events.unread() >= before + 800 / 16 - 2, "one token a chunk");
    decode.cancel(&handle, Cancel::Keep);
    decode.wait().outcome();
}

#[test]
fn a_stalled_consumer_holds_back_its_own_generation_only() {
    let (handle, _) = start(Shape { max_concurrent: 1, ..SHAPE });
    let events = Arc::new(EventQueue::new(4));
    let stalled = send(&handle, Generate { events, ..endless(None, &[1]) });
    until("its queue is full", || stalled.events.unread() == 4);
    let outcome = run(&handle, request(None, &[2, 3], 30)).outcome();
    assert_eq!(outcome.tokens, expected(&[2, 3], &greedy(), 30).0);
    assert_eq!(stalled.events.unread(), 4);
    assert_eq!(stalled.events.try_batch(2).len(), 2);
    until("it goes on at half", || stalled.events.unread() == 4);
    stalled.events.lift();
    until("it runs to its end", || handle.stats().running == 0);
    assert!(stalled.events.unread() > 900, "{}", stalled.events.unread());
}

#[test]
fn an_abandoned_generation_is_called_off() {
    let (handle, control) = start(SHAPE);
    let run = send(&handle, endless(None, &[1]));
    run.events.abandon();
    until("it is gone", || {
        handle.stats().running == 0 && control.pages.load(Ordering::SeqCst) == 0
    });
}

#[test]
fn first_come_first_served_and_no_more_than_the_limit() {
    let shape = Shape { max_concurrent: 1, max_queued: 2, ..SHAPE };
    let (handle, control) = start(shape);
    control.group_us.store(1000, Ordering::SeqCst);
    let runs: Vec<_> = (0..3).map(|seed| send(&handle, endless(None, &prompt(seed, 5)))).collect();
    let error = handle.send(Command::Generate(Box::new(request(None, &[1], 1)))).unwrap_err();
    assert_eq!((error.code, error.fields), (Code::QueueFull, vec![("limit", 2usize.into())]));
    until("one runs", || handle.stats().running == 1 && handle.stats().queued == 2);
    runs[1].cancel(&handle, Cancel::Reject);
    until("a place is free", || handle.stats().queued == 1);
    let late = send(&handle, request(None, &[1, 2], 1));
    for run in &runs {
        run.cancel(&handle, Cancel::Keep);
    }
    let mut ends = runs.into_iter().map(client::Run::wait);
    assert_eq!(ends.next().unwrap().outcome().finish, Finish::Cancelled);
    let (error, partial) = ends.next().unwrap().result.unwrap_err();
    assert_eq!((error.code, partial), (Code::Abort, None));
    assert_eq!(ends.next().unwrap().outcome().tokens.len(), 0, "it never started");
    assert_eq!(late.wait().outcome().tokens.len(), 1);
}

#[test]
fn scores_are_log_probabilities_of_the_raw_distribution() {
    let (handle, _) = start(Shape { chunk: Some(50), ..SHAPE });
    let tokens = prompt(3, 140);
    let scores = score(&handle, &tokens, 3).unwrap();
    assert_eq!(scores.len(), tokens.len() - 1);
    for (index, score) in scores.iter().enumerate() {
        let row = logits(&tokens[..=index]);
        let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
        let log = |id: u32| f64::from(row[id as usize]) - sum.ln();
        assert_eq!(score.token, tokens[index + 1]);
        assert!((f64::from(score.logprob) - log(score.token)).abs() < 1e-5);
        assert_eq!(score.top.len(), 3);
        assert!(score.top.windows(2).all(|pair| pair[0].2 >= pair[1].2));
        let best = row.iter().copied().fold(f32::MIN, f32::max);
        assert_eq!(row[score.top[0].0 as usize], best);
    }
    assert_eq!(score(&handle, &[1], 0).unwrap(), vec![]);
    assert_eq!(score(&handle, &prompt(1, 1025), 0).unwrap_err().code, Code::ContextOverflow);
}

#[test]
fn a_score_is_given_up_within_a_group() {
    let (handle, control) = start(SHAPE);
    control.group_us.store(5000, Ordering::SeqCst);
    let cancelled = Arc::new(AtomicBool::new(false));
    let flag = cancelled.clone();
    let raised = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        flag.store(true, Ordering::SeqCst);
    });
    let tokens = prompt(1, 1000);
    let answer = client::ask(&handle, |reply| Command::Score { tokens, top: 0, cancelled, reply });
    assert_eq!(answer.unwrap_err().code, Code::Abort);
    raised.join().unwrap();
    assert!(control.groups.load(Ordering::SeqCst) < 30);
}

#[test]
fn logprobs_and_progress_are_told_if_asked_for() {
    let (handle, _) = start(Shape { chunk: Some(10), ..SHAPE });
    let tokens = prompt(6, 35);
    let generate = Generate { logprobs: Some(2), progress: true, ..request(None, &tokens, 6) };
    let run = send(&handle, generate);
    let ended = run.wait();
    assert_eq!(ended.progress.last(), Some(&(35, 35)));
    let outcome = ended.outcome();
    assert_eq!(outcome.logprobs.len(), outcome.tokens.len());
    for (logprob, token) in outcome.logprobs.iter().zip(&outcome.tokens) {
        assert_eq!((logprob.token, logprob.top[0].0), (*token, *token), "greedy takes the first");
        assert_eq!(logprob.bytes, letter(*token).into_bytes());
    }
}

#[test]
fn a_failing_pass_fails_its_generations_and_the_model_works_on() {
    let (handle, control) = start(SHAPE);
    control.fail_in.store(6, Ordering::SeqCst);
    let error = run(&handle, endless(None, &[1])).error();
    assert_eq!(error.code, Code::Io);
    let outcome = run(&handle, request(None, &[1], 9)).outcome();
    assert_eq!(outcome.tokens, expected(&[1], &greedy(), 9).0);
    control.nan_now.store(true, Ordering::SeqCst);
    let error = run(&handle, request(None, &[1, 2, 3], 9)).error();
    assert_eq!((error.code, error.fields), (Code::Numeric, vec![("token", 2usize.into())]));
    control.nan_now.store(false, Ordering::SeqCst);
    assert_eq!(run(&handle, request(None, &[1], 1)).outcome().tokens.len(), 1);
}

#[test]
fn a_panic_closes_the_model_and_the_process_lives() {
    let (handle, control) = start(Shape { max_concurrent: 2, ..SHAPE });
    let runs: Vec<_> = (0..4).map(|seed| send(&handle, endless(None, &prompt(seed, 3)))).collect();
    assert!(!handle.is_closed());
    control.panic_now.store(true, Ordering::SeqCst);
    for run in runs {
        let error = run.wait().error();
        assert_eq!(error.code, Code::Internal);
        assert!(error.message.contains("as the test wants"), "{error}");
        assert!(handle.is_closed(), "whoever hears of the panic sees a closed model");
    }
    assert!(handle.join(JOIN));
    assert!(control.dropped.load(Ordering::SeqCst));
    let error = handle.send(Command::Generate(Box::new(request(None, &[1], 1)))).unwrap_err();
    assert_eq!(error.code, Code::Closed);
}

#[test]
fn closing_ends_what_runs_and_waits_after_the_group_in_flight() {
    let (handle, control) = start(Shape { max_concurrent: 1, ..SHAPE });
    control.group_us.store(5000, Ordering::SeqCst);
    let session = open(&handle);
    let runs = [
        send(&handle, endless(Some(session), &prompt(1, 900))),
        send(&handle, endless(None, &[1])),
    ];
    until("it runs", || control.groups.load(Ordering::SeqCst) > 1);
    handle.close();
    for run in runs {
        assert_eq!(run.wait().error().code, Code::Closed);
    }
    assert!(handle.join(JOIN));
    assert!(control.dropped.load(Ordering::SeqCst));
    let stats = handle.stats();
    assert_eq!((stats.running, stats.sessions, stats.kv_used), (0, 0, 0));
    assert_eq!(fork(&handle, session).unwrap_err().code, Code::Closed);
    handle.close();
    assert!(handle.join(JOIN), "closing twice is closing once");
}

#[test]
fn dropping_the_last_handle_ends_the_thread() {
    let (handle, control) = start(SHAPE);
    let run = send(&handle, endless(None, &[1]));
    drop(handle);
    assert_eq!(run.wait().error().code, Code::Closed);
    until("the backend is dropped", || control.dropped.load(Ordering::SeqCst));
}
