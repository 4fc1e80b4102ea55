//! Commands between two ends of a network in memory, that loses what it is told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use mister_smith_supervisors::{ActorSystem, ChildSpec, ErrorClass, Policies, SupervisorSpec};
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use super::server::{CommandServer, CommandServerArgs, Refusal, ServeOptions, Served};
use super::{RemoteCommandError, RemoteCommands, RemoteOptions, STATUS};
use crate::aggregate::tests::{Account, Bank, Order, Refused};
use crate::bus::remote::in_process::Network;
use crate::bus::remote::{Remote, RemoteError, Requests};
use crate::bus::wire::WireMessage;
use crate::bus::{Pattern, Subject};
use crate::command::{CommandEnvelope, CommandError, CommandInfo, Executed, Middleware, Next};
use crate::event::{Metadata, Version};

/// A test that works never waits for it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A network that can lose answers.
#[derive(Debug, Default)]
struct Lossy {
    network: Network,
    /// Answers that get lost from now on.
    lose: AtomicU64,
    requests: AtomicU64,
}

impl Remote for Lossy {
    fn request<'a>(
        &'a self,
        message: &'a WireMessage,
        within: Duration,
    ) -> BoxFuture<'a, Result<WireMessage, RemoteError>> {
        async move {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let answer = self.network.request(message, DEADLINE).await;
            let lose = |left: u64| left.checked_sub(1);
            match self.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lose) {
                Ok(_) if answer.is_ok() => {
                    let subject = message.subject.clone();
                    Err(RemoteError::NoAnswer { subject, after: within })
                }
                _ => answer,
            }
        }
        .boxed()
    }

    fn serve<'a>(
        &'a self,
        subjects: &'a Pattern,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Requests>, RemoteError>> {
        self.network.serve(subjects, group)
    }
}

/// Holds commands until it is opened.
#[derive(Debug)]
struct Gate {
    permits: Semaphore,
    entered: watch::Sender<u64>,
}

impl Gate {
    fn new(open: bool) -> Arc<Self> {
        let permits = Semaphore::new(if open { Semaphore::MAX_PERMITS } else { 0 });
        Arc::new(Self { permits, entered: watch::Sender::new(0) })
    }

    async fn entered(&self, count: u64) {
        let mut entered = self.entered.subscribe();
        let waiting = entered.wait_for(|entered| *entered >= count);
        tokio::time::timeout(DEADLINE, waiting).await.expect("it comes to the gate").unwrap();
    }
}

#[derive(Debug)]
struct AtGate(Arc<Gate>);

impl Middleware for AtGate {
    fn handle<'a>(
        &'a self,
        info: CommandInfo,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Executed, CommandError>> {
        async move {
            if info.metadata.actor.as_deref() == Some("mallory") {
                return Err(CommandError::Denied { reason: "not you".to_owned() });
            }
            self.0.entered.send_modify(|entered| *entered += 1);
            let _permit = self.0.permits.acquire().await.unwrap();
            next.run(info).await
        }
        .boxed()
    }
}

/// A bank, and servers of its commands.
struct Teller {
    bank: Bank,
    remote: Arc<Lossy>,
    servers: ActorSystem,
    gate: Arc<Gate>,
}

fn name(refused: &Refused) -> Refusal {
    let (code, data) = match refused {
        Refused::NotOpen => ("not_open", json!(null)),
        Refused::Open => ("open", json!(null)),
        Refused::TooMuch(cents) => ("too_much", json!({ "cents": cents })),
    };
    Refusal { code: code.to_owned(), data }
}

impl Teller {
    async fn new(servers: usize, options: ServeOptions, open: bool) -> Self {
        let gate = Gate::new(open);
        let bank = Bank::guarded(vec![Arc::new(AtGate(Arc::clone(&gate)))]).await;
        let remote = Arc::new(Lossy::default());
        let mut root = SupervisorSpec::new("edge").intensity(10_000, Duration::from_secs(1));
        for n in 0..servers {
            let served = [Served::with_refusals::<Account>(name)];
            let args = CommandServerArgs::new(Arc::clone(&remote) as _, options.clone(), served);
            args.open(bank.bus.clone());
            root = root.child(ChildSpec::component::<CommandServer>(format!("server{n}"), args));
        }
        let servers = ActorSystem::builder(root).policies(Policies::new()).start().await.unwrap();
        Self { bank, remote, servers, gate }
    }

    fn client(&self, options: RemoteOptions) -> RemoteCommands {
        let keys = AtomicU64::new(0);
        RemoteCommands::new(Arc::clone(&self.remote) as _, options, move || {
            format!("made-{}", keys.fetch_add(1, Ordering::Relaxed))
        })
    }

    /// The events of an account.
    async fn events(&self, id: &str) -> usize {
        let stream = crate::aggregate::stream_of::<Account>(id).unwrap();
        let store = self.bank.lease().await.store;
        store.read_stream(&stream, Version::ZERO, 500).await.unwrap().len()
    }
}

async fn one() -> (Teller, RemoteCommands) {
    let served = Teller::new(1, ServeOptions::default(), true).await;
    let client = served.client(RemoteOptions::default().deadline(DEADLINE));
    (served, client)
}

#[tokio::test]
async fn a_command_is_answered_as_if_it_were_sent_here() {
    let (served, client) = one().await;
    let metadata = Metadata { actor: Some("ada".to_owned()), ..Metadata::default() };
    let open = CommandEnvelope::new(Order::Open).key("k").metadata(metadata.clone());
    let executed = client.send::<Account>("7", open.clone()).await.unwrap();
    assert_eq!(
        (executed.stream.as_str(), executed.events, executed.version.get(), executed.duplicate),
        ("account-7", 1, 1, false)
    );
    // Here and there are one: the same key has the same answer.
    let again = served.bank.bus.send::<Account>("7", open).await.unwrap();
    assert_eq!(again, Executed { duplicate: true, ..executed });
    let log = served.bank.lease().await.store;
    let log = log.read_stream(&again.stream, Version::ZERO, 10).await.unwrap();
    let kept = Metadata::from_bytes(&log[0].meta);
    assert!(kept.fingerprint.is_some(), "what the command was is kept with its key");
    assert_eq!(Metadata { fingerprint: None, ..kept }, metadata);
}

/// The sender of another command by mistake has to hear of it, and not that it is done.
#[tokio::test]
async fn a_key_that_names_another_command_is_refused() {
    let (served, client) = one().await;
    client.send::<Account>("1", Order::Open).await.unwrap();
    let deposit = |cents| CommandEnvelope::new(Order::Deposit(cents)).key("k");
    let first = client.send::<Account>("1", deposit(5)).await.unwrap();
    assert_eq!(client.send::<Account>("1", deposit(5)).await.unwrap().position, first.position);
    let error = client.send::<Account>("1", deposit(6)).await.unwrap_err();
    assert!(matches!(error, RemoteCommandError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("the key was used for another command"), "{error}");
    assert!(!error.is_unknown());
    assert_eq!(served.events("1").await, 2);
}

#[tokio::test]
async fn each_kind_of_failure_is_told_apart() {
    let (served, client) = one().await;
    client.send::<Account>("1", Order::Open).await.unwrap();

    let error = client.send::<Account>("1", Order::Withdraw(7)).await.unwrap_err();
    let RemoteCommandError::Refused(problem) = &error else { panic!("{error}") };
    assert_eq!((&*problem.code, &problem.data), ("too_much", &json!({ "cents": 0 })));
    assert_eq!(error.to_string(), "refused: there are only 0 cents");
    assert_eq!((error.class(), error.is_unknown()), (ErrorClass::User, false));

    let metadata = Metadata { actor: Some("mallory".to_owned()), ..Metadata::default() };
    let denied = CommandEnvelope::new(Order::Deposit(1)).metadata(metadata);
    let error = client.send::<Account>("1", denied).await.unwrap_err();
    assert_eq!(error.to_string(), "not allowed: not you");

    let error = client.send_to("account", "1", json!({ "Fly": 1 })).await.unwrap_err();
    assert!(matches!(error, RemoteCommandError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("unknown variant `Fly`"), "{error}");

    let error = client.send::<Account>("", Order::Open).await.unwrap_err();
    assert!(matches!(error, RemoteCommandError::Invalid { .. }), "{error}");

    let soon = RemoteOptions::default().absent_for(Duration::from_millis(50));
    let error = served.client(soon).send_to("robot", "1", json!("Walk")).await.unwrap_err();
    assert_eq!(error.to_string(), "nobody serves commands to robot; start a node that does");
    assert!(!error.is_unknown());

    let large = Order::Many(0);
    let id = "x".repeat(2 << 20);
    let error = client.send::<Account>(&id, large).await.unwrap_err();
    assert!(matches!(error, RemoteCommandError::NotSent(RemoteError::TooLarge { .. })), "{error}");
    assert_eq!(served.events("1").await, 1, "none of them had an effect");
}

/// Another program can speak it without this one's types.
#[tokio::test]
async fn what_is_on_the_wire_is_json_with_a_status() {
    let (served, client) = one().await;
    let ask = async |body: &str| {
        let subject = Subject::new("smith.command.account").unwrap();
        let message = WireMessage::new(&subject, "", body.as_bytes().to_vec());
        let answer = served.remote.network.request(&message, DEADLINE).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        (answer.headers[STATUS].clone(), body)
    };
    let (status, body) = ask(r#"{"id": "3", "key": "k", "command": "Open"}"#).await;
    assert_eq!(status, "200");
    assert_eq!(
        body,
        json!({ "stream": "account-3", "events": 1, "version": 1, "position": 1,
            "duplicate": false })
    );
    let (status, body) = ask(r#"{"id": "3", "command": {"Withdraw": 5}}"#).await;
    assert_eq!(status, "409");
    assert_eq!(
        body,
        json!({ "type": "too_much", "status": 409, "detail": "there are only 0 cents",
            "unknown": false, "data": { "cents": 0 } })
    );
    let (status, _) = ask("{}").await;
    assert_eq!(status, "400");
    drop(client);
}

/// A stream that holds the subjects answers before any node does, with a number of its own.
#[tokio::test]
async fn an_answer_of_somebody_else_is_none() {
    let (served, client) = one().await;
    let subject = Pattern::new("smith.command.robot").unwrap();
    let mut requests = served.remote.serve(&subject, "stream").await.unwrap();
    let answering = async {
        let asked = requests.next().await.unwrap();
        asked.answer(WireMessage::answer(r#"{"stream":"S","seq":1}"#)).await.unwrap();
    };
    let asking = client.send_to("robot", "1", json!("Walk"));
    let (answer, ()) = tokio::join!(asking, answering);
    let error = answer.unwrap_err();
    assert!(error.is_unknown() && error.to_string().contains("none of a command's"), "{error}");
}

/// The event is in the log once, and the repeat gets the answer of the first.
#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_nothing_is_doubled() {
    let (served, client) = one().await;
    served.remote.lose.store(3, Ordering::Relaxed);
    let executed = client.send::<Account>("1", Order::Open).await.unwrap();
    assert!(executed.duplicate, "the first try has done it");
    assert_eq!(served.remote.requests.load(Ordering::Relaxed), 4);
    served.remote.lose.store(1, Ordering::Relaxed);
    let executed = client.send::<Account>("1", Order::Deposit(5)).await.unwrap();
    assert_eq!((executed.version.get(), executed.duplicate), (2, true));
    assert_eq!(served.events("1").await, 2);

    // A refusal that was lost is decided again; what was decided is said, and that one try is not
    // known of.
    served.remote.lose.store(1, Ordering::Relaxed);
    let error = client.send::<Account>("1", Order::Withdraw(7)).await.unwrap_err();
    assert!(matches!(error, RemoteCommandError::Refused(_)) && error.is_unknown(), "{error}");
}

#[tokio::test]
async fn without_any_answer_the_key_is_told_and_a_repeat_finds_out() {
    let (served, client) = one().await;
    let hasty = served.client(RemoteOptions::default().deadline(Duration::from_millis(300)));
    served.remote.lose.store(u64::MAX, Ordering::Relaxed);
    let error = hasty.send::<Account>("1", Order::Open).await.unwrap_err();
    let RemoteCommandError::Unknown { key, tries, .. } = &error else { panic!("{error}") };
    assert!(*tries > 1 && error.is_unknown(), "{error}");
    served.remote.lose.store(0, Ordering::Relaxed);
    let again = CommandEnvelope::new(Order::Open).key(Arc::clone(key));
    assert!(client.send::<Account>("1", again).await.unwrap().duplicate);
    assert_eq!(served.events("1").await, 1);
}

#[tokio::test]
async fn more_than_there_is_room_for_is_told_that_it_is_busy() {
    let options = ServeOptions::default().concurrency(1).waiting(1);
    let served = Teller::new(1, options, false).await;
    let client = served.client(RemoteOptions::default().deadline(DEADLINE));
    let send = |id: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.send::<Account>(id, Order::Open).await })
    };
    let first = send("1");
    served.gate.entered(1).await;
    let second = send("2");
    // The second waits for the first; when it is there, there is no room for a third.
    let hasty = served.client(RemoteOptions::default().deadline(Duration::from_millis(100)));
    let error = loop {
        let error = hasty.send::<Account>("3", Order::Open).await.unwrap_err();
        if matches!(error, RemoteCommandError::Busy { .. }) && !second.is_finished() {
            break error;
        }
    };
    assert_eq!((error.class(), error.is_unknown()), (ErrorClass::Transient, false));
    served.gate.permits.add_permits(1_000);
    for work in [first, second] {
        assert_eq!(work.await.unwrap().unwrap().events, 1);
    }
}

/// A command whose sender waits no more is not begun.
#[tokio::test]
async fn what_waited_longer_than_its_sender_is_not_begun() {
    let served = Teller::new(1, ServeOptions::default().concurrency(1), false).await;
    let client = served.client(RemoteOptions::default().deadline(DEADLINE));
    let first = {
        let client = client.clone();
        tokio::spawn(async move { client.send::<Account>("1", Order::Open).await })
    };
    served.gate.entered(1).await;
    let hasty = served.client(RemoteOptions::default().deadline(Duration::from_millis(50)));
    hasty.send::<Account>("2", Order::Open).await.unwrap_err();
    served.gate.permits.add_permits(1_000);
    first.await.unwrap().unwrap();
    client.send::<Account>("3", Order::Open).await.unwrap();
    assert_eq!(served.events("2").await, 0);
}

/// One of two servers is stopped, the other killed again and again, while commands are sent: each
/// is executed once.
#[tokio::test]
async fn servers_that_come_and_go_lose_and_double_nothing() {
    let served = Teller::new(2, ServeOptions::default(), true).await;
    let options = RemoteOptions::default().deadline(DEADLINE).repeat_after(Duration::from_secs(1));
    let client = served.client(options);
    client.send::<Account>("1", Order::Open).await.unwrap();
    let (done, mut progress) = watch::channel(0_u64);
    let versions = Mutex::new(Vec::new());
    let sending = join_all((0..8_u64).map(|_| {
        let (client, done, versions) = (&client, &done, &versions);
        async move {
            for _ in 0..25 {
                let executed = client.send::<Account>("1", Order::Deposit(1)).await.unwrap();
                versions.lock().unwrap().push(executed.version.get());
                done.send_modify(|done| *done += 1);
            }
        }
    }));
    let disturbing = async {
        for round in 1..=5 {
            progress.wait_for(|done| *done >= round * 20).await.unwrap();
            served.servers.kill("/server1").unwrap();
            if round == 2 {
                served.servers.stop("/server0").await.unwrap();
            }
        }
    };
    let all = async { tokio::join!(sending, disturbing) };
    tokio::time::timeout(DEADLINE, all).await.expect("all are answered");
    let mut versions = versions.into_inner().unwrap();
    versions.sort_unstable();
    assert_eq!(versions, (2..=201).collect::<Vec<_>>(), "each answer is of another event");
    assert_eq!(served.events("1").await, 201);
}

/// What a server has in hand when it is stopped is answered by it.
#[tokio::test]
async fn a_server_that_is_stopped_answers_what_it_has() {
    let served = Teller::new(1, ServeOptions::default(), false).await;
    let options = RemoteOptions::default().deadline(DEADLINE).repeat_after(DEADLINE);
    let client = served.client(options);
    let sending = {
        let client = client.clone();
        tokio::spawn(async move { client.send::<Account>("1", Order::Open).await })
    };
    served.gate.entered(1).await;
    let stopping = served.servers.stop("/server0");
    let opening = async { served.gate.permits.add_permits(1_000) };
    let (stopped, ()) = tokio::join!(stopping, opening);
    stopped.unwrap();
    assert!(!sending.await.unwrap().unwrap().duplicate);
    assert_eq!(served.remote.requests.load(Ordering::Relaxed), 1);
}
