//! One message of a processor, from the queue until it is settled.

use std::sync::Arc;
use std::time::Duration;

use super::ReplayGuard;
use super::options::LaneOf;
use crate::bus::EventBus;
use crate::bus::message::{Message, NewMessage};
use crate::bus::queue::replay::{Seen, Verdict as Judged};
use crate::bus::queue::{Receipt, Received, Receiver, Reject};
use crate::bus::subject::Subject;
use crate::bus::wire::{CONTENT_ENCODING, WireMessage};
use crate::event::compression::{CompressionError, Encoding, decompress};
use crate::event::{ContentType, EncodedEvent};
use crate::guarded::guarded;
use crate::settle::{AnyHandler, Delivery, FailureCause, Settler, Source, Verdict};

/// When a message comes again whose dead letter was refused for good: it has no other place than
/// the queue.
const REFUSED: Duration = Duration::from_secs(60);

/// A message to be worked on.
pub(super) struct Work {
    pub(super) number: u64,
    kind: Kind,
}

enum Kind {
    /// One of the queue.
    Received { delivery: Delivery, delivered: u64, receipt: Receipt },
    /// One of the queue that no handler can be given, and why.
    Unreadable { message: Arc<Message>, delivered: u64, receipt: Receipt, reason: String },
    /// A dead letter that is sent again; not now, if there are too many.
    Again { message: Arc<Message>, crowded: bool },
}

impl Work {
    pub(super) fn again(number: u64, message: Arc<Message>, crowded: bool) -> Self {
        Self { number, kind: Kind::Again { message, crowded } }
    }

    pub(super) fn is_again(&self) -> bool {
        matches!(self.kind, Kind::Again { .. })
    }
}

/// What the messages of one processor are worked on with.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) settler: Settler,
    pub(super) handler: AnyHandler,
    pub(super) queue: Arc<dyn Receiver>,
    pub(super) bus: EventBus,
    pub(super) lane: Option<LaneOf>,
    pub(super) replay: Option<ReplayGuard>,
}

impl Worker {
    /// Makes a message of what the queue handed over.
    pub(super) fn open(&self, number: u64, received: Received) -> Work {
        let Received { message: wire, delivered, receipt, unreadable, at, .. } = received;
        let kind = match (wire.to_message_as_it_is(), unreadable) {
            (Ok(mut message), unreadable) => {
                if let Some(at) = at {
                    message = message.at_unless_said(at);
                }
                let message = self.bus.stamp(message);
                match unreadable {
                    // It would be no smaller the next time. The letter holds it as it came.
                    Some(error) => {
                        let reason = unreadable_because(&error);
                        Kind::Unreadable { message, delivered, receipt, reason }
                    }
                    None => {
                        let delivery =
                            self.delivery(message, wire.id.as_str().into(), attempt_of(delivered));
                        Kind::Received { delivery, delivered, receipt }
                    }
                }
            }
            (Err(error), _) => {
                let reason = format!("{:?} is no subject: {error}", wire.subject);
                let message = self.bus.stamp(self.without_subject(&wire));
                Kind::Unreadable { message, delivered, receipt, reason }
            }
        };
        Work { number, kind }
    }

    /// A message whose subject is none, under one of ours.
    fn without_subject(&self, wire: &WireMessage) -> NewMessage {
        let subject = Subject::of(["unreadable", &self.settler.name]);
        let wire = WireMessage { subject: subject.to_string(), ..wire.clone() };
        match wire.to_message_as_it_is() {
            Ok(message) => message,
            Err(_) => NewMessage::encoded(
                subject,
                EncodedEvent {
                    event_type: "unreadable".into(),
                    schema_version: 1,
                    codec: ContentType::Raw,
                    data: wire.payload,
                },
            ),
        }
    }

    fn delivery(&self, message: Arc<Message>, id: Arc<str>, attempt: u32) -> Delivery {
        Delivery {
            message,
            handler: Arc::clone(&self.settler.name),
            attempt,
            redelivered: attempt > 1,
            source: Source::Queue { id },
        }
    }

    /// The lane of a message. One for which the application has no answer is in one with all of
    /// those; its handler will say what is wrong.
    pub(super) fn lane(&self, work: &Work) -> Option<Arc<str>> {
        match (&self.lane, &work.kind) {
            (Some(lane), Kind::Received { delivery, .. }) => {
                Some(guarded(|| lane(delivery)).unwrap_or_else(|_| "".into()))
            }
            _ => None,
        }
    }

    /// Works on a message, and settles it. If the queue cannot be told, it is delivered again.
    ///
    /// # Cancel safety
    /// A dropped call may have had its effect; the message comes again.
    pub(super) async fn work(&self, work: Work) {
        let (settled, receipt) = match work.kind {
            Kind::Again { message, crowded } => return self.again(message, crowded).await,
            Kind::Unreadable { message, delivered, receipt, reason } => {
                let (cause, attempts) = (FailureCause::Failed, attempt_of(delivered));
                (self.bury(&message, cause, reason, attempts).await, receipt)
            }
            Kind::Received { delivery, delivered, receipt } => {
                (self.received(delivery, delivered).await, receipt)
            }
        };
        let told = match settled {
            Settled::Done => self.queue.ack(&receipt).await,
            Settled::Later(pause) => self.queue.reject(&receipt, Reject::Later(pause)).await,
        };
        if let Err(error) = told {
            let processor = &*self.settler.name;
            tracing::debug!(processor, %error, "not settled; it is delivered again");
        }
    }

    async fn received(&self, delivery: Delivery, delivered: u64) -> Settled {
        let message = Arc::clone(&delivery.message);
        let attempts = delivery.attempt;
        if attempts > self.settler.retry.attempts {
            let reason = format!(
                "it was delivered {delivered} times, and whoever had it in hand ended each time: \
                 maybe of it, maybe of another that was in hand beside it"
            );
            return self.bury(&message, FailureCause::Crashed, reason, attempts).await;
        }
        let judge = |guard: &ReplayGuard| guard.judge(&message, delivered, self.bus.now());
        let seen: Option<Seen> = match self.replay.as_ref().map(judge) {
            None => None,
            Some(Judged::Process(seen)) => Some(seen),
            Some(Judged::Repeat) => return Settled::Done,
            Some(Judged::Refuse(reason)) => {
                return self.bury(&message, FailureCause::Failed, reason, attempts).await;
            }
        };
        let settled = match self.lane {
            // Those of its lane wait for it, so it waits here itself.
            Some(_) => match self.settler.run(&self.handler, delivery, async || ()).await {
                true => Settled::Done,
                false => Settled::Later(REFUSED),
            },
            None => self.once(delivery).await,
        };
        if let (Settled::Done, Some(seen)) = (&settled, seen) {
            seen.settled();
        }
        settled
    }

    /// One try; the queue counts them, and keeps the pauses.
    async fn once(&self, delivery: Delivery) -> Settled {
        let (message, attempts) = (Arc::clone(&delivery.message), delivery.attempt);
        let tried = self.settler.attempt(&self.handler, delivery, || ()).await;
        match self.settler.judge(tried, &message, attempts).await {
            Verdict::Done => Settled::Done,
            Verdict::Again { after } => Settled::Later(after),
            Verdict::Bury { cause, reason } => self.bury(&message, cause, reason, attempts).await,
        }
    }

    /// Works on a dead letter once more: that is done with then, or open as before.
    async fn again(&self, message: Arc<Message>, crowded: bool) {
        if crowded {
            return self.settler.give_back(&message).await;
        }
        let readable = match readable(&self.bus, &message, self.queue.read_limit()) {
            Ok(readable) => readable,
            Err(error) => {
                let reason = unreadable_because(&error);
                self.settler.bury(&message, FailureCause::Failed, reason, 1).await;
                return;
            }
        };
        let id = message.id().to_string().into();
        let delivery = self.delivery(readable, id, 1);
        self.settler.run_again(&self.handler, &message, delivery).await;
    }

    /// Makes it a dead letter, before the queue hears that it is done.
    async fn bury(
        &self,
        message: &Arc<Message>,
        cause: FailureCause,
        reason: String,
        attempts: u32,
    ) -> Settled {
        match self.settler.bury(message, cause, reason, attempts).await {
            true => Settled::Done,
            false => Settled::Later(REFUSED),
        }
    }
}

/// What the queue is told of a message.
enum Settled {
    Done,
    Later(Duration),
}

fn attempt_of(delivered: u64) -> u32 {
    u32::try_from(delivered).unwrap_or(u32::MAX)
}

fn unreadable_because(error: &CompressionError) -> String {
    format!("the payload cannot be decompressed: {error}")
}

/// A dead letter as the handler is to see it: one whose payload could not be decompressed holds it
/// as it came, and the limit may be another one now.
fn readable(
    bus: &EventBus,
    message: &Arc<Message>,
    limit: usize,
) -> Result<Arc<Message>, CompressionError> {
    let metadata = message.metadata();
    let (Some(name), Ok(encoded)) = (metadata.headers.get(CONTENT_ENCODING), message.encoded())
    else {
        return Ok(Arc::clone(message));
    };
    let unknown = || CompressionError::Unknown { name: name.clone() };
    let encoding = Encoding::from_name(name).ok_or_else(unknown)?;
    let data = decompress(encoding, &encoded.data, limit)?;
    let plain = EncodedEvent { data, ..encoded.clone() };
    let mut metadata = metadata.clone();
    metadata.headers.remove(CONTENT_ENCODING);
    Ok(bus.stamp(message.with_payload(plain, metadata)))
}
