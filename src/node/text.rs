//! Text to tokens and back, off JavaScript's thread.

use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{PromiseRaw, Uint32Array};
use napi_derive::napi;

use crate::node::promise::{blocking, promise};
use crate::node::request::{NativeChat, clock};
use crate::tools::chat::Chat;
use crate::tools::facts;

/// A tokenizer with the template that goes with it.
#[napi]
pub struct NativeText {
    path: String,
    chat: Arc<Chat>,
}

/// A conversation as the model sees it.
#[napi(object)]
pub struct NativeRendered {
    /// As text.
    pub text: String,
    /// As tokens.
    pub tokens: Uint32Array,
}

impl NativeText {
    /// Wraps what was opened at `path`.
    pub fn new(path: String, chat: Arc<Chat>) -> Self {
        NativeText { path, chat }
    }
}

#[napi]
impl NativeText {
    /// JSON of `TokenizerInfo`.
    #[napi(catch_unwind)]
    #[must_use]
    pub fn info(&self) -> String {
        facts::tokenizer(&self.path, self.chat.tokenizer(), self.chat.source())
    }

    /// Text to tokens.
    #[napi(catch_unwind)]
    pub fn tokenize<'env>(
        &self,
        env: &'env Env,
        text: String,
        special: bool,
        bos: bool,
    ) -> napi::Result<PromiseRaw<'env, Uint32Array>> {
        let chat = self.chat.clone();
        let encode = move || Ok(chat.tokenizer().encode(&text, bos, special));
        promise(env, async move { Ok(Uint32Array::new(blocking(encode).await?)) })
    }

    /// Tokens to text.
    #[napi(catch_unwind)]
    pub fn detokenize<'env>(
        &self,
        env: &'env Env,
        tokens: &[u32],
        special: bool,
    ) -> napi::Result<PromiseRaw<'env, String>> {
        let (chat, tokens) = (self.chat.clone(), tokens.to_vec());
        promise(
            env,
            blocking(move || {
                let bytes = chat.tokenizer().decode(&tokens, special);
                let replace = |error: std::string::FromUtf8Error| {
                    String::from_utf8_lossy(error.as_bytes()).into_owned()
                };
                Ok(String::from_utf8(bytes).unwrap_or_else(replace))
            }),
        )
    }

    /// A conversation as the model sees it.
    #[napi(catch_unwind)]
    pub fn render<'env>(
        &self,
        env: &'env Env,
        from: NativeChat,
    ) -> napi::Result<PromiseRaw<'env, NativeRendered>> {
        let chat = self.chat.clone();
        let render = move || chat.render(&from.messages, &from.template_args, clock(&from.clock));
        promise(env, async move {
            let rendered = blocking(render).await?;
            Ok(NativeRendered { text: rendered.text, tokens: Uint32Array::new(rendered.tokens) })
        })
    }
}
