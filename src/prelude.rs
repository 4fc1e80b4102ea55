//! What an application imports: `use mister_smith::prelude::*;`

pub use mister_smith_actors::aggregate::{Aggregate, SnapshotPolicy};
pub use mister_smith_actors::bus::{
    Batch, BatchHandler, Delivery, EventBus, Handled, Handler, NewMessage, Order, Outcome,
    Outcomes, Pattern, RetryPolicy, Subject, Subscription,
};
pub use mister_smith_actors::command::{CommandEnvelope, CommandError, CommandOptions, Executed};
pub use mister_smith_actors::component;
pub use mister_smith_actors::consumer::{Begin, Consumer};
pub use mister_smith_actors::event::{Event, Metadata, StreamId};
pub use mister_smith_actors::process::{Effect, Process, ProcessOptions};
pub use mister_smith_actors::query::Query;
pub use mister_smith_actors::saga::{Saga, Step, StepContext, StepError};
pub use mister_smith_supervisors::{
    Actor, ActorSystem, Address, AskError, AutoShutdown, Backoff, ChildSpec, ComponentType,
    ComputeError, Context, DeadLetter, Ended, ErrorClass, ExitReason, Failure, Group, Health,
    HealthSpec, LifecycleEvent, LifecycleKind, LookupError, OnCrash, Overflow, Partitions, Picture,
    Pool, Recipient, RecipientError, ReplyPort, RestartPolicy, Shutdown, SlotState, StartError,
    Strategy, SupervisedComponent, SupervisionMetadata, SupervisorError, SupervisorRef,
    SupervisorSpec, TaskContext, TaskGuard, TellError, ThreadPoolSpec, Work,
};

pub use crate::system::{SystemBuilder, SystemCore};
