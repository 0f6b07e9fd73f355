//! Clocks of a generation, and the snapshot that `stats()` shows. The only place of the engine that
//! reads a clock.

use std::time::Instant;

use crate::engine::command::Timings;

/// When the stages of a generation were reached.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    sent: Instant,
    started: Option<Instant>,
    prompt_done: Option<Instant>,
    first_token: Option<Instant>,
    /// Milliseconds that its passes have waited for weights, and bytes that they read.
    cost: (f64, u64),
}

impl Clock {
    /// Starts when the request was sent.
    #[must_use]
    pub fn since(sent: Instant) -> Self {
        Clock { sent, started: None, prompt_done: None, first_token: None, cost: (0.0, 0) }
    }

    /// Its turn has come; only the first time counts.
    pub fn start(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    /// Whether its turn has come.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.started.is_some()
    }

    /// The prompt is evaluated; only the first time counts.
    pub fn prompt_done(&mut self) {
        self.prompt_done.get_or_insert_with(Instant::now);
    }

    /// A token is there; only the first time counts.
    pub fn first_token(&mut self) {
        self.first_token.get_or_insert_with(Instant::now);
    }

    /// A pass has cost so much.
    pub fn spend(&mut self, (stall_ms, bytes): (f64, u64)) {
        self.cost = (self.cost.0 + stall_ms, self.cost.1 + bytes);
    }

    /// The figures up to now. A stage that was not reached lasts until now.
    #[must_use]
    pub fn timings(&self) -> Timings {
        let now = Instant::now();
        let ms = |from: Instant, to: Instant| to.duration_since(from).as_secs_f64() * 1000.0;
        let started = self.started.unwrap_or(now);
        Timings {
            queue_ms: ms(self.sent, started),
            prompt_ms: ms(started, self.prompt_done.unwrap_or(now)),
            first_token_ms: ms(self.sent, self.first_token.unwrap_or(now)),
            total_ms: ms(self.sent, now),
            stall_ms: self.cost.0,
            bytes_read: self.cost.1,
        }
    }
}

/// Measures one pass.
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// Milliseconds since the start.
    #[must_use]
    pub fn ms(&self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1000.0
    }
}
