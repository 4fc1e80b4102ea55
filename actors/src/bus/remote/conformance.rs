//! What every adapter has to do. Run it on one of your own from a test.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::watch;

use super::{Asked, Remote, RemoteError, Requests};
use crate::bus::subject::{Pattern, Subject};
use crate::bus::wire::WireMessage;

/// Another client of the same broker, with each call.
pub type Open<'a> = &'a (dyn Fn() -> BoxFuture<'static, Arc<dyn Remote>> + Send + Sync);

/// Long enough for a server on a busy machine; nothing that works waits for it.
const WAIT: Duration = Duration::from_secs(20);

/// How long one waits for what does not come.
const SHORT: Duration = Duration::from_millis(150);

/// Runs all laws.
///
/// # Panics
/// One is broken; the panic says which.
pub async fn run(open: Open<'_>) {
    a_request_is_answered_byte_for_byte(open).await;
    nobody_there_is_told_at_once(open).await;
    silence_is_no_answer(open).await;
    a_group_shares(open).await;
    each_asker_gets_its_own_answer(open).await;
    a_late_answer_reaches_nobody(open).await;
    who_closes_answers_what_it_has(open).await;
    a_pattern_is_served(open).await;
    too_large_is_not_sent(open).await;
    what_no_broker_carries_is_not_sent(open).await;
}

fn message(subject: &str, payload: impl Into<Vec<u8>>) -> WireMessage {
    let subject = Subject::new(subject).expect("a subject");
    WireMessage::new(&subject, "the id", payload.into())
}

async fn serve(remote: &Arc<dyn Remote>, subjects: &str, group: &str) -> Box<dyn Requests> {
    let subjects = Pattern::new(subjects).expect("a pattern");
    remote.serve(&subjects, group).await.expect("it is reachable")
}

async fn next(requests: &mut Box<dyn Requests>) -> Asked {
    let next = tokio::time::timeout(WAIT, requests.next()).await;
    next.expect("a request comes").expect("it is not closed")
}

async fn a_request_is_answered_byte_for_byte(open: Open<'_>) {
    let (asker, server) = (open().await, open().await);
    let mut requests = serve(&server, "remote.bytes", "g").await;
    let sent = message("remote.bytes", [0, 255, b'\r', b'\n']).header("Smith-Text", "größer: 1");
    let serving = async {
        let asked = next(&mut requests).await;
        let wanted = WireMessage { id: String::new(), ..sent.clone() };
        assert_eq!(asked.message, wanted, "a request comes as it was sent, without an id");
        let answer = WireMessage::answer(vec![7, 0, 255]).header("Smith-Status", 200);
        asked.answer(answer).await.expect("it is reachable");
    };
    let (answer, ()) = tokio::join!(asker.request(&sent, WAIT), serving);
    let answer = answer.expect("it is answered");
    assert_eq!(&answer.payload[..], [7, 0, 255], "an answer comes as it was sent");
    assert_eq!(answer.headers["Smith-Status"], "200");
}

async fn nobody_there_is_told_at_once(open: Open<'_>) {
    let asker = open().await;
    let error =
        asker.request(&message("remote.nobody", "x"), WAIT * 10).await.expect_err("it fails");
    assert!(matches!(error, RemoteError::NoResponders { .. }), "nobody serves it: {error}");
}

async fn silence_is_no_answer(open: Open<'_>) {
    let (asker, server) = (open().await, open().await);
    let mut requests = serve(&server, "remote.silent", "g").await;
    let sent = message("remote.silent", "x");
    let (answer, asked) = tokio::join!(asker.request(&sent, SHORT), next(&mut requests));
    let error = answer.expect_err("it fails");
    assert!(matches!(error, RemoteError::NoAnswer { .. }), "it may have happened: {error}");
    drop(asked);
}

async fn a_group_shares(open: Open<'_>) {
    let asker = open().await;
    let mut members = Vec::new();
    for _ in 0..3 {
        let server = open().await;
        members.push(serve(&server, "remote.shared", "g").await);
    }
    let (done, ended) = watch::channel(false);
    let serving = join_all(members.into_iter().map(|mut requests| {
        let mut ended = ended.clone();
        async move {
            let mut had = 0_u32;
            loop {
                let asked = tokio::select! {
                    biased;
                    asked = requests.next() => asked.expect("it is not closed"),
                    _ = ended.wait_for(|ended| *ended) => return had,
                };
                had += 1;
                let payload = asked.message.payload.clone();
                asked.answer(WireMessage::answer(payload)).await.expect("it is reachable");
            }
        }
    }));
    let asking = async {
        for n in 0..60 {
            let sent = message("remote.shared", n.to_string());
            let answer = asker.request(&sent, WAIT).await.expect("it is answered");
            assert_eq!(answer.payload, n.to_string().as_bytes(), "each gets its own answer");
        }
        done.send_replace(true);
    };
    let (had, ()) = tokio::time::timeout(WAIT, async { tokio::join!(serving, asking) })
        .await
        .expect("all is answered");
    assert_eq!(had.iter().sum::<u32>(), 60, "one member gets a request: {had:?}");
    assert!(had.iter().all(|count| *count > 0), "each member gets some: {had:?}");
}

async fn each_asker_gets_its_own_answer(open: Open<'_>) {
    let (asker, server) = (open().await, open().await);
    let mut requests = serve(&server, "remote.own", "g").await;
    let asking = join_all((0..20).map(|n| {
        let asker = &asker;
        async move {
            let sent = message("remote.own", n.to_string());
            let answer = asker.request(&sent, WAIT).await.expect("it is answered");
            assert_eq!(answer.payload, n.to_string().as_bytes(), "answers are not mixed up");
        }
    }));
    let serving = async {
        let mut all = Vec::new();
        while all.len() < 20 {
            all.push(next(&mut requests).await);
        }
        // In another order than they were asked.
        while let Some(asked) = all.pop() {
            let payload = asked.message.payload.clone();
            asked.answer(WireMessage::answer(payload)).await.expect("it is reachable");
        }
    };
    tokio::join!(asking, serving);
}

async fn a_late_answer_reaches_nobody(open: Open<'_>) {
    let (asker, server) = (open().await, open().await);
    let mut requests = serve(&server, "remote.late", "g").await;
    let first = message("remote.late", "first");
    let (answer, late) = tokio::join!(asker.request(&first, SHORT), next(&mut requests));
    assert!(matches!(answer, Err(RemoteError::NoAnswer { .. })), "{answer:?}");
    let second = message("remote.late", "second");
    let serving = async {
        let asked = next(&mut requests).await;
        late.answer(WireMessage::answer("late")).await.expect("it is reachable");
        asked.answer(WireMessage::answer("in time")).await.expect("it is reachable");
    };
    let (answer, ()) = tokio::join!(asker.request(&second, WAIT), serving);
    assert_eq!(&answer.expect("it is answered").payload[..], b"in time");
}

async fn who_closes_answers_what_it_has(open: Open<'_>) {
    let (asker, server) = (open().await, open().await);
    let mut leaving = serve(&server, "remote.closing", "g").await;
    let sent = message("remote.closing", "x");
    let serving = async {
        let asked = next(&mut leaving).await;
        leaving.close().await;
        asked.answer(WireMessage::answer("the last one")).await.expect("it is reachable");
        let rest = tokio::time::timeout(WAIT, leaving.next()).await.expect("it ends");
        assert!(rest.is_none(), "nothing comes after it was closed");
    };
    let (answer, ()) = tokio::join!(asker.request(&sent, WAIT), serving);
    assert_eq!(&answer.expect("it is answered").payload[..], b"the last one");
    let error = asker.request(&sent, WAIT).await.expect_err("it fails");
    assert!(matches!(error, RemoteError::NoResponders { .. }), "nobody is left: {error}");
    // One that is only dropped has left, too.
    let dropped = serve(&server, "remote.closing", "g").await;
    drop(dropped);
    let mut stays = serve(&server, "remote.closing", "g").await;
    let serving = async {
        let asked = next(&mut stays).await;
        asked.answer(WireMessage::answer("here")).await.expect("it is reachable");
    };
    let (answer, ()) = tokio::join!(asker.request(&sent, WAIT), serving);
    assert_eq!(&answer.expect("who has left is not asked").payload[..], b"here");
}

async fn a_pattern_is_served(open: Open<'_>) {
    let (asker, server) = (open().await, open().await);
    let mut requests = serve(&server, "remote.any.*.tail", "g").await;
    let sent = message("remote.any.7.tail", "x");
    let serving = async {
        let asked = next(&mut requests).await;
        let subject = asked.message.subject.clone().into_bytes();
        asked.answer(WireMessage::answer(subject)).await.expect("it is reachable");
    };
    let (answer, ()) = tokio::join!(asker.request(&sent, WAIT), serving);
    assert_eq!(&answer.expect("it is answered").payload[..], b"remote.any.7.tail");
    let other = message("remote.any.7.other", "x");
    let error = asker.request(&other, WAIT).await.expect_err("it fails");
    assert!(matches!(error, RemoteError::NoResponders { .. }), "not this one: {error}");
}

async fn too_large_is_not_sent(open: Open<'_>) {
    let (asker, server) = (open().await, open().await);
    let _requests = serve(&server, "remote.large", "g").await;
    let sent = message("remote.large", vec![0; 3 << 20]);
    let error = asker.request(&sent, WAIT).await.expect_err("it fails");
    assert!(matches!(error, RemoteError::TooLarge { .. }), "{error}");
}

/// A client may answer a header that it cannot write with a panic.
async fn what_no_broker_carries_is_not_sent(open: Open<'_>) {
    let (asker, server) = (open().await, open().await);
    let mut requests = serve(&server, "remote.odd", "g").await;
    let sent = message("remote.odd", "x");
    let odd = sent.clone().header("a b", "c");
    let error = asker.request(&odd, WAIT).await.expect_err("a name with a blank");
    assert!(matches!(error, RemoteError::Message(_)), "{error}");
    let serving = async {
        let odd = WireMessage::answer("y").header("\u{fc}", "x");
        let error = next(&mut requests).await.answer(odd).await.expect_err("not in ASCII");
        assert!(matches!(error, RemoteError::Message(_)), "{error}");
    };
    let (answer, ()) = tokio::join!(asker.request(&sent, SHORT), serving);
    answer.expect_err("no answer was sent");
}
