//! The engine thread: takes commands, steps works pass by pass, answers. One `match` over the
//! closed set of commands; it also runs between the groups of a pass: nothing waits longer.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crate::backend::{Backend, PAGE_TOKENS};
use crate::engine::Setup;
use crate::engine::answer::{Answer, End, aborted, called_off, check_tokens};
use crate::engine::bounds::{Bounds, Change};
use crate::engine::command::{
    Cancel, Command, EngineStats, Event, Finish, Generate, GenerationId, SessionId, SharedStats,
};
use crate::engine::inbox::{Inbox, Letter, closed};
use crate::engine::kv::pages::Pool;
use crate::engine::kv::sequence::Sequence;
use crate::engine::schedule::Pace;
use crate::engine::score::Score;
use crate::engine::session::Sessions;
use crate::engine::vocabulary::{Vocabulary, Weights};
use crate::engine::work::{Fate, Stage, Task, Work, context_overflow};
use crate::error::{Error, Result};
use crate::plan::Plan;

/// Runs until it is closed. A panic ends every generation with `ERR_INTERNAL` and closes the model;
/// the process lives.
pub fn main(mut engine: Engine) {
    let inbox = engine.inbox.clone();
    let reason = match catch_unwind(AssertUnwindSafe(|| engine.run())) {
        Ok(()) => closed("model"),
        Err(panic) => Error::internal("the engine thread", panic_text(panic.as_ref())),
    };
    // Whatever a panic has left behind may panic again: each step has its own net.
    drop(catch_unwind(AssertUnwindSafe(|| engine.close(&reason))));
    drop(catch_unwind(AssertUnwindSafe(move || drop(engine))));
    inbox.finish();
}

/// All that the thread owns.
pub struct Engine {
    pub(super) backend: Box<dyn Backend>,
    pub(super) plan: Arc<Plan>,
    pub(super) store: Arc<dyn Weights>,
    pub(super) files: Vec<String>,
    pub(super) words: Arc<dyn Vocabulary>,
    pub(super) n_ctx: usize,
    pub(super) bounds: Bounds,
    /// What waits for the end of a pass.
    pub(super) changes: VecDeque<Change>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) stats: SharedStats,
    pub(super) pool: Pool,
    pub(super) sessions: Sessions,
    /// In the order of arrival.
    pub(super) works: Vec<Work>,
    pub(super) pace: Pace,
    pub(super) is_closing: bool,
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    /// Works that have arrived so far.
    arrived: u64,
    /// Commands that were taken and not done yet.
    letters: VecDeque<Letter>,
    /// Pages may be written to; they must stay.
    pub(super) in_pass: bool,
}

impl Engine {
    /// An engine that has done nothing yet; what it holds is told from here on.
    pub fn new(setup: Setup, inbox: Arc<Inbox>, stats: SharedStats) -> Self {
        let engine = Engine {
            pace: Pace::new(setup.chunk, setup.bounds.rows, setup.bounds.streams),
            pool: Pool::new(setup.bounds.kv_pages),
            n_ctx: setup.n_ctx.min(setup.bounds.kv_pages * PAGE_TOKENS),
            bounds: setup.bounds,
            changes: VecDeque::new(),
            backend: setup.backend,
            plan: setup.plan,
            store: setup.store,
            files: setup.files,
            words: setup.tokenizer,
            inbox,
            stats,
            sessions: Sessions::default(),
            works: Vec::new(),
            is_closing: false,
            prompt_tokens: 0,
            completion_tokens: 0,
            arrived: 0,
            letters: VecDeque::new(),
            in_pass: false,
        };
        engine.publish();
        engine
    }

    fn run(&mut self) {
        loop {
            self.attend();
            if self.is_closing {
                return;
            }
            self.change();
            if self.is_closing {
                return;
            }
            let works = self.works.len();
            let parts = self.schedule();
            if parts.is_empty() {
                self.pool.settle(self.backend.as_mut());
                self.publish();
                // Works that ended while they were scheduled make room for others.
                if works == self.works.len() {
                    self.inbox.wait();
                }
                continue;
            }
            self.pass(parts);
            self.pool.settle(self.backend.as_mut());
            self.publish();
        }
    }

    /// Does all that was asked and calls off what nobody waits for. Safe while a pass is in flight.
    pub(super) fn attend(&mut self) {
        let news = self.inbox.take();
        let has_news = news.is_some();
        self.letters.extend(news.into_iter().flatten());
        while let Some(letter) = self.letters.pop_front() {
            self.command(letter.command, letter.sent);
        }
        // A queue that is abandoned nudges; a score that is cancelled does not.
        let is_due = |work: &&Work| has_news || matches!(work.task, Task::Score(_));
        let left = self.works.iter().filter(is_due).filter(|work| work.is_abandoned());
        let left: Vec<u64> = left.map(|work| work.number).collect();
        for number in left {
            self.call_off(number, Cancel::Keep);
        }
        if has_news {
            self.publish();
        }
    }

    fn command(&mut self, command: Command, sent: Instant) {
        match command {
            Command::Generate(generate) => self.generate(*generate, sent),
            Command::Cancel(id, how) => {
                if let Some(number) = self.number_of(id) {
                    self.call_off(number, how);
                }
            }
            Command::Resume(_) => {}
            Command::Score { tokens, top, cancelled, reply } => {
                self.score(tokens, Score::new(top, cancelled, reply));
            }
            Command::SessionOpen(id, reply) => {
                let opened = self.sessions.open(id);
                self.settle();
                reply(opened);
            }
            Command::SessionFork { from, to, reply } => {
                let forked = self.sessions.fork(from, to, &mut self.pool);
                self.settle();
                reply(forked);
            }
            Command::SessionRewind { id, length, reply } => {
                let rewound = self.sessions.rewind(id, length, &mut self.pool);
                self.settle();
                reply(rewound);
            }
            Command::SessionClose(id, reply) => {
                let closed = self.session_close(id);
                self.settle();
                reply(closed);
            }
            Command::Configure { bounds, threads, mover, reply } => {
                self.changes.push_back(Change::new(bounds, threads, mover, reply));
            }
            Command::Close => self.is_closing = true,
        }
    }

    fn generate(&mut self, generate: Generate, sent: Instant) {
        let events = generate.events.clone();
        let inbox = self.inbox.clone();
        events.set_nudge(Arc::new(move || inbox.nudge()));
        if let Err(error) = self.accept(generate, sent) {
            self.inbox.ended();
            events.push(Event::Failed(error, None));
        }
    }

    /// Queues a generation, or says why not. Nothing has changed after an error.
    fn accept(&mut self, mut generate: Generate, sent: Instant) -> Result<()> {
        let mut prompt = std::mem::take(&mut generate.prompt);
        check_tokens("prompt", &prompt, self.words.n_vocab())?;
        let mut tokens = match generate.session {
            None => Vec::new(),
            Some(id) => {
                let held = &self.sessions.idle(id)?.sequence.tokens;
                let keep = if generate.is_whole {
                    let same = held.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
                    prompt.drain(..same);
                    same
                } else {
                    generate.keep_tokens.unwrap_or(usize::MAX).min(held.len())
                };
                held.get(..keep).unwrap_or(&[]).to_vec()
            }
        };
        let common = tokens.len();
        tokens.extend_from_slice(&prompt);
        if tokens.is_empty() {
            return Err(Error::invalid_arg("prompt", "at least one token", "none"));
        }
        let (id, session) = (generate.id, generate.session);
        let answer = Answer::new(generate, sent, &self.words)?;
        let mut work = self.work(tokens, common, Task::Answer(Box::new(answer)));
        let has_room = work.make_room(self.n_ctx, &mut self.pool)?;
        if let Task::Answer(answer) = &mut work.task {
            answer.prompt_tokens = work.sequence.tokens.len();
        }
        if let Some(session) = session {
            self.sessions.get(session)?.busy = Some(id);
        }
        let number = work.number;
        self.works.push(work);
        if !has_room {
            let end = End { finish: Finish::Context, stopped_by: None };
            self.end(number, Fate::Resolved(end));
        }
        Ok(())
    }

    fn score(&mut self, tokens: Vec<u32>, score: Score) {
        let checked = match check_tokens("text", &tokens, self.words.n_vocab()) {
            Ok(()) if tokens.len() > self.n_ctx => Err(context_overflow(tokens.len(), self.n_ctx)),
            checked => checked,
        };
        match checked {
            Err(error) => {
                self.inbox.ended();
                score.reject(error);
            }
            Ok(()) if tokens.len() < 2 => {
                self.inbox.ended();
                score.resolve();
            }
            Ok(()) => {
                let work = self.work(tokens, 0, Task::Score(score));
                self.works.push(work);
            }
        }
    }

    fn work(&mut self, tokens: Vec<u32>, common: usize, task: Task) -> Work {
        self.arrived += 1;
        let sequence = Sequence::of(tokens);
        Work { number: self.arrived, sequence, common, stage: Stage::Queued, task }
    }

    fn session_close(&mut self, id: SessionId) -> Result<()> {
        let busy = self.sessions.close(id, &mut self.pool)?;
        if let Some(number) = busy.and_then(|id| self.number_of(id)) {
            self.end(number, Fate::Rejected(closed("session")));
        }
        Ok(())
    }

    fn call_off(&mut self, number: u64, how: Cancel) {
        let end = End { finish: Finish::Cancelled, stopped_by: None };
        self.end(number, called_off(how).map_or(Fate::Resolved(end), Fate::Rejected));
    }

    /// Ends a work: its session keeps or forgets, its pages go back, its caller is told.
    pub(super) fn end(&mut self, number: u64, fate: Fate) {
        let Some(index) = self.index_of(number) else { return };
        let mut work = self.works.remove(index);
        self.inbox.ended();
        match work.task {
            Task::Score(score) => {
                work.sequence.clear(&mut self.pool);
                self.settle();
                match fate {
                    Fate::Resolved(End { finish: Finish::Cancelled, .. }) => {
                        score.reject(aborted());
                    }
                    Fate::Resolved(_) => score.resolve(),
                    Fate::Rejected(error) => score.reject(error),
                }
            }
            Task::Answer(mut answer) => match fate {
                Fate::Resolved(end) => {
                    let length = work.sequence.tokens.len().saturating_sub(answer.flush());
                    work.sequence.truncate(length, &mut self.pool);
                    let length = self.keep(answer.session, work.stage, work.common, work.sequence);
                    self.settle();
                    answer.resolve(end, length);
                }
                Fate::Rejected(error) => {
                    work.sequence.clear(&mut self.pool);
                    let session = answer.session.and_then(|id| self.sessions.get(id).ok());
                    let length = session.map_or(0, |session| {
                        session.busy = None;
                        session.sequence.tokens.len()
                    });
                    self.settle();
                    answer.reject(error, length);
                }
            },
        }
    }

    /// A session takes over what its generation made; how many tokens it holds now.
    fn keep(
        &mut self,
        session: Option<SessionId>,
        stage: Stage,
        common: usize,
        mut sequence: Sequence,
    ) -> usize {
        let pool = &mut self.pool;
        let Some(session) = session.and_then(|id| self.sessions.get(id).ok()) else {
            sequence.clear(pool);
            return 0;
        };
        if stage == Stage::Queued {
            sequence.adopt(&session.sequence, common, pool);
        }
        session.sequence.clear(pool);
        session.sequence = sequence;
        session.busy = None;
        session.sequence.tokens.len()
    }

    /// What is true after a work has ended, before its caller hears of it.
    fn settle(&mut self) {
        if !self.in_pass {
            self.pool.settle(self.backend.as_mut());
        }
        self.publish();
    }

    pub(super) fn index_of(&self, number: u64) -> Option<usize> {
        self.works.iter().position(|work| work.number == number)
    }

    fn number_of(&self, id: GenerationId) -> Option<u64> {
        let is_it = |work: &&Work| matches!(&work.task, Task::Answer(answer) if answer.id == id);
        self.works.iter().find(is_it).map(|work| work.number)
    }

    pub(super) fn publish(&self) {
        let running = self.works.iter().filter(|work| work.stage == Stage::Running).count();
        *self.stats.lock() = EngineStats {
            running,
            queued: self.works.len() - running,
            sessions: self.sessions.len(),
            kv_used: self.pool.used() * PAGE_TOKENS,
            kv_shared: self.pool.shared() * PAGE_TOKENS,
            kv_total: self.pool.total() * PAGE_TOKENS,
            kv_bytes: self.pool.committed() * self.backend.page_bytes(),
            scratch_bytes: self.backend.scratch_bytes(),
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
        };
    }

    /// Answers everybody with `reason`. Touches no page: after a panic they may be in any state,
    /// and the backend frees them all.
    fn close(&mut self, reason: &Error) {
        self.letters.extend(self.inbox.close());
        let works = std::mem::take(&mut self.works);
        {
            let mut stats = self.stats.lock();
            let (prompt_tokens, completion_tokens) = (self.prompt_tokens, self.completion_tokens);
            let kv_total = stats.kv_total;
            *stats = EngineStats {
                prompt_tokens,
                completion_tokens,
                kv_total,
                ..EngineStats::default()
            };
        }
        for work in works {
            match work.task {
                Task::Answer(answer) => answer.reject(reason.clone(), 0),
                Task::Score(score) => score.reject(reason.clone()),
            }
        }
        for letter in std::mem::take(&mut self.letters) {
            refuse(letter.command, reason);
        }
        std::mem::take(&mut self.changes).into_iter().for_each(|change| change.refuse(reason));
    }
}

/// Answers a command that comes too late.
fn refuse(command: Command, reason: &Error) {
    match command {
        Command::Generate(generate) => generate.events.push(Event::Failed(reason.clone(), None)),
        Command::Score { reply, .. } => reply(Err(reason.clone())),
        Command::SessionOpen(_, reply)
        | Command::SessionFork { reply, .. }
        | Command::SessionRewind { reply, .. }
        | Command::Configure { reply, .. } => reply(Err(reason.clone())),
        // What it asks for has come true.
        Command::SessionClose(_, reply) => reply(Ok(())),
        Command::Cancel(..) | Command::Resume(_) | Command::Close => {}
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_else(|| "without a message".to_owned()))
}
