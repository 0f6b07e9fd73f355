//! Estimates: what loading with the same options then does, to the byte.

use std::sync::atomic::AtomicBool;

use node_chord::error::Result;
use node_chord::load::estimate::{Estimate, estimate};
use node_chord::load::{LoadOptions, Loaded, load};
use node_chord::place::Io;
use node_chord::store::GroupStats;

use crate::runner::{root, unpacked};

fn options(ram_bytes: Option<u64>) -> LoadOptions {
    LoadOptions { n_ctx: Some(256), ram_bytes, threads: Some(2), ..LoadOptions::default() }
}

fn open(path: &std::path::Path, options: &LoadOptions) -> Result<Loaded> {
    load(path, options, &mut |_, _| {}, &AtomicBool::new(false))
}

fn guess(path: &std::path::Path, options: &LoadOptions) -> Estimate {
    estimate(path, options, Some(1e9), &AtomicBool::new(false)).expect("an estimate")
}

#[test]
fn loading_does_what_was_estimated_at_every_budget() {
    for path in [root("models/chord-5m-Q4_K_M.gguf"), unpacked("logits/toys/mixtral.gguf")] {
        for io in [Io::Auto, Io::Direct] {
            let with = |ram| LoadOptions { io, ..options(ram) };
            let least = guess(&path, &with(None)).placement.minimum;
            for ram in [least, least + 50_000, least + 700_000, 1 << 30] {
                let options = with(Some(ram));
                let guess = guess(&path, &options);
                let loaded = open(&path, &options).expect("loads");
                assert!(guess.fits);
                assert_eq!(guess.placement, loaded.placement, "{ram} {io:?}");
                let stats = loaded.store.upgrade().expect("open").stats();
                let plain = |group: &GroupStats| (group.name.clone(), group.bytes, group.place);
                let (expected, found): (Vec<_>, Vec<_>) = (
                    guess.groups.iter().map(plain).collect(),
                    stats.groups.iter().map(plain).collect(),
                );
                assert_eq!(expected, found);
                loaded.handle.close();
            }
        }
        let least = guess(&path, &options(None)).placement.minimum;
        let refused = open(&path, &options(Some(least - 1))).err().expect("refused");
        assert_eq!(refused.fields[1].1, least.into());
        let short = guess(&path, &options(Some(least - 1)));
        assert!(!short.fits);
        assert_eq!((short.placement.minimum, short.placement.budget.total()), (least, least));
        assert_eq!(short.placement.budget.limit, Some(least - 1));
    }
}

#[test]
fn more_memory_or_a_faster_disk_is_never_slower() {
    let path = root("models/chord-5m-Q4_K_M.gguf");
    let least = guess(&path, &options(None)).placement.minimum;
    let at = |ram, disk| {
        let options = LoadOptions { io: Io::Direct, ..options(Some(ram)) };
        let guess = estimate(&path, &options, Some(disk), &AtomicBool::new(false)).expect("fits");
        assert_eq!(guess.disk, Some(disk));
        let pass = guess.placement.bytes_per_pass as f64;
        // The disk bounds it, whatever else is done meanwhile.
        assert!(guess.speed.decode <= disk / pass.max(1.0) * 1.000_001);
        assert!(guess.speed.prompt >= guess.speed.decode);
        guess.speed.decode
    };
    let slow: Vec<f64> = (0..5).map(|i| at(least + i * 500_000, 1e6)).collect();
    assert!(slow.windows(2).all(|pair| pair[0] <= pair[1]), "{slow:?}");
    assert!(at(least, 1e6) < at(least, 1e8));
    // This one has no disk in its way.
    let resident = guess(&path, &options(Some(1 << 30)));
    assert!(resident.disk.is_none() && resident.speed.decode > slow[0]);
}

#[test]
fn the_disk_is_measured_if_nobody_says_how_fast_it_is() {
    let path = root("models/chord-5m-Q4_K_M.gguf");
    let options = LoadOptions { io: Io::Direct, ..options(None) };
    let guess = estimate(&path, &options, None, &AtomicBool::new(false)).expect("an estimate");
    assert!(guess.disk.is_some_and(|rate| rate > 1e6));
    let error = estimate(&path, &options, None, &AtomicBool::new(true)).err().expect("called off");
    assert_eq!(error.code.as_str(), "ABORT_ERR");
}

#[test]
fn a_budget_larger_than_the_machine_is_estimated_but_does_not_fit_and_is_not_loaded() {
    let path = root("models/chord-5m-Q4_K_M.gguf");
    let options = options(Some(1 << 60));
    let guess = guess(&path, &options);
    assert!(!guess.fits && guess.placement.streamed.is_none());
    let error = open(&path, &options).err().expect("refused");
    assert_eq!(error.code.as_str(), "ERR_INSUFFICIENT_MEMORY");
    assert_eq!(error.fields[1].1, (1u64 << 60).into());
}
