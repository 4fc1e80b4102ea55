//! The processor's time of this process, thread by thread, as Linux tells it.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long a tick of `/proc` is; the kernel has told the same to every program for decades.
const TICK: Duration = Duration::from_millis(10);

/// User and system time by the names of threads. Empty where there is no `/proc`.
pub(crate) fn by_thread() -> BTreeMap<String, Duration> {
    let mut times = BTreeMap::new();
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return times };
    for task in tasks.flatten() {
        let Ok(text) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        // The name stands in brackets and may have brackets and blanks itself.
        let Some((before, after)) = text.rsplit_once(')') else { continue };
        let name = before.split_once('(').map_or(before, |(_, name)| name);
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<u32>().ok()).unwrap_or(0);
        *times.entry(name.to_owned()).or_default() += TICK * (ticks(11) + ticks(12));
    }
    times
}

/// What was used between two looks, the thread that used most first.
pub(crate) fn between(
    before: &BTreeMap<String, Duration>,
    after: &BTreeMap<String, Duration>,
) -> Vec<(String, Duration)> {
    let used = |(name, time): (&String, &Duration)| {
        (name.clone(), time.saturating_sub(before.get(name).copied().unwrap_or_default()))
    };
    let mut all: Vec<_> = after.iter().map(used).filter(|(_, time)| !time.is_zero()).collect();
    all.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    all
}
