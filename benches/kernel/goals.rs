//! The goals, and whether this run reached them: `-- --goals`.

use super::measure::{Ratio, Sample};

/// Which side of a goal's number is good.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// At most, in every round rather than in their median.
    AlwaysAtMost(f64),
    /// Whatever it takes: it is to be shown.
    Shown,
}

/// A goal with what was reached; `None` where it was not measured.
struct Goal {
    text: &'static str,
    bound: Bound,
    reached: Option<Ratio>,
    unit: &'static str,
}

/// What a run measured, in the goals' terms. `None` where a peer or a row is missing.
#[derive(Default)]
pub(crate) struct Reached {
    pub(crate) tell: Rows,
    pub(crate) tell_by_four: Rows,
    pub(crate) ask: Rows,
    pub(crate) spawn: Rows,
    pub(crate) error: Rows,
    pub(crate) panic: Rows,
    pub(crate) idle_child: Option<Ratio>,
    pub(crate) late_ms: Option<f64>,
    pub(crate) million_bytes: Option<f64>,
}

/// The rounds of one row, peer by peer.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) ours: Vec<Sample>,
    pub(crate) ractor: Vec<Sample>,
    pub(crate) kameo: Vec<Sample>,
    pub(crate) otp: Vec<Sample>,
    /// OTP through `gen_server:cast`, where that is not what `otp` is.
    pub(crate) otp_cast: Vec<Sample>,
}

impl Rows {
    fn against(&self, theirs: &[Sample], figure: impl Fn(&Sample) -> f64) -> Option<Ratio> {
        (!theirs.is_empty()).then(|| Ratio::of(&self.ours, theirs, figure))
    }
}

/// Prints each goal with what was reached.
pub(crate) fn print(reached: &Reached) {
    let Reached { tell, tell_by_four, ask, spawn, error, panic, .. } = reached;
    let goal = |text, bound, reached, unit| Goal { text, bound, reached, unit };
    let one = |figure: f64| Ratio { median: figure, least: figure, most: figure };
    println!("\n{:<66} {:>10}  {:<16}", "goal", "reached", "rounds");
    for goal in [
        goal(
            "tell 1 → 1 ≥ 3 x ractor",
            Bound::AtLeast(3.0),
            tell.against(&tell.ractor, Sample::per_second),
            " x",
        ),
        goal(
            "tell 1 → 1 ≥ 1.0 x Erlang/OTP (bare process)",
            Bound::AtLeast(1.0),
            tell.against(&tell.otp, Sample::per_second),
            " x",
        ),
        goal(
            "tell 4 → 1 ≥ 3 x ractor",
            Bound::AtLeast(3.0),
            tell_by_four.against(&tell_by_four.ractor, Sample::per_second),
            " x",
        ),
        goal(
            "ask ≤ 0.6 x kameo, p50",
            Bound::AtMost(0.6),
            ask.against(&ask.kameo, Sample::p50_us),
            " x",
        ),
        goal(
            "supervised spawn ≤ 0.5 x ractor, CPU",
            Bound::AtMost(0.5),
            spawn.against(&spawn.ractor, Sample::cpu_ns),
            " x",
        ),
        goal(
            "supervised spawn ≤ 0.8 x Erlang/OTP, CPU",
            Bound::AtMost(0.8),
            spawn.against(&spawn.otp, Sample::cpu_ns),
            " x",
        ),
        goal(
            "idle supervised child ≤ 0.4 x ractor, bytes",
            Bound::AtMost(0.4),
            reached.idle_child,
            " x",
        ),
        goal(
            "error → next life answers ≤ 0.6 x ractor by hand, p50, every round",
            Bound::AlwaysAtMost(0.6),
            error.against(&error.ractor, Sample::p50_us),
            " x",
        ),
        goal(
            "panic → next life answers ≤ 1.0 x ractor by hand, p50, every round",
            Bound::AlwaysAtMost(1.0),
            panic.against(&panic.ractor, Sample::p50_us),
            " x",
        ),
        goal(
            "a sleep(1 ms) beside any load at most 20 ms late",
            Bound::AlwaysAtMost(20.0),
            reached.late_ms.map(one),
            " ms",
        ),
        goal(
            "1,000,000 idle actors in one process, with memory (-- --million)",
            Bound::Shown,
            reached.million_bytes.map(|bytes| one(bytes / 1e9)),
            " GB",
        ),
    ] {
        let Goal { text, bound, reached, unit } = goal;
        let Some(Ratio { median, least, most }) = reached else {
            println!("{text:<66} {:>10}", "not measured");
            continue;
        };
        let good = match bound {
            Bound::AtLeast(number) => median >= number,
            Bound::AtMost(number) => median <= number,
            Bound::AlwaysAtMost(number) => most <= number,
            Bound::Shown => true,
        };
        println!(
            "{text:<66} {:>10}  {:<16} {}",
            format!("{median:.2}{unit}"),
            if least < most { format!("{least:.2} to {most:.2}") } else { String::new() },
            if good { "reached" } else { "missed" }
        );
    }
}
