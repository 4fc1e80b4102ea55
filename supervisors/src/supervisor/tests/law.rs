//! Random supervisors and random failures: a running supervisor does what the state machine on
//! paper decides.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::flat::{Paper, same_result};
use super::live::{Running, START_DEADLINE};
use super::scenario::{Flat, Step};

/// What happens in one step.
#[derive(Clone, Debug)]
enum Happens {
    One(&'static str, usize),
    /// Two children end at the same moment, perhaps while their group is stopped for the other.
    Two(usize, usize),
    Add(usize, Vec<&'static str>),
}

fn outcomes() -> impl Strategy<Value = Vec<&'static str>> {
    let outcome =
        prop_oneof![5 => Just("ok"), 2 => Just("fail"), 1 => Just("ignore"), 1 => Just("hang")];
    proptest::collection::vec(outcome, 0..5)
}

/// Restart policy, how it is stopped, significant, and how its starts go.
fn child() -> impl Strategy<Value = (&'static str, &'static str, bool, Vec<&'static str>)> {
    let restart =
        prop_oneof![3 => Just("permanent"), 1 => Just("transient"), 1 => Just("temporary")];
    let shutdown = prop_oneof![Just("infinity"), Just("brutal_kill")];
    (restart, shutdown, any::<bool>(), outcomes())
}

fn happens() -> impl Strategy<Value = Happens> {
    let ends = prop_oneof![
        3 => Just("crash"), 2 => Just("panic"), 2 => Just("kill"), 1 => Just("normal"),
        1 => Just("shutdown"), 1 => Just("terminate"), 1 => Just("restart"), 1 => Just("delete"),
    ];
    prop_oneof![
        12 => (ends, 0usize..6).prop_map(|(op, child)| Happens::One(op, child)),
        3 => (0usize..6, 0usize..6).prop_map(|(a, b)| Happens::Two(a, b)),
        1 => (0usize..7, outcomes()).prop_map(|(child, starts)| Happens::Add(child, starts)),
    ]
}

fn step(op: &str, child: serde_json::Value) -> Step {
    let step = json!({ "op": op, "child": child, "result": "", "events": [], "children": [] });
    serde_json::from_value(step).unwrap()
}

async fn agree(scenario: &Flat, steps: &[Happens]) -> Result<(), TestCaseError> {
    let mut paper = Paper::new(scenario);
    let mut running = Running::new(START_DEADLINE * 200);
    let init = step("init", json!(null));
    let (ours, papers) = (running.step(scenario, &init).await, paper.step(scenario, &init));
    // A paper child that hangs has failed.
    let failed = |happened: Vec<String>| -> Vec<String> {
        happened.into_iter().map(|line| line.replace(" hang", " fail")).collect()
    };
    prop_assert_eq!(
        failed(running.happened()),
        failed(std::mem::take(&mut paper.happened)),
        "init"
    );
    prop_assert_eq!(&ours, &papers);
    if ours != "ok" {
        return Ok(());
    }
    for (i, happens) in steps.iter().enumerate() {
        let (ours, papers) = match happens {
            Happens::One(op, child) => {
                let step = step(op, json!(format!("c{child}")));
                (running.step(scenario, &step).await, paper.step(scenario, &step))
            }
            Happens::Add(child, starts) => {
                let child = json!({ "id": format!("c{child}"), "restart": "permanent",
                    "significant": false, "shutdown": "infinity", "start_outcomes": starts });
                let step = step("add", child);
                (running.step(scenario, &step).await, paper.step(scenario, &step))
            }
            Happens::Two(a, b) => {
                let (a, b) = (format!("c{a}"), format!("c{b}"));
                let names: &[&str] = if a == b { &[&a] } else { &[&a, &b] };
                running.end_together(names).await;
                paper.end_together(names);
                ("ok".to_owned(), "ok".to_owned())
            }
        };
        let happened = failed(running.happened());
        let decided = failed(std::mem::take(&mut paper.happened));
        prop_assert_eq!(happened, decided, "step {} {:?}", i, happens);
        prop_assert!(same_result(&ours, &papers), "step {} {:?}: {} {}", i, happens, ours, papers);
        prop_assert_eq!(running.states().await, paper.states(), "step {} {:?}", i, happens);
        if paper.states() == ["dead"] {
            return Ok(());
        }
    }
    if let Some(system) = running.system {
        system.shutdown(Duration::from_secs(60)).await;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_running_supervisor_does_what_the_machine_on_paper_decides(
        strategy in prop_oneof![Just("one_for_one"), Just("rest_for_one"), Just("one_for_all")],
        intensity in 0u32..9,
        auto in prop_oneof![4 => Just("never"), 1 => Just("any_significant"), 1 => Just("all_significant")],
        children in proptest::collection::vec(child(), 1..6),
        steps in proptest::collection::vec(happens(), 1..12),
    ) {
        let children: Vec<_> = children
            .into_iter()
            .enumerate()
            .map(|(i, (restart, shutdown, significant, starts))| {
                let significant = significant && restart != "permanent" && auto != "never";
                json!({ "id": format!("c{i}"), "restart": restart, "significant": significant,
                    "shutdown": shutdown, "start_outcomes": starts })
            })
            .collect();
        let scenario: Flat = serde_json::from_value(json!({
            "id": "law", "strategy": strategy, "intensity": intensity, "auto_shutdown": auto,
            "children": children, "steps": [],
        }))
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(agree(&scenario, &steps))?;
    }
}
