//! Pulling by demand: the consumer says how many chunks it will take, learns of progress, of a full
//! queue and of the end without taking any, and a chunk counts as read when it asks for more.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::{EventQueue, State, call};
use crate::engine::command::Event;

/// What a pull brings.
#[derive(Debug, Default, PartialEq)]
pub struct Pull {
    /// Oldest first; no more chunks than were demanded, unless it has ended or was lifted.
    pub events: Vec<Event>,
    /// Nothing was demanded and no more fits: nothing comes until something is demanded.
    pub is_full: bool,
}

impl EventQueue {
    /// The next pull may bring `chunks`; what earlier ones brought is read now.
    pub fn demand(&self, chunks: usize) {
        let mut state = self.state.lock();
        state.demand = chunks;
        state.held = 0;
        self.changed(state);
    }

    /// Waits for demanded chunks, progress, a full queue or the end. Nothing comes after the end.
    pub async fn pull(&self) -> Pull {
        poll_fn(|context| {
            let mut state = self.state.lock();
            let pull = state.pull(self.capacity, context);
            let nudge = state.resumed(self.capacity);
            drop(state);
            call(nudge);
            pull
        })
        .await
    }
}

impl State {
    fn pull(&mut self, capacity: usize, context: &mut Context<'_>) -> Poll<Pull> {
        if self.ended || self.abandoned || (self.lifted && !self.events.is_empty()) {
            return Poll::Ready(Pull { events: self.take(usize::MAX), is_full: false });
        }
        // Progress comes before the first chunk only.
        if matches!(self.events.front(), Some(Event::Progress { .. })) {
            return Poll::Ready(Pull { events: self.take(1), is_full: false });
        }
        if self.demand > 0 && self.chunks > 0 {
            let before = self.chunks;
            let events = self.take(self.demand);
            self.held += before - self.chunks;
            self.demand = 0;
            return Poll::Ready(Pull { events, is_full: false });
        }
        if self.demand == 0 && !self.lifted && self.unread() >= capacity {
            return Poll::Ready(Pull { events: Vec::new(), is_full: true });
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::Waker;

    use super::*;
    use crate::engine::command::Chunk;
    use crate::error::{Code, Error};

    fn chunk() -> Event {
        Event::Chunk(Chunk::default())
    }

    fn poll(queue: &EventQueue) -> Option<Pull> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(queue.pull()).poll(&mut context) {
            Poll::Ready(pull) => Some(pull),
            Poll::Pending => None,
        }
    }

    #[test]
    fn chunks_stay_until_they_are_demanded() {
        let queue = EventQueue::new(3);
        queue.push(chunk());
        assert_eq!(poll(&queue), None);
        queue.demand(1);
        assert_eq!(poll(&queue), Some(Pull { events: vec![chunk()], is_full: false }));
        queue.push(chunk());
        assert_eq!(poll(&queue), None, "one demand, one chunk");
    }

    #[test]
    fn what_was_pulled_counts_as_unread_until_the_next_demand() {
        let queue = EventQueue::new(2);
        queue.push(chunk());
        queue.demand(1);
        assert!(poll(&queue).is_some());
        queue.push(chunk());
        assert!(!queue.is_writable(), "one is held, one waits");
        assert_eq!(poll(&queue), Some(Pull { events: Vec::new(), is_full: true }));
        queue.demand(1);
        assert!(queue.is_writable());
        assert!(poll(&queue).is_some());
    }

    #[test]
    fn the_end_brings_all_that_is_left() {
        let queue = EventQueue::new(8);
        let end = || Event::Failed(Error::new(Code::Closed, "closed"), None);
        queue.push(chunk());
        queue.push(end());
        assert_eq!(poll(&queue).map(|pull| pull.events), Some(vec![chunk(), end()]));
        assert_eq!(poll(&queue).map(|pull| pull.events), Some(Vec::new()));
    }

    #[test]
    fn progress_needs_no_demand() {
        let queue = EventQueue::new(8);
        queue.push(Event::Progress { done: 1, total: 2 });
        queue.push(chunk());
        let progress = vec![Event::Progress { done: 1, total: 2 }];
        assert_eq!(poll(&queue).map(|pull| pull.events), Some(progress));
        assert_eq!(poll(&queue), None);
    }

    #[test]
    fn a_lifted_queue_gives_all_there_is() {
        let queue = Arc::new(EventQueue::new(1));
        queue.push(chunk());
        queue.push(chunk());
        queue.lift();
        assert_eq!(poll(&queue).map(|pull| pull.events.len()), Some(2));
        assert_eq!(poll(&queue), None);
    }
}
