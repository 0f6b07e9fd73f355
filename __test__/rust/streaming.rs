//! Streaming: a thousand seeded schedules of a scripted disk, the same bits at every budget, bytes
//! counted exactly, files that change under the reader.

mod ahead;
mod figures;
mod guess;
mod replace;
mod scripted;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use node_chord::backend::cpu::{Config, Cpu};
use node_chord::backend::{Backend, Batch, PAGE_TOKENS, PageId, Row};
use node_chord::error::Result;
use node_chord::gguf::File;
use node_chord::model;
use node_chord::place::{self, Placement, Request};
use node_chord::plan::residency::{Residence, Units};
use node_chord::plan::{GroupId, Op, Plan};
use node_chord::store::io::opener;
use node_chord::store::{GroupStats, Place, Progress, Store};
use scripted::{Control, Random};

use crate::runner::{chord_path, root, unpacked};
use crate::special::Folder;

/// A model with its bytes in memory, to compare with.
struct Model {
    file: File,
    plan: Arc<Plan>,
    units: Units,
    parts: Arc<Vec<Vec<u8>>>,
}

impl Model {
    fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let plan = Arc::new(model::plan(&file).unwrap());
        let parts = file.parts().iter().map(|part| std::fs::read(&part.path).unwrap());
        let parts = Arc::new(parts.collect());
        Model { units: Units::of(&plan), file, plan, parts }
    }

    fn weight(&self, id: node_chord::plan::WeightId) -> &[u8] {
        let extent = self.plan.weight(id).extent;
        &self.parts[extent.part as usize][extent.offset as usize..][..extent.bytes as usize]
    }

    /// A residence that no budget would lead to.
    fn residence(&self, random: &mut Random) -> Residence {
        let pinned = self.units.groups.iter().map(|_| random.chance(30)).collect();
        let own = self.units.groups.iter().map(|group| group.own.room);
        let experts = self.units.experts().flat_map(|e| e.units.iter().map(|unit| unit.room));
        let ahead = random.below(4);
        Residence {
            pinned,
            slots: 1 + random.below(4),
            slot_bytes: own.max().unwrap(),
            read_ahead: ahead,
            expert_slots: 1 + random.below(6),
            expert_bytes: experts.max().unwrap_or(0),
            staging_bytes: 8192 * (1 + random.below(3) as u64),
        }
    }

    /// Checks every byte that a pass over the groups sees; stops in the middle now and then.
    fn pass(&self, store: &Store, random: &mut Random) -> Result<()> {
        let last =
            if random.chance(20) { random.below(self.plan.groups.len()) } else { usize::MAX };
        for (index, group) in self.plan.groups.iter().enumerate().take(last) {
            let lease = store.acquire(GroupId(index as u32))?;
            for step in &group.steps {
                match step.op {
                    Op::Embed => {
                        let (id, n) = (step.weights[0], self.plan.n_vocab);
                        let rows: Vec<u32> =
                            (0..1 + random.below(9)).map(|_| random.below(n) as u32).collect();
                        let size = self.weight(id).len() / n;
                        let mut seen = 0;
                        lease.gather(id, n, &rows, &mut |i, bytes| {
                            let at = rows[i] as usize * size;
                            assert_eq!(bytes, &self.weight(id)[at..at + size]);
                            seen += 1;
                            Ok(())
                        })?;
                        assert_eq!(seen, rows.len());
                    }
                    Op::Experts(_) => self.experts(&lease, step, random)?,
                    _ => {
                        for id in &step.weights {
                            assert!(lease.bytes(*id) == self.weight(*id), "group {index}");
                        }
                    }
                }
            }
            lease.check()?;
        }
        Ok(())
    }

    fn experts(
        &self,
        lease: &node_chord::store::Lease<'_>,
        step: &node_chord::plan::Step,
        random: &mut Random,
    ) -> Result<()> {
        let n = self.plan.weight(step.weights[0]).shape[0];
        if let Some((_, group, router)) = self.plan.router_after(step.output) {
            let n_guess = random.below(n + 1);
            let guess: Vec<u32> = (0..n_guess).map(|_| random.below(n) as u32).collect();
            lease.foresee(group, &router.experts.weights, &guess);
        }
        let wanted: Vec<u32> = (0..n as u32).filter(|_| random.chance(50)).collect();
        let mut next = 0;
        lease.experts(&step.weights, n, &wanted, &mut |turn, held| {
            assert_eq!(turn.start, next);
            next = turn.end;
            for expert in &wanted[turn] {
                for id in &step.weights {
                    let size = self.weight(*id).len() / n;
                    let at = *expert as usize * size;
                    assert!(held.bytes(*id, *expert)? == &self.weight(*id)[at..at + size]);
                }
            }
            Ok(())
        })?;
        assert_eq!(next, wanted.len());
        Ok(())
    }

    fn stream(&self, residence: Residence, seed: u64, control: &Arc<Control>) -> Store {
        let opener = scripted::opener(&self.parts, seed, control);
        Store::stream(&self.file, &self.plan, residence, opener).unwrap()
    }
}

#[test]
fn a_thousand_schedules_deliver_the_right_bytes_and_end() {
    let models = ["llama", "llama-tied-mha", "mixtral", "llama-rope-llama3"]
        .map(|name| Model::open(&unpacked(&format!("logits/toys/{name}.gguf"))));
    for seed in 0..1000 {
        let mut random = Random(seed);
        let model = &models[random.below(models.len())];
        let control = Arc::new(Control::default());
        let store = model.stream(model.residence(&mut random), seed, &control);
        control.trouble.store(random.below(3) * 15, Ordering::SeqCst);
        for _ in 0..1 + random.below(4) {
            // More failures in a row than a block is tried, or fewer.
            let fails = if random.chance(25) { 1 + random.below(12) } else { 0 };
            control.fail.store(fails, Ordering::SeqCst);
            if let Err(error) = model.pass(&store, &mut random) {
                assert!(fails >= 3, "seed {seed}: {error}");
                assert_eq!(error.code.as_str(), "ERR_IO", "seed {seed}: {error}");
                assert_eq!(error.fields.last().unwrap().1, "EIO".into(), "seed {seed}");
                control.fail.store(0, Ordering::SeqCst);
                // It has been told; the next pass works.
                let mut random = Random(seed + 1);
                model.pass(&store, &mut random).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            }
        }
        drop(store);
        assert!(control.is_dropped.load(Ordering::SeqCst), "seed {seed}: the loader has ended");
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::SeqCst);
        assert_eq!(count(&control.submitted), count(&control.completed), "seed {seed}");
    }
}

/// A budget's placement. `rows` of a pass take next to nothing, so that weights decide.
fn placed(model: &Model, limit: u64, io: place::Io) -> Result<Placement> {
    let request = Request {
        limit: Some(limit),
        n_ctx: Some(64),
        page_bytes: 1024,
        page_tokens: PAGE_TOKENS,
        row_bytes: 64,
        rows: Some(8),
        io,
        ..Request::default()
    };
    place::place(&model.plan, &model.units, &request)
}

/// Logits of two passes, as bits.
fn logits(model: &Model, store: &Store, backend: &mut dyn Backend) -> Result<Vec<u32>> {
    logits_with(model, store, backend, &|_| {})
}

/// The same; `computed` is called when a group has run and is still held.
fn logits_with(
    model: &Model,
    store: &Store,
    backend: &mut dyn Backend,
    computed: &dyn Fn(usize),
) -> Result<Vec<u32>> {
    let tokens: Vec<u32> = (0..12).map(|i| (i * 37 + 5) % model.plan.n_vocab as u32).collect();
    let page = PageId(0);
    backend.page_commit(page)?;
    let mut out = Vec::new();
    for range in [0..8, 8..12] {
        let row = |position: usize| Row {
            token: tokens[position],
            position: position as u32,
            sequence: 0,
            wants_logits: true,
        };
        let batch = Batch { rows: range.map(row).collect(), sequences: vec![vec![page]] };
        backend.begin(&batch)?;
        for group in model.plan.group_ids() {
            let lease = store.acquire(group)?;
            backend.run(group, &lease, None)?;
            computed(group.0 as usize);
            lease.check()?;
        }
        out.extend(backend.logits().iter().map(|x| x.to_bits()));
    }
    backend.page_free(page);
    Ok(out)
}

fn cpu(model: &Model) -> Box<dyn Backend> {
    let config = Config { threads: Some(2), ..Config::default() };
    Box::new(Cpu::new(model.plan.clone(), config).unwrap())
}

/// Every budget from the smallest to all resident; what each reads in a pass.
fn same_bits_at_every_budget(model: &Model, backend: &mut dyn Backend, steps: u64) {
    let mapped = Store::open(&model.file, &model.plan).unwrap();
    let expected = logits(model, &mapped, backend).unwrap();
    let all = placed(model, u64::MAX, place::Io::Direct).unwrap();
    let (least, most) = (all.minimum, all.budget.total());
    assert!(placed(model, least - 1, place::Io::Direct).is_err());
    for step in 0..=steps {
        let limit = least + (most - least) * step / steps;
        let placement = placed(model, limit, place::Io::Direct).unwrap();
        let residence = placement.streamed.unwrap();
        for direct in [true, false] {
            let opener = opener(model.file.parts(), direct);
            let store = Store::stream(&model.file, &model.plan, residence.clone(), opener).unwrap();
            for _ in 0..2 {
                assert!(logits(model, &store, backend).unwrap() == expected, "budget {limit}");
            }
            if direct && step % 4 == 0 {
                println!("{limit}: {:?}", store.stats().backend);
            }
        }
    }
}

#[test]
fn chord_5m_gives_the_same_bits_at_every_budget() {
    let model = Model::open(&root("models/chord-5m-Q4_K_M.gguf"));
    same_bits_at_every_budget(&model, cpu(&model).as_mut(), 8);
}

#[test]
fn experts_give_the_same_bits_at_every_budget() {
    let model = Model::open(&unpacked("logits/toys/mixtral.gguf"));
    same_bits_at_every_budget(&model, cpu(&model).as_mut(), 6);
    same_bits_at_every_budget(&model, crate::runner::reference(model.plan.clone()).as_mut(), 2);
}

#[test]
fn chord_27m_moe_gives_the_same_bits_at_every_budget() {
    let Some(path) = chord_path("chord-27m-moe-Q4_K_M") else {
        println!("skipped: chord-27m-moe-Q4_K_M is not here");
        return;
    };
    let model = Model::open(&path);
    same_bits_at_every_budget(&model, cpu(&model).as_mut(), 5);
}

/// Waits until the loader has filled its ring and rests.
fn settle(store: &Store, residence: &Residence) {
    let slots = if residence.read_ahead == 0 { 0 } else { residence.slots };
    loop {
        let stats = store.stats();
        let is_streamed = |g: &&GroupStats| g.place == Place::Streamed && g.name != "embedding";
        let mut first = stats.groups.iter().filter(is_streamed).take(slots);
        if stats.in_flight == 0 && first.all(|group| group.state == Progress::Ready) {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_pass_reads_the_model_less_pins_and_rows_exactly() {
    let model = Model::open(&root("models/chord-5m-Q4_K_M.gguf"));
    let all = placed(&model, u64::MAX, place::Io::Direct).unwrap();
    for step in 0..6 {
        let limit = all.minimum + (all.budget.total() - all.minimum) * step / 6;
        let placement = placed(&model, limit, place::Io::Direct).unwrap();
        let residence = placement.streamed.unwrap();
        let control = Arc::new(Control::default());
        let store = model.stream(residence.clone(), step, &control);
        let mut backend = cpu(&model);
        logits(&model, &store, backend.as_mut()).unwrap();
        settle(&store, &residence);
        let before = store.stats();
        logits(&model, &store, backend.as_mut()).unwrap();
        settle(&store, &residence);
        let after = store.stats();
        let rows = after.gathered_bytes - before.gathered_bytes;
        let pinned: u64 = (model.units.groups.iter().zip(&residence.pinned))
            .map(|(group, pinned)| if *pinned { group.own.bytes } else { 0 })
            .sum();
        let streamed = model.units.loaded_bytes() - model.units.shared.bytes - pinned;
        assert_eq!(after.bytes_read - before.bytes_read - rows, 2 * streamed, "budget {limit}");
        assert_eq!(placement.bytes_per_pass, streamed);
        assert!(rows > 0);
    }
}

#[test]
fn without_read_ahead_every_group_is_missed() {
    let model = Model::open(&root("models/chord-5m-Q4_K_M.gguf"));
    let n = model.plan.groups.len();
    let slot_bytes = model.units.groups.iter().map(|group| group.own.room).max().unwrap();
    let residence = Residence {
        pinned: vec![false; n],
        slots: 1,
        slot_bytes,
        staging_bytes: 1 << 16,
        ..Residence::default()
    };
    let store = model.stream(residence, 7, &Arc::new(Control::default()));
    logits(&model, &store, cpu(&model).as_mut()).unwrap();
    let stats = store.stats();
    let sum = |of: fn(&GroupStats) -> u64| stats.groups.iter().map(of).sum();
    let (hits, misses): (u64, u64) = (sum(|g| g.hits), sum(|g| g.misses));
    assert_eq!(hits, 0);
    assert_eq!(misses, 2 * (n as u64 - 1));
    assert!(stats.stall_ms > 0.0);
}

#[test]
fn only_routed_experts_are_read_and_the_least_recent_goes() {
    let model = Model::open(&unpacked("logits/toys/mixtral.gguf"));
    let (group, step) = (model.plan.groups.iter().enumerate())
        .find_map(|(index, group)| {
            let step = group.steps.iter().find(|step| matches!(step.op, Op::Experts(_)))?;
            Some((GroupId(index as u32), step))
        })
        .unwrap();
    let expert = &model.units.groups[group.0 as usize].experts[0];
    let residence = Residence {
        pinned: vec![true; model.plan.groups.len()],
        expert_slots: 2,
        expert_bytes: expert.units.iter().map(|unit| unit.room).max().unwrap(),
        ..Residence::default()
    };
    let store = model.stream(residence, 3, &Arc::new(Control::default()));
    let lease = store.acquire(group).unwrap();
    let read = |wanted: &[u32]| {
        let before = store.stats().expert_bytes;
        let n = expert.units.len();
        lease.experts(&step.weights, n, wanted, &mut |_, _| Ok(())).unwrap();
        (store.stats().expert_bytes - before) / expert.units[0].bytes
    };
    assert_eq!((read(&[0]), read(&[1]), read(&[0])), (1, 1, 0));
    // 1 was used longest ago.
    assert_eq!((read(&[2]), read(&[0]), read(&[1])), (1, 0, 1));
    assert_eq!(read(&[0, 1, 2, 3]), 2);
}

#[test]
fn a_file_that_changes_while_it_is_streamed_is_an_error_and_the_process_lives() {
    let folder = Folder::new("streamed");
    let path = folder.path("m.gguf");
    let original = root("models/chord-5m-Q4_K_M.gguf");
    for how in ["truncated", "written", "renamed"] {
        std::fs::copy(&original, &path).unwrap();
        let model = Model::open(&path);
        let least = placed(&model, u64::MAX, place::Io::Direct).unwrap().minimum;
        let residence = placed(&model, least, place::Io::Direct).unwrap().streamed.unwrap();
        let opener = opener(model.file.parts(), true);
        let store = Store::stream(&model.file, &model.plan, residence, opener).unwrap();
        let mut backend = cpu(&model);
        let expected = logits(&model, &store, backend.as_mut()).unwrap();
        let file = || std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        match how {
            "truncated" => file().set_len(1 << 20).unwrap(),
            "written" => {
                let later = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
                file().set_modified(later).unwrap();
            }
            _ => {
                std::fs::copy(&original, folder.path("other.gguf")).unwrap();
                std::fs::rename(folder.path("other.gguf"), &path).unwrap();
                assert_eq!(logits(&model, &store, backend.as_mut()).unwrap(), expected);
                continue;
            }
        }
        for _ in 0..2 {
            let mut backend = cpu(&model);
            let error = logits(&model, &store, backend.as_mut()).unwrap_err();
            assert_eq!(error.code.as_str(), "ERR_FILE_CHANGED", "{how}: {error}");
        }
    }
}

/// A store whose disk does not answer, and the disk.
fn stuck(model: &Model) -> (Store, Arc<Control>) {
    let least = placed(model, u64::MAX, place::Io::Direct).unwrap().minimum;
    let residence = placed(model, least * 2, place::Io::Direct).unwrap().streamed.unwrap();
    let control = Arc::new(Control::default());
    control.is_stuck.store(true, Ordering::SeqCst);
    (model.stream(residence, 1, &control), control)
}

#[test]
fn who_waits_for_a_disk_that_hangs_can_give_up_and_come_back() {
    let model = Model::open(&root("models/chord-5m-Q4_K_M.gguf"));
    let (store, control) = stuck(&model);
    let group = GroupId(model.plan.groups.len() as u32 - 1);
    let mut asked = 0;
    let mut gives_up = || {
        asked += 1;
        asked == 3
    };
    assert!(store.acquire_unless(group, &mut gives_up).unwrap().is_none());
    control.is_stuck.store(false, Ordering::SeqCst);
    let mapped = Store::open(&model.file, &model.plan).unwrap();
    let expected = logits(&model, &mapped, cpu(&model).as_mut()).unwrap();
    assert_eq!(logits(&model, &store, cpu(&model).as_mut()).unwrap(), expected);
}

#[test]
fn closing_while_the_disk_hangs_does_not_wait_for_it() {
    let model = Model::open(&root("models/chord-5m-Q4_K_M.gguf"));
    let (store, control) = stuck(&model);
    while control.submitted.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let began = std::time::Instant::now();
    drop(store);
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
    assert!(!control.is_dropped.load(Ordering::SeqCst));
    // What was on its way ends by itself when the disk is back.
    control.is_stuck.store(false, Ordering::SeqCst);
    while !control.is_dropped.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
}

#[test]
fn two_models_stream_at_once_and_neither_changes() {
    let models = ["llama", "mixtral"].map(|name| {
        let model = Model::open(&unpacked(&format!("logits/toys/{name}.gguf")));
        let mapped = Store::open(&model.file, &model.plan).unwrap();
        let expected = logits(&model, &mapped, cpu(&model).as_mut()).unwrap();
        (model, expected)
    });
    std::thread::scope(|scope| {
        for (model, expected) in &models {
            scope.spawn(move || {
                let least = placed(model, u64::MAX, place::Io::Direct).unwrap().minimum;
                let residence = placed(model, least, place::Io::Direct).unwrap().streamed.unwrap();
                for round in 0..10 {
                    let opener = opener(model.file.parts(), round % 2 == 0);
                    let residence = residence.clone();
                    let store = Store::stream(&model.file, &model.plan, residence, opener).unwrap();
                    assert!(logits(model, &store, cpu(model).as_mut()).unwrap() == *expected);
                }
            });
        }
    });
}
