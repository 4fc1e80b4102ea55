//! Processors: what is done with the messages of a queue, several at a time, under a supervisor.
//!
//! A processor's actor keeps as many messages in hand as it may, runs each in a task of its own,
//! and settles each by what came of it. What a message leads to is sent before the message is
//! acknowledged, so that a crash between the two sends it again and never loses it: the results'
//! ids have to be the same for the same message ([`Delivery::key`](crate::settle::Delivery::key)).
//!
//! More time is asked for whatever is in hand, from when it came until it is settled, whatever
//! takes long: its turn, the handler, results, or its dead letter. A try that takes longer than its
//! deadline is given up and delivered again. After the last delivery it is a dead letter; so is,
//! untried, what was delivered more often than that, because whoever had it ended each time.

mod hand;
mod options;
mod work;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, ChildSpec, Context, Failure, RestartPolicy, StartError, TaskGuard,
};

use super::replay::ReplayGuard;
use super::{QueueError, Received, Receiver};
use crate::bus::message::Message;
use crate::bus::subject::{Pattern, Subject};
use crate::bus::{EventBus, SubscribeError, spawn_anew};
use crate::settle::{AnyHandler, Counts, Handler, MOST_AGAIN, Settler};
use hand::{Hand, Receipts};
pub use options::{DEFAULT_CONCURRENCY, ProcessorOptions};
use work::{Work, Worker};

/// How long the queue is asked for messages at a time.
const WAIT: Duration = Duration::from_secs(1);

/// The pause after the queue could not be reached, doubled with each, up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

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
#[derive(Clone)]
pub(crate) struct ProcessorArgs {
    worker: Worker,
    options: ProcessorOptions,
    shown: Arc<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    in_hand: AtomicUsize,
    trouble: Mutex<Option<String>>,
}

impl Shown {
    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// The actor.
pub(crate) struct ProcessorActor {
    args: ProcessorArgs,
    hand: Hand<Work>,
    receipts: Arc<Receipts>,
    /// Dead letters among what is in hand.
    agains: usize,
    next: u64,
    failures: u32,
    pulling: Option<TaskGuard>,
    _keeping: TaskGuard,
}

impl Actor for ProcessorActor {
    type Message = ProcessorMessage;
    type Args = ProcessorArgs;

    async fn start(args: &ProcessorArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let (shown, counts) = (Arc::clone(&args.shown), Arc::clone(&args.worker.settler.counts));
        cx.describe(move || {
            let done = counts.acked.load(Ordering::Relaxed) + counts.dead.load(Ordering::Relaxed);
            let in_hand = shown.in_hand.load(Ordering::Relaxed);
            let queue = shown.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let trouble = queue.or_else(|| counts.trouble().map(|trouble| trouble.reason));
            match trouble {
                Some(trouble) => format!("{done} done   {in_hand} in hand   {trouble}"),
                None => format!("{done} done   {in_hand} in hand"),
            }
        });
        let receipts = Arc::<Receipts>::default();
        let (kept, queue) = (Arc::clone(&receipts), Arc::clone(&args.worker.queue));
        let mut actor = Self {
            args: args.clone(),
            hand: Hand::new(args.options.concurrency),
            receipts,
            agains: 0,
            next: 0,
            failures: 0,
            pulling: None,
            _keeping: cx.spawn_guard(async move { kept.keep(&*queue).await }),
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
            ProcessorMessage::Pulled(Ok(received)) => {
                (self.pulling, self.failures) = (None, 0);
                self.args.shown.set_trouble(None);
                for one in received {
                    self.take(one);
                }
            }
            ProcessorMessage::Pulled(Err(error)) => {
                self.pulling = None;
                let (first, last) = PAUSES;
                pause = (first * 2_u32.pow(self.failures.min(8))).min(last);
                self.failures += 1;
                self.args.shown.set_trouble(Some(error.to_string()));
            }
            ProcessorMessage::Again(message) => {
                self.next += 1;
                let crowded = self.agains >= MOST_AGAIN;
                self.agains += 1;
                self.hand.push(None, Work::again(self.next, message, crowded));
            }
            ProcessorMessage::Settled(number) => {
                self.receipts.remove(number);
                self.agains -= usize::from(self.hand.ended(number).is_some_and(|again| again));
            }
        }
        while let Some((lane, work)) = self.hand.next() {
            self.begin(lane, work, cx);
        }
        self.args.shown.in_hand.store(self.hand.len(), Ordering::Relaxed);
        self.pull(pause, cx);
        Ok(())
    }

    fn message_name(message: &ProcessorMessage) -> &'static str {
        name_of(message)
    }
}

impl ProcessorActor {
    /// Asks the queue for more, when what is ready has become little.
    fn pull(&mut self, pause: Duration, cx: &Context<Self>) {
        let ProcessorOptions { concurrency, prefetch, .. } = self.args.options;
        let room = (concurrency + prefetch).saturating_sub(self.hand.len());
        if room <= prefetch / 2 || self.pulling.is_some() {
            return;
        }
        let queue = Arc::clone(&self.args.worker.queue);
        self.pulling = Some(cx.spawn_tell(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            ProcessorMessage::Pulled(queue.receive(room, WAIT).await)
        }));
    }

    fn take(&mut self, received: Received) {
        self.next += 1;
        self.receipts.insert(self.next, received.receipt.clone());
        let work = self.args.worker.open(self.next, received);
        self.hand.push(self.args.worker.lane(&work), work);
    }

    fn begin(&mut self, lane: Option<Arc<str>>, work: Work, cx: &Context<Self>) {
        let (number, again, worker) = (work.number, work.is_again(), self.args.worker.clone());
        let task = cx.spawn_tell(async move {
            worker.work(work).await;
            ProcessorMessage::Settled(number)
        });
        self.hand.begun(number, again, lane, task);
    }
}

impl EventBus {
    /// Processes the messages of a queue, under the bus's supervisor, until it is
    /// [ended](Self::unsubscribe).
    ///
    /// # Errors
    /// The name is in use, or the node is not up.
    ///
    /// # Cancel safety
    /// A dropped call has started it or not.
    pub async fn process(
        &self,
        name: impl Into<Arc<str>>,
        queue: Arc<dyn Receiver>,
        options: ProcessorOptions,
        handler: impl Handler,
    ) -> Result<(), SubscribeError> {
        let name = name.into();
        let _turn = self.0.changing.lock().await;
        let (supervisor, office) = self.parts()?;
        let exists = || SubscribeError::Exists { name: name.to_string() };
        if self.has(&name) {
            return Err(exists());
        }
        let counts = Arc::<Counts>::default();
        let settler = Settler {
            name: Arc::clone(&name),
            retry: options.retry,
            deadline: options.deadline,
            office: Arc::clone(office),
            results: options.results.clone(),
            counts: Arc::clone(&counts),
            seed: self.seed(),
        };
        let worker = Worker {
            settler,
            handler: AnyHandler::new(handler),
            queue,
            bus: self.clone(),
            lane: options.lanes(),
            replay: options.replay.clone(),
        };
        let args = ProcessorArgs { worker, options, shown: Arc::default() };
        let spec = ChildSpec::actor::<ProcessorActor>(Arc::clone(&name), args)
            .restart(RestartPolicy::Transient);
        let spawned = spawn_anew::<ProcessorMessage>(supervisor, &name, spec).await?;
        let address = spawned.ok_or_else(exists)?;
        // Dead letters find their way back by its name; nothing is published there.
        let nothing = Pattern::from(&Subject::of(["system", "processor", &name]));
        let connected = self.connect_counted(
            Arc::clone(&name),
            nothing,
            address,
            ProcessorMessage::Again,
            counts,
        );
        if connected.is_err() {
            // A consumer took the name meanwhile.
            supervisor.terminate_child(&name).await?;
        }
        connected
    }
}
