//! A blocking client of an engine, as the Node side would be.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use node_chord::engine::Handle;
use node_chord::engine::command::{
    Cancel, Command, Event, Generate, GenerationId, Limits, Outcome, Overflow, Reply, SessionId,
    TokenLogprob,
};
use node_chord::engine::queue::EventQueue;
use node_chord::engine::sampler::Sampling;
use node_chord::error::{Error, Result};

static IDS: AtomicU64 = AtomicU64::new(1);

/// A generation under way.
pub struct Run {
    pub id: GenerationId,
    pub events: Arc<EventQueue>,
}

/// How it ended, and the texts of its chunks.
#[derive(Debug)]
pub struct Ended {
    pub result: Result<Outcome, (Error, Option<Outcome>)>,
    pub chunks: Vec<String>,
    pub progress: Vec<(usize, usize)>,
}

impl Ended {
    pub fn outcome(self) -> Outcome {
        self.result.expect("resolves")
    }

    pub fn error(self) -> Error {
        self.result.expect_err("rejects").0
    }
}

pub fn limits(max_tokens: usize) -> Limits {
    Limits {
        max_tokens: Some(max_tokens as u32),
        stop: Vec::new(),
        stop_tokens: Vec::new(),
        ignore_eos: false,
        overflow: Overflow::Error,
    }
}

pub fn request(session: Option<SessionId>, prompt: &[u32], max_tokens: usize) -> Generate {
    Generate {
        id: GenerationId(IDS.fetch_add(1, Ordering::SeqCst)),
        session,
        keep_tokens: None,
        is_whole: false,
        prompt: prompt.to_vec(),
        sampling: greedy(),
        limits: limits(max_tokens),
        logprobs: None,
        progress: false,
        events: Arc::new(EventQueue::new(10_000)),
    }
}

pub fn greedy() -> Sampling {
    Sampling { temperature: 0.0, ..Sampling::default() }
}

pub fn send(handle: &Handle, generate: Generate) -> Run {
    let run = Run { id: generate.id, events: generate.events.clone() };
    handle.send(Command::Generate(Box::new(generate))).expect("let in");
    run
}

pub fn run(handle: &Handle, generate: Generate) -> Ended {
    send(handle, generate).wait()
}

impl Run {
    pub fn wait(self) -> Ended {
        let mut ended = Ended {
            result: Err((Error::internal("the test", "no end"), None)),
            chunks: vec![],
            progress: vec![],
        };
        let mut tokens = Vec::new();
        loop {
            let batch = block_on(self.events.next_batch());
            if batch.is_empty() {
                break;
            }
            for event in batch {
                match event {
                    Event::Progress { done, total } => ended.progress.push((done, total)),
                    Event::Chunk(chunk) => {
                        tokens.extend(chunk.tokens);
                        ended.chunks.push(chunk.text);
                    }
                    Event::Done(outcome) => ended.result = Ok(*outcome),
                    Event::Failed(error, outcome) => {
                        ended.result = Err((error, outcome.map(|outcome| *outcome)));
                    }
                }
            }
        }
        let outcome = match &ended.result {
            Ok(outcome) => Some(outcome),
            Err((_, outcome)) => outcome.as_ref(),
        };
        if let Some(outcome) = outcome {
            assert_eq!(ended.chunks.concat(), outcome.text, "chunks join to the text");
            assert_eq!(tokens, outcome.tokens, "tokens of chunks join to the answer's");
        }
        ended
    }

    pub fn cancel(&self, handle: &Handle, how: Cancel) {
        drop(handle.send(Command::Cancel(self.id, how)));
    }
}

pub fn open(handle: &Handle) -> SessionId {
    let id = SessionId(IDS.fetch_add(1, Ordering::SeqCst));
    ask(handle, |reply| Command::SessionOpen(id, reply)).expect("opens");
    id
}

pub fn fork(handle: &Handle, from: SessionId) -> Result<SessionId> {
    let to = SessionId(IDS.fetch_add(1, Ordering::SeqCst));
    ask(handle, |reply| Command::SessionFork { from, to, reply }).map(|()| to)
}

pub fn rewind(handle: &Handle, id: SessionId, length: usize) -> Result<()> {
    ask(handle, |reply| Command::SessionRewind { id, length, reply })
}

pub fn close(handle: &Handle, id: SessionId) -> Result<()> {
    ask(handle, |reply| Command::SessionClose(id, reply))
}

pub fn score(handle: &Handle, tokens: &[u32], top: u32) -> Result<Vec<TokenLogprob>> {
    let cancelled = Arc::new(AtomicBool::new(false));
    ask(handle, |reply| Command::Score { tokens: tokens.to_vec(), top, cancelled, reply })
}

pub fn ask<T: Send + 'static>(
    handle: &Handle,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    handle.send(command(Box::new(move |result| drop(sender.send(result)))))?;
    receiver.recv_timeout(Duration::from_secs(60)).expect("an answer")
}

/// Waits until a condition holds; the test fails after a minute.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park_timeout(Duration::from_secs(60)),
        }
    }
}
