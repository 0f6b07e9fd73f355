//! The corpus of broken and hostile files. `data/malformed/corpus.tar.zst` holds the files with
//! their expectations (`cases.jsonl`), as made by `tools/make_malformed.py`:
//! `tar --sort=name --mtime=@0 --format=ustar -cf - * | zstd --ultra -22`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use node_chord::error::{Code, Error, Field};
use node_chord::gguf::File;

use crate::measure::{Cost, cost};
use crate::runner::data;

/// The latest step at which a refusal may come, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Reading the container.
    Open,
    /// Making model and tokenizer of it.
    Load,
    /// Rendering one user message with a generation prompt.
    Template,
    /// Generating.
    Run,
}

/// What a careful reader answers to one file.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "tests of later stages read the rest")]
pub struct Case {
    /// Its name in the corpus.
    pub name: String,
    /// Where it lies now.
    pub path: PathBuf,
    /// Whether it must be accepted at every stage.
    pub is_accepted: bool,
    /// Whether acceptance is as good as refusal.
    pub may_be_accepted: bool,
    /// Codes that a refusal may have.
    pub codes: Vec<String>,
    /// When it must be refused at the latest.
    pub stage: Stage,
    /// What its template renders, where it is accepted.
    pub renders: Option<String>,
}

/// All cases, with their files unpacked below `target/tmp`.
pub fn cases() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let folder = corpus();
        let lines = fs::read_to_string(folder.join("cases.jsonl")).unwrap();
        lines.lines().map(|line| case(&folder, line)).collect()
    })
}

/// The path of one file of the corpus.
pub fn file(name: &str) -> PathBuf {
    corpus().join(name)
}

fn case(folder: &Path, line: &str) -> Case {
    let json: serde_json::Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| json[key].as_str().map(str::to_owned);
    let name = text("file").unwrap();
    let others = json["or"].as_array().into_iter().flatten();
    let others = others.map(|code| code.as_str().unwrap().to_owned());
    Case {
        path: folder.join(&name),
        name,
        is_accepted: text("expect").unwrap() == "accept",
        may_be_accepted: text("also").is_some_and(|also| also == "accept"),
        codes: text("code").into_iter().chain(others).collect(),
        stage: match text("stage").unwrap().as_str() {
            "open" => Stage::Open,
            "load" => Stage::Load,
            "template" => Stage::Template,
            "run" => Stage::Run,
            other => panic!("stage {other}"),
        },
        renders: text("renders"),
    }
}

/// Unpacks the corpus once for all test runs.
fn corpus() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let bytes = data("malformed/corpus.tar");
        let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        let folder = tmp.join(format!("malformed-{sum:016x}"));
        if !folder.exists() {
            let part = tmp.join(format!("malformed-{}.part", std::process::id()));
            untar(&bytes, &part);
            // Another process may have been faster.
            if fs::rename(&part, &folder).is_err() {
                fs::remove_dir_all(&part).unwrap();
            }
        }
        folder
    });
    folder.clone()
}

/// Plain files of a ustar archive: a header of 512 bytes, then the file, padded to 512.
fn untar(bytes: &[u8], folder: &Path) {
    let mut rest = bytes;
    while rest.len() >= 512 && rest[0] != 0 {
        let (header, after) = rest.split_at(512);
        let text = |range: std::ops::Range<usize>| {
            let bytes = header[range].split(|byte| matches!(byte, 0 | b' ')).next().unwrap();
            str::from_utf8(bytes).unwrap().to_owned()
        };
        let length = usize::from_str_radix(&text(124..136), 8).unwrap();
        let path = folder.join(text(0..100));
        if header[156] == b'0' {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &after[..length]).unwrap();
        }
        rest = &after[length.next_multiple_of(512)..];
    }
}

/// Checks what every refusal must have: a name, a place, no raw text of the file.
pub fn assert_is_good(error: &Error, name: &str) {
    let message = &error.message;
    assert_ne!(error.code, Code::Internal, "{name}: {message}");
    assert!(message.contains(".gguf") || message.contains(".safetensors"), "{name}: {message}");
    assert!(!message.chars().any(char::is_control), "{name}: {message:?}");
    assert!(message.chars().count() < 700, "{name}: {message}");
    let field = |name: &str| {
        error.fields.iter().any(|(known, field)| {
            *known == name && matches!(field, Field::Text(text) if !text.is_empty())
        })
    };
    assert!(field("path"), "{name}: {error:?}");
    let file = matches!(error.code, Code::FileNotFound | Code::FileUnreadable);
    assert!(file || field("at"), "{name}: {error:?}");
    assert!(error.code != Code::FileUnreadable || field("errno"), "{name}: {error:?}");
}

/// Checks the bounds that hold for every file of the corpus.
pub fn assert_is_cheap(cost: &Cost, file_bytes: u64, name: &str) {
    assert!(cost.time < Duration::from_secs(1), "{name}: {:?}", cost.time);
    let most = 8 * file_bytes + (1 << 20);
    assert!(cost.peak_bytes as u64 <= most, "{name}: {} bytes", cost.peak_bytes);
}

#[test]
fn every_file_has_the_outcome_that_the_corpus_wants_of_the_reader() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (result, cost) = cost(|| File::open(&case.path).map(|_| ()));
        let bytes = fs::metadata(&case.path).map_or(0, |metadata| metadata.len());
        assert_is_cheap(&cost, bytes, &case.name);
        match result {
            Ok(()) if case.is_accepted || case.may_be_accepted || case.stage > Stage::Open => {}
            Err(error) if !case.is_accepted => {
                assert_is_good(&error, &case.name);
                if !case.codes.iter().any(|code| code == error.code.as_str()) {
                    wrong.push(format!("{}: {error}; wanted {:?}", case.name, case.codes));
                }
            }
            other => wrong.push(format!("{}: {other:?}; wanted {:?}", case.name, case.codes)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases().len() > 300);
}

#[test]
fn a_missing_part_is_named_and_a_later_part_names_the_first() {
    let message = |name: &str| File::open(&file(name)).map(|_| ()).unwrap_err().message;
    let missing = message("split_missing/m-00001-of-00003.gguf");
    assert!(missing.contains("'m-00002-of-00003.gguf'"), "{missing}");
    let second = message("split_second/m-00002-of-00003.gguf");
    assert!(second.contains("'m-00001-of-00003.gguf'"), "{second}");
}

#[test]
fn parts_are_one_model() {
    let whole = File::open(&file("ok_base.gguf")).unwrap();
    let parts = File::open(&file("ok_split/m-00001-of-00003.gguf")).unwrap();
    assert_eq!(parts.parts().len(), 3);
    assert_eq!(parts.tensors().len(), whole.tensors().len());
    for tensor in whole.tensors() {
        let part = parts.tensor(&tensor.name).unwrap();
        assert_eq!(
            (&part.shape, part.kind, part.bytes),
            (&tensor.shape, tensor.kind, tensor.bytes)
        );
        let bytes = |file: &File, tensor: &node_chord::gguf::Tensor| {
            let bytes = fs::read(&file.parts()[tensor.part as usize].path).unwrap();
            bytes[tensor.offset as usize..][..tensor.bytes as usize].to_vec()
        };
        assert_eq!(bytes(&parts, part), bytes(&whole, tensor), "{}", tensor.name);
    }
}
