//! Waiting for a state that nobody announces.

use std::fmt::Debug;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

#[cfg(test)]
mod tests;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What `look` returns as `Ok`, asked again and again until then.
///
/// An `Err` is an observation of what is not yet right. The pauses grow from 1 ms to 100 ms. Where
/// an event, a watch value or a message tells of the change, wait for that instead.
///
/// # Panics
///
/// At the deadline, naming the caller and the last observation. A look that hangs is cut off.
#[track_caller]
pub fn eventually<T, E, F>(deadline: Duration, mut look: F) -> impl Future<Output = T>
where
    E: Debug,
    F: AsyncFnMut() -> Result<T, E>,
{
    let caller = Location::caller();
    async move {
        let end = Instant::now() + deadline;
        let mut pause = FIRST_PAUSE;
        let mut last = None;
        loop {
            match timeout_at(end, look()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(observation)) => last = Some(observation),
                Err(_) => break,
            }
            if Instant::now() >= end {
                break;
            }
            // The last look is at the deadline, not somewhere before it.
            sleep_until(end.min(Instant::now() + pause)).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        match last {
            Some(last) => panic!("{caller}: not within {deadline:?}; last seen: {last:?}"),
            None => panic!("{caller}: not within {deadline:?}; the first look did not return"),
        }
    }
}
