//! Code of the application, called so that a panic of it is an error like others.
//!
//! Everything that a projection brings along runs behind it: its functions, and how its documents
//! are written, read and dropped. So does what an aggregate is loaded with, and its snapshots; what
//! names a lane, a subject or a deadline; a job of SQLite's threads; and every handler of messages,
//! from the call that makes its future to the drop of it.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;

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

/// Why a future of the application gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It panicked, or the code that makes it did: what it said.
    Panicked(String),
    /// It was not done in time, and was dropped.
    Late(Duration),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(text) => f.write_str(text),
            Self::Late(deadline) => write!(f, "it took longer than {deadline:?}"),
        }
    }
}

/// Makes a future, and waits for it, at most this long. It is made, polled and dropped behind the
/// guard. One that is ready at once costs no timer; of one that is not, `pending` hears before it
/// is waited for.
///
/// # Cancel safety
/// A dropped call drops the future, outside the guard.
pub(crate) async fn guarded_within<F: Future>(
    deadline: Duration,
    make: impl FnOnce() -> F,
    pending: impl FnOnce(),
) -> Result<F::Output, Broken> {
    let future = guarded(make).map_err(Broken::Panicked)?;
    let mut slot = pin!(Some(future));
    let early = poll_fn(|cx| Poll::Ready(poll(slot.as_mut(), cx))).await;
    let answer = match early {
        Poll::Ready(answer) => answer.map_err(Broken::Panicked),
        Poll::Pending => {
            pending();
            match timeout(deadline, poll_fn(|cx| poll(slot.as_mut(), cx))).await {
                Ok(answer) => answer.map_err(Broken::Panicked),
                Err(_) => Err(Broken::Late(deadline)),
            }
        }
    };
    // What it answered counts, also if something that it held cannot be dropped in peace.
    if let Err(panic) = guarded(|| slot.set(None)) {
        tracing::warn!(panic, "a handler's future could not be dropped");
    }
    answer
}

fn poll<F: Future>(
    slot: Pin<&mut Option<F>>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, String>> {
    let Some(future) = slot.as_pin_mut() else { return Poll::Pending };
    match guarded(|| future.poll(cx)) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Err(panic)),
    }
}
