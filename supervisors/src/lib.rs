//! How actors live and die.
//!
//! The kernel of Mister Smith: Erlang/OTP's supervision rules over ractor, with addresses that
//! survive restarts and bounded mailboxes that survive them too. No I/O: no files, no sockets.
//!
//! | you want | look at |
//! |---|---|
//! | to write an actor | [`Actor`], [`Context`], [`ReplyPort`] |
//! | to talk to one | [`Address`] |
//! | to say how it is kept alive | [`ChildSpec`], [`SupervisorSpec`] |
//! | health checks, hand-over, dependencies | [`SupervisedComponent`], [`HealthSpec`] |
//! | to run and look at a tree | [`ActorSystem`], [`SupervisionTree`] |
//! | to hear what happens | [`Observer`], [`DeadLetters`] |
//! | what happened, and why | [`Timeline`], [`Lineage`], [`Reaction`], [`FailureRecord`] |
//! | what an action would do, and to do it | [`Plan`], [`Act`] |
//! | what an actor handles, and for whom it waits | [`ActorView`], [`Waits`], [`Heat`] |
//! | the decision itself | [`decide`], [`affected`] |
//! | to break it, by seed | [`ActorKiller`] |
//!
//! ```
//! # use mister_smith_supervisors::*;
//! # struct Counter(u64);
//! # impl Actor for Counter {
//! #     type Message = u64;
//! #     type Args = ();
//! #     async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> { Ok(Self(0)) }
//! #     async fn handle(&mut self, add: u64, _: &mut Context<Self>) -> Result<(), Failure> {
//! #         self.0 = self.0.checked_add(add).ok_or(Failure::permanent("overflow"))?;
//! #         Ok(())
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), SupervisorError> {
//! let agents = SupervisorSpec::new("agents").child(ChildSpec::actor::<Counter>("counter", ()));
//! let system = ActorSystem::builder(SupervisorSpec::new("node").child(agents)).start().await?;
//!
//! let counter = system.find::<u64>("/agents/counter").expect("declared above");
//! counter.tell(u64::MAX).await.expect("it runs");
//! counter.tell(1).await.expect("it runs"); // crashes; its supervisor restarts it
//! counter.tell(2).await.expect("same address, new life");
//!
//! println!("{}", system.tree());
//! system.shutdown(std::time::Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```

mod actor;
mod actor_system;
mod chaos;
mod clock;
mod component;
mod dependency;
mod environment;
mod error;
mod groups;
mod health;
mod inspect;
mod lifecycle;
mod path;
mod pool;
pub mod resilience;
mod supervisor;
mod sync;
mod thread_pool;
mod tree;

pub use actor::{
    Actor, Address, Context, DEFAULT_ASK_DEADLINE, DEFAULT_CAPACITY, DEFAULT_SEND_DEADLINE,
    DeadLetter, DeadLetterCause, DeadLetters, Ended, FAILURES_KEPT, FailureRecord, HandlingView,
    KillHandle, LATENCY_BUCKETS_NS, MAX_MESSAGE_KINDS, MessageView, Offered, Overflow, Recipient,
    RecipientError, ReplyPort, SlotKind, SlotState, Stack, TaskContext, TaskGuard, URGENT_CAPACITY,
    WaitView,
};
pub use actor_system::{Act, Acted, ActorSystem, ActorSystemBuilder, ActorView, Totals, check};
pub use chaos::{ActorKiller, Kill};
pub use clock::{Clock, ClockAnchor};
pub use component::{SupervisedComponent, SupervisionMetadata};
pub use error::{
    AskError, ExitReason, Failure, LookupError, PanicReport, SpecError, StartError,
    SupervisorError, TellError,
};
pub use groups::Group;
pub use health::{Health, HealthSpec};
pub use inspect::{
    DEFAULT_HISTORY, Handled, Heat, HeatSpan, Lineage, Look, Missed, PastNode, PastTree, Picture,
    Plan, PlannedEnd, PlannedStop, RECORDER_LENGTH, Recorded, Sort, Timeline, TimelinePage,
    WaitEdge, Waits,
};
pub use lifecycle::{Action, Deed, LifecycleEvent, LifecycleKind, Observer, Origin};
pub use path::{MAX_ID_BYTES, Path};
pub use pool::{Partitions, Pool};
pub use resilience::{Backoff, ErrorClass};
pub use supervisor::{
    AutoShutdown, ChildPolicy, ChildSpec, ChildView, ComponentType, DEFAULT_SHUTDOWN,
    DEFAULT_START_DEADLINE, Decision, Intensity, IntensityUse, OnCrash, Outcome, Policies, Policy,
    Reaction, ReactionCell, RestartPolicy, Shutdown, Situation, Strategy, SupervisorRef,
    SupervisorSpec, Window, affected, decide, decide_restart, group,
};
pub use thread_pool::{ComputeError, ThreadPoolSpec, ThreadPoolView, Work};
pub use tree::{Depth, MailboxView, NodeView, StateCounts, SupervisionTree, SupervisorView};
