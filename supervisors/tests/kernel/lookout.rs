//! What is seen without asking anybody.

use std::time::Duration;

use mister_smith_supervisors::*;

use crate::kit::*;

/// Asks whom it is told to ask.
struct Asker;

enum Say {
    Ask(Address<Say>),
    Hello(ReplyPort<()>),
    Wait(Duration),
    Fail,
}

impl Actor for Asker {
    type Message = Say;
    type Args = ();

    async fn start((): &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, say: Say, _: &mut Context<Self>) -> Result<(), Failure> {
        match say {
            Say::Ask(other) => drop(other.ask_within(secs(20), Say::Hello).await),
            Say::Hello(reply) => reply.send(()),
            Say::Wait(long) => tokio::time::sleep(long).await,
            Say::Fail => return Err(Failure::transient("told to")),
        }
        Ok(())
    }

    fn message_name(say: &Say) -> &'static str {
        match say {
            Say::Ask(_) => "Ask",
            Say::Hello(_) => "Hello",
            Say::Wait(_) => "Wait",
            Say::Fail => "Fail",
        }
    }
}

async fn askers() -> (ActorSystem, Address<Say>, Address<Say>) {
    let asker = |id: &'static str| ChildSpec::actor::<Asker>(id, ());
    let system = start(root().child(asker("a")).child(asker("b")).child(asker("c"))).await;
    let (a, b) = (system.find("/a").unwrap(), system.find("/b").unwrap());
    (system, a, b)
}

#[tokio::test(start_paused = true)]
async fn two_that_ask_each_other_are_a_circle() {
    let (system, a, b) = askers().await;
    let c = system.find::<Say>("/c").unwrap();
    a.try_tell(Say::Ask(b.clone())).unwrap();
    b.try_tell(Say::Ask(a.clone())).unwrap();
    c.try_tell(Say::Ask(a.clone())).unwrap();
    tokio::time::sleep(secs(1)).await;
    let waits = system.waits();
    let circle: Vec<_> = waits.cycles[0].iter().map(Path::as_str).collect();
    assert_eq!((circle, waits.cycles.len()), (vec!["/a", "/b"], 1));
    let edges: Vec<_> = waits
        .edges
        .iter()
        .map(|edge| (edge.from.as_str(), edge.to.as_str(), edge.message, edge.waiting.as_secs()))
        .collect();
    assert_eq!(
        edges,
        [("/a", "/b", "Hello", 1), ("/b", "/a", "Hello", 1), ("/c", "/a", "Hello", 1)]
    );
    let tree = system.tree();
    assert_eq!(tree.find("/c").unwrap().waits[0].on.as_str(), "/a");
    // The deadline ends it, and then nobody waits.
    tokio::time::sleep(secs(60)).await;
    assert_eq!(system.waits(), Waits::default());
}

#[tokio::test(start_paused = true)]
async fn a_killed_asker_waits_no_more() {
    let (system, a, b) = askers().await;
    b.try_tell(Say::Wait(secs(9))).unwrap();
    a.try_tell(Say::Ask(b)).unwrap();
    tokio::time::sleep(secs(1)).await;
    assert_eq!(system.waits().edges.len(), 1);
    system.kill("/a").unwrap();
    settle().await;
    assert!(system.waits().edges.is_empty());
}

#[tokio::test(start_paused = true)]
async fn messages_are_counted_by_kind() {
    let (system, a, _) = askers().await;
    for n in 0..10 {
        a.try_tell(Say::Wait(ms(n))).unwrap();
        a.ask(Say::Hello).await.unwrap();
    }
    let messages = system.actor("/a").unwrap().messages;
    let counts: Vec<_> = messages.iter().map(|m| (m.name, m.handling.handled)).collect();
    assert_eq!(counts, [("Wait", 10), ("Hello", 10)]);
    let waits = &messages[0].handling;
    assert!(waits.longest >= ms(9) && waits.busy >= ms(45), "{waits:?}");
    assert!(waits.quantile(0.5).unwrap() <= waits.quantile(0.99).unwrap());
    let tree = system.tree();
    let node = tree.find("/a").unwrap();
    let mailbox = node.mailbox.as_ref().unwrap();
    assert_eq!((mailbox.handled, mailbox.longest), (20, waits.longest));
    assert_eq!(mailbox.high_water, 2);
    assert_eq!(mailbox.overflow, Overflow::default());
}

#[tokio::test(start_paused = true)]
async fn the_recorder_writes_down_what_was_handled() {
    let (system, a, b) = askers().await;
    a.try_tell(Say::Wait(ms(1))).unwrap();
    settle().await;
    assert!(system.actor("/b").unwrap().recorded.is_empty(), "off");
    system.record("/b", true).unwrap();
    b.try_tell(Say::Wait(ms(50))).unwrap();
    a.try_tell(Say::Ask(b.clone())).unwrap();
    tokio::time::sleep(ms(200)).await;
    b.try_tell(Say::Fail).unwrap();
    b.try_tell(Say::Wait(secs(9))).unwrap();
    settle().await;
    system.kill("/b").unwrap();
    settle().await;
    let lines = system.actor("/b").unwrap().recorded;
    let told: Vec<_> = lines
        .iter()
        .map(|l| (l.name, l.from.as_ref().map(Path::as_str), l.outcome.as_str(), l.life))
        .collect();
    assert_eq!(
        told,
        [
            ("Wait", None, "ok", 1),
            ("Hello", Some("/a"), "ok", 1),
            ("Fail", None, "failed", 1),
            ("Wait", None, "killed", 2),
        ]
    );
    assert!(lines[0].handled_in >= ms(50) && lines[1].waited.unwrap() >= ms(49), "{lines:?}");
    for _ in 0..2 * RECORDER_LENGTH {
        b.ask(Say::Hello).await.unwrap();
    }
    assert_eq!(system.actor("/b").unwrap().recorded.len(), RECORDER_LENGTH);
    system.record("/", false).unwrap();
    assert!(system.actor("/b").unwrap().recorded.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_timeline_says_what_is_gone_and_wakes_who_waits() {
    let log = Log::default();
    let system =
        ActorSystem::builder(root().child(puppet("a", &log))).history(4).start().await.unwrap();
    let timeline = system.timeline();
    assert_eq!((timeline.first(), timeline.last()), (1, 1));
    let waiting = tokio::spawn({
        let timeline = timeline.clone();
        async move { timeline.changed(1).await }
    });
    for _ in 0..3 {
        at(&system, "/a").try_tell(Do::Fail).unwrap();
        settle().await;
    }
    assert!(waiting.await.unwrap() >= 2);
    // Seven events, four kept.
    let page = timeline.since(0, 2);
    assert_eq!(page.missed, Some(Missed { from: 1, to: 3 }));
    let seqs: Vec<_> = page.events.iter().map(|event| event.seq).collect();
    assert_eq!((seqs, page.next, page.last), (vec![4, 5], 5, 7));
    let rest = timeline.since(page.next, 100);
    assert_eq!((rest.missed, rest.events.len(), rest.next), (None, 2, 7));
    assert_eq!(timeline.since(7, 9).next, 7);
    assert_eq!(timeline.since(99, 9).events.len(), 0);
    assert!(timeline.get(3).is_none() && timeline.get(8).is_none());
    // The failure behind the oldest restart is gone.
    assert!(timeline.lineage(5).is_some_and(|l| l.whole || l.events.len() == 1));
}

#[tokio::test(start_paused = true)]
async fn the_tree_as_it_was() {
    let log = Log::default();
    let system = start(
        root().child(puppet("a", &log)).child(SupervisorSpec::dynamic("d").intensity(9, secs(9))),
    )
    .await;
    let d = system.supervisor("/d").unwrap();
    d.spawn::<Puppet>("x", Role::new("x", &log)).await.unwrap();
    let born = system.timeline().last();
    at(&system, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    system.suspend("/a").await.unwrap();
    let held = system.timeline().last();
    d.terminate_child("x").await.unwrap();
    let gone = system.timeline().last();
    let timeline = system.timeline();
    let was = timeline.at(born).unwrap();
    assert_eq!(was.get("/a").map(|a| (a.state, a.life, a.restarts)), Some((SlotState::Up, 1, 0)));
    assert!(was.get("/d/x").is_some());
    let was = timeline.at(held).unwrap();
    let a = was.get("/a").unwrap();
    assert_eq!((a.state, a.life, a.restarts), (SlotState::Suspended, 2, 1));
    assert_eq!(was.get("/d").unwrap().kind, SlotKind::DynamicSupervisor);
    let was = timeline.at(gone).unwrap();
    assert!(was.get("/d/x").is_none() && was.nodes().count() == 2);
    assert!(timeline.at(gone + 1).is_none());
}

/// As far as the events go, the fold of all of them is the tree.
#[tokio::test(start_paused = true)]
async fn the_fold_of_all_events_is_the_tree() {
    let log = Log::default();
    let inner = SupervisorSpec::new("inner")
        .strategy(Strategy::OneForAll)
        .intensity(2, secs(60))
        .child(puppet("a", &log))
        .child(puppet("b", &log));
    let system = start(root().child(inner).child(puppet("c", &log))).await;
    for path in ["/inner/a", "/c", "/inner/b", "/inner", "/inner/a", "/inner/a", "/inner/b"] {
        system.kill(path).unwrap();
        settle().await;
    }
    system.stop("/inner/b").await.unwrap();
    let was = system.timeline().at(system.timeline().last()).unwrap();
    let tree = system.tree();
    let now: Vec<_> = tree
        .walk()
        .filter(|node| !node.path.is_root())
        .map(|n| (n.path.clone(), n.kind, n.state, n.life, n.restarts))
        .collect();
    let fold: Vec<_> = was
        .nodes()
        .filter(|node| !node.path.is_root())
        .map(|n| (n.path.clone(), n.kind, n.state, n.life, n.restarts))
        .collect();
    assert_eq!(fold.iter().filter(|n| !now.contains(n)).count(), 0, "{fold:#?}\n{now:#?}");
    assert_eq!(fold.len(), now.len());
}

#[tokio::test(start_paused = true)]
async fn the_worst_come_first_and_all_are_counted() {
    let log = Log::default();
    let system = start(root().child(SupervisorSpec::dynamic("d").intensity(99, secs(9)))).await;
    let d = system.supervisor("/d").unwrap();
    for n in 0..100 {
        let role = Role::new("x", &log);
        let spec = ChildSpec::actor::<Puppet>(n.to_string(), role)
            .backoff(Backoff::exponential(secs(5), secs(5)))
            .give_up_after(9)
            .component_type(ComponentType::new(if n < 50 { "first" } else { "second" }));
        d.start_child(spec).await.unwrap();
    }
    at(&system, "/d/7").try_tell(Do::Fail).unwrap();
    system.suspend("/d/50").await.unwrap();
    at(&system, "/d/90").try_tell(Do::Sleep(secs(1_000), 0)).unwrap();
    at(&system, "/d/91").try_tell(Do::Note(0)).unwrap();
    tokio::time::sleep(ms(1)).await;
    let look = |look: Look| {
        let tree = system.look_for(&look).unwrap();
        let ids = |node: &NodeView| node.children.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
        (ids(tree.find("/d").unwrap()), tree)
    };
    let (ids, tree) = look(Look::at("/").children(2));
    assert_eq!(ids, ["7", "50"]);
    let d = tree.find("/d").unwrap();
    let seven = tree.find("/d/7").unwrap();
    assert!(seven.backing_off.unwrap() <= secs(5));
    assert_eq!(seven.component, Some(ComponentType::new("first")));
    let counts: Vec<_> = d.supervisor.unwrap().by_state.iter().collect();
    assert_eq!(counts, [(SlotState::Up, 98), (SlotState::Backoff, 1), (SlotState::Suspended, 1)]);
    let (ids, _) = look(Look::at("/").state(SlotState::Suspended).state(SlotState::Backoff));
    assert_eq!(ids, ["7", "50"]);
    let (ids, _) = look(Look::at("/").component("second").text("/d/9").children(99));
    assert_eq!(ids.len(), 10);
    assert_eq!(look(Look::at("/").sort(Sort::Handled).children(1)).0, ["91"]);
    assert_eq!(look(Look::at("/").sort(Sort::Name).children(3)).0, ["0", "1", "10"]);
    assert!(system.look_for(&Look::at("/").text("nobody")).unwrap().root.children.is_empty());

    tokio::time::sleep(secs(3)).await;
    let heat = system.heat();
    assert_eq!(heat.states.len(), 102);
    let span = &heat.spans[1];
    assert_eq!((span.path.as_str(), span.from, span.count), ("/d", 2, 100));
    let byte = |path: &str| {
        let all = (0..heat.states.len()).map(|i| system.heat_path(i).unwrap());
        let at = all.into_iter().position(|(_, p)| p.as_str() == path).unwrap();
        heat.states[at]
    };
    assert_eq!(byte("/d/7") & 7, 4, "backing off, or up again by chance: {:#010b}", byte("/d/7"));
    assert_eq!(byte("/d/50"), 3);
    assert_eq!(byte("/d/90"), 1 | 1 << 7, "busy");
    assert_eq!(system.heat_path(102), None);
}
