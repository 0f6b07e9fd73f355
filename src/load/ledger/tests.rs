//! Models that share a machine of a few megabytes.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::*;
use crate::engine::command::Command;
use crate::load::{LoadOptions, Loaded, Ways, load, load_by};

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

/// Tests that say how large the machine is.
static ONE: Mutex<()> = Mutex::new(());

fn options(ram_bytes: Option<u64>) -> LoadOptions {
    LoadOptions { n_ctx: Some(128), ram_bytes, ..LoadOptions::default() }
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/chord-5m-Q4_K_M.gguf")
}

fn open_model(ram_bytes: Option<u64>) -> Result<Loaded> {
    load(&path(), &options(ram_bytes), &mut |_, _| {}, &AtomicBool::new(false))
}

/// The weights of a model on a disk that hangs as long as somebody says so.
struct Hanging {
    weights: Tenant,
    is_stuck: Arc<AtomicBool>,
    waits: Arc<AtomicBool>,
}

impl Weights for Hanging {
    fn acquire(&self, group: GroupId) -> Result<Lease<'_>> {
        self.weights.acquire(group)
    }

    fn acquire_unless(
        &self,
        group: GroupId,
        gives_up: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Lease<'_>>> {
        while self.is_stuck.load(Ordering::SeqCst) {
            self.waits.store(true, Ordering::SeqCst);
            if gives_up() {
                return Ok(None);
            }
            std::thread::yield_now();
        }
        self.weights.acquire_unless(group, gives_up)
    }
}

/// Frees a disk when a test is over, however it ends: who waits for it would hang otherwise.
struct Unstick<'a>(&'a AtomicBool);

impl Drop for Unstick<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// A model that makes room within so many milliseconds of others, or not.
fn open_patiently(ms: u64, weights: &dyn Fn(Tenant) -> Arc<dyn Weights>) -> Result<Loaded> {
    let ways = Ways { patience: Duration::from_millis(ms), weights };
    load_by(&ways, &path(), &options(None), &mut |_, _| {}, &AtomicBool::new(false))
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
    let _one = ONE.lock();
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

#[test]
fn a_load_waits_for_a_model_whose_disk_hangs_a_while_only_and_names_it() {
    let _one = ONE.lock();
    let alone = open_model(None).expect("loads");
    let want = alone.share.want();
    let expected = score(&alone);
    close(alone);
    MACHINE.store(want.least * 5 / 2, Ordering::Relaxed);
    let (is_stuck, waits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let hanging = |weights| -> Arc<dyn Weights> {
        Arc::new(Hanging { weights, is_stuck: is_stuck.clone(), waits: waits.clone() })
    };
    let first = open_patiently(1, &hanging).expect("loads");
    let before = total(&first);
    is_stuck.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let _unstick = Unstick(&is_stuck);
        let answer = scope.spawn(|| score(&first));
        while !waits.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        for _ in 0..2 {
            let error = open_patiently(30, &|weights| Arc::new(weights)).err();
            let error = error.expect("there is no room beside the first");
            assert_eq!(error.code.as_str(), "ERR_INSUFFICIENT_MEMORY", "{error}");
            assert!(error.message.contains("was asked to make room"), "{error}");
            let waited = path().display().to_string().into();
            assert_eq!(error.fields.last(), Some(&("waitedFor", waited)));
        }
        // What fits beside it is loaded all the same.
        MACHINE.store(want.least * 4, Ordering::Relaxed);
        let second = open_patiently(30, &|weights| Arc::new(weights)).expect("fits");
        assert_eq!(score(&second), expected);
        close(second);
        assert_eq!(total(&first), before);
        MACHINE.store(want.least * 5 / 2, Ordering::Relaxed);
        is_stuck.store(false, Ordering::SeqCst);
        assert_eq!(answer.join().expect("an answer"), expected);
    });
    while first.share.is_moving() {
        std::thread::yield_now();
    }
    // The disk is back: what was called off did not happen, and it makes room again.
    let second = open_model(None).expect("there is room for two");
    assert!(total(&first) < before && total(&first) + total(&second) <= want.least * 5 / 2);
    assert_eq!((score(&first), score(&second)), (expected.clone(), expected));
    close(second);
    close(first);
    MACHINE.store(1 << 40, Ordering::Relaxed);
}
