//! Models that share a machine of a few megabytes.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::*;
use crate::engine::command::Command;
use crate::load::{LoadOptions, Loaded, load};

/// Bytes of the machine that tests pretend to run on.
pub static MACHINE: AtomicU64 = AtomicU64::new(1 << 40);

#[test]
fn the_rest_is_divided_evenly_among_those_who_have_a_use_for_it() {
    let check = |room, wants: &[(u64, u64)], expected: &[u64]| {
        let wants: Vec<_> = wants.iter().map(|&(least, most)| Want { least, most }).collect();
        assert_eq!(divide(room, &wants), expected, "{wants:?} in {room}");
    };
    check(100, &[(10, 1000)], &[100]);
    check(100, &[(10, 50)], &[50]);
    check(100, &[(10, 1000), (20, 1000)], &[45, 55]);
    check(100, &[(10, 15), (20, 1000)], &[15, 85]);
    check(100, &[(10, 15), (20, 30), (0, 9)], &[15, 30, 9]);
    // Who comes last is refused by its placement, not by the division.
    check(25, &[(10, 15), (20, 30)], &[10, 20]);
    check(100, &[], &[]);
}

fn open_model(ram_bytes: Option<u64>) -> Result<Loaded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/chord-5m-Q4_K_M.gguf");
    let options = LoadOptions { n_ctx: Some(128), ram_bytes, ..LoadOptions::default() };
    load(&path, &options, &mut |_, _| {}, &AtomicBool::new(false))
}

/// Log-probabilities of a text, as bits.
fn score(loaded: &Loaded) -> Vec<u32> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let tokens = (0..100).map(|i| (i * 37 + 5) % 4096).collect();
    let reply = Box::new(move |result| drop(sender.send(result)));
    let command = Command::Score { tokens, top: 0, cancelled: Arc::default(), reply };
    loaded.handle.send(command).expect("open");
    let scores = receiver.recv().expect("an answer").expect("scores");
    scores.iter().map(|score| score.logprob.to_bits()).collect()
}

fn total(loaded: &Loaded) -> u64 {
    loaded.share.memory().total()
}

fn close(loaded: Loaded) {
    loaded.handle.close();
    assert!(loaded.handle.join(Duration::from_secs(10)));
}

#[test]
fn models_make_room_for_a_newcomer_and_grow_when_one_leaves() {
    let alone = open_model(None).expect("loads");
    let want = alone.share.want();
    let expected = score(&alone);
    assert!(alone.placement.streamed.is_none());
    close(alone);
    // Room for two and a half of what one cannot do without.
    let machine = want.least * 5 / 2;
    assert!(machine < want.most, "{want:?}: one alone streams");
    MACHINE.store(machine, Ordering::Relaxed);
    let first = open_model(None).expect("loads");
    assert_eq!(score(&first), expected);
    let before = total(&first);
    assert!(before > machine / 2, "one alone has nearly all: {before} of {machine}");

    let second = open_model(None).expect("there is room for two");
    let shared = total(&first);
    assert!(shared < before && shared + total(&second) <= machine);
    assert!(shared.abs_diff(total(&second)) < machine / 4, "{shared}, {}", total(&second));
    assert_eq!((score(&first), score(&second)), (expected.clone(), expected.clone()));

    // Nobody can give more than what it can do without.
    let error = open_model(None).err().expect("refused");
    assert_eq!(error.code.as_str(), "ERR_INSUFFICIENT_MEMORY");
    assert_eq!(score(&first), expected);

    close(second);
    while total(&first) <= shared {
        std::thread::yield_now();
    }
    assert!(total(&first) >= before - before / 16);
    assert_eq!(score(&first), expected);
    close(first);
    MACHINE.store(1 << 40, Ordering::Relaxed);
}
