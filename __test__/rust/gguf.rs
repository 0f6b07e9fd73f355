//! Properties of the GGUF reader: what is written is read; no bytes whatever make it panic or take
//! memory that the file does not justify.

use node_chord::gguf::{Array, Header, Strings, Value};
use proptest::prelude::*;

use crate::malformed::file;
use crate::measure::cost;
use crate::writer::Gguf;

fn read(bytes: &[u8]) -> node_chord::error::Result<Header> {
    Header::read(bytes, bytes.len() as u64, "test.gguf")
}

fn flat() -> impl Strategy<Value = Array> {
    use proptest::collection::vec;
    prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::U8),
        vec(any::<i8>(), 0..9).prop_map(Array::I8),
        vec(any::<u16>(), 0..9).prop_map(Array::U16),
        vec(any::<i16>(), 0..9).prop_map(Array::I16),
        vec(any::<u32>(), 0..9).prop_map(Array::U32),
        vec(any::<i32>(), 0..9).prop_map(Array::I32),
        vec(any::<f32>(), 0..9).prop_map(Array::F32),
        vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        vec(vec(any::<u8>(), 0..9), 0..9)
            .prop_map(|list| Array::Strings(list.iter().collect::<Strings>())),
        vec(any::<u64>(), 0..9).prop_map(Array::U64),
        vec(any::<i64>(), 0..9).prop_map(Array::I64),
        vec(any::<f64>(), 0..9).prop_map(Array::F64),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    use proptest::collection::vec;
    let array = flat().prop_recursive(7, 64, 4, |inner| vec(inner, 0..4).prop_map(Array::Arrays));
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        vec(any::<u8>(), 0..40).prop_map(Value::String),
        array.prop_map(Value::Array),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
    ]
}

/// One way to spoil a file.
#[derive(Clone, Debug)]
enum Harm {
    Byte(usize, u8),
    Number(usize, u64),
    Cut(usize),
    Double(usize, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let number = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(1 << 63),
        Just(1 << 40),
        Just(1 << 32),
        Just(9),
        0_u64..100_000,
        any::<u64>(),
    ];
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Harm::Byte(at, byte)),
        (any::<usize>(), number).prop_map(|(at, number)| Harm::Number(at, number)),
        any::<usize>().prop_map(Harm::Cut),
        (any::<usize>(), 1_usize..80).prop_map(|(at, length)| Harm::Double(at, length)),
    ]
}

fn apply(bytes: &mut Vec<u8>, harm: &Harm) {
    // Most of a file is data; the header is what matters.
    let reach = bytes.len().min(2200);
    if reach < 16 {
        return;
    }
    match harm {
        Harm::Byte(at, byte) => bytes[at % reach] = *byte,
        Harm::Number(at, number) => {
            bytes[at % (reach - 8)..][..8].copy_from_slice(&number.to_le_bytes());
        }
        Harm::Cut(at) => bytes.truncate(at % bytes.len()),
        Harm::Double(at, length) => {
            let at = at % reach;
            let piece = bytes[at..bytes.len().min(at + length)].to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn every_value_that_is_written_is_read(values in proptest::collection::vec(value(), 0..9)) {
        let keys = values.into_iter().enumerate().map(|(i, value)| (format!("key.{i}"), value));
        let gguf = Gguf::new(keys.collect());
        let header = read(&gguf.header()).unwrap();
        prop_assert_eq!(header.meta.iter().len(), gguf.keys.len());
        for ((key, value), read) in gguf.keys.iter().zip(header.meta.iter()) {
            prop_assert_eq!((key.as_str(), value), read);
        }
    }

    #[test]
    fn spoilt_files_are_refused_or_read_within_bounds(
        name in prop_oneof![
            Just("ok_base.gguf"), Just("ok_bpe.gguf"), Just("ok_experts.gguf"),
            Just("ok_array_of_arrays.gguf"),
        ],
        harms in proptest::collection::vec(harm(), 1..5),
    ) {
        let mut bytes = std::fs::read(file(name)).unwrap();
        harms.iter().for_each(|harm| apply(&mut bytes, harm));
        let (result, cost) = cost(|| read(&bytes));
        prop_assert!(cost.peak_bytes <= 16 * bytes.len() + 65_536, "{} bytes", cost.peak_bytes);
        if let Err(error) = result {
            prop_assert!(error.message.contains("test.gguf"));
            prop_assert!(!error.message.chars().any(char::is_control));
        }
    }
}

#[test]
fn every_prefix_of_a_file_is_refused() {
    let bytes = std::fs::read(file("ok_base.gguf")).unwrap();
    assert!(read(&bytes).is_ok());
    for length in 0..bytes.len() {
        let error = read(&bytes[..length]).unwrap_err();
        let code = if length < 4 { "ERR_NOT_GGUF" } else { "ERR_GGUF_CORRUPT" };
        assert_eq!(error.code.as_str(), code, "{length} bytes");
    }
}

#[test]
fn a_reader_that_fails_is_an_io_error_with_its_place() {
    struct Failing(usize);
    impl std::io::Read for Failing {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let head = Gguf::new(vec![("a".into(), Value::U8(1))]).header();
            if self.0 >= 24 {
                return Err(std::io::Error::from_raw_os_error(5));
            }
            out[0] = head[self.0];
            self.0 += 1;
            Ok(1)
        }
    }
    let error = Header::read(Failing(0), 1000, "test.gguf").unwrap_err();
    assert_eq!(error.code.as_str(), "ERR_IO");
    assert!(error.message.contains("byte 24"), "{error}");
}
