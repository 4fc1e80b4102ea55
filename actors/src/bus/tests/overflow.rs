use mister_smith_supervisors::{Actor, Context, Failure, Overflow, StartError};
use tokio::sync::Semaphore;

use super::*;

/// A subscription whose handler waits for a permit for each message.
async fn gated(town: &Town, subscription: Subscription) -> (Seen, Arc<Semaphore>) {
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let (given, door) = (seen.clone(), Arc::clone(&gate));
    town.bus
        .subscribe(subscription.deadline(Duration::from_secs(86_400)), move || {
            let (seen, gate) = (given.clone(), Arc::clone(&door));
            move |delivery: Delivery| {
                let (seen, gate) = (seen.clone(), Arc::clone(&gate));
                async move {
                    gate.acquire().await.unwrap().forget();
                    seen.push(number(&delivery));
                    Outcome::Ack
                }
            }
        })
        .await
        .unwrap();
    (seen, gate)
}

fn status(town: &Town, name: &str) -> SubscriptionStatus {
    town.bus.subscriptions().into_iter().find(|one| &*one.name == name).unwrap()
}

/// The first message is in the handler's hands, and not in its mailbox.
async fn first_in_hand(town: &Town, name: &str) {
    while status(town, name).depth > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_hangs_costs_publishers_one_deadline_and_the_others_nothing() {
    let town = Town::start().await;
    let steady = town.collect(to("steady", ">")).await;
    let wait = Overflow::Wait(Duration::from_secs(2));
    let (slow, gate) = gated(&town, to("slow", ">").buffer(3, wait)).await;
    town.publish("a", 0).await.unwrap();
    first_in_hand(&town, "slow").await;
    for number in 1..=3 {
        assert_eq!(town.publish("a", number).await.unwrap().delivered, 2);
    }
    let began = tokio::time::Instant::now();
    let error = town.publish("a", 4).await.unwrap_err();
    assert_eq!((error.delivered, &*error.refused), (1, &["slow".to_owned()][..]));
    assert_eq!(began.elapsed(), Duration::from_secs(2), "it waits as long as the policy says");
    insta::assert_snapshot!(
        error.to_string().replace(&error.id.to_string(), "ID"),
        @"1 subscriptions have a (ID), but 1 had no room for it: slow; make the buffer larger, the subscriber faster, or let it drop the oldest"
    );
    // From now on nobody waits for it.
    let began = tokio::time::Instant::now();
    for number in 5..=50 {
        town.publish("a", number).await.unwrap_err();
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(steady.wait_for(51).await, (0..=50).collect::<Vec<_>>());
    assert!(status(&town, "slow").cut_off);
    assert_eq!(status(&town, "slow").refused, 47);
    // Once it has room it is there again.
    gate.add_permits(100);
    slow.wait_for(4).await;
    town.publish("a", 51).await.unwrap();
    assert_eq!(slow.wait_for(5).await, [0, 1, 2, 3, 51]);
    assert!(!status(&town, "slow").cut_off);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_waits_gets_its_room() {
    let town = Town::start().await;
    let wait = Overflow::Wait(Duration::from_secs(60));
    let (slow, gate) = gated(&town, to("slow", ">").buffer(2, wait)).await;
    let publishing = async {
        for number in 0..20 {
            town.publish("a", number).await.unwrap();
        }
    };
    let opening = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            gate.add_permits(1);
        }
    };
    tokio::join!(publishing, opening);
    assert_eq!(slow.wait_for(20).await, (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn each_policy_drops_what_it_says() {
    let town = Town::start().await;
    let (oldest, first) = gated(&town, to("oldest", ">").buffer(2, Overflow::DropOldest)).await;
    let (newest, second) = gated(&town, to("newest", ">").buffer(2, Overflow::DropNewest)).await;
    let (failing, third) = gated(&town, to("failing", "b").buffer(2, Overflow::Fail)).await;
    town.publish("a", 0).await.unwrap();
    town.publish("b", 0).await.unwrap_or_else(|error| panic!("{error}"));
    for name in ["oldest", "newest"] {
        while status(&town, name).depth > 1 {
            tokio::task::yield_now().await;
        }
    }
    first_in_hand(&town, "failing").await;
    for number in 1..=5 {
        town.publish("a", number).await.unwrap();
    }
    let began = tokio::time::Instant::now();
    for number in 1..=2 {
        town.publish("b", number).await.unwrap();
    }
    assert_eq!(town.publish("b", 3).await.unwrap_err().refused, ["failing"]);
    assert_eq!(began.elapsed(), Duration::ZERO);
    for gate in [first, second, third] {
        gate.add_permits(100);
    }
    assert_eq!(oldest.wait_for(3).await, [0, 2, 3]);
    assert_eq!(newest.wait_for(3).await, [0, 0, 1]);
    assert_eq!(failing.wait_for(3).await, [0, 1, 2]);
    let lost = |name| status(&town, name).dropped;
    assert_eq!((lost("oldest"), lost("newest"), lost("failing")), (7, 7, 0));
    assert!(town.office.kept().is_empty(), "what a policy drops is counted and no dead letter");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_another_try_counts_as_waiting() {
    let town = Town::start().await;
    let wait = Overflow::Wait(Duration::from_secs(1));
    let tried = Seen::default();
    let given = tried.clone();
    let subscription = to("s", ">").buffer(4, wait).retry(RetryPolicy::attempts(1_000));
    town.bus
        .subscribe(subscription, move || {
            let tried = given.clone();
            move |delivery: Delivery| {
                tried.push(number(&delivery));
                async { Outcome::retry_after(Duration::from_secs(3_600), "not today") }
            }
        })
        .await
        .unwrap();
    let mut refused = 0;
    for number in 0..100 {
        refused += u64::from(town.publish(&format!("a.{number}"), number).await.is_err());
        tokio::task::yield_now().await;
    }
    assert_eq!(
        tried.now().len(),
        4,
        "four are held back, and no more are taken out of the mailbox"
    );
    assert!(refused >= 90, "{refused}");
}

struct Agent(Seen);

impl Actor for Agent {
    type Message = Arc<Message>;
    type Args = Seen;

    async fn start(seen: &Seen, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(seen.clone()))
    }

    async fn handle(
        &mut self,
        message: Arc<Message>,
        _: &mut Context<Self>,
    ) -> Result<(), Failure> {
        let Order::Placed { number } = *message.event::<Order>().unwrap();
        if number == 2 {
            return Err(Failure::permanent("two is too much"));
        }
        self.0.push(number);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_hears_in_its_own_mailbox_across_its_restarts() {
    let town = Town::start().await;
    let seen = Seen::default();
    let spec = ChildSpec::actor::<Agent>("agent", seen.clone());
    let supervisor = town.system.supervisor("/messaging/subscriptions").unwrap();
    let agent = supervisor.spawn_spec::<Arc<Message>>(spec).await.unwrap();
    town.bus.connect("agent", Pattern::all(), agent, |message| message).unwrap();
    for number in 1..=4 {
        town.publish("a", number).await.unwrap();
    }
    assert_eq!(seen.wait_for(3).await, [1, 3, 4]);
}
