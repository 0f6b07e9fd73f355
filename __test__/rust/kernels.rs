//! Kernels alone: every tier, type and number of rows gives the bits of the portable tier row by
//! row, on buffers that end (or begin) at a page nobody may touch; and stays near exact sums.
#![allow(unsafe_code, reason = "guard pages are made with mmap")]

use crate::runner::{data, json};
use node_chord::backend::cpu::kernel::linear::{Acts, Args};
use node_chord::backend::cpu::kernel::pack::{PackBuffer, Packed};
use node_chord::backend::cpu::kernel::quantise::{ActKind, Bytes, QuantiseRow};
use node_chord::backend::cpu::kernel::stripe::Shared;
use node_chord::backend::cpu::pool::Pool;
use node_chord::backend::cpu::simd::Tier;
use node_chord::backend::cpu::table::Table;
use node_chord::quant::TensorType;

/// Numbers between two pages that nobody may touch, as close to one of them as asked.
pub struct Guarded<T> {
    map: *mut u8,
    bytes: usize,
    start: *mut T,
    len: usize,
}

const PAGE: usize = 4096;

impl<T: Copy> Guarded<T> {
    pub fn new(values: &[T], at_end: bool) -> Self {
        let used = size_of_val(values);
        let bytes = used.next_multiple_of(PAGE) + 2 * PAGE;
        // SAFETY: an anonymous mapping of our own; its first and last page become untouchable.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let map = libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0);
            assert!(map != libc::MAP_FAILED);
            let map = map.cast::<u8>();
            libc::mprotect(map.cast(), PAGE, libc::PROT_NONE);
            libc::mprotect(map.add(bytes - PAGE).cast(), PAGE, libc::PROT_NONE);
            let at = if at_end { bytes - PAGE - used } else { PAGE };
            let start = map.add(at).cast::<T>();
            std::ptr::copy_nonoverlapping(values.as_ptr(), start, values.len());
            Guarded { map, bytes, start, len: values.len() }
        }
    }

    pub fn get(&self) -> &[T] {
        // SAFETY: `len` values were written there.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    pub fn get_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: our own mapping, no longer borrowed.
        unsafe { libc::munmap(self.map.cast(), self.bytes) };
    }
}

/// A generator good enough for tests.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        self.0 >> 33
    }

    pub fn float(&mut self) -> f32 {
        (self.next() % 20_001) as f32 / 10_000.0 - 1.0
    }
}

/// Random bits as weight rows, with scales that are numbers.
fn weights(kind: TensorType, rows: usize, k: usize, random: &mut Random) -> Vec<u8> {
    let size = kind.block_bytes();
    let mut bytes: Vec<u8> =
        (0..kind.row_bytes(k).unwrap() * rows).map(|_| random.next() as u8).collect();
    let scale = |random: &mut Random| half::f16::from_f32(random.float()).to_le_bytes();
    for block in bytes.chunks_exact_mut(size) {
        match kind {
            TensorType::F32 => block.copy_from_slice(&random.float().to_le_bytes()),
            TensorType::F16 => block.copy_from_slice(&scale(random)),
            TensorType::BF16 => {
                let x = half::bf16::from_f32(random.float());
                block.copy_from_slice(&x.to_le_bytes());
            }
            TensorType::Q8_K => block[..4].copy_from_slice(&random.float().to_le_bytes()),
            TensorType::Q2_K => {
                block[80..82].copy_from_slice(&scale(random));
                block[82..84].copy_from_slice(&scale(random));
            }
            TensorType::Q3_K | TensorType::Q6_K | TensorType::TQ1_0 | TensorType::TQ2_0 => {
                block[size - 2..].copy_from_slice(&scale(random));
            }
            TensorType::Q4_K | TensorType::Q5_K | TensorType::Q4_1 | TensorType::Q5_1 => {
                block[..2].copy_from_slice(&scale(random));
                block[2..4].copy_from_slice(&scale(random));
            }
            TensorType::MXFP4 => block[0] = 120 + block[0] % 8,
            TensorType::NVFP4 => block[..4].iter_mut().for_each(|b| *b &= 0x3f),
            TensorType::IQ1_M => {
                // The scale's four nibbles: an exponent below infinity.
                block[55] &= 0x3f;
            }
            _ => block[..2].copy_from_slice(&scale(random)),
        }
    }
    bytes
}

/// Activations on guarded memory, quantised by a tier.
struct Input {
    x: Guarded<f32>,
    qs: Guarded<i8>,
    ds: Guarded<f32>,
    sums: Guarded<i16>,
    sums32: Guarded<i16>,
    starts: Guarded<i32>,
    kind: ActKind,
}

impl Input {
    fn new(tier: Tier, kind: ActKind, x: &[f32], k: usize, at_end: bool) -> Self {
        let n = x.len();
        let mut input = Input {
            x: Guarded::new(x, at_end),
            qs: Guarded::new(&vec![0; n], at_end),
            ds: Guarded::new(&vec![0.0; n / kind.block()], at_end),
            sums: Guarded::new(&vec![0; n / 16], at_end),
            sums32: Guarded::new(&vec![0; n / 32], at_end),
            starts: Guarded::new(&vec![0; n / 32], at_end),
            kind,
        };
        if kind != ActKind::Float {
            let x = input.x.get().chunks_exact(k);
            let qs = input.qs.get_mut().chunks_exact_mut(k);
            let ds = input.ds.get_mut().chunks_exact_mut(k / kind.block());
            let sums = input.sums.get_mut().chunks_exact_mut(k / 16);
            let sums32 = input.sums32.get_mut().chunks_exact_mut(k / 32);
            let starts = input.starts.get_mut().chunks_exact_mut(k / 32);
            let all = x.zip(qs).zip(ds).zip(sums).zip(sums32.zip(starts));
            for ((((x, qs), ds), sums), (sums32, starts)) in all {
                tier.call(QuantiseRow { kind, x, qs, ds, sums, sums32, starts });
            }
        }
        input
    }

    fn acts(&self) -> Acts<'_> {
        let (qs, ds, sums) = (self.qs.get(), self.ds.get(), self.sums.get());
        let (sums32, starts) = (self.sums32.get(), self.starts.get());
        let bytes = Bytes { qs, ds, sums, sums32, starts };
        match self.kind {
            ActKind::Float => Acts::Float(self.x.get()),
            ActKind::Block32 => Acts::Block32(bytes),
            ActKind::Block256 => Acts::Block256(bytes),
        }
    }
}

/// The packed form that the matrix kernels read: bytes, sums, scales, vectors.
fn pack(
    tier: Tier,
    acts: Acts<'_>,
    (n, k): (usize, usize),
    least: usize,
) -> Option<(Vec<i8>, Vec<i32>, Vec<f32>, usize)> {
    let (kind, bytes) = match acts {
        Acts::Float(_) => return None,
        Acts::Block32(bytes) => (ActKind::Block32, bytes),
        Acts::Block256(bytes) => (ActKind::Block256, bytes),
    };
    if n < least || !tier.is_wide() {
        return None;
    }
    let mut buffer = PackBuffer::default();
    let mut pool = Pool::new(1).unwrap();
    let ranges = std::iter::once(0..n);
    buffer.fill(&mut pool, kind, (bytes, k), ranges, least).unwrap();
    let packed = buffer.view(kind, &(0..n), k).unwrap();
    Some((packed.qs.to_vec(), packed.sums.to_vec(), packed.ds.to_vec(), packed.vectors))
}

/// y `[n, rows]` by one tier.
fn linear(tier: Tier, kind: TensorType, w: &[u8], x: &[f32], k: usize, at_end: bool) -> Vec<f32> {
    let input = Input::new(tier, Table::new(tier).linear(kind).act, x, k, at_end);
    product(tier, kind, w, input.acts(), (x.len() / k, k), at_end)
}

/// The same with activations that are there already.
fn product(
    tier: Tier,
    kind: TensorType,
    w: &[u8],
    acts: Acts<'_>,
    (n, k): (usize, usize),
    at_end: bool,
) -> Vec<f32> {
    let kernel = Table::new(tier).linear(kind);
    let rows = w.len() / kind.row_bytes(k).unwrap();
    let weights = Guarded::new(w, at_end);
    let mut out = Guarded::new(&vec![0.0f32; n * rows], at_end);
    let pack = pack(tier, acts, (n, k), kernel.many_from);
    let guarded = pack.as_ref().map(|p| {
        let qs = Guarded::new(p.0.as_slice(), at_end);
        (qs, Guarded::new(p.1.as_slice(), at_end), Guarded::new(p.2.as_slice(), at_end), p.3)
    });
    let packed = guarded.as_ref().map(|(qs, sums, ds, vectors)| Packed {
        qs: qs.get(),
        sums: sums.get(),
        ds: ds.get(),
        vectors: *vectors,
    });
    {
        let shared = Shared::new(out.get_mut(), rows);
        // SAFETY: the only stripe.
        let mut stripe = unsafe { shared.stripe(0..rows) };
        let weights = weights.get();
        kernel.call(tier, Args { weights, k, acts, packed, out: &mut stripe });
    }
    out.get().to_vec()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

#[test]
fn every_tier_type_and_row_count_gives_the_portable_bits_between_guard_pages() {
    let names: Vec<_> = Tier::available().into_iter().map(Tier::name).collect();
    println!("tiers: {}", names.join(" "));
    let portable = Tier::by_name("portable").unwrap();
    for kind in TensorType::ALL.iter().copied() {
        let block = kind.block_len().max(16);
        for (case, (rows, k, n)) in [
            (1, block, 1),
            (3, 3 * block, 2),
            (4, 5 * block, 1),
            (7, 2 * block, 4),
            (17, 3 * block, 9),
            (64, 4 * block, 1),
            (37, 2 * block, 33),
            (130, block, 70),
        ]
        .into_iter()
        .enumerate()
        {
            let random = &mut Random(1000 * case as u64 + u64::from(kind.id()));
            let w = weights(kind, rows, k, random);
            let x: Vec<f32> = (0..n * k).map(|_| random.float()).collect();
            let one = |x: &[f32]| linear(portable, kind, &w, x, k, true);
            let want: Vec<u32> = x.chunks_exact(k).flat_map(|x| bits(&one(x))).collect();
            for tier in Tier::available() {
                for at_end in [true, false] {
                    let got = bits(&linear(tier, kind, &w, &x, k, at_end));
                    let name = Table::new(tier).name(kind);
                    let bad = got.iter().zip(&want).position(|(a, b)| a != b);
                    assert_eq!(bad, None, "{name}: [{rows}, {k}] x {n}, case {case}");
                }
            }
        }
    }
}

#[test]
fn every_row_count_to_17_gives_the_portable_bits_on_every_tier() {
    let portable = Tier::by_name("portable").unwrap();
    for kind in TensorType::ALL.iter().copied() {
        let k = 3 * kind.block_len().max(32);
        let random = &mut Random(u64::from(kind.id()));
        let w = weights(kind, 19, k, random);
        let x: Vec<f32> = (0..17 * k).map(|_| random.float()).collect();
        let one = |x: &[f32]| linear(portable, kind, &w, x, k, true);
        let want: Vec<u32> = x.chunks_exact(k).flat_map(|x| bits(&one(x))).collect();
        for tier in Tier::available() {
            for n in 1..=17 {
                let got = bits(&linear(tier, kind, &w, &x[..n * k], k, true));
                let bad = got.iter().zip(&want).position(|(a, b)| a != b);
                assert_eq!(bad, None, "{} x {n}", Table::new(tier).name(kind));
            }
        }
    }
}

#[test]
fn one_batch_row_of_any_length_gives_the_portable_bits() {
    let portable = Tier::by_name("portable").unwrap();
    let parts = [TensorType::NVFP4, TensorType::Q2_0, TensorType::Q1_0];
    let ternary = [TensorType::TQ1_0, TensorType::TQ2_0, TensorType::IQ1_M];
    let others = [TensorType::IQ4_XS, TensorType::IQ3_S].into_iter().chain(ternary);
    let all = [TensorType::Q6_K, TensorType::Q4_K, TensorType::Q8_0].into_iter();
    for kind in all.chain(others).chain(parts) {
        for (rows, blocks) in [(33, 8), (20, 22), (17, 64), (5, 65), (16, 1), (1, 43)] {
            let (k, random) = (256 * blocks, &mut Random(blocks as u64));
            let w = weights(kind, rows, k, random);
            let random: Vec<f32> = (0..k).map(|_| random.float()).collect();
            // The largest sums, too.
            for x in [random, vec![1.0; k], vec![-1.0; k]] {
                let want = bits(&linear(portable, kind, &w, &x, k, true));
                for tier in Tier::available() {
                    let got = bits(&linear(tier, kind, &w, &x, k, blocks % 2 == 0));
                    assert!(got == want, "{} [{rows}, {k}]", Table::new(tier).name(kind));
                }
            }
        }
    }
}

#[test]
fn mxfp4_scales_at_both_ends_give_the_portable_bits() {
    let (kind, k) = (TensorType::MXFP4, 96);
    let portable = Tier::by_name("portable").unwrap();
    let random = &mut Random(3);
    let mut w = weights(kind, 17, k, random);
    let ends = [0, 1, 2, 3, 126, 127, 128, 253, 254, 255];
    for (block, end) in w.chunks_exact_mut(kind.block_bytes()).zip(ends.into_iter().cycle()) {
        block[0] = end;
    }
    let x: Vec<f32> = (0..k).map(|_| random.float()).collect();
    let want = bits(&linear(portable, kind, &w, &x, k, true));
    for tier in Tier::available() {
        assert_eq!(bits(&linear(tier, kind, &w, &x, k, true)), want, "{}", tier.name());
    }
}

#[test]
fn every_scale_of_nvfp4_gives_the_portable_bits() {
    let (kind, rows, k) = (TensorType::NVFP4, 19, 320);
    let portable = Tier::by_name("portable").unwrap();
    let random = &mut Random(4);
    let mut w = weights(kind, rows, k, random);
    let blocks = w.chunks_exact_mut(kind.block_bytes());
    let scales = blocks.flat_map(|block| &mut block[..4]);
    for (scale, byte) in scales.zip((0..=255).cycle()) {
        *scale = byte;
    }
    let x: Vec<f32> = (0..18 * k).map(|_| random.float()).collect();
    let one = |x: &[f32]| linear(portable, kind, &w, x, k, true);
    let want: Vec<u32> = x.chunks_exact(k).flat_map(|x| bits(&one(x))).collect();
    for tier in Tier::available() {
        for n in [1, 8, 18] {
            let got = bits(&linear(tier, kind, &w, &x[..n * k], k, true));
            assert!(got == want[..n * rows], "{} x {n}", tier.name());
        }
    }
}

#[test]
fn odd_widths_of_floats_give_the_portable_bits() {
    let portable = Tier::by_name("portable").unwrap();
    for kind in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        for (rows, k, n) in [(5, 1, 3), (3, 6, 1), (9, 10, 2), (4, 33, 5), (21, 100, 20)] {
            let random = &mut Random(k as u64);
            let w = weights(kind, rows, k, random);
            let x: Vec<f32> = (0..n * k).map(|_| random.float()).collect();
            let one = |x: &[f32]| linear(portable, kind, &w, x, k, true);
            let want: Vec<u32> = x.chunks_exact(k).flat_map(|x| bits(&one(x))).collect();
            for tier in Tier::available() {
                let got = bits(&linear(tier, kind, &w, &x, k, true));
                assert_eq!(got, want, "{} [{rows}, {k}] x {n}", Table::new(tier).name(kind));
            }
        }
    }
}

#[test]
fn nan_and_infinity_come_through_and_hang_nothing() {
    let kinds = [TensorType::F16, TensorType::Q4_0, TensorType::Q8_0, TensorType::Q4_K];
    for kind in kinds.into_iter().chain([TensorType::NVFP4, TensorType::Q1_0]) {
        let random = &mut Random(5);
        let w = weights(kind, 4, 256, random);
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x: Vec<f32> = (0..512).map(|_| random.float()).collect();
            x[300] = odd;
            for tier in Tier::available() {
                let y = linear(tier, kind, &w, &x, 256, true);
                assert!(y[..4].iter().all(|y| y.is_finite()), "{kind:?} row 0");
                assert!(y[4..].iter().all(|y| !y.is_finite()), "{kind:?} row 1: {y:?}");
            }
        }
    }
}

/// Blocks of activations as the oracle's authors quantised them.
fn stored(blocks: &[u8], kind: ActKind) -> (Vec<i8>, Vec<f32>, Vec<i16>) {
    let (mut qs, mut ds, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    let whole = kind == ActKind::Block256;
    for block in blocks.chunks_exact(if whole { 292 } else { 34 }) {
        let (d, codes) = if whole {
            (f32::from_le_bytes(*block.first_chunk().unwrap()), &block[4..260])
        } else {
            (half::f16::from_le_bytes([block[0], block[1]]).to_f32(), &block[2..])
        };
        ds.push(d);
        qs.extend(codes.iter().map(|q| q.cast_signed()));
    }
    for part in qs.chunks_exact(16) {
        sums.push(part.iter().map(|q: &i8| i16::from(*q)).sum());
    }
    (qs, ds, sums)
}

#[test]
fn dot_products_are_those_of_the_oracle() {
    let oracle = json("quant/quant.json");
    let blocks = data("quant/blocks.bin");
    let slice = |record: &serde_json::Value| {
        let number = |key: &str| record[key].as_u64().unwrap() as usize;
        blocks[number("offset")..][..number("bytes")].to_vec()
    };
    let floats = slice(&oracle["vector"]);
    let floats: Vec<f32> =
        floats.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    for (name, record) in oracle["types"].as_object().unwrap() {
        let kind = *TensorType::ALL.iter().find(|kind| kind.name() == name).unwrap();
        let w = slice(&record["data"]);
        for ((key, k), tier) in [("dot256", 256), ("dot1024", 1024)]
            .into_iter()
            .flat_map(|case| Tier::available().into_iter().map(move |tier| (case, tier)))
        {
            let list = |column: &str| -> Vec<f64> {
                let values = record[key][column].as_array().unwrap();
                values.iter().map(|x| x.as_f64().unwrap()).collect()
            };
            let act = Table::new(tier).linear(kind).act;
            let (column, (qs, ds, sums)) = match act {
                ActKind::Float => ("exact", (vec![], vec![], vec![])),
                ActKind::Block32 => ("int8", stored(&slice(&oracle["activations"]["Q8_0"]), act)),
                ActKind::Block256 => ("int8", stored(&slice(&oracle["activations"]["Q8_K"]), act)),
            };
            let sums32: Vec<i16> =
                qs.chunks(32).map(|qs| qs.iter().map(|q| i16::from(*q)).sum()).collect();
            let starts: Vec<i32> = sums32.iter().map(|sum| -8 * i32::from(*sum)).collect();
            let (sums32, starts) = (&sums32[..], &starts[..]);
            let bytes = Bytes { qs: &qs, ds: &ds, sums: &sums, sums32, starts };
            let acts = match act {
                ActKind::Float => Acts::Float(&floats[..k]),
                ActKind::Block32 => Acts::Block32(bytes),
                ActKind::Block256 => Acts::Block256(bytes),
            };
            let y = product(tier, kind, &w, acts, (1, k), true);
            // Q8_1 stores its sum as f16, ours is exact.
            let rounded = matches!(kind, TensorType::Q4_1 | TensorType::Q5_1);
            let tolerance = if rounded { 1e-4 } else { 1e-6 };
            let wanted = list(column).into_iter().zip(list("magnitude"));
            for (i, (y, (wanted, magnitude))) in y.iter().zip(wanted).enumerate() {
                let apart = (f64::from(*y) - wanted).abs();
                let place = format!("{name} {key} row {i} on {}", tier.name());
                assert!(apart <= tolerance * magnitude, "{place}: {y}, wanted {wanted}");
            }
        }
    }
}
