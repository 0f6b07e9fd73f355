//! Promise 4 on real models: the same tokens, and logits bit for bit, with any number of threads,
//! with other sessions beside, with the prompt in any chunks, and for a session continued turn by
//! turn against one fresh run over the whole text.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex};

use node_chord::backend::cpu::{Config, Cpu};
use node_chord::backend::{Backend, Batch, Probe};
use node_chord::engine::bounds::Bounds;
use node_chord::engine::command::Generate;
use node_chord::engine::sampler::Sampling;
use node_chord::engine::{self, Handle, Setup};
use node_chord::error::Result;
use node_chord::plan::GroupId;
use node_chord::store::{Lease, Store};
use node_chord::tokenizer::Tokenizer;
use node_chord::{gguf, model};

use crate::engine::client::{limits, open, request, run, send};
use crate::over::{Over, RunGroup};
use crate::runner::root;

const TEXT: &str = "Once upon a time there was a little girl named Lily. She had a red ball and a \
                    small dog. One day they went to the park to play. The sun was warm and the sky";
const ANSWER: usize = 24;
const N_CTX: usize = 256;

/// Rows of logits: position, token, hash of all bits.
type Rows = BTreeSet<(u32, u32, u64)>;
type Seen = Arc<Mutex<Rows>>;
/// Tokens and all rows of logits.
type Answer = (Vec<u32>, Rows);

/// Notes every row of logits that a backend gives.
struct Recorder {
    n_vocab: usize,
    groups: usize,
    seen: Seen,
}

impl RunGroup for Recorder {
    fn run(
        &mut self,
        inner: &mut dyn Backend,
        batch: &Batch,
        group: GroupId,
        weights: &Lease<'_>,
        probe: Option<Probe<'_>>,
    ) -> Result<()> {
        inner.run(group, weights, probe)?;
        if group.0 as usize + 1 == self.groups {
            let mut seen = self.seen.lock().expect("not poisoned");
            let rows = batch.rows.iter().filter(|row| row.wants_logits);
            for (row, logits) in rows.zip(inner.logits().chunks_exact(self.n_vocab)) {
                let mut hash = DefaultHasher::new();
                logits.iter().for_each(|logit| hash.write_u32(logit.to_bits()));
                seen.insert((row.position, row.token, hash.finish()));
            }
        }
        Ok(())
    }
}

/// A model under test, running.
struct Subject {
    handle: Handle,
    tokens: Vec<u32>,
    seen: Seen,
}

fn start(path: &Path, threads: usize, chunk: Option<usize>) -> Subject {
    let file = gguf::File::open(path).expect("a sound file");
    let plan = Arc::new(model::plan(&file).expect("a model that is understood"));
    let tokenizer = Arc::new(Tokenizer::from_meta(file.meta()).expect("a tokenizer"));
    let config = Config { threads: Some(threads), ..Config::default() };
    let inner = Box::new(Cpu::new(plan.clone(), config).expect("a backend"));
    let seen = Seen::default();
    let (n_vocab, groups) = (plan.n_vocab, plan.groups.len());
    let backend = Over::new(inner, Recorder { n_vocab, groups, seen: seen.clone() });
    let tokens = tokenizer.encode(TEXT, true, true);
    let store = Arc::new(Store::open(&file, &plan).expect("mapped"));
    let handle = engine::start(Setup {
        backend: Box::new(backend),
        plan,
        store,
        files: Vec::new(),
        tokenizer,
        n_ctx: N_CTX,
        max_concurrent: 4,
        max_queued: 16,
        chunk,
        bounds: Bounds { rows: 512, generations: 4, logits_rows: 64, kv_pages: 64, streams: false },
    });
    Subject { handle: handle.expect("a thread"), tokens, seen }
}

fn story(prompt: &[u32], seed: u32) -> Generate {
    let mut limits = limits(ANSWER);
    limits.ignore_eos = true;
    let sampling = Sampling { seed, ..Sampling::default() };
    Generate { sampling, limits, ..request(None, prompt, ANSWER) }
}

/// Tokens of the answer and all rows of logits of one run by itself.
fn alone(
    path: &Path,
    threads: usize,
    chunk: Option<usize>,
) -> (Vec<u32>, BTreeSet<(u32, u32, u64)>) {
    let subject = start(path, threads, chunk);
    let answer = run(&subject.handle, story(&subject.tokens, 7)).outcome().tokens;
    assert_eq!(answer.len(), ANSWER);
    let seen = subject.seen.lock().expect("not poisoned").clone();
    assert_eq!(seen.len(), ANSWER);
    (answer, seen)
}

fn beside_others(path: &Path, baseline: &Answer) {
    let subject = start(path, 2, Some(20));
    let (one, two) = (open(&subject.handle), open(&subject.handle));
    let with = |session, seed, skip: usize| Generate {
        session: Some(session),
        ..story(&subject.tokens[skip..], seed)
    };
    let others = [send(&subject.handle, with(one, 1, 3)), send(&subject.handle, with(two, 2, 11))];
    let answer = run(&subject.handle, story(&subject.tokens, 7)).outcome().tokens;
    for other in others {
        other.wait().outcome();
    }
    assert_eq!(answer, baseline.0, "two sessions beside");
    let seen = subject.seen.lock().expect("not poisoned");
    assert!(seen.is_superset(&baseline.1), "logits with two sessions beside");
}

/// Three turns in a session; then the last answer again, fresh, over all the text before it.
fn turn_by_turn(path: &Path) {
    let subject = start(path, 2, None);
    let session = open(&subject.handle);
    let third = subject.tokens.len() / 3;
    let turns =
        [&subject.tokens[..third], &subject.tokens[third..2 * third], &subject.tokens[2 * third..]];
    let mut all = Vec::new();
    let mut answer = Vec::new();
    for turn in turns {
        all.extend_from_slice(&answer);
        all.extend_from_slice(turn);
        let generate = Generate { session: Some(session), ..story(turn, 7) };
        answer = run(&subject.handle, generate).outcome().tokens;
    }
    let turns = subject.seen.lock().expect("not poisoned").clone();
    let fresh = start(path, 1, Some(64));
    assert_eq!(run(&fresh.handle, story(&all, 7)).outcome().tokens, answer, "one fresh run");
    assert!(turns.is_superset(&fresh.seen.lock().expect("not poisoned")), "logits of a fresh run");
}

fn check(path: &Path) {
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
        return;
    }
    let baseline = alone(path, 1, None);
    for (threads, chunk) in [(2, Some(1)), (5, Some(7)), (2, Some(64)), (5, Some(1000))] {
        let other = alone(path, threads, chunk);
        assert_eq!(other.0, baseline.0, "tokens: {threads} threads, chunk {chunk:?}");
        assert_eq!(other.1, baseline.1, "logits: {threads} threads, chunk {chunk:?}");
    }
    beside_others(path, &baseline);
    turn_by_turn(path);
}

#[test]
fn chord_5m_says_the_same_bit_for_bit() {
    check(&root("models/chord-5m-Q4_K_M.gguf"));
}

#[test]
fn chord_29m_says_the_same_bit_for_bit() {
    check(&root("../shared/models/chord-29m-Q4_K_M.gguf"));
}

#[test]
fn chord_5m_in_other_types_says_the_same_bit_for_bit() {
    check(&root("../shared/models/chord-5m-F16.gguf"));
    check(&root("../shared/models/chord-5m-Q8_0.gguf"));
}

#[test]
fn a_mixture_of_experts_says_the_same_bit_for_bit() {
    check(&root("../shared/models/chord-27m-moe-Q4_K_M.gguf"));
}
