//! Every tensor type against blocks and values that an independent program wrote: bit for bit.

use node_chord::quant::TensorType;
use serde_json::Value;

use crate::runner::{data, json};

struct Oracle {
    json: Value,
    bytes: Vec<u8>,
}

impl Oracle {
    fn read() -> Self {
        Oracle { json: json("quant/quant.json"), bytes: data("quant/blocks.bin") }
    }

    fn types(&self) -> impl Iterator<Item = (TensorType, &Value)> {
        self.json["types"].as_object().unwrap().iter().map(|(name, record)| {
            let kind = TensorType::ALL.iter().find(|kind| kind.name() == name).unwrap();
            assert_eq!(u64::from(kind.id()), record["id"].as_u64().unwrap());
            (*kind, record)
        })
    }

    fn slice(&self, record: &Value) -> &[u8] {
        let number = |key: &str| usize::try_from(record[key].as_u64().unwrap()).unwrap();
        &self.bytes[number("offset")..][..number("bytes")]
    }

    fn floats(&self, record: &Value) -> Vec<f32> {
        let chunks = self.slice(record).as_chunks::<4>().0;
        chunks.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

fn dequantise(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / kind.block_bytes() * kind.block_len()];
    kind.dequantise(bytes, &mut out).unwrap();
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The checksum of zlib, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[test]
fn every_type_dequantises_to_the_oracles_bits() {
    let oracle = Oracle::read();
    let mut count = 0;
    for (kind, record) in oracle.types() {
        let got = dequantise(kind, oracle.slice(&record["data"]));
        let wanted = oracle.floats(&record["floats"]);
        assert_eq!(got.len(), 64 * 256);
        for (row, (got, wanted)) in got.chunks(256).zip(wanted.chunks(256)).enumerate() {
            assert_eq!(bits(got), bits(wanted), "{} row {row}", kind.name());
        }
        count += 1;
    }
    // Q8_K is never a weight's type; the oracle has it among the activations.
    assert_eq!(count, TensorType::ALL.len() - 1);
}

#[test]
fn every_code_of_every_grid_is_the_oracles() {
    let oracle = Oracle::read();
    let mut count = 0;
    for (kind, record) in oracle.types().filter(|(_, record)| record["grid"].is_object()) {
        let grid = &record["grid"];
        let got = dequantise(kind, oracle.slice(grid));
        let wanted = grid["row_crc32"].as_array().unwrap();
        assert_eq!(got.len(), wanted.len() * 256);
        for (row, (got, wanted)) in got.chunks(256).zip(wanted).enumerate() {
            let bytes: Vec<u8> = got.iter().flat_map(|value| value.to_le_bytes()).collect();
            let got = format!("{:08x}", crc32(&bytes));
            assert_eq!(got, wanted.as_str().unwrap(), "{} row {row}", kind.name());
        }
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn activation_types_dequantise_to_about_the_vector() {
    let oracle = Oracle::read();
    let vector = oracle.floats(&oracle.json["vector"]);
    for kind in [TensorType::F16, TensorType::BF16, TensorType::Q8_0, TensorType::Q8_K] {
        let got = dequantise(kind, oracle.slice(&oracle.json["activations"][kind.name()]));
        // Half a step of an 8-bit code: its block's largest value / 254, here at most 256 values.
        for (got, wanted) in got.chunks(256).zip(vector.chunks(256)) {
            let largest = wanted.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for (got, wanted) in got.iter().zip(wanted) {
                assert!((got - wanted).abs() <= largest / 250.0, "{}", kind.name());
            }
        }
    }
}

#[test]
fn dot_products_with_f32_activations_are_exact() {
    let oracle = Oracle::read();
    let vector = oracle.floats(&oracle.json["vector"]);
    for (kind, record) in oracle.types() {
        let weights = dequantise(kind, oracle.slice(&record["data"]));
        for n in [256, 1024] {
            let dots = &record[format!("dot{n}")];
            for (row, weights) in weights.chunks(n).enumerate() {
                let number = |key: &str| dots[key][row].as_f64().unwrap();
                let terms = weights.iter().zip(&vector);
                let sum: f64 = terms.map(|(w, y)| f64::from(*w) * f64::from(*y)).sum();
                let (exact, magnitude) = (number("exact"), number("magnitude"));
                // The oracle's text has about 9 digits.
                let error = (sum - exact).abs();
                assert!(error <= 1e-6 * magnitude, "{} row {row}: {sum} {exact}", kind.name());
            }
        }
    }
}

#[test]
fn candle_has_the_same_values() {
    use candle_core::quantized::{GgmlDType, QStorage, QTensor};
    use candle_core::{DType, Device};
    let oracle = Oracle::read();
    let mut count = 0;
    for (kind, record) in oracle.types() {
        let dtype = match kind {
            TensorType::F32 => GgmlDType::F32,
            TensorType::F16 => GgmlDType::F16,
            TensorType::BF16 => GgmlDType::BF16,
            TensorType::Q4_0 => GgmlDType::Q4_0,
            TensorType::Q4_1 => GgmlDType::Q4_1,
            TensorType::Q5_0 => GgmlDType::Q5_0,
            TensorType::Q5_1 => GgmlDType::Q5_1,
            TensorType::Q8_0 => GgmlDType::Q8_0,
            TensorType::Q2_K => GgmlDType::Q2K,
            TensorType::Q3_K => GgmlDType::Q3K,
            TensorType::Q4_K => GgmlDType::Q4K,
            TensorType::Q5_K => GgmlDType::Q5K,
            TensorType::Q6_K => GgmlDType::Q6K,
            _ => continue,
        };
        let bytes = oracle.slice(&record["data"]);
        let data = std::borrow::Cow::Borrowed(bytes);
        let storage = QStorage::from_data(data, &Device::Cpu, dtype).unwrap();
        let tensor = QTensor::new(storage, (64, 256)).unwrap().dequantize(&Device::Cpu).unwrap();
        let theirs = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        let theirs = theirs.to_vec1::<f32>().unwrap();
        assert_eq!(bits(&dequantise(kind, bytes)), bits(&theirs), "{}", kind.name());
        count += 1;
    }
    assert_eq!(count, 13);
}

#[test]
fn lengths_that_do_not_fit_are_an_error() {
    for kind in TensorType::ALL {
        let bytes = vec![0; kind.block_bytes() * 2];
        let n = kind.block_len();
        assert!(kind.dequantise(&bytes, &mut vec![0.0; n]).is_err());
        assert!(kind.dequantise(&bytes[1..], &mut vec![0.0; 2 * n]).is_err());
        assert!(kind.dequantise(&bytes, &mut vec![0.0; 2 * n]).is_ok());
    }
}
