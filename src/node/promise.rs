//! Promises over work that happens elsewhere: failures cross as JSON in an error's message, a panic
//! becomes one, and nothing settles once the environment is going away.

use std::any::Any;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use napi::Env;
use napi::bindgen_prelude::{PromiseRaw, ToNapiValue};
use tokio::sync::Semaphore;

use crate::error::{Error, Field, Result};
use crate::node::teardown;

/// Texts that are tokenised side by side, over all models: more would only crowd the engines out.
static BLOCKING: Semaphore = Semaphore::const_new(4);

/// A promise for what the future brings.
pub fn promise<'env, T, F>(env: &'env Env, future: F) -> napi::Result<PromiseRaw<'env, T>>
where
    T: ToNapiValue + Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let environment = teardown::current(env)?;
    env.spawn_future(async move {
        let result = caught(Box::pin(future)).await;
        if environment.is_over() {
            // Nobody is left to hear of it.
            pending::<()>().await;
        }
        result.map_err(|error| thrown(&error))
    })
}

/// Runs work that takes its time on a thread that may be blocked.
pub async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let permit = BLOCKING.acquire().await.map_err(|error| Error::internal("node", error))?;
    let result = unbounded_blocking(work).await;
    drop(permit);
    result
}

/// The same for work that mostly waits.
pub async fn unbounded_blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let work = AssertUnwindSafe(work);
    let caught = move || catch_unwind(work).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
    match tokio::task::spawn_blocking(caught).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal("node", error)),
    }
}

/// An error as JavaScript's side reads it: `{code, message, fields}`.
pub fn json(error: &Error) -> String {
    let fields: serde_json::Map<String, serde_json::Value> = error
        .fields
        .iter()
        .map(|(name, field)| {
            let value = match field {
                Field::Text(text) => serde_json::Value::from(text.as_str()),
                Field::Number(number) => serde_json::Value::from(*number),
                Field::Null => serde_json::Value::Null,
            };
            ((*name).to_owned(), value)
        })
        .collect();
    let (code, message) = (error.code.as_str(), &error.message);
    serde_json::json!({ "code": code, "message": message, "fields": fields }).to_string()
}

/// An error that a call throws or a promise rejects with.
pub fn thrown(error: &Error) -> napi::Error {
    napi::Error::from_reason(json(error))
}

/// What a panic said, as an error.
pub fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::internal("the addon", text.unwrap_or("a panic"))
}

async fn caught<T>(mut future: Pin<Box<dyn Future<Output = Result<T>> + Send>>) -> Result<T> {
    poll_fn(move |context| {
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        poll.unwrap_or_else(|panic| std::task::Poll::Ready(Err(panicked(panic.as_ref()))))
    })
    .await
}
