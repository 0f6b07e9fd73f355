//! The model part over the corpus of broken files: what it must refuse, and with which code. The
//! corpus lies beside the repository; the same kinds of faults are unit tests in `src/model`.

use std::fs;

use node_chord::error::Code;
use node_chord::{gguf, model};

use crate::runner::root;

#[test]
fn broken_models_are_refused_with_the_code_that_the_corpus_wants() {
    let folder = root("../shared/oracles/malformed");
    let Ok(cases) = fs::read_to_string(folder.join("cases.jsonl")) else {
        println!("skipped: {} is not there", folder.display());
        return;
    };
    let mut wrong = Vec::new();
    for line in cases.lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("a case");
        let text = |key: &str| case[key].as_str().unwrap_or_default();
        let path = folder.join(text("file"));
        let result = gguf::File::open(&path).and_then(|file| model::plan(&file));
        let mut codes = vec![text("code")];
        codes.extend(case["or"].as_array().into_iter().flatten().filter_map(|code| code.as_str()));
        // Faults of tokenizers and templates, and those that a run finds, are not found here.
        let ours = text("stage") != "run"
            && text("stage") != "template"
            && !matches!(text("code"), "ERR_TOKENIZER_INVALID" | "ERR_TEMPLATE");
        let accepted = text("expect") == "accept" || text("also") == "accept" || !ours;
        match &result {
            Ok(_) if accepted => {}
            Err(error) if codes.contains(&error.code.as_str()) => {
                assert!(error.message.contains(".gguf"), "{error}");
                assert_ne!(error.code, Code::Internal);
            }
            Ok(_) => wrong.push(format!("{}: accepted, wanted {codes:?}", text("file"))),
            Err(error) => wrong.push(format!("{}: {error}, wanted {codes:?}", text("file"))),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
