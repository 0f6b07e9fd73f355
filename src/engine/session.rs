//! Sessions: sequences that stay between generations. A generation works on a copy that shares the
//! pages; only when it resolves does the copy take the session's place: nothing needs undoing.

use std::collections::BTreeMap;

use crate::engine::command::{GenerationId, SessionId};
use crate::engine::inbox::closed;
use crate::engine::kv::pages::Pool;
use crate::engine::kv::sequence::Sequence;
use crate::error::{Code, Error, Result};

/// All open sessions.
#[derive(Default)]
pub struct Sessions {
    map: BTreeMap<SessionId, Session>,
    /// Counts uses: the clock of "least recently used".
    uses: u64,
}

/// One session.
#[derive(Default)]
pub struct Session {
    /// What it holds.
    pub sequence: Sequence,
    /// The generation that goes on from it.
    pub busy: Option<GenerationId>,
    used: u64,
}

impl Sessions {
    /// Open sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Makes an empty session. Errors: `ERR_INTERNAL` if the id is in use.
    pub fn open(&mut self, id: SessionId) -> Result<()> {
        self.insert(id, Sequence::default())
    }

    /// An open session. Errors: `ERR_CLOSED`.
    pub fn get(&mut self, id: SessionId) -> Result<&mut Session> {
        self.uses += 1;
        let session = self.map.get_mut(&id).ok_or_else(|| closed("session"))?;
        session.used = self.uses;
        Ok(session)
    }

    /// An open session that does not generate. Errors: `ERR_CLOSED`, `ERR_SESSION_BUSY`.
    pub fn idle(&mut self, id: SessionId) -> Result<&mut Session> {
        let session = self.get(id)?;
        if session.busy.is_some() {
            let text = "the session is generating; await that first, or fork before it starts";
            return Err(Error::new(Code::SessionBusy, text));
        }
        Ok(session)
    }

    /// Makes `to` share what `from` holds. Errors: `ERR_CLOSED`, `ERR_SESSION_BUSY`.
    pub fn fork(&mut self, from: SessionId, to: SessionId, pool: &mut Pool) -> Result<()> {
        if self.map.contains_key(&to) {
            return Err(Error::internal("forking a session", "its id is in use"));
        }
        let fork = self.idle(from)?.sequence.fork(pool);
        self.insert(to, fork)
    }

    /// Forgets all tokens from `length` on. Errors: `ERR_CLOSED`, `ERR_SESSION_BUSY`,
    /// `ERR_INVALID_ARG` if the session is shorter.
    pub fn rewind(&mut self, id: SessionId, length: usize, pool: &mut Pool) -> Result<()> {
        let sequence = &mut self.idle(id)?.sequence;
        let held = sequence.tokens.len();
        if length > held {
            let expected = format!("an integer from 0 to {held}, the tokens held");
            return Err(Error::invalid_arg("length", &expected, &length.to_string()));
        }
        sequence.truncate(length, pool);
        Ok(())
    }

    /// Gives a session's pages back; who generated from it. Errors: `ERR_CLOSED`.
    pub fn close(&mut self, id: SessionId, pool: &mut Pool) -> Result<Option<GenerationId>> {
        let mut session = self.map.remove(&id).ok_or_else(|| closed("session"))?;
        session.sequence.clear(pool);
        Ok(session.busy)
    }

    /// Takes one page from the session that was used longest ago, if any holds one: first a page
    /// that only it holds, of a session that does not generate. The tokens stay.
    pub fn evict_page(&mut self, pool: &mut Pool) -> bool {
        let is_own = |session: &Session, pool: &Pool| {
            session.sequence.pages().last().is_some_and(|&page| pool.owners(page) == 1)
        };
        let holders = self.map.values_mut().filter(|s| !s.sequence.pages().is_empty());
        let victim = holders.min_by_key(|s| (!is_own(s, pool), s.busy.is_some(), s.used));
        let Some(session) = victim else { return false };
        session.sequence.pop_page(pool);
        true
    }

    /// Pages that idle sessions alone hold.
    #[must_use]
    pub fn evictable(&self, pool: &Pool) -> usize {
        let idle = self.map.values().filter(|session| session.busy.is_none());
        let pages = idle.flat_map(|session| session.sequence.pages());
        pages.filter(|page| pool.owners(**page) == 1).count()
    }

    fn insert(&mut self, id: SessionId, sequence: Sequence) -> Result<()> {
        if self.map.contains_key(&id) {
            return Err(Error::internal("opening a session", "its id is in use"));
        }
        self.uses += 1;
        self.map.insert(id, Session { sequence, busy: None, used: self.uses });
        Ok(())
    }
}
