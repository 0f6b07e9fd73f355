//! Random lives of several sessions side by side: generate, call off, fail, fork, rewind, stall.
//! Every answer is compared with an isolated run over the session's history as the test knows it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use node_chord::engine::Handle;
use node_chord::engine::command::{Cancel, Finish, Generate, SessionId};
use node_chord::engine::philox::philox4x32;
use node_chord::engine::queue::EventQueue;
use node_chord::engine::sampler::Sampling;
use node_chord::error::Code;

use super::client::{Run, close, fork, open, request, rewind, send, until};
use super::double::{N_VOCAB, SHAPE, Shape, expected, start};

/// Small enough that sessions fill it.
const N_CTX: usize = 300;

struct Dice {
    seed: u32,
    rolls: u32,
}

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.rolls += 1;
        philox4x32([self.rolls, 0, 0, 0], [self.seed, 77])[0] as usize % limit
    }

    fn tokens(&mut self, limit: usize) -> Vec<u32> {
        let length = self.below(limit);
        (0..length).map(|_| 1 + self.below(N_VOCAB - 1) as u32).collect()
    }
}

/// A session as the test knows it.
struct Known {
    id: SessionId,
    tokens: Vec<u32>,
}

/// A generation under way, its session and what a run to the end would answer.
struct Pending {
    session: Option<Known>,
    run: Run,
    history: Vec<u32>,
    answer: Vec<u32>,
}

fn launch(handle: &Handle, dice: &mut Dice, session: Option<Known>) -> Pending {
    let mut history = session.as_ref().map_or(Vec::new(), |known| known.tokens.clone());
    let mut prompt = dice.tokens(120);
    let keep = (dice.below(4) == 0).then(|| dice.below(history.len() + 1));
    history.truncate(keep.unwrap_or(usize::MAX));
    if history.is_empty() {
        prompt.push(1);
    }
    prompt.truncate((N_CTX - 60).saturating_sub(history.len()).max(1));
    history.extend(&prompt);
    let max = 1 + dice.below(50);
    let sampling = Sampling {
        seed: dice.below(1000) as u32,
        temperature: dice.below(2) as f64,
        repeat_penalty: 1.0 + dice.below(2) as f64 * 0.2,
        ..Sampling::default()
    };
    let answer = expected(&history, &sampling, max).0;
    let capacity = [1, 4, 10_000][dice.below(3)];
    let events = Arc::new(EventQueue::new(capacity));
    let id = session.as_ref().map(|known| known.id);
    let request = request(id, &prompt, max);
    let run = send(handle, Generate { keep_tokens: keep, sampling, events, ..request });
    Pending { session, run, history, answer }
}

/// Awaits a generation, called off or not, and gives its session back as it must be now.
fn land(handle: &Handle, dice: &mut Dice, pending: Pending, at: &str) -> Option<Known> {
    let Pending { session, run, history, answer } = pending;
    match dice.below(5) {
        0 => run.cancel(handle, Cancel::Keep),
        1 => run.cancel(handle, Cancel::Reject),
        _ => {}
    }
    let (kept, length) = match run.wait().result {
        Ok(outcome) if matches!(outcome.finish, Finish::Cancelled | Finish::Context) => {
            assert!(answer.starts_with(&outcome.tokens), "{at}");
            let is_full = history.len() + outcome.tokens.len() == N_CTX;
            assert!(is_full || outcome.finish == Finish::Cancelled, "{at}");
            (Some(outcome.tokens), outcome.session_length)
        }
        Ok(outcome) => {
            assert_eq!(outcome.tokens, answer, "{at}");
            assert_eq!(outcome.prompt_tokens, history.len(), "{at}");
            (Some(outcome.tokens), outcome.session_length)
        }
        Err((error, outcome)) => {
            let is_too_long = history.len() > N_CTX;
            let codes: &[Code] =
                if is_too_long { &[Code::ContextOverflow] } else { &[Code::Abort, Code::Io] };
            assert!(codes.contains(&error.code), "{at}: {error}");
            (None, outcome.map_or(usize::MAX, |outcome| outcome.session_length))
        }
    };
    let mut known = session?;
    if let Some(tokens) = kept {
        known.tokens = [history, tokens].concat();
    }
    assert!(length == known.tokens.len() || length == usize::MAX, "{at}");
    Some(known)
}

fn shape(dice: &mut Dice) -> Shape {
    Shape {
        kv_pages: [10, 16, 40][dice.below(3)],
        n_ctx: N_CTX,
        max_concurrent: 1 + dice.below(4),
        chunk: [None, Some(1), Some(7), Some(64)][dice.below(4)],
        ..SHAPE
    }
}

fn live(seed: u32) {
    let mut dice = Dice { seed, rolls: 0 };
    let shape = shape(&mut dice);
    let (handle, control) = start(shape);
    control.group_us.store([0, 0, 40][dice.below(3)], Ordering::SeqCst);
    let mut idle: Vec<Known> = Vec::new();
    let mut busy: Vec<Pending> = Vec::new();
    for turn in 0..60 {
        let at = format!("seed {seed} turn {turn}");
        let pick = |dice: &mut Dice, idle: &mut Vec<Known>| {
            (!idle.is_empty()).then(|| idle.swap_remove(dice.below(idle.len())))
        };
        match dice.below(10) {
            0 => idle.push(Known { id: open(&handle), tokens: Vec::new() }),
            1 => {
                if let Some(known) = pick(&mut dice, &mut idle) {
                    let id = fork(&handle, known.id).expect("forks");
                    idle.push(Known { id, tokens: known.tokens.clone() });
                    idle.push(known);
                }
            }
            2 => {
                if let Some(mut known) = pick(&mut dice, &mut idle) {
                    let length = dice.below(known.tokens.len() + 1);
                    rewind(&handle, known.id, length).expect("rewinds");
                    known.tokens.truncate(length);
                    idle.push(known);
                }
            }
            3 if idle.len() > 3 => {
                let known = idle.swap_remove(0);
                close(&handle, known.id).expect("closes");
            }
            4..7 => {
                let session = pick(&mut dice, &mut idle);
                if dice.below(20) == 0 {
                    control.fail_in.store(dice.below(60) as i64, Ordering::SeqCst);
                }
                busy.push(launch(&handle, &mut dice, session));
            }
            _ => {
                if !busy.is_empty() {
                    let pending = busy.swap_remove(dice.below(busy.len()));
                    idle.extend(land(&handle, &mut dice, pending, &at));
                }
            }
        }
    }
    for pending in busy {
        idle.extend(land(&handle, &mut dice, pending, &format!("seed {seed} at the end")));
    }
    for known in idle {
        close(&handle, known.id).expect("closes");
    }
    until("all pages are free", || control.pages.load(Ordering::SeqCst) == 0);
    let stats = handle.stats();
    assert_eq!((stats.kv_used, stats.running, stats.sessions), (0, 0, 0), "seed {seed}");
}

#[test]
fn random_lives_equal_isolated_runs_and_leak_no_page() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(80);
    for seed in 0..seeds {
        live(seed);
    }
}
