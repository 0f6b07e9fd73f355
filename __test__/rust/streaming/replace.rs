//! A residence that changes while a model runs: the right bytes all the time, what stays is not
//! read again, what was refused leaves everything as it was.

use super::*;

#[test]
fn a_thousand_moves_between_passes_deliver_the_right_bytes() {
    let models = ["llama", "mixtral"]
        .map(|name| Model::open(&unpacked(&format!("logits/toys/{name}.gguf"))));
    for seed in 0..250 {
        let mut random = Random(seed + 70_000);
        let model = &models[random.below(models.len())];
        let control = Arc::new(Control::default());
        let store = model.stream(model.residence(&mut random), seed, &control);
        for _ in 0..4 {
            model.pass(&store, &mut random).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let next = model.residence(&mut random);
            store.replace(Some(next), true, &mut || false).unwrap();
        }
        model.pass(&store, &mut random).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        drop(store);
        assert!(control.is_dropped.load(Ordering::SeqCst), "seed {seed}");
    }
}

#[test]
fn budgets_that_grow_and_shrink_change_no_bit_and_read_what_their_placement_says() {
    let model = Model::open(&root("models/chord-5m-Q4_K_M.gguf"));
    let store = Store::open(&model.file, &model.plan).unwrap();
    let mut backend = cpu(&model);
    let expected = logits(&model, &store, backend.as_mut()).unwrap();
    let all = placed(&model, u64::MAX, place::Io::Direct).unwrap();
    let (least, most) = (all.minimum, all.budget.total());
    let mut before = 0;
    for limit in [Some(least), Some(most), Some((least + most) / 2), None, Some(least), None] {
        let placement = limit.map(|limit| placed(&model, limit, place::Io::Direct).unwrap());
        let residence = placement.as_ref().and_then(|placement| placement.streamed.clone());
        store.replace(residence.clone(), true, &mut || false).unwrap();
        for _ in 0..2 {
            assert!(logits(&model, &store, backend.as_mut()).unwrap() == expected, "{limit:?}");
        }
        let read = store.cost().1;
        assert!(read >= before, "what was read before is not forgotten");
        before = read;
        let Some((placement, residence)) = placement.zip(residence) else {
            assert_eq!(store.resident_bytes(), 0);
            continue;
        };
        settle(&store, &residence);
        let resident = placement.budget.weights + placement.budget.ring;
        assert!(store.resident_bytes() <= resident, "{limit:?}");
        let rows = || store.stats().gathered_bytes;
        let (read, gathered) = (store.stats().bytes_read, rows());
        logits(&model, &store, backend.as_mut()).unwrap();
        settle(&store, &residence);
        let read = store.stats().bytes_read - read - (rows() - gathered);
        assert_eq!(read, 2 * placement.bytes_per_pass, "{limit:?}");
    }
}

#[test]
fn what_stays_is_not_read_again_and_what_goes_waits_for_its_reader() {
    let model = Model::open(&root("models/chord-5m-Q4_K_M.gguf"));
    let n = model.plan.groups.len();
    let slot_bytes = model.units.groups.iter().map(|group| group.own.room).max().unwrap();
    let residence = |pinned: &dyn Fn(usize) -> bool, slots| Residence {
        pinned: (0..n).map(pinned).collect(),
        slots,
        slot_bytes,
        read_ahead: slots - 1,
        staging_bytes: 1 << 16,
        ..Residence::default()
    };
    let store = model.stream(residence(&|i| i % 2 == 0, 2), 5, &Arc::new(Control::default()));
    model.pass(&store, &mut Random(1)).unwrap();
    let pins = |from: usize| -> u64 {
        model.units.groups.iter().skip(from).step_by(2).map(|group| group.own.bytes).sum()
    };
    // One more slot: the pins stay, so that a pass reads the others alone.
    store.replace(Some(residence(&|i| i % 2 == 0, 3)), true, &mut || false).unwrap();
    let state = |i: usize| store.stats().groups[i].state;
    assert!((2..n).step_by(2).all(|i| state(i) == Progress::Pinned));
    assert!(store.resident_bytes() >= pins(0));
    // A group that is held goes when its reader lets go of it; its bytes are there until then.
    let id = GroupId(2);
    let lease = store.acquire(id).unwrap();
    store.replace(Some(residence(&|i| i % 2 == 1, 1)), true, &mut || false).unwrap();
    assert_ne!(state(2), Progress::Pinned);
    for weight in model.plan.groups[2].weights() {
        assert!(lease.bytes(weight) == model.weight(weight));
    }
    drop(lease);
    model.pass(&store, &mut Random(2)).unwrap();
}

#[test]
fn a_residence_that_the_system_refuses_leaves_the_old_one() {
    let model = Model::open(&unpacked("logits/toys/mixtral.gguf"));
    let mut random = Random(9);
    let old = model.residence(&mut random);
    let store = model.stream(old.clone(), 3, &Arc::new(Control::default()));
    model.pass(&store, &mut random).unwrap();
    let huge = Residence { slots: 1, slot_bytes: 1 << 60, ..old };
    let error = store.replace(Some(huge), true, &mut || false).unwrap_err();
    assert_eq!(error.code.as_str(), "ERR_INSUFFICIENT_MEMORY");
    for _ in 0..3 {
        model.pass(&store, &mut random).unwrap();
    }
}

#[test]
fn moving_can_be_called_off_while_the_disk_hangs() {
    let model = Model::open(&root("models/chord-5m-Q4_K_M.gguf"));
    let (store, control) = stuck(&model);
    let least = placed(&model, u64::MAX, place::Io::Direct).unwrap().minimum;
    let smallest = placed(&model, least, place::Io::Direct).unwrap().streamed;
    let is_loading = |group: &GroupStats| group.state == Progress::Loading;
    while !store.stats().groups.iter().any(is_loading) {
        std::thread::yield_now();
    }
    let error = store.replace(smallest.clone(), true, &mut || true).unwrap_err();
    assert_eq!(error.code.as_str(), "ABORT_ERR");
    control.is_stuck.store(false, Ordering::SeqCst);
    model.pass(&store, &mut Random(4)).unwrap();
    store.replace(smallest, true, &mut || false).unwrap();
    model.pass(&store, &mut Random(5)).unwrap();
}
