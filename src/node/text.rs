//! Text to tokens and back, off JavaScript's thread.

use napi::Env;
use napi::bindgen_prelude::{Either, PromiseRaw, Uint32Array};
use napi_derive::napi;
use parking_lot::Mutex;

use crate::node::promise::{blocking, promise, thrown};
use crate::node::request::{NativeChat, clock};
use crate::node::slot::Slot;
use crate::tools::facts;

/// A tokenizer with the template that goes with it.
#[napi]
pub struct NativeText {
    path: String,
    chat: Slot,
}

/// A long text, piece by piece: converting one at once would hold JavaScript up.
#[napi]
#[derive(Default)]
pub struct NativeString(Mutex<String>);

#[napi]
impl NativeString {
    /// An empty text.
    #[napi(constructor, catch_unwind)]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece.
    #[napi(catch_unwind)]
    #[allow(clippy::needless_pass_by_value, reason = "what napi converts to")]
    pub fn push(&self, piece: String) {
        self.0.lock().push_str(&piece);
    }
}

impl NativeString {
    /// The whole text; it is empty afterwards.
    pub fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock())
    }
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
    pub fn new(path: String, chat: Slot) -> Self {
        NativeText { path, chat }
    }
}

#[napi]
impl NativeText {
    /// JSON of `TokenizerInfo`.
    #[napi(catch_unwind)]
    pub fn info(&self) -> napi::Result<String> {
        let chat = self.chat.chat().map_err(|error| thrown(&error))?;
        Ok(facts::tokenizer(&self.path, chat.tokenizer(), chat.source()))
    }

    /// Text to tokens.
    #[napi(catch_unwind)]
    pub fn tokenize<'env>(
        &self,
        env: &'env Env,
        text: Either<String, &NativeString>,
        special: bool,
        bos: bool,
    ) -> napi::Result<PromiseRaw<'env, Uint32Array>> {
        let text = match text {
            Either::A(text) => text,
            Either::B(long) => long.take(),
        };
        let chat = self.chat.clone();
        let encode = move || Ok(chat.chat()?.tokenizer().encode(&text, bos, special));
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
                let bytes = chat.chat()?.tokenizer().decode(&tokens, special);
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
        let render =
            move || chat.chat()?.render(&from.messages, &from.template_args, clock(&from.clock));
        promise(env, async move {
            let rendered = blocking(render).await?;
            Ok(NativeRendered { text: rendered.text, tokens: Uint32Array::new(rendered.tokens) })
        })
    }
}
