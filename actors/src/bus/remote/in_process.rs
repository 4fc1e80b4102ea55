//! Requests and answers in the memory of this process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Asked, Remote, RemoteError, Reply, Requests};
use crate::bus::subject::{Pattern, Subject};
use crate::bus::wire::WireMessage;

/// Requests that wait for one member; the next asker waits for room.
pub const WAITING: usize = 1_024;

/// The largest message, as in NATS.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Who serves what. Cheap to clone; all clones have the same members.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<Members>>);

#[derive(Default)]
struct Members {
    by_number: BTreeMap<u64, Member>,
    next: u64,
    /// Requests so far: members of a group take turns.
    turn: usize,
}

#[derive(Clone)]
struct Member {
    number: u64,
    subjects: Pattern,
    group: String,
    mailbox: mpsc::Sender<Asked>,
}

impl Network {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One member of each group that serves a subject.
    fn members(&self, subject: &Subject) -> Vec<Member> {
        let mut members = self.lock();
        members.turn = members.turn.wrapping_add(1);
        let mut groups: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
        for member in members.by_number.values().filter(|one| one.subjects.matches(subject)) {
            groups.entry(&member.group).or_default().push(member);
        }
        groups.values().map(|group| group[members.turn % group.len()].clone()).collect()
    }

    fn leave(&self, number: u64) {
        self.lock().by_number.remove(&number);
    }

    async fn ask(&self, message: &WireMessage) -> Result<WireMessage, RemoteError> {
        let nobody = || RemoteError::NoResponders { subject: message.subject.clone() };
        let subject = Subject::new(message.subject.as_str()).map_err(|_| nobody())?;
        // The first answer is taken; the others find no room.
        let (answer, mut answered) = mpsc::channel(1);
        let mut asked = 0;
        while asked == 0 {
            let members = self.members(&subject);
            if members.is_empty() {
                return Err(nobody());
            }
            for member in members {
                let reply = Box::new(InProcessReply(answer.clone()));
                let message = WireMessage { id: String::new(), ..message.clone() };
                match member.mailbox.send(Asked { message, reply }).await {
                    Ok(()) => asked += 1,
                    // It has left since.
                    Err(_) => self.leave(member.number),
                }
            }
        }
        drop(answer);
        match answered.recv().await {
            Some(answer) => Ok(answer),
            // Nobody can answer any more; the asker need not wait.
            None => Err(RemoteError::NoAnswer {
                subject: message.subject.clone(),
                after: Duration::ZERO,
            }),
        }
    }
}

impl Remote for Network {
    fn request<'a>(
        &'a self,
        message: &'a WireMessage,
        within: Duration,
    ) -> BoxFuture<'a, Result<WireMessage, RemoteError>> {
        async move {
            message.check()?;
            too_large(message)?;
            timeout(within, self.ask(message)).await.unwrap_or_else(|_| {
                Err(RemoteError::NoAnswer { subject: message.subject.clone(), after: within })
            })
        }
        .boxed()
    }

    fn serve<'a>(
        &'a self,
        subjects: &'a Pattern,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Requests>, RemoteError>> {
        async move {
            let (mailbox, waiting) = mpsc::channel(WAITING);
            let mut members = self.lock();
            members.next += 1;
            let number = members.next;
            let (subjects, group) = (subjects.clone(), group.to_owned());
            members.by_number.insert(number, Member { number, subjects, group, mailbox });
            drop(members);
            let requests = InProcessRequests { network: self.clone(), number, waiting };
            Ok(Box::new(requests) as Box<dyn Requests>)
        }
        .boxed()
    }
}

fn too_large(message: &WireMessage) -> Result<(), RemoteError> {
    match message.size() {
        bytes if bytes > MAX_MESSAGE_BYTES => {
            Err(RemoteError::TooLarge { bytes, most: MAX_MESSAGE_BYTES })
        }
        _ => Ok(()),
    }
}

struct InProcessRequests {
    network: Network,
    number: u64,
    waiting: mpsc::Receiver<Asked>,
}

impl Requests for InProcessRequests {
    fn next(&mut self) -> BoxFuture<'_, Option<Asked>> {
        self.waiting.recv().boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.network.leave(self.number);
        self.waiting.close();
        async {}.boxed()
    }
}

impl Drop for InProcessRequests {
    fn drop(&mut self) {
        self.network.leave(self.number);
    }
}

impl fmt::Debug for InProcessRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessRequests").field("waiting", &self.waiting.len()).finish()
    }
}

struct InProcessReply(mpsc::Sender<WireMessage>);

impl Reply for InProcessReply {
    fn send(self: Box<Self>, answer: WireMessage) -> BoxFuture<'static, Result<(), RemoteError>> {
        async move {
            answer.check_headers()?;
            too_large(&answer)?;
            // Another was faster, or the asker is gone.
            let _ = self.0.try_send(answer);
            Ok(())
        }
        .boxed()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("members", &self.lock().by_number.len()).finish()
    }
}
