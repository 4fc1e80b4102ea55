//! Processors: what is done with the messages of a queue, several at a time, under a supervisor.
//!
//! A processor's actor takes as many messages as it may have in hand, runs each in a task of its
//! own, and settles each by what came of it. What a message leads to is sent before the message is
//! acknowledged, so that a crash between the two sends it again and never loses it: the results'
//! ids have to be the same for the same message.
//!
//! A message that takes long is kept by asking the queue for more time; one that takes longer than
//! its deadline is given up and delivered again. After the last delivery it is a dead letter.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use indexmap::IndexMap;
use mister_smith_supervisors::{
    Actor, Address, ChildSpec, Context, Failure, RestartPolicy, StartError, SupervisorError,
    TaskGuard,
};

use super::replay::{ReplayGuard, Verdict};
use super::{QueueError, Received, Receiver, Reject, Sender};
use crate::bus::message::{Message, NewMessage};
use crate::bus::subject::{Pattern, Subject};
use crate::bus::subscription::{
    DEFAULT_HANDLE_DEADLINE, DeadLetterOffice, Delivery, FailureCause, Outcome, RetryPolicy,
    Undelivered,
};
use crate::bus::wire::{CONTENT_ENCODING, WireMessage};
use crate::bus::{EventBus, SubscribeError};
use crate::event::EncodedEvent;
use crate::event::compression::{CompressionError, Encoding, decompress};

/// Messages in hand at once, unless said otherwise.
pub const DEFAULT_CONCURRENCY: usize = 8;

/// How long the queue is asked for messages at a time.
const WAIT: Duration = Duration::from_secs(1);

/// The pause after the queue could not be reached, doubled with each, up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The pause before a dead letter is kept, or a result sent, again.
const AGAIN: Duration = Duration::from_millis(200);

/// How a queue's messages are processed.
#[derive(Clone)]
#[non_exhaustive]
pub struct ProcessorOptions {
    /// Messages in hand at once; 8. With 1 they are processed in their order.
    pub concurrency: usize,
    /// How long one may take; 30 s.
    pub deadline: Duration,
    /// More time is asked for this often; 10 s. Less than the queue's own time for a delivery.
    pub extend_every: Duration,
    /// How often it is delivered, and the pauses between.
    pub retry: RetryPolicy,
    /// Where results are sent.
    pub results: Option<Arc<dyn Sender>>,
    /// Messages that were sent again by somebody else than the queue are not processed.
    pub replay: Option<ReplayGuard>,
}

impl Default for ProcessorOptions {
    fn default() -> Self {
        Self {
            concurrency: DEFAULT_CONCURRENCY,
            deadline: DEFAULT_HANDLE_DEADLINE,
            extend_every: Duration::from_secs(10),
            retry: RetryPolicy::default(),
            results: None,
            replay: None,
        }
    }
}

impl ProcessorOptions {
    /// Sets how many messages are in hand at once.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }

    /// Sets how long a message may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how often more time is asked for.
    #[must_use]
    pub fn extend_every(mut self, every: Duration) -> Self {
        self.extend_every = every;
        self
    }

    /// Sets how often a message is delivered.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets where results are sent.
    #[must_use]
    pub fn results(mut self, queue: Arc<dyn Sender>) -> Self {
        self.results = Some(queue);
        self
    }

    /// Lets a window look at every message before it is processed.
    #[must_use]
    pub fn replay(mut self, guard: ReplayGuard) -> Self {
        self.replay = Some(guard);
        self
    }
}

impl fmt::Debug for ProcessorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessorOptions")
            .field("concurrency", &self.concurrency)
            .field("deadline", &self.deadline)
            .field("results", &self.results)
            .finish_non_exhaustive()
    }
}

/// What came of a message.
#[derive(Debug, Clone)]
pub struct Processed {
    /// Whether it is done.
    pub outcome: Outcome,
    /// What it led to; sent before it is acknowledged, and only then.
    pub results: Vec<WireMessage>,
}

impl From<Outcome> for Processed {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, results: Vec::new() }
    }
}

impl Processed {
    /// It is done, and led to these messages. Their ids are to be the same if it is processed
    /// again.
    #[must_use]
    pub fn with(results: Vec<WireMessage>) -> Self {
        Self { outcome: Outcome::Ack, results }
    }
}

/// Processes messages, several at once.
pub trait Processor: Send + Sync + 'static {
    /// Processes one. It may be delivered again after it was done.
    ///
    /// # Cancel safety
    /// The future is dropped at its deadline, and when the actor ends.
    fn process(&self, delivery: Delivery) -> impl Future<Output = Processed> + Send;
}

impl<F, R, P> Processor for F
where
    F: Fn(Delivery) -> R + Send + Sync + 'static,
    R: Future<Output = P> + Send,
    P: Into<Processed>,
{
    fn process(&self, delivery: Delivery) -> impl Future<Output = Processed> + Send {
        let processing = self(delivery);
        async { processing.await.into() }
    }
}

/// What a processor's actor can be told.
pub enum ProcessorMessage {
    /// Messages of the queue. Sent by the actor to itself.
    Pulled(Result<Vec<Received>, QueueError>),
    /// A dead letter is to be processed again.
    Again(Arc<Message>),
    /// A message is settled. Sent by the actor to itself.
    Settled(u64),
}

impl fmt::Debug for ProcessorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(self))
    }
}

fn name_of(message: &ProcessorMessage) -> &'static str {
    match message {
        ProcessorMessage::Pulled(_) => "Pulled",
        ProcessorMessage::Again(_) => "Again",
        ProcessorMessage::Settled(_) => "Settled",
    }
}

/// What a fresh start needs.
pub(crate) struct ProcessorArgs<P> {
    name: Arc<str>,
    queue: Arc<dyn Receiver>,
    processor: Arc<P>,
    options: ProcessorOptions,
    bus: EventBus,
    office: Arc<dyn DeadLetterOffice>,
    shown: Arc<Shown>,
}

impl<P> Clone for ProcessorArgs<P> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            queue: Arc::clone(&self.queue),
            processor: Arc::clone(&self.processor),
            options: self.options.clone(),
            bus: self.bus.clone(),
            office: Arc::clone(&self.office),
            shown: Arc::clone(&self.shown),
        }
    }
}

#[derive(Debug, Default)]
struct Shown {
    done: AtomicU64,
    in_hand: AtomicUsize,
    trouble: Mutex<Option<String>>,
}

/// The actor.
pub(crate) struct ProcessorActor<P> {
    args: ProcessorArgs<P>,
    in_hand: IndexMap<u64, TaskGuard>,
    next: u64,
    failures: u32,
    pulling: Option<TaskGuard>,
}

impl<P: Processor> Actor for ProcessorActor<P> {
    type Message = ProcessorMessage;
    type Args = ProcessorArgs<P>;

    async fn start(args: &ProcessorArgs<P>, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let shown = Arc::clone(&args.shown);
        cx.describe(move || {
            let done = shown.done.load(Ordering::Relaxed);
            let in_hand = shown.in_hand.load(Ordering::Relaxed);
            let trouble = shown.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            match &*trouble {
                Some(trouble) => format!("{done} done   {in_hand} in hand   {trouble}"),
                None => format!("{done} done   {in_hand} in hand"),
            }
        });
        let mut actor = Self {
            args: args.clone(),
            in_hand: IndexMap::new(),
            next: 0,
            failures: 0,
            pulling: None,
        };
        actor.pull(Duration::ZERO, cx);
        Ok(actor)
    }

    async fn handle(
        &mut self,
        message: ProcessorMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        let mut pause = Duration::ZERO;
        match message {
            ProcessorMessage::Pulled(pulled) => {
                self.pulling = None;
                let trouble = match pulled {
                    Ok(received) => {
                        self.failures = 0;
                        for one in received {
                            self.begin(Work::Received(one), cx);
                        }
                        None
                    }
                    Err(error) => {
                        let (first, last) = PAUSES;
                        pause = (first * 2_u32.pow(self.failures.min(8))).min(last);
                        self.failures += 1;
                        Some(error.to_string())
                    }
                };
                let shown = &self.args.shown.trouble;
                *shown.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
            }
            ProcessorMessage::Again(message) => self.begin(Work::Again(message), cx),
            ProcessorMessage::Settled(number) => drop(self.in_hand.swap_remove(&number)),
        }
        self.args.shown.in_hand.store(self.in_hand.len(), Ordering::Relaxed);
        self.pull(pause, cx);
        Ok(())
    }

    fn message_name(message: &ProcessorMessage) -> &'static str {
        name_of(message)
    }
}

/// A message to be processed: of the queue, or a dead letter.
enum Work {
    Received(Received),
    Again(Arc<Message>),
}

impl<P: Processor> ProcessorActor<P> {
    /// Asks the queue for as much as there is room for.
    fn pull(&mut self, pause: Duration, cx: &Context<Self>) {
        let room = self.args.options.concurrency.saturating_sub(self.in_hand.len());
        if room == 0 || self.pulling.is_some() {
            return;
        }
        let queue = Arc::clone(&self.args.queue);
        self.pulling = Some(cx.spawn_tell(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            ProcessorMessage::Pulled(queue.receive(room, WAIT).await)
        }));
    }

    fn begin(&mut self, work: Work, cx: &Context<Self>) {
        self.next += 1;
        let (number, args, random) = (self.next, self.args.clone(), cx.random_u64());
        let task = cx.spawn_tell(async move {
            match work {
                Work::Received(received) => process(&args, received, random).await,
                Work::Again(message) => process_again(&args, message).await,
            }
            args.shown.done.fetch_add(1, Ordering::Relaxed);
            ProcessorMessage::Settled(number)
        });
        self.in_hand.insert(number, task);
    }
}

/// Runs the processor, within its deadline; what panics is tried again.
async fn run<P: Processor>(args: &ProcessorArgs<P>, delivery: Delivery) -> Processed {
    let deadline = args.options.deadline;
    let running = AssertUnwindSafe(args.processor.process(delivery)).catch_unwind();
    match tokio::time::timeout(deadline, running).await {
        Ok(Ok(processed)) => processed,
        Ok(Err(_)) => Outcome::retry("the processor panicked").into(),
        Err(_) => Outcome::retry(format!("the processor took longer than {deadline:?}")).into(),
    }
}

/// Processes a message of the queue, and settles it. If the queue cannot be told, it is delivered
/// again.
async fn process<P: Processor>(args: &ProcessorArgs<P>, received: Received, random: u64) {
    let Received { message: wire, delivered, receipt, unreadable, .. } = received;
    let attempt = u32::try_from(delivered).unwrap_or(u32::MAX);
    let message = match wire.to_message_as_it_is() {
        Ok(message) => args.bus.stamp(message),
        Err(error) => {
            tracing::error!(processor = &*args.name, id = wire.id, %error, "no message; left out");
            let _ = args.queue.reject(&receipt, Reject::Never).await;
            return;
        }
    };
    if let Some(error) = unreadable {
        // It would be no smaller the next time. The letter holds it as it came.
        keep(args, message, FailureCause::Failed, unreadable_because(&error), attempt).await;
        if let Err(error) = args.queue.ack(&receipt).await {
            tracing::debug!(processor = &*args.name, %error, "not settled; it is delivered again");
        }
        return;
    }
    match args
        .options
        .replay
        .as_ref()
        .map_or(Verdict::Process, |replay| replay.judge(&message, delivered, args.bus.now()))
    {
        Verdict::Process => {}
        Verdict::Repeat => {
            let _ = args.queue.ack(&receipt).await;
            return;
        }
        Verdict::Refuse(reason) => {
            keep(args, message, FailureCause::Failed, reason, attempt).await;
            let _ = args.queue.ack(&receipt).await;
            return;
        }
    }
    let delivery = Delivery { message: Arc::clone(&message), attempt };
    let running = run(args, delivery);
    let extending = async {
        loop {
            tokio::time::sleep(args.options.extend_every).await;
            let _ = args.queue.extend(&receipt).await;
        }
    };
    let processed = tokio::select! {
        biased;
        processed = running => processed,
        () = extending => return,
    };
    let settled = match processed.outcome {
        Outcome::Ack => match send(args, &processed.results).await {
            Ok(()) => args.queue.ack(&receipt).await,
            // Once more, results and all.
            Err(_) => args.queue.reject(&receipt, Reject::Later(AGAIN)).await,
        },
        Outcome::Retry { after, .. } if attempt < args.options.retry.attempts => {
            let pause = after.unwrap_or_else(|| args.options.retry.pause(attempt, random));
            args.queue.reject(&receipt, Reject::Later(pause)).await
        }
        Outcome::Retry { reason, .. } => {
            keep(args, message, FailureCause::Exhausted, reason, attempt).await;
            args.queue.ack(&receipt).await
        }
        Outcome::Fail { reason } => {
            keep(args, message, FailureCause::Failed, reason, attempt).await;
            args.queue.ack(&receipt).await
        }
    };
    if let Err(error) = settled {
        tracing::debug!(processor = &*args.name, %error, "not settled; it is delivered again");
    }
}

fn unreadable_because(error: &CompressionError) -> String {
    format!("the payload cannot be decompressed: {error}")
}

/// A dead letter as the processor is to see it: one whose payload could not be decompressed holds
/// it as it came, and the limit may be another one now.
fn readable<P>(
    args: &ProcessorArgs<P>,
    message: &Arc<Message>,
) -> Result<Arc<Message>, CompressionError> {
    let metadata = message.metadata();
    let (Some(name), Ok(encoded)) = (metadata.headers.get(CONTENT_ENCODING), message.encoded())
    else {
        return Ok(Arc::clone(message));
    };
    let unknown = || CompressionError::Unknown { name: name.clone() };
    let encoding = Encoding::from_name(name).ok_or_else(unknown)?;
    let data = decompress(encoding, &encoded.data, args.queue.read_limit())?;
    let plain = EncodedEvent { data, ..encoded.clone() };
    let mut metadata = metadata.clone();
    metadata.headers.remove(CONTENT_ENCODING);
    let mut plain = NewMessage::encoded(message.subject().clone(), plain)
        .id(message.id())
        .at(message.at())
        .metadata(metadata);
    if let Some(position) = message.position() {
        plain = plain.position(position);
    }
    if let Some(letter) = message.dead_letter() {
        plain = plain.for_dead_letter(letter);
    }
    Ok(args.bus.stamp(plain))
}

/// Processes a dead letter once more.
async fn process_again<P: Processor>(args: &ProcessorArgs<P>, message: Arc<Message>) {
    let processed = match readable(args, &message) {
        Ok(readable) => run(args, Delivery { message: readable, attempt: 1 }).await,
        Err(error) => Outcome::Fail { reason: unreadable_because(&error) }.into(),
    };
    let trouble = match processed.outcome {
        Outcome::Ack => match send(args, &processed.results).await {
            Ok(()) => None,
            Err(error) => Some((FailureCause::Exhausted, error.to_string())),
        },
        Outcome::Retry { reason, .. } => Some((FailureCause::Exhausted, reason)),
        Outcome::Fail { reason } => Some((FailureCause::Failed, reason)),
    };
    match (trouble, message.dead_letter()) {
        (Some((cause, reason)), _) => keep(args, message, cause, reason, 1).await,
        (None, Some(letter)) => {
            while args.office.settle(letter).await.is_err() {
                tokio::time::sleep(AGAIN).await;
            }
        }
        (None, None) => {}
    }
}

async fn send<P>(args: &ProcessorArgs<P>, results: &[WireMessage]) -> Result<(), super::SendError> {
    match &args.options.results {
        Some(queue) if !results.is_empty() => queue.send(results).await.map(drop),
        _ => Ok(()),
    }
}

/// Makes it a dead letter, before the queue hears that it is done.
async fn keep<P>(
    args: &ProcessorArgs<P>,
    message: Arc<Message>,
    cause: FailureCause,
    reason: String,
    attempts: u32,
) {
    let subscription = Arc::clone(&args.name);
    tracing::warn!(processor = &*subscription, id = %message.id(), attempts, reason, "dead letter");
    let letter = Undelivered { subscription, message, cause, reason, attempts };
    while args.office.keep(letter.clone()).await.is_err() {
        tokio::time::sleep(AGAIN).await;
    }
}

impl EventBus {
    /// Processes the messages of a queue, under the bus's supervisor, until it is
    /// [ended](Self::unsubscribe).
    ///
    /// # Errors
    /// The name is in use, or the node is not up.
    pub async fn process<P: Processor>(
        &self,
        name: impl Into<Arc<str>>,
        queue: Arc<dyn Receiver>,
        options: ProcessorOptions,
        processor: P,
    ) -> Result<(), SubscribeError> {
        let name = name.into();
        let (supervisor, office) = self.parts()?;
        let args = ProcessorArgs {
            name: Arc::clone(&name),
            queue,
            processor: Arc::new(processor),
            options,
            bus: self.clone(),
            office: Arc::clone(office),
            shown: Arc::default(),
        };
        let spec = ChildSpec::actor::<ProcessorActor<P>>(Arc::clone(&name), args)
            .restart(RestartPolicy::Transient);
        let address: Address<ProcessorMessage> = match supervisor.spawn_spec(spec).await {
            Ok(address) => address,
            Err(SupervisorError::AlreadyStarted { .. }) => {
                return Err(SubscribeError::Exists { name: name.to_string() });
            }
            Err(error) => return Err(error.into()),
        };
        // Dead letters find their way back by its name.
        let subject = Subject::of(["system", "processor", &name]);
        self.connect(name, Pattern::from(&subject), address, ProcessorMessage::Again)
    }
}
