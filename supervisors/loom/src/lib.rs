//! A model check of the kernel's mailbox and gate: the same source files, compiled against loom's
//! primitives, which run a test in every order that its threads can take (up to a number of
//! preemptions), with every value that a weak memory may show.
//!
//! `cargo test -p mister-smith-loom` runs all models; `LOOM_MAX_PREEMPTIONS=4` looks further and
//! takes longer. To see the steps of one that fails, run it alone with `LOOM_LOG=trace` and
//! `LOOM_LOCATION=1` set.
//!
//! loom's types work inside a model only, so the two files hold no tests of their own. What the
//! models cannot show: loom's locks are stronger than real ones (each is also a sequentially
//! consistent fence), so an ordering that is too weak shows only where no lock is between.

#[cfg(test)]
#[allow(dead_code, reason = "the models use what races")]
#[path = "../../src/actor/gate.rs"]
mod gate;
#[cfg(test)]
#[allow(dead_code, reason = "the models use what races")]
#[path = "../../src/actor/mailbox.rs"]
mod mailbox;
#[cfg(test)]
mod sync;

#[cfg(test)]
mod model;

#[cfg(test)]
mod close;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod full;
#[cfg(test)]
mod lives;
#[cfg(test)]
mod overflow;
#[cfg(test)]
mod signs;
