//! What the models of this process were promised. A model that streams takes its memory over time,
//! so what the system calls free is not all there for the next one. Models whose budget is 'auto'
//! share what there is: each has what it cannot do without, and the rest evenly as far as it has a
//! use for it; they make room for a newcomer, and grow when one leaves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use super::share::Share;
use crate::engine::vocabulary::Weights;
use crate::error::Result;
use crate::plan::GroupId;
use crate::store::{Lease, Store};

static CLAIMS: Mutex<Vec<Claim>> = Mutex::new(Vec::new());
/// Claims so far.
static CLAIMED: AtomicU64 = AtomicU64::new(0);

struct Claim {
    number: u64,
    promised: u64,
    store: Weak<Store>,
    /// None while it is being loaded.
    share: Weak<Share>,
}

/// What a model can do with memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// The smallest budget that works.
    pub least: u64,
    /// More than this is of no use.
    pub most: u64,
}

/// The ledger, held while a model is placed, so that no other is promised the same.
pub struct Ledger(MutexGuard<'static, Vec<Claim>>);

/// Waits for the ledger.
#[must_use]
pub fn open() -> Ledger {
    let mut claims = CLAIMS.lock();
    claims.retain(|claim| claim.store.strong_count() > 0);
    Ledger(claims)
}

impl Claim {
    /// Bytes that were promised and not taken yet.
    fn outstanding(&self) -> u64 {
        self.promised.saturating_sub(self.taken())
    }

    /// Bytes that the system has given.
    fn taken(&self) -> u64 {
        match (self.share.upgrade(), self.store.upgrade()) {
            (Some(share), _) => share.taken(),
            (None, Some(store)) => store.resident_bytes(),
            (None, None) => 0,
        }
    }

    /// Whether its budget may be changed for the sake of others.
    fn auto(&self) -> Option<Arc<Share>> {
        self.share.upgrade().filter(|share| share.is_auto())
    }
}

impl Ledger {
    /// Bytes that nobody was promised; none if the system does not say.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        let open = self.0.iter().map(Claim::outstanding).fold(0, u64::saturating_add);
        self.available().map(|bytes| bytes.saturating_sub(open))
    }

    #[cfg(not(test))]
    fn available(&self) -> Option<u64> {
        super::memory::available()
    }

    /// A machine that nobody else uses.
    #[cfg(test)]
    fn available(&self) -> Option<u64> {
        let taken = self.0.iter().map(Claim::taken).sum();
        Some(tests::MACHINE.load(Ordering::Relaxed).saturating_sub(taken))
    }

    /// Bytes that a claim may have if nobody else gives any.
    #[must_use]
    pub fn room_of(&self, number: u64) -> Option<u64> {
        let claim = self.0.iter().find(|claim| claim.number == number);
        let own = claim.map_or(0, |claim| claim.promised);
        self.free().map(|free| free.saturating_add(own))
    }

    /// Bytes that a newcomer may have. Models that share make room, if `moves`; otherwise it is
    /// only told what they would make.
    pub fn admit(&mut self, want: Want, moves: bool) -> Option<u64> {
        let free = self.free()?;
        if free >= want.most {
            return Some(free);
        }
        let mut sharing = self.sharing();
        let promised: u64 = sharing.iter().map(|(promised, _)| *promised).sum();
        let room = free.saturating_add(promised);
        let mut wants: Vec<Want> = sharing.iter().map(|(_, share)| share.want()).collect();
        wants.push(want);
        let shares = divide(room, &wants);
        for ((promised, share), bytes) in sharing.iter_mut().zip(&shares) {
            if bytes < promised {
                let moved = if moves { self.resize(share, *bytes) } else { Ok(*bytes) };
                // Who cannot move keeps what it has.
                *promised = moved.unwrap_or(*promised).min(*promised);
            }
        }
        let kept: u64 = sharing.iter().map(|(promised, _)| *promised).sum();
        Some(room.saturating_sub(kept))
    }

    /// Lets models that share have what is free. What one cannot take now it does without.
    pub fn settle(&mut self) {
        let Some(free) = self.free() else { return };
        let sharing = self.sharing();
        let room = sharing.iter().map(|(promised, _)| *promised).fold(free, u64::saturating_add);
        let wants: Vec<Want> = sharing.iter().map(|(_, share)| share.want()).collect();
        for ((promised, share), bytes) in sharing.iter().zip(divide(room, &wants)) {
            if bytes > *promised {
                drop(self.resize(share, bytes));
            }
        }
    }

    /// Promises a model its budget as long as the tenant lives.
    pub fn promise(&mut self, promised: u64, store: &Arc<Store>) -> Tenant {
        let number = CLAIMED.fetch_add(1, Ordering::Relaxed);
        let (weak, share) = (Arc::downgrade(store), Weak::new());
        self.0.push(Claim { number, promised, store: weak, share });
        Tenant { number, store: Some(store.clone()) }
    }

    /// Whose claim it is, and how large it is now.
    pub fn enter(&mut self, number: u64, share: &Arc<Share>, promised: u64) {
        if let Some(claim) = self.0.iter_mut().find(|claim| claim.number == number) {
            (claim.promised, claim.share) = (promised, Arc::downgrade(share));
        }
    }

    fn sharing(&self) -> Vec<(u64, Arc<Share>)> {
        let shares = self.0.iter().filter_map(|claim| Some((claim.promised, claim.auto()?)));
        shares.collect()
    }

    fn resize(&mut self, share: &Arc<Share>, bytes: u64) -> Result<u64> {
        let promised = share.resize(bytes)?;
        self.enter(share.number(), share, promised);
        Ok(promised)
    }
}

/// What each of some models has of `room`: what it cannot do without, and of the rest an even part
/// as far as it has a use for it.
fn divide(room: u64, wants: &[Want]) -> Vec<u64> {
    let mut shares: Vec<u64> = wants.iter().map(|want| want.least).collect();
    let mut rest =
        room.saturating_sub(shares.iter().fold(0, |sum, n| u64::saturating_add(sum, *n)));
    loop {
        let open = wants.iter().zip(&shares).filter(|(want, share)| want.most > **share).count();
        let each = rest.checked_div(open as u64).unwrap_or(0);
        if each == 0 {
            return shares;
        }
        for (want, share) in wants.iter().zip(&mut shares) {
            let more = want.most.saturating_sub(*share).min(each);
            *share += more;
            rest -= more;
        }
    }
}

/// A model's weights while its engine runs; then its promise ends, and others may grow.
pub struct Tenant {
    /// Names the claim.
    pub number: u64,
    store: Option<Arc<Store>>,
}

impl Drop for Tenant {
    fn drop(&mut self) {
        self.store = None;
        let number = self.number;
        let leave = move || {
            CLAIMS.lock().retain(|claim| claim.number != number);
            open().settle();
        };
        // Others may be in the middle of a pass, which whoever closes need not wait for.
        let thread = std::thread::Builder::new().name("chord-ledger".to_owned());
        if thread.spawn(leave).is_err() {
            CLAIMS.lock().retain(|claim| claim.number != number);
        }
    }
}

impl Tenant {
    fn store(&self) -> Result<&Arc<Store>> {
        let gone = || crate::error::Error::internal("a tenant", "its store is gone");
        self.store.as_ref().ok_or_else(gone)
    }
}

impl Weights for Tenant {
    fn acquire(&self, group: GroupId) -> Result<Lease<'_>> {
        self.store()?.acquire(group)
    }

    fn acquire_unless(
        &self,
        group: GroupId,
        gives_up: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Lease<'_>>> {
        self.store()?.acquire_unless(group, gives_up)
    }

    fn cost(&self) -> (f64, u64) {
        self.store.as_ref().map_or((0.0, 0), |store| store.cost())
    }
}

#[cfg(test)]
mod tests;
