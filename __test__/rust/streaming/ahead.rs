//! Reading ahead of a computation that is slower than the disk, told by latches and not by a clock:
//! a group is let go only when the loader has done all that it may, or at once.

use std::sync::Arc;

use node_chord::plan::residency::Residence;
use node_chord::store::{GroupStats, Place, Progress, Store};

use super::scripted::Control;
use super::{Model, cpu, logits_with};
use crate::runner::root;

/// Streamed groups by how they were found: in time, late, not begun.
fn found(store: &Store) -> [u64; 3] {
    let stats = store.stats();
    let streamed = stats.groups.iter().filter(|group| is_streamed(group));
    streamed.fold([0; 3], |[a, b, c], g| [a + g.hits, b + g.late, c + g.misses])
}

fn is_streamed(group: &GroupStats) -> bool {
    group.place == Place::Streamed && group.name != "embedding"
}

/// Waits until the next `ahead` streamed groups behind one are there.
fn catch_up(store: &Store, group: usize, ahead: usize) {
    loop {
        let stats = store.stats();
        let n = stats.groups.len();
        let behind = (1..n).map(|step| &stats.groups[(group + step) % n]);
        let mut next = behind.filter(|group| is_streamed(group)).take(ahead);
        if next.all(|group| group.state == Progress::Ready) {
            return;
        }
        std::thread::yield_now();
    }
}

/// Every other group through a ring of as many slots as it takes.
fn residence(model: &Model, read_ahead: usize) -> Residence {
    let rooms = model.units.groups.iter().map(|group| group.own.room);
    Residence {
        pinned: (0..model.plan.groups.len()).map(|group| group % 2 == 0).collect(),
        slots: 1 + read_ahead,
        slot_bytes: rooms.max().unwrap(),
        read_ahead,
        staging_bytes: 1 << 16,
        ..Residence::default()
    }
}

#[test]
fn where_computing_takes_longer_than_reading_groups_are_there_in_time() {
    let model = Model::open(&root("models/chord-5m-Q4_K_M.gguf"));
    let mut backend = cpu(&model);
    let mapped = Store::open(&model.file, &model.plan).unwrap();
    let expected = logits_with(&model, &mapped, backend.as_mut(), &|_| {}).unwrap();
    let store = model.stream(residence(&model, 1), 5, &Arc::new(Control::default()));
    for _ in 0..10 {
        let computed = |group| catch_up(&store, group, 1);
        let got = logits_with(&model, &store, backend.as_mut(), &computed).unwrap();
        assert!(got == expected);
    }
    let [hits, late, misses] = found(&store);
    let streamed = store.stats().groups.iter().filter(|group| is_streamed(group)).count() as u64;
    assert_eq!(hits + late + misses, 10 * 2 * streamed);
    // Only the first group of all was not there.
    assert!(late + misses <= 1, "{hits} hits, {late} late, {misses} misses");
    assert!(hits * 100 > 95 * (hits + late + misses));
}

#[test]
fn without_reading_ahead_every_group_is_waited_for_and_the_numbers_are_the_same() {
    let model = Model::open(&root("models/chord-5m-Q4_K_M.gguf"));
    let mut backend = cpu(&model);
    let mapped = Store::open(&model.file, &model.plan).unwrap();
    let expected = logits_with(&model, &mapped, backend.as_mut(), &|_| {}).unwrap();
    let store = model.stream(residence(&model, 0), 5, &Arc::new(Control::default()));
    // Whatever time computing gives the disk: nothing is asked of it.
    let computed = |_| {
        while store.stats().in_flight > 0 {
            std::thread::yield_now();
        }
    };
    let mut stall_ms = 0.0;
    for pass in 1..=4u64 {
        let got = logits_with(&model, &store, backend.as_mut(), &computed).unwrap();
        assert!(got == expected);
        let stats = store.stats();
        let streamed = stats.groups.iter().filter(|group| is_streamed(group)).count() as u64;
        assert_eq!(found(&store), [0, 0, pass * 2 * streamed]);
        assert!(stats.stall_ms > stall_ms);
        stall_ms = stats.stall_ms;
    }
}
