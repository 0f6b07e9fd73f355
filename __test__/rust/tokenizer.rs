//! The tokenizers against the oracle: token ids, texts, pieces and pre-tokenizer cuts that
//! llama.cpp and Hugging Face agree on, and what must hold for any text.

mod broken;
mod cases;
mod data;
mod properties;
mod sha256;
mod splits;
