//! The reference backend keeps the promises of every backend: a row's bits do not depend on the
//! batch, the cut of the prompt or other sequences; copied pages continue as the originals do.

use node_chord::backend::{Backend, Batch, PAGE_TOKENS, PageId, Row};
use node_chord::error::Code;
use node_chord::store::Lease;

use crate::runner::{Model, Run, reference, unpacked};

#[test]
fn chunks_and_neighbours_do_not_change_a_bit() {
    for name in ["mixtral", "q-q4_k", "llama-rope-yarn"] {
        let model = toy(name);
        let tokens = text(75);
        let whole = Run::new(&model, reference).feed(&tokens, true);
        for size in [1, 7, 64] {
            let mut run = Run::new(&model, reference);
            let chunks = tokens.chunks(size).flat_map(|chunk| run.feed(chunk, true));
            assert!(chunks.collect::<Vec<_>>() == whole, "{name} in chunks of {size}");
        }
        // Three sequences in one pass: the text twice, and between them another.
        let other = text(40).into_iter().rev().collect::<Vec<_>>();
        let mut backend = reference(model.plan.clone());
        let logits = pass(&model, backend.as_mut(), &[(0, &tokens), (0, &other), (0, &tokens)]);
        assert!(logits[..75] == whole && logits[115..] == whole, "{name} beside others");
    }
}

#[test]
fn a_copied_page_continues_as_the_original() {
    let model = toy("llama");
    let tokens = text(50);
    let (shared, rest) = tokens.split_at(PAGE_TOKENS + 5);
    let mut backend = reference(model.plan.clone());
    pass(&model, backend.as_mut(), &[(0, shared)]);
    let fork = PageId(100);
    backend.page_commit(fork).expect("a page");
    backend.page_copy(PageId(1), fork, 5).expect("a copy");
    let own = run(&model, backend.as_mut(), &[(shared.len(), rest)], vec![pages(0, 2)]);
    let copied = vec![PageId(0), fork];
    let forked = run(&model, backend.as_mut(), &[(shared.len(), rest)], vec![copied]);
    assert!(own == forked);
    assert!(own == Run::new(&model, reference).feed(&tokens, true)[shared.len()..]);
}

#[test]
fn unsound_batches_are_coded_errors_and_the_backend_works_on() {
    let model = toy("llama");
    let mut backend = reference(model.plan.clone());
    backend.page_commit(PageId(0)).expect("a page");
    let row = |token, position, sequence| Row { token, position, sequence, wants_logits: true };
    let pages = vec![vec![PageId(0)]];
    for rows in [
        vec![row(272, 0, 0)],
        vec![row(1, 32, 0)],
        vec![row(1, 0, 1)],
        vec![row(1, 1, 0), row(1, 0, 0)],
    ] {
        let batch = Batch { rows, sequences: pages.clone() };
        let error = backend.begin(&batch).expect_err("a refusal");
        assert_eq!(error.code, Code::Internal);
    }
    let missing = Batch { rows: vec![row(1, 0, 0)], sequences: vec![vec![PageId(9)]] };
    assert!(backend.begin(&missing).is_err());
    assert!(backend.page_copy(PageId(0), PageId(9), 1).is_err());
    assert_eq!(run(&model, backend.as_mut(), &[(0, &[1, 2])], pages).len(), 2);
}

fn toy(name: &str) -> Model {
    Model::open(&unpacked(&format!("logits/toys/{name}.gguf")))
}

fn text(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * 37 + i * i * 11) % 250).collect()
}

fn pages(sequence: usize, count: usize) -> Vec<PageId> {
    (0..count).map(|page| PageId((1000 * sequence + page) as u32)).collect()
}

/// One pass over fresh sequences.
fn pass(model: &Model, backend: &mut dyn Backend, texts: &[(usize, &[u32])]) -> Vec<Vec<f32>> {
    let count = |text: &[u32]| text.len().div_ceil(PAGE_TOKENS);
    let sequences: Vec<_> =
        texts.iter().enumerate().map(|(i, (_, text))| pages(i, count(text))).collect();
    for page in sequences.iter().flatten() {
        backend.page_commit(*page).expect("a page");
    }
    run(model, backend, texts, sequences)
}

/// One pass; each text begins at a position. Logits of all rows.
fn run(
    model: &Model,
    backend: &mut dyn Backend,
    texts: &[(usize, &[u32])],
    sequences: Vec<Vec<PageId>>,
) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    for (sequence, (start, text)) in texts.iter().enumerate() {
        for (index, token) in text.iter().enumerate() {
            let (position, sequence) = ((start + index) as u32, sequence as u32);
            rows.push(Row { token: *token, position, sequence, wants_logits: true });
        }
    }
    backend.begin(&Batch { rows, sequences }).expect("a sound batch");
    let slices = model.slices();
    for group in model.plan.group_ids() {
        backend.run(group, &Lease::new(&slices), None).expect("a group");
    }
    backend.logits().chunks_exact(model.plan.n_vocab).map(<[f32]>::to_vec).collect()
}
