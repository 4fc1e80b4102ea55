//! The model and the screen, fed with answers that a node could have given.

use serde_json::{Value, json};

use super::model::{Model, Row, Sort};
use super::{Frame, print};

/// An actor; `more` is put over what is usual.
fn actor(path: &str, more: Value) -> Value {
    let mut node = json!({
        "path": path, "id": path.rsplit('/').next(), "kind": "actor", "state": "up",
        "suspended": false, "life": 1, "restarts": 0, "lints": [], "nodes": [],
        "mailbox": { "depth": 0, "capacity": 64 },
        "handling": { "handled": 0, "busy_ms": 0, "p99_us": 0 },
    });
    let (Some(node_members), Some(more)) = (node.as_object_mut(), more.as_object()) else {
        panic!("both are objects");
    };
    node_members.extend(more.clone());
    node
}

fn supervisor(path: &str, id: &str, total: usize, nodes: Vec<Value>) -> Value {
    json!({
        "path": path, "id": id, "kind": "supervisor", "state": "up", "suspended": false, "life": 1,
        "restarts": 0, "lints": [], "children": { "total": total, "shown": nodes.len() },
        "nodes": nodes,
    })
}

/// What a node says so many seconds after the first time.
fn frame(seconds: u64) -> Frame {
    let handling = |per_second: u64, busy_ms: u64| json!({ "handled": 100 + per_second * seconds, "busy_ms": busy_ms * seconds, "p99_us": 64 });
    let ada = actor("/agents/ada", json!({ "handling": handling(5, 30) }));
    let joe = json!({
        "state": "backing_off", "life": 3, "restarts": 2 + seconds, "handling": handling(1, 2),
        "mailbox": { "depth": 60, "capacity": 64 }, "lints": ["backing_off", "mailbox_near_full"],
    });
    let joe = actor("/agents/joe", joe);
    let odd = actor("/agents/a%2Fb%1B", json!({ "id": "a/b\u{1b}[2J" }));
    let pool =
        json!({ "handling": { "handled": 10 * seconds, "busy_ms": 0, "p99_us": 2_500_000 } });
    let resources = supervisor("/resources", "resources", 1, vec![actor("/resources/pool", pool)]);
    let agents = supervisor("/agents", "agents", 9, vec![ada, joe, odd]);
    let lint = json!({
        "severity": "warning", "path": "/agents/joe", "code": "backing_off",
        "text": "it failed and waits", "advice": "mend the cause",
    });
    Frame {
        node: json!({
            "name": "demo", "version": "0.1.0", "mode": "development",
            "uptime_ms": 61_000 + seconds * 1_000,
            "actors": { "total": 13, "by_state": { "up": 12, "backing_off": 1 } },
            "totals": { "handled": 1_000 + 60 * seconds, "restarts": 2, "dead_letters": 3 },
            "limits": [
                { "name": "mailbox of /agents/joe", "value": 60, "max": 64 },
                { "name": "restarts below / in 60 s", "value": 0, "max": 100 },
            ],
            "store": { "kind": "sqlite", "head": 17 }, "rss_bytes": 12 << 20,
        }),
        tree: json!({
            "seq": 7, "at": format!("2026-01-01T00:00:{:02}.000000Z", seconds),
            "root": supervisor("/", "demo", 2, vec![resources, agents]),
        }),
        lints: json!({ "lints": [lint] }),
    }
}

fn model() -> Model {
    let mut model = Model::default();
    (0..=4).for_each(|seconds| model.feed(&frame(seconds)));
    model
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "../../../tests/snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn a_frame_is_printed() {
    snapshot("top_once", &print::text(&model()));
}

#[test]
fn rates_are_differences_of_two_answers() {
    let mut model = Model::default();
    model.feed(&frame(0));
    let rate = |model: &Model| {
        let rows = model.rows();
        rows.iter().find_map(|row| match row {
            Row::Slot { slot, .. } if slot.path == "/agents/ada" => {
                Some((slot.rate, slot.busy_percent))
            }
            _ => None,
        })
    };
    assert_eq!(rate(&model), Some((None, None)), "one answer has no rate");
    model.feed(&frame(2));
    assert_eq!(rate(&model), Some((Some(5.0), Some(3.0))));
    // Of the same moment, and of an earlier one after the clock was set back.
    for seconds in [2, 1] {
        model.feed(&frame(seconds));
        assert_eq!(rate(&model), Some((None, None)));
    }
    // A node that was started again counts from the beginning.
    let mut again = frame(3);
    again.node["totals"]["handled"] = json!(1);
    again.tree["root"]["nodes"][1]["nodes"][0]["handling"] =
        json!({ "handled": 1, "busy_ms": 0, "p99_us": 0 });
    model.feed(&again);
    assert_eq!((rate(&model), model.rate), (Some((Some(0.0), Some(0.0))), None));
}

#[test]
fn children_are_sorted_within_their_supervisor() {
    let mut model = model();
    let order = |model: &Model| {
        let rows = model.rows();
        rows.iter()
            .filter_map(Row::path)
            .filter(|path| path.contains("agents/"))
            .fold(String::new(), |text, path| format!("{text} {}", &path["/agents/".len()..]))
    };
    for (sort, wanted) in [
        (Sort::Tree, " ada joe a%2Fb%1B"),
        (Sort::State, " joe ada a%2Fb%1B"),
        (Sort::Restarts, " joe ada a%2Fb%1B"),
        (Sort::Mailbox, " joe ada a%2Fb%1B"),
        (Sort::Busy, " ada joe a%2Fb%1B"),
    ] {
        model.view.sort = sort;
        assert_eq!(order(&model), wanted, "{}", sort.as_str());
    }
}

#[test]
fn answers_that_are_none_are_shown_as_nothing() {
    let mut model = Model::default();
    let nothing = Frame { node: Value::Null, tree: Value::Null, lints: Value::Null };
    model.feed(&nothing);
    model.feed(&nothing);
    assert_eq!(model.rows().len(), 1);
    assert!(print::text(&model).starts_with("? ?"));
}

#[cfg(feature = "tui")]
mod screen {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::draw::draw;
    use super::super::keys::{Action, Key, Screen, Wish};
    use super::*;

    fn screen() -> Screen {
        Screen { model: model(), ..Screen::default() }
    }

    fn drawn(screen: &mut Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(110, 20)).expect("it is in memory");
        terminal.draw(|frame| draw(frame, screen)).expect("it is in memory");
        terminal.backend().to_string()
    }

    fn press(screen: &mut Screen, keys: &str) -> Vec<Wish> {
        keys.chars().filter_map(|key| screen.press(Key::Char(key))).collect()
    }

    fn plan(allowed: bool) -> Value {
        json!({
            "action": "kill", "path": "/resources/pool", "life": 4, "allowed": allowed,
            "why": (!allowed).then_some("it is down"), "escalates": false, "ends_system": false,
            "stops": [{ "path": "/resources/committer", "how": "stopped" },
                { "path": "/resources/pool", "how": "killed" }],
            "starts": ["/resources/pool", "/resources/committer"],
            "intensity": { "used": 1, "max": 1000 },
            "text": "pool is killed; committer, which starts after it, is started again",
        })
    }

    #[test]
    fn the_table_is_drawn_with_what_is_selected() {
        let mut screen = screen();
        (0..4).for_each(|_| drop(screen.press(Key::Down)));
        snapshot("top_table", &drawn(&mut screen));
        screen.lost = Some("no node at 127.0.0.1:7373".to_owned());
        screen.press(Key::Char('?'));
        snapshot("top_help", &drawn(&mut screen));
    }

    #[test]
    fn what_is_folded_is_one_line() {
        let mut screen = screen();
        let rows = |screen: &Screen| screen.model.rows().len();
        assert_eq!(rows(&screen), 8);
        (0..4).for_each(|_| drop(screen.press(Key::Down)));
        assert_eq!(screen.index(), 4, "ada");
        // The first one goes to the supervisor, the second one folds it.
        screen.press(Key::Left);
        assert_eq!((screen.index(), rows(&screen)), (3, 8));
        screen.press(Key::Left);
        assert_eq!((screen.index(), rows(&screen)), (3, 4));
        screen.press(Key::Char(' '));
        assert_eq!(rows(&screen), 8);
        screen.press(Key::End);
        assert_eq!(press(&mut screen, "f"), [Wish::Failures { path: "/agents/a%2Fb%1B".into() }]);
    }

    #[test]
    fn a_search_keeps_what_leads_to_it() {
        let mut screen = screen();
        assert_eq!(press(&mut screen, "/jox"), []);
        screen.press(Key::Back);
        let rows: Vec<String> =
            screen.model.rows().iter().filter_map(Row::path).map(str::to_owned).collect();
        assert_eq!(rows, ["/", "/agents", "/agents/joe"]);
        screen.press(Key::Enter);
        screen.press(Key::Escape);
        assert_eq!(screen.model.rows().len(), 8);
        assert_eq!(screen.press(Key::Escape), Some(Wish::Quit));
    }

    #[test]
    fn nothing_is_killed_without_a_plan_and_a_reason() {
        let mut screen = screen();
        screen.press(Key::Down);
        screen.press(Key::Down);
        let path = "/resources/pool".to_owned();
        let wish = Wish::Plan { action: Action::Kill, path: path.clone() };
        assert_eq!(press(&mut screen, "k"), [wish]);
        screen.planned(Action::Kill, path.clone(), plan(true));
        assert_eq!(screen.press(Key::Enter), None, "there is no reason yet");
        assert_eq!(press(&mut screen, " a test"), []);
        snapshot("top_confirm", &drawn(&mut screen));
        let reason = "a test".to_owned();
        let wish = Wish::Act { action: Action::Kill, path: path.clone(), life: 4, reason };
        assert_eq!(screen.press(Key::Enter), Some(wish));
        screen.planned(Action::Restart, path, plan(false));
        press(&mut screen, "x");
        assert_eq!(screen.press(Key::Enter), None, "it is not allowed");
        assert!(drawn(&mut screen).contains("it is not done: it is down"));
    }

    #[test]
    fn failures_are_told_with_what_was_decided() {
        let mut screen = screen();
        let failure = |seq: u64, reason: &str| {
            json!({ "seq": seq, "at": "2026-01-01T00:00:00Z", "life": seq, "reason": reason,
                "message": "Execute", "location": "src/a.rs:1:2", "backtrace": "0: main",
                "decision": { "text": "restarted alone" } })
        };
        let actor = json!({ "lineage": ["joe failed", "joe was restarted"],
            "failures": [failure(1, "first"), failure(2, "panic: second\u{1b}[2J")] });
        screen.failed("/agents/joe", &actor);
        snapshot("top_failures", &drawn(&mut screen));
        screen.failed("/agents/ada", &json!({}));
        assert!(drawn(&mut screen).contains("It has not failed."));
        // An answer that says nothing cannot be confirmed.
        screen.planned(Action::Kill, "/x".into(), Value::Null);
        assert_eq!((press(&mut screen, "why"), screen.press(Key::Enter)), (vec![], None));
        // One that comes late does not get in the way of who writes.
        screen.planned(Action::Kill, "/y".into(), plan(true));
        screen.failed("/y", &actor);
        assert_eq!(screen.press(Key::Enter), None);
        assert!(drawn(&mut screen).contains("kill /x?"));
    }

    #[test]
    fn a_screen_without_an_answer_or_without_room_is_drawn_too() {
        let mut empty = Screen::default();
        drawn(&mut empty);
        assert_eq!(press(&mut empty, "kRf smrb"), []);
        for (width, height) in [(1, 1), (20, 5), (300, 100)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
            let mut screen = screen();
            screen.press(Key::Char('?'));
            terminal.draw(|frame| draw(frame, &mut screen)).expect("in memory");
        }
    }
}
