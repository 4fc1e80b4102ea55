//! Code of the application, called so that a panic of it is an error like others.
//!
//! Everything that a projection brings along runs behind it: its functions, and how its documents
//! are written, read and dropped. So does what an aggregate is loaded with, and its snapshots; what
//! names a lane, a subject or a deadline; and a job of SQLite's threads.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What `code` answers, or what its panic said.
///
/// Whatever `code` changes has to be thrown away after a panic: it may be half done.
pub(crate) fn guarded<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| format!("panic: {}", text_of(panic)))
}

/// What a panic said; its payload is dropped here, whatever that does.
pub(crate) fn text_of(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    // A payload is anything, and so is its drop; one that panics again is given up.
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(panic))) {
        std::mem::forget(again);
    }
    text.unwrap_or_else(|| "no text".to_owned())
}

/// Work that takes milliseconds of a processor, beside the threads that serve everybody.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}
