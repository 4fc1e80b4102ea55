//! A system that has ended leaves nothing behind.

use std::sync::Arc;

use mister_smith_supervisors::*;

use crate::kit::*;

/// What the application has in every place where a system keeps something of it.
#[derive(Clone)]
struct Token(Arc<()>);

impl Token {
    fn new() -> Self {
        Self(Arc::new(()))
    }

    /// Copies besides this one.
    fn others(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

struct Keeper {
    _token: Token,
    address: Address<Said>,
}

#[derive(Clone)]
enum Said {
    Nothing(#[allow(dead_code, reason = "kept")] Token),
    Fail(#[allow(dead_code, reason = "kept")] Token),
    Ask(#[allow(dead_code, reason = "kept")] Token, ReplyPort<()>),
}

impl Actor for Keeper {
    type Message = Said;
    type Args = Token;

    async fn start(token: &Token, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let (shown, address) = (token.clone(), cx.address());
        // In a circle with its own slot.
        cx.describe(move || format!("{} {}", shown.others(), address.depth()));
        let (own, ticked) = (token.clone(), token.clone());
        let helper = cx.spawn_guard(async move {
            let _own = own;
            std::future::pending::<()>().await;
        });
        cx.keep(helper);
        cx.timer("t", secs(1_000), Said::Nothing(token.clone()));
        cx.periodic("p", secs(100), move || Said::Nothing(ticked.clone()));
        let timed = token.clone();
        cx.set_receive_timeout(Some(secs(500)), move || Said::Nothing(timed.clone()));
        Ok(Self { _token: token.clone(), address: cx.address() })
    }

    async fn handle(&mut self, said: Said, cx: &mut Context<Self>) -> Result<(), Failure> {
        match said {
            Said::Nothing(token) => {
                let _ = cx.stash(Said::Nothing(token));
                let _ = &self.address;
                Ok(())
            }
            Said::Fail(_) => Err(Failure::permanent("told to")),
            Said::Ask(_, port) => {
                std::future::pending::<()>().await;
                port.send(());
                Ok(())
            }
        }
    }
}

fn keeper(id: &'static str, token: &Token) -> ChildSpec {
    ChildSpec::actor::<Keeper>(id, token.clone()).on_crash(OnCrash::redeliver::<Said>(2))
}

async fn a_life_of(system: &ActorSystem, token: &Token) {
    for path in ["/a", "/s/b", "/d/c", "/k/d"] {
        let address = system.find::<Said>(path).unwrap();
        address.tell(Said::Nothing(token.clone())).await.unwrap();
        address.tell(Said::Fail(token.clone())).await.unwrap();
        address.tell_urgent(Said::Nothing(token.clone())).unwrap();
        settle().await;
        let asked = token.clone();
        let asks = address.ask_within::<()>(secs(2), |port| Said::Ask(asked, port));
        let late = tokio::spawn({
            let address = address.clone();
            let asked = token.clone();
            async move { address.ask_within::<()>(ms(10), |port| Said::Ask(asked, port)).await }
        });
        assert!(asks.await.is_err());
        assert!(late.await.unwrap().is_err());
        address.tell(Said::Nothing(token.clone())).await.unwrap();
        let _watched = tokio::time::timeout(ms(1), address.ended()).await;
    }
    let d = system.supervisor("/d").unwrap();
    d.start_child(keeper("e", token).name("named").group("all")).await.unwrap();
    d.start_child(keeper("f", token)).await.unwrap();
    d.terminate_child("f").await.unwrap();
    assert!(d.start_child(keeper("e", token)).await.is_err());
    let moved = token.clone();
    let task = ChildSpec::task("t", move |cx: TaskContext| {
        let token = moved.clone();
        let (shown, own) = (token.clone(), cx.clone());
        cx.describe(move || format!("{} {}", shown.others(), own.path()));
        async move {
            let _token = token;
            std::future::pending().await
        }
    });
    d.start_child(task).await.unwrap();
    let _tree = system.tree().to_string();
}

fn tree(token: &Token) -> SupervisorSpec {
    root()
        .child(keeper("a", token))
        .child(SupervisorSpec::new("s").intensity(100, secs(1)).child(keeper("b", token)))
        .child(SupervisorSpec::dynamic("d").intensity(100, secs(1)).child(keeper("c", token)))
        .child(
            SupervisorSpec::dynamic("k")
                .keep_children()
                .intensity(100, secs(1))
                .child(keeper("d", token)),
        )
}

async fn left_behind(end: impl AsyncFn(&ActorSystem)) -> usize {
    let token = Token::new();
    let (observed, buried) = (token.clone(), token.clone());
    let system = ActorSystem::builder(tree(&token))
        .observer(move |_: &LifecycleEvent| drop(observed.clone()))
        .dead_letters(move |letter: DeadLetter| drop((letter, buried.clone())))
        .start()
        .await
        .unwrap();
    a_life_of(&system, &token).await;
    end(&system).await;
    drop(system);
    tokio::time::sleep(secs(10)).await;
    token.others()
}

#[tokio::test(start_paused = true)]
async fn a_system_that_was_shut_down_leaves_nothing() {
    let left = left_behind(async |system| {
        system.shutdown(secs(60)).await;
    })
    .await;
    assert_eq!(left, 0, "copies that somebody still has");
}

#[tokio::test(start_paused = true)]
async fn a_system_that_was_killed_leaves_nothing() {
    let left = left_behind(async |system| {
        system.shutdown(secs(0)).await;
    })
    .await;
    assert_eq!(left, 0, "copies that somebody still has");
}

#[tokio::test(start_paused = true)]
async fn a_system_whose_supervisors_were_killed_leaves_nothing() {
    let left = left_behind(async |system| {
        for path in ["/s", "/d", "/k"] {
            system.kill(path).unwrap().unwrap();
            tokio::time::sleep(secs(2)).await;
        }
        system.shutdown(secs(60)).await;
    })
    .await;
    assert_eq!(left, 0, "copies that somebody still has");
}
