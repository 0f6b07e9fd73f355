//! What the models of this process were promised. A model that streams takes its memory over time,
//! so what the system calls free is not all there for the next one. Models whose budget is 'auto'
//! share what there is: each has what it cannot do without, and the rest evenly as far as it has a
//! use for it; they make room for a newcomer, and grow when one leaves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::share::Share;
use crate::engine::vocabulary::Weights;
use crate::error::{Code, Error, Result};
use crate::plan::GroupId;
use crate::store::{Lease, Store};

/// How long models that share are waited for in all, who make room between two passes. Long prompts
/// of large models take longer, and a disk that hangs forever: then there is what is free.
pub const PATIENCE: Duration = Duration::from_secs(30);

static CLAIMS: Mutex<Vec<Claim>> = Mutex::new(Vec::new());
/// Claims so far.
static CLAIMED: AtomicU64 = AtomicU64::new(0);

struct Claim {
    number: u64,
    /// While it is being loaded; then its share knows.
    first: u64,
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

/// How long somebody waits for others.
#[derive(Clone, Copy)]
pub struct Until<'a> {
    at: Instant,
    cancel: Option<&'a AtomicBool>,
}

impl<'a> Until<'a> {
    /// A while from now, or until `cancel` is set.
    pub fn within(patience: Duration, cancel: Option<&'a AtomicBool>) -> Self {
        Until { at: Instant::now() + patience, cancel }
    }

    /// Whether that is over.
    pub fn is_over(&self) -> bool {
        let is_cancelled = self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed));
        is_cancelled || Instant::now() >= self.at
    }
}

/// The ledger, held while a model is placed, so that no other is promised the same.
pub struct Ledger {
    claims: MutexGuard<'static, Vec<Claim>>,
    /// Models that were asked to make room in vain, by name.
    late: Vec<String>,
}

/// Waits for the ledger.
#[must_use]
pub fn open() -> Ledger {
    let mut claims = CLAIMS.lock();
    claims.retain(|claim| claim.store.strong_count() > 0);
    Ledger { claims, late: Vec::new() }
}

impl Claim {
    /// Bytes that nobody else may have.
    fn promised(&self) -> u64 {
        self.share.upgrade().map_or(self.first, |share| share.promised())
    }

    /// Bytes that were promised and not taken yet.
    fn outstanding(&self) -> u64 {
        self.promised().saturating_sub(self.taken())
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
        self.share.upgrade().filter(|share| share.is_auto() && !share.is_moving())
    }
}

impl Ledger {
    /// Bytes that nobody was promised; none if the system does not say.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        let open = self.claims.iter().map(Claim::outstanding).fold(0, u64::saturating_add);
        self.available().map(|bytes| bytes.saturating_sub(open))
    }

    #[cfg(not(test))]
    fn available(&self) -> Option<u64> {
        super::memory::available()
    }

    /// A machine that nobody else uses.
    #[cfg(test)]
    fn available(&self) -> Option<u64> {
        let taken = self.claims.iter().map(Claim::taken).sum();
        Some(tests::MACHINE.load(Ordering::Relaxed).saturating_sub(taken))
    }

    /// Bytes that a claim may have if nobody else gives any.
    #[must_use]
    pub fn room_of(&self, number: u64) -> Option<u64> {
        let claim = self.claims.iter().find(|claim| claim.number == number);
        let own = claim.map_or(0, Claim::promised);
        self.free().map(|free| free.saturating_add(own))
    }

    /// Bytes that a newcomer may have. Models that share make room, if `moves`, until then;
    /// otherwise it is only told what they would make.
    pub fn admit(&mut self, want: Want, moves: Option<Until<'_>>) -> Option<u64> {
        let free = self.free()?;
        if free >= want.most {
            return Some(free);
        }
        if let Some(until) = moves {
            self.late = self.still_moving(until);
        }
        let mut sharing = self.sharing();
        let promised: u64 = sharing.iter().map(|(promised, _)| *promised).sum();
        let room = free.saturating_add(promised);
        let mut wants: Vec<Want> = sharing.iter().map(|(_, share)| share.want()).collect();
        wants.push(want);
        let shares = divide(room, &wants);
        for ((promised, share), bytes) in sharing.iter_mut().zip(&shares) {
            if bytes < promised {
                let moved = moves.map_or(Ok(*bytes), |until| share.resize(*bytes, until));
                if moved.is_err() {
                    self.late.push(share.name().to_owned());
                }
                // Who cannot move keeps what it has.
                *promised = moved.unwrap_or(*promised).min(*promised);
            }
        }
        let kept: u64 = sharing.iter().map(|(promised, _)| *promised).sum();
        Some(room.saturating_sub(kept))
    }

    /// A newcomer's refusal: also what has not made room for it.
    #[must_use]
    pub fn explain(&self, mut error: Error) -> Error {
        if error.code == Code::InsufficientMemory && !self.late.is_empty() {
            let names = self.late.join(", ");
            let text = "was asked to make room, and is busy or waits for its disk";
            error.message = format!("{}; {names} {text}", error.message);
            return error.with("waitedFor", names);
        }
        error
    }

    /// Lets models that share have what is free. What one cannot take now it does without.
    pub fn settle(&mut self, until: Until<'_>) {
        drop(self.still_moving(until));
        let Some(free) = self.free() else { return };
        let sharing = self.sharing();
        let room = sharing.iter().map(|(promised, _)| *promised).fold(free, u64::saturating_add);
        let wants: Vec<Want> = sharing.iter().map(|(_, share)| share.want()).collect();
        for ((promised, share), bytes) in sharing.iter().zip(divide(room, &wants)) {
            if bytes > *promised {
                drop(share.resize(bytes, until));
            }
        }
    }

    /// Promises a model its budget as long as the tenant lives.
    pub fn promise(&mut self, first: u64, store: &Arc<Store>) -> Tenant {
        let number = CLAIMED.fetch_add(1, Ordering::Relaxed);
        let (weak, share) = (Arc::downgrade(store), Weak::new());
        self.claims.push(Claim { number, first, store: weak, share });
        Tenant { number, store: Some(store.clone()) }
    }

    /// Whose claim it is.
    pub fn enter(&mut self, number: u64, share: &Arc<Share>) {
        if let Some(claim) = self.claims.iter_mut().find(|claim| claim.number == number) {
            claim.share = Arc::downgrade(share);
        }
    }

    /// Waits for models that share and are on their way to another budget; those that still are.
    fn still_moving(&self, until: Until<'_>) -> Vec<String> {
        let shares: Vec<Arc<Share>> =
            self.claims.iter().filter_map(|claim| claim.share.upgrade()).collect();
        let is_moving = |share: &&Arc<Share>| share.is_auto() && share.is_moving();
        while shares.iter().any(|share| is_moving(&share)) && !until.is_over() {
            std::thread::sleep(Duration::from_millis(5));
        }
        shares.iter().filter(is_moving).map(|share| share.name().to_owned()).collect()
    }

    fn sharing(&self) -> Vec<(u64, Arc<Share>)> {
        let shares = self.claims.iter().filter_map(|claim| Some((claim.promised(), claim.auto()?)));
        shares.collect()
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
        if leave_alone(number) {
            return;
        }
        let leave = move || {
            CLAIMS.lock().retain(|claim| claim.number != number);
            open().settle(Until::within(PATIENCE, None));
        };
        // Others may be in the middle of a pass, which whoever closes need not wait for.
        let thread = std::thread::Builder::new().name("chord-ledger".to_owned());
        if thread.spawn(leave).is_err() {
            CLAIMS.lock().retain(|claim| claim.number != number);
        }
    }
}

/// Ends a promise at once; `false` if there is somebody who may grow, or who holds the ledger.
fn leave_alone(number: u64) -> bool {
    let Some(mut claims) = CLAIMS.try_lock() else { return false };
    claims.retain(|claim| claim.number != number);
    !claims.iter().any(|claim| claim.share.upgrade().is_some_and(|share| share.is_auto()))
}

impl Tenant {
    fn store(&self) -> Result<&Arc<Store>> {
        let gone = || Error::internal("a tenant", "its store is gone");
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
