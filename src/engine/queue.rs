//! The event queue of one generation: written by the engine thread, which never waits, and pulled
//! by one consumer, which may. It counts unread chunks; the engine does not step a generation whose
//! queue is full until it is half empty. It knows neither JavaScript nor an async runtime.

mod demand;

pub use demand::Pull;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::{Mutex, MutexGuard};

use crate::engine::command::Event;

/// Called when the producer may go on; set by the engine, must be quick and must not block.
pub type Nudge = Arc<dyn Fn() + Send + Sync>;

/// Events of one generation, oldest first.
pub struct EventQueue {
    capacity: usize,
    state: Mutex<State>,
}

impl std::fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventQueue({} unread)", self.unread())
    }
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// Chunks in `events`.
    chunks: usize,
    /// Chunks that were pulled but count as unread until more are demanded.
    held: usize,
    /// Chunks that may come with the next pull.
    demand: usize,
    /// The bound is off: somebody waits for the end, not for chunks.
    lifted: bool,
    /// The consumer is gone; nothing is stored any more.
    abandoned: bool,
    /// `Done` or `Failed` was written.
    ended: bool,
    /// The producer found it full and waits for half.
    paused: bool,
    waker: Option<Waker>,
    nudge: Option<Nudge>,
}

impl EventQueue {
    /// A queue that is full at `capacity` unread chunks (at least 1).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        EventQueue { capacity: capacity.max(1), state: Mutex::default() }
    }

    /// Waits for events and takes all that are ready. Empty after the end was read, or abandoned.
    pub async fn next_batch(&self) -> Vec<Event> {
        self.next_batch_of(usize::MAX).await
    }

    /// As [`EventQueue::next_batch`], at most `limit` events: what is left still counts as unread.
    pub async fn next_batch_of(&self, limit: usize) -> Vec<Event> {
        poll_fn(|context| {
            let mut state = self.state.lock();
            if state.events.is_empty() && !state.ended && !state.abandoned {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let batch = state.take(limit);
            let nudge = state.resumed(self.capacity);
            drop(state);
            call(nudge);
            Poll::Ready(batch)
        })
        .await
    }

    /// Takes what is ready without waiting.
    pub fn try_batch(&self, limit: usize) -> Vec<Event> {
        let mut state = self.state.lock();
        let batch = state.take(limit);
        let nudge = state.resumed(self.capacity);
        drop(state);
        call(nudge);
        batch
    }

    /// Removes the bound, for good: from now on the generation is never held back.
    pub fn lift(&self) {
        let mut state = self.state.lock();
        state.lifted = true;
        self.changed(state);
    }

    /// Both sides may go on: the consumer has something to look at, the engine room to write.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        let nudge = state.resumed(self.capacity);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        call(nudge);
    }

    /// The consumer is gone: events are dropped, and the engine cancels the generation.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        state.events.clear();
        (state.chunks, state.held) = (0, 0);
        state.paused = false;
        let (waker, nudge) = (state.waker.take(), state.nudge.clone());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        call(nudge);
    }

    /// Whether the consumer is gone.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.state.lock().abandoned
    }

    /// Chunks that nobody has read yet.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.state.lock().unread()
    }

    /// Producer: what to call when a full queue has drained to half, or was lifted or abandoned.
    pub fn set_nudge(&self, nudge: Nudge) {
        self.state.lock().nudge = Some(nudge);
    }

    /// Producer: whether the generation may be stepped. Full says no until half is read.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        let mut state = self.state.lock();
        if state.lifted || state.abandoned {
            return true;
        }
        if state.unread() >= self.capacity {
            state.paused = true;
        }
        !state.paused
    }

    /// Producer: adds an event. Progress that nobody has read is replaced by newer progress; after
    /// the end nothing is added.
    pub fn push(&self, event: Event) {
        let mut state = self.state.lock();
        if state.abandoned || state.ended {
            return;
        }
        match &event {
            Event::Chunk(_) => state.chunks += 1,
            Event::Done(_) | Event::Failed(..) => {
                state.ended = true;
                state.nudge = None;
            }
            Event::Progress { .. } => {
                if matches!(state.events.back(), Some(Event::Progress { .. })) {
                    state.events.pop_back();
                }
            }
        }
        state.events.push_back(event);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn unread(&self) -> usize {
        self.chunks + self.held
    }

    fn take(&mut self, limit: usize) -> Vec<Event> {
        let count = limit.max(1).min(self.events.len());
        let batch: Vec<Event> = self.events.drain(..count).collect();
        let chunks = batch.iter().filter(|event| matches!(event, Event::Chunk(_))).count();
        self.chunks -= chunks;
        batch
    }

    /// Ends a pause if enough was read; whom to tell.
    fn resumed(&mut self, capacity: usize) -> Option<Nudge> {
        if !self.paused || !(self.lifted || self.unread() <= capacity / 2) {
            return None;
        }
        self.paused = false;
        self.nudge.clone()
    }
}

fn call(nudge: Option<Nudge>) {
    if let Some(nudge) = nudge {
        nudge();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;
    use crate::engine::command::Chunk;
    use crate::error::{Code, Error};

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn chunk(text: &str) -> Event {
        Event::Chunk(Chunk { text: text.to_owned(), ..Chunk::default() })
    }

    fn end() -> Event {
        Event::Failed(Error::new(Code::Closed, "closed"), None)
    }

    #[test]
    fn full_queue_pauses_and_resumes_at_half() {
        let nudges = Arc::new(AtomicUsize::new(0));
        let seen = nudges.clone();
        let queue = EventQueue::new(4);
        queue.set_nudge(Arc::new(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        }));
        for _ in 0..4 {
            assert!(queue.is_writable());
            queue.push(chunk("a"));
        }
        assert!(!queue.is_writable());
        assert_eq!(queue.try_batch(1).len(), 1);
        assert!(!queue.is_writable(), "three of four are unread");
        assert_eq!(nudges.load(Ordering::SeqCst), 0);
        assert_eq!(queue.try_batch(1).len(), 1);
        assert_eq!(nudges.load(Ordering::SeqCst), 1);
        assert!(queue.is_writable());
    }

    #[test]
    fn lifting_a_full_queue_resumes_it_for_good() {
        let queue = EventQueue::new(1);
        queue.push(chunk("a"));
        assert!(!queue.is_writable());
        queue.lift();
        assert!(queue.is_writable());
        queue.push(chunk("b"));
        assert!(queue.is_writable());
        assert_eq!(queue.unread(), 2);
    }

    #[test]
    fn a_waiting_consumer_is_woken_and_sees_the_end() {
        let queue = EventQueue::new(4);
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut context = Context::from_waker(&waker);
        let mut wait = pin!(queue.next_batch());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        queue.push(chunk("a"));
        queue.push(end());
        queue.push(chunk("never"));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        let Poll::Ready(batch) = wait.as_mut().poll(&mut context) else { panic!("not ready") };
        assert_eq!(batch, vec![chunk("a"), end()]);
        let Poll::Ready(batch) = pin!(queue.next_batch()).poll(&mut context) else {
            panic!("the end was read: nothing to wait for")
        };
        assert!(batch.is_empty());
    }

    #[test]
    fn abandoned_queue_stores_nothing_and_never_blocks() {
        let queue = EventQueue::new(1);
        queue.push(chunk("a"));
        assert!(!queue.is_writable());
        queue.abandon();
        assert!(queue.is_writable() && queue.is_abandoned());
        queue.push(chunk("b"));
        assert_eq!(queue.unread(), 0);
    }

    #[test]
    fn unread_progress_is_replaced() {
        let queue = EventQueue::new(1);
        queue.push(Event::Progress { done: 1, total: 9 });
        queue.push(Event::Progress { done: 2, total: 9 });
        assert_eq!(queue.try_batch(9), vec![Event::Progress { done: 2, total: 9 }]);
    }
}
