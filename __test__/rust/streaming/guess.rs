//! Experts that are read before they are routed to, on a disk whose reads come back when the test
//! says so: what is asked for overtakes them, nothing waits for them, and no bit depends on them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use node_chord::error::Result;
use node_chord::plan::residency::{Residence, Units};
use node_chord::plan::{GroupId, Op, Plan, Step};
use node_chord::store::{GroupStats, Lease, Place, Store};

use super::scripted::Control;
use super::{Model, cpu, logits};
use crate::runner::{chord_path, unpacked};

/// Experts of a layer, and bytes of an expert's slice of one weight.
const EXPERTS: usize = 8;
const SLICE: u64 = 8192;
/// Bytes of an expert.
const EXPERT: u64 = 3 * SLICE;
/// A test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test that may hang if something is wrong.
fn ends(test: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || {
        test();
        sender.send(()).unwrap();
    });
    if receiver.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        panic!("it hangs");
    }
    thread.join().unwrap();
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// Two layers of experts, each of which lies in pages of its own.
struct Layers {
    model: Model,
    groups: Vec<GroupId>,
    control: Arc<Control>,
}

impl Layers {
    fn new() -> Self {
        let mut model = Model::open(&unpacked("logits/toys/mixtral.gguf"));
        let mut plan = Plan::clone(&model.plan);
        let mut file = model.parts[0].clone();
        let mut groups = Vec::new();
        for id in model.plan.group_ids() {
            let Some(router) = model.plan.group(id).router() else { continue };
            groups.push(id);
            for weight in &router.experts.weights {
                let bytes = EXPERTS as u64 * SLICE;
                let offset = (file.len() as u64).next_multiple_of(SLICE) + SLICE;
                let end = offset + bytes;
                file.extend((file.len() as u64..end).map(|at| (at / 4096 * 31 + at % 251) as u8));
                let weight = &mut plan.weights[weight.0 as usize];
                weight.shape[0] = EXPERTS;
                (weight.extent.offset, weight.extent.bytes) = (offset, bytes);
            }
        }
        assert_eq!(groups.len(), 2);
        (model.units, model.plan) = (Units::of(&plan), Arc::new(plan));
        model.parts = Arc::new(vec![file]);
        let control = Arc::new(Control::default());
        Layers { model, groups, control }
    }

    fn residence(&self, expert_slots: usize) -> Residence {
        Residence {
            pinned: vec![true; self.model.plan.groups.len()],
            read_ahead: 1,
            expert_slots,
            expert_bytes: EXPERT,
            staging_bytes: 8192,
            ..Residence::default()
        }
    }

    fn store(&self, expert_slots: usize) -> Store {
        self.model.stream(self.residence(expert_slots), 3, &self.control)
    }

    fn acquire<'a>(&self, store: &'a Store, layer: usize) -> Lease<'a> {
        store.acquire(self.groups[layer]).unwrap()
    }

    fn step(&self, layer: usize) -> &Step {
        self.model.plan.group(self.groups[layer]).router().unwrap().experts
    }

    /// Asks for experts; compares what comes.
    fn ask(&self, lease: &Lease<'_>, layer: usize, experts: &[u32]) -> Result<()> {
        let weights = &self.step(layer).weights;
        lease.experts(weights, EXPERTS, experts, &mut |turn, held| {
            for expert in &experts[turn] {
                for id in weights {
                    let at = *expert as usize * SLICE as usize;
                    let bytes = &self.model.weight(*id)[at..at + SLICE as usize];
                    assert!(held.bytes(*id, *expert)? == bytes);
                }
            }
            Ok(())
        })
    }

    /// Layer 0 uses some experts and guesses some of layer 1.
    fn guess(&self, store: &Store, experts: &[u32], guess: &[u32]) {
        let lease = self.acquire(store, 0);
        lease.foresee(self.groups[1], &self.step(1).weights, guess);
        self.ask(&lease, 0, experts).unwrap();
    }

    /// Every place that the cache has can be filled, and no more.
    fn fill(&self, store: &Store, expert_slots: usize) {
        for layer in [0, 1] {
            self.ask(&self.acquire(store, layer), layer, &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
        }
        let pins: u64 = self.model.units.groups.iter().map(|group| group.own.room).sum();
        let all = pins + expert_slots as u64 * EXPERT;
        until("every place is filled", || store.resident_bytes() >= all);
        assert_eq!(store.resident_bytes(), all);
    }

    /// Where the slices of an expert lie.
    fn slices(&self, layer: usize, expert: u32) -> [Range<u64>; 3] {
        let units = &self.model.units.groups[self.groups[layer].0 as usize].experts[0];
        let runs = &units.units[expert as usize].runs;
        [0, 1, 2].map(|i| runs[i].offset..runs[i].offset + runs[i].bytes)
    }

    /// Reads of an expert so far, without those of a slice that was cut.
    fn reads(&self, layer: usize, expert: u32) -> usize {
        let slices = self.slices(layer, expert);
        let log = self.control.log.lock().unwrap();
        log.iter().filter(|at| slices.iter().any(|slice| slice.contains(at))).count()
    }

    /// Reads of an expert of layer 1 do not come back until they are let go.
    fn hold(&self, expert: u32) {
        self.control.held.lock().unwrap().extend(self.slices(1, expert));
    }

    fn let_go(&self) {
        self.control.held.lock().unwrap().clear();
    }

    /// How the experts of a layer were found.
    fn found(&self, store: &Store, layer: usize) -> GroupStats {
        let groups = store.stats().groups;
        groups.into_iter().filter(|group| group.place == Place::Cached).nth(layer).unwrap()
    }
}

#[test]
fn a_guessed_expert_is_read_before_it_is_routed_to() {
    ends(|| {
        let layers = Layers::new();
        let store = layers.store(4);
        layers.guess(&store, &[0], &[2, 0]);
        until("guesses are read", || store.stats().guessed_bytes == 2 * EXPERT);
        layers.ask(&layers.acquire(&store, 1), 1, &[2]).unwrap();
        let found = layers.found(&store, 1);
        assert_eq!((found.hits, found.late, found.misses), (1, 0, 0));
        assert_eq!((found.guessed, found.guessed_right), (2, 1));
        let (stats, first) = (store.stats(), layers.found(&store, 0));
        assert_eq!((stats.expert_bytes, stats.guessed_bytes), (3 * EXPERT, 2 * EXPERT));
        assert_eq!((first.misses, first.guessed), (1, 0));
    });
}

#[test]
fn a_wrong_guess_goes_before_what_was_used() {
    ends(|| {
        let layers = Layers::new();
        let store = layers.store(4);
        layers.ask(&layers.acquire(&store, 1), 1, &[0]).unwrap();
        layers.guess(&store, &[0, 1], &[2]);
        until("the guess is read", || store.stats().guessed_bytes == EXPERT);
        // Two of each layer are there. The guess came last, and goes first.
        let lease = layers.acquire(&store, 1);
        layers.ask(&lease, 1, &[3]).unwrap();
        layers.ask(&lease, 1, &[0]).unwrap();
        let found = layers.found(&store, 1);
        assert_eq!((found.hits, found.misses), (1, 2));
        layers.ask(&lease, 1, &[2]).unwrap();
        let found = layers.found(&store, 1);
        assert_eq!((found.hits, found.misses), (1, 3), "it was gone");
        assert_eq!((found.guessed, found.guessed_right), (1, 0));
    });
}

#[test]
fn a_guess_takes_no_place_of_what_is_used_or_guessed_already() {
    ends(|| {
        let layers = Layers::new();
        let store = layers.store(2);
        layers.guess(&store, &[0], &[4, 5, 6]);
        until("one guess is read", || store.stats().guessed_bytes == EXPERT);
        layers.ask(&layers.acquire(&store, 0), 0, &[0]).unwrap();
        assert_eq!((layers.found(&store, 0).hits, layers.found(&store, 1).guessed), (1, 1));
        // What is there and asked for stays, too.
        let store = layers.store(4);
        layers.guess(&store, &[0, 1], &[]);
        layers.guess(&store, &[0, 1], &[4, 5, 6, 7]);
        assert_eq!((layers.found(&store, 0).hits, layers.found(&store, 1).guessed), (2, 2));
        layers.guess(&store, &[0, 1], &[]);
        assert_eq!(layers.found(&store, 0).hits, 4);
        // With one slot there is none for guesses.
        let store = layers.store(1);
        layers.guess(&store, &[0, 1], &[4]);
        assert_eq!(layers.found(&store, 1).guessed, 0);
    });
}

#[test]
fn what_is_routed_to_overtakes_guesses_and_wrong_ones_are_called_off() {
    ends(|| {
        let layers = Layers::new();
        layers.control.depth.store(1, Ordering::SeqCst);
        let store = layers.store(6);
        layers.hold(4);
        layers.guess(&store, &[0], &[4, 5, 6]);
        until("the first guess is on its way", || layers.reads(1, 4) == 1);
        std::thread::scope(|scope| {
            scope.spawn(|| layers.ask(&layers.acquire(&store, 1), 1, &[3, 6]).unwrap());
            until("two are asked for", || layers.found(&store, 1).misses == 1);
            layers.let_go();
        });
        // One slice of the first guess was read, nothing of the second; the third was right.
        let reads = [3, 4, 5, 6].map(|expert| layers.reads(1, expert));
        assert_eq!(reads, [3, 1, 0, 3]);
        let found = layers.found(&store, 1);
        assert_eq!((found.late, found.misses, found.guessed, found.guessed_right), (1, 1, 3, 1));
        let stats = store.stats();
        assert_eq!((stats.expert_bytes, stats.guessed_bytes), (3 * EXPERT + SLICE, SLICE));
        // What was called off is read when it is routed to.
        layers.ask(&layers.acquire(&store, 1), 1, &[4, 5]).unwrap();
        layers.fill(&store, 6);
    });
}

#[test]
fn a_group_that_is_waited_for_overtakes_guesses() {
    ends(|| {
        let layers = Layers::new();
        layers.control.depth.store(1, Ordering::SeqCst);
        let attention = |layer: usize| layers.groups[layer].0 as usize - 1;
        let units = &layers.model.units.groups;
        let mut residence = Residence { slots: 1, ..layers.residence(6) };
        for layer in 0..2 {
            let group = attention(layer);
            residence.pinned[group] = false;
            residence.slot_bytes = residence.slot_bytes.max(units[group].own.room);
        }
        let store = layers.model.stream(residence, 3, &layers.control);
        // The only slot of the ring is held until the guess is on its way.
        let slot = store.acquire(GroupId(attention(0) as u32)).unwrap();
        layers.hold(4);
        layers.guess(&store, &[0], &[4, 5]);
        until("a guess is on its way", || layers.reads(1, 4) == 1);
        drop(slot);
        let name = layers.model.plan.groups[attention(1)].kind.label();
        std::thread::scope(|scope| {
            scope.spawn(|| store.acquire(GroupId(attention(1) as u32)).map(drop).unwrap());
            until("the group is asked for", || {
                let groups = store.stats().groups;
                groups.iter().any(|group| group.name == name && group.misses + group.late == 1)
            });
            layers.let_go();
        });
        until("guesses are read", || store.stats().guessed_bytes == 2 * EXPERT);
        let log = layers.control.log.lock().unwrap();
        let at = |offset: u64| log.iter().rposition(|at| *at == offset).unwrap();
        let [first, second, _] = layers.slices(1, 4).map(|slice| at(slice.start));
        for run in &units[attention(1)].own.runs {
            assert!((first..second).contains(&at(run.offset)));
        }
    });
}

#[test]
fn guesses_make_room_for_what_is_asked_for() {
    ends(|| {
        let layers = Layers::new();
        let store = layers.store(4);
        layers.guess(&store, &[0], &[5, 6, 7]);
        until("guesses are read", || store.stats().guessed_bytes == 3 * EXPERT);
        // In turns of two, the last of which was guessed: it would be in the way of the first.
        layers.ask(&layers.acquire(&store, 1), 1, &[0, 1, 5, 6, 7]).unwrap();
        assert!(layers.found(&store, 1).guessed_right >= 2);
    });
}

#[test]
fn a_pass_that_is_given_up_with_guesses_on_their_way_leaves_nothing_to_wait_for() {
    ends(|| {
        let layers = Layers::new();
        layers.control.depth.store(2, Ordering::SeqCst);
        for slots in 1..6 {
            let store = layers.store(slots);
            layers.hold(4);
            layers.guess(&store, &[0], &[4]);
            let is_guessed = layers.found(&store, 1).guessed == 1;
            assert_eq!(is_guessed, slots > 1);
            // The pass ends here, and the next one asks for other experts.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    layers.guess(&store, &[1, 2, 3, 4, 5], &[6, 7]);
                    layers.ask(&layers.acquire(&store, 1), 1, &[1, 2, 3]).unwrap();
                });
                until("it asks", || layers.found(&store, 0).misses >= 2);
                layers.let_go();
            });
            layers.ask(&layers.acquire(&store, 1), 1, &[0, 4]).unwrap();
            layers.fill(&store, slots);
        }
    });
}

#[test]
fn a_guess_that_cannot_be_read_is_no_error_until_it_is_routed_to() {
    ends(|| {
        let layers = Layers::new();
        let store = layers.store(4);
        layers.control.broken.lock().unwrap().extend(layers.slices(1, 2));
        layers.guess(&store, &[0], &[2]);
        until("it was tried", || layers.reads(1, 2) >= 3);
        let alone = layers.store(4);
        layers.guess(&alone, &[0], &[]);
        until("its place is free", || store.resident_bytes() == alone.resident_bytes());
        layers.ask(&layers.acquire(&store, 0), 0, &[0, 1]).unwrap();
        layers.ask(&layers.acquire(&store, 1), 1, &[3]).unwrap();
        let tried = layers.reads(1, 2);
        let error = layers.ask(&layers.acquire(&store, 1), 1, &[2]).unwrap_err();
        assert_eq!(error.code.as_str(), "ERR_IO");
        assert!(layers.reads(1, 2) > tried, "it was read again");
        layers.control.broken.lock().unwrap().clear();
        layers.ask(&layers.acquire(&store, 1), 1, &[2]).unwrap();
    });
}

#[test]
fn who_reads_nothing_ahead_or_maps_guesses_nothing() {
    let layers = Layers::new();
    let residence = Residence { read_ahead: 0, ..layers.residence(4) };
    let store = layers.model.stream(residence, 3, &layers.control);
    assert!(!layers.acquire(&store, 0).reads_ahead());
    layers.guess(&store, &[0], &[2]);
    assert_eq!(layers.found(&store, 1).guessed, 0);
    assert!(layers.acquire(&layers.store(4), 0).reads_ahead());
    let toy = Model::open(&unpacked("logits/toys/mixtral.gguf"));
    let mapped = Store::open(&toy.file, &toy.plan).unwrap();
    assert!(!layers.acquire(&mapped, 0).reads_ahead());
}

#[test]
fn a_budget_changes_and_a_model_closes_while_guesses_are_on_their_way() {
    ends(|| {
        let layers = Layers::new();
        layers.control.depth.store(2, Ordering::SeqCst);
        let store = layers.store(6);
        for slots in [2, 6, 1, 3] {
            let guessed = layers.found(&store, 1).guessed;
            layers.hold(4);
            let before = layers.reads(1, 4);
            layers.guess(&store, &[0], &[4]);
            if layers.found(&store, 1).guessed > guessed {
                until("it is on its way", || layers.reads(1, 4) > before);
            }
            // Ordered while the disk hangs, and not begun.
            layers.guess(&store, &[0], &[5, 6]);
            let mut let_go = || {
                layers.let_go();
                false
            };
            store.replace(Some(layers.residence(slots)), true, &mut let_go).unwrap();
            layers.let_go();
            layers.ask(&layers.acquire(&store, 1), 1, &[3, 4, 5]).unwrap();
            layers.fill(&store, slots);
        }
        layers.hold(4);
        layers.hold(5);
        layers.guess(&store, &[0], &[4, 5]);
        drop(store);
        layers.let_go();
        until("the loader has ended", || layers.control.is_dropped.load(Ordering::SeqCst));
    });
}

/// Guesses so far, and those that were right.
fn guessed(store: &Store) -> (u64, u64) {
    let groups = store.stats().groups;
    groups.iter().fold((0, 0), |(all, right), g| (all + g.guessed, right + g.guessed_right))
}

/// Logits with guesses and without at several sizes of the cache.
fn same_bits(model: &Model) -> (u64, u64) {
    let mut backend = cpu(model);
    let mapped = Store::open(&model.file, &model.plan).unwrap();
    let expected = logits(model, &mapped, backend.as_mut()).unwrap();
    let rooms = model.units.groups.iter().map(|group| group.own.room);
    let experts = model.units.experts().flat_map(|e| e.units.iter().map(|unit| unit.room));
    let (slot_bytes, expert_bytes) = (rooms.max().unwrap(), experts.max().unwrap());
    let (mut all, mut right) = (0, 0);
    for expert_slots in [1, 2, 3, 5, 9, 17, 33] {
        for read_ahead in [0, 1, 3] {
            let residence = Residence {
                pinned: vec![false; model.plan.groups.len()],
                slots: 1 + read_ahead,
                slot_bytes,
                read_ahead,
                expert_slots,
                expert_bytes,
                staging_bytes: 1 << 16,
            };
            let store = model.stream(residence, 11, &Arc::new(Control::default()));
            for _ in 0..2 {
                let got = logits(model, &store, backend.as_mut()).unwrap();
                assert!(got == expected, "{expert_slots} slots, {read_ahead} ahead");
            }
            let (some, good) = guessed(&store);
            assert!(good <= some && (read_ahead > 0 || some == 0));
            (all, right) = (all + some, right + good);
        }
    }
    (all, right)
}

#[test]
fn guesses_change_no_bit() {
    let model = Model::open(&unpacked("logits/toys/mixtral.gguf"));
    assert!(
        model.plan.groups.iter().flat_map(|g| &g.steps).any(|s| matches!(s.op, Op::Experts(_)))
    );
    let (all, right) = same_bits(&model);
    assert!(all > 0 && right > 0, "{right} of {all}");
    let Some(path) = chord_path("chord-27m-moe-Q4_K_M") else {
        println!("skipped: chord-27m-moe-Q4_K_M is not here");
        return;
    };
    let (all, right) = same_bits(&Model::open(&path));
    // A trained model's hidden state changes little from layer to layer.
    assert!(right > all / 2, "{right} of {all}");
}
