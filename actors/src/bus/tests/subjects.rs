use proptest::collection::vec;
use proptest::prelude::*;

use super::super::routes::Routes;
use super::super::sink::{Counts, Offer, Route, Sink};
use super::*;

struct Nowhere;

impl Sink for Nowhere {
    fn try_offer(&self, _: &Arc<Message>) -> Offer {
        Offer::Gone
    }
    fn offer(&self, _: Arc<Message>) -> BoxFuture<'_, Offer> {
        async { Offer::Gone }.boxed()
    }
    fn depth(&self) -> usize {
        0
    }
    fn path(&self) -> String {
        String::new()
    }
}

fn route(number: usize, pattern: &Pattern) -> Arc<Route> {
    Arc::new(Route {
        number: number as u64,
        name: number.to_string().into(),
        pattern: pattern.clone(),
        group: None,
        sink: Box::new(Nowhere),
        counts: Counts::default(),
        handling: Handling::Unknown,
        cut_off: false.into(),
    })
}

fn token() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("system"), Just("ä-1")]
}

fn any_subject() -> impl Strategy<Value = Subject> {
    vec(token(), 1..5).prop_map(|tokens| Subject::new(tokens.join(".")).unwrap())
}

fn any_pattern() -> impl Strategy<Value = Pattern> {
    let token = prop_oneof![3 => token(), 2 => Just("*")];
    (vec(token, 0..4), any::<bool>()).prop_filter_map("empty", |(mut tokens, rest)| {
        if rest {
            tokens.push(">");
        }
        (!tokens.is_empty()).then(|| Pattern::new(tokens.join(".")).unwrap())
    })
}

proptest! {
    /// The trie with its cache finds what comparing each pattern finds, while patterns come and go.
    #[test]
    fn the_trie_finds_what_each_pattern_matches(
        steps in vec((any_pattern(), any::<prop::sample::Index>(), any::<bool>()), 1..40),
        subjects in vec(any_subject(), 1..6),
    ) {
        let routes = Routes::new();
        let mut there: Vec<(usize, Pattern)> = Vec::new();
        for (number, (pattern, which, remove)) in steps.into_iter().enumerate() {
            if remove && !there.is_empty() {
                let (gone, _) = there.remove(which.index(there.len()));
                prop_assert!(routes.remove(&gone.to_string()).is_some());
            } else {
                prop_assert!(routes.insert(route(number, &pattern)));
                there.push((number, pattern));
            }
            for subject in &subjects {
                let found = routes.targets(subject);
                let found: Vec<_> = found.each.iter().map(|route| route.number).collect();
                let wanted: Vec<_> = there
                    .iter()
                    .filter(|(_, pattern)| pattern.matches(subject))
                    .map(|(number, _)| *number as u64)
                    .collect();
                prop_assert_eq!(found, wanted);
            }
        }
    }

    /// Any parts make a subject that is one.
    #[test]
    fn a_subject_of_any_parts_is_one(parts in vec(any::<String>(), 0..5)) {
        let subject = Subject::of(&parts);
        prop_assert!(Subject::new(subject.as_str()).is_ok(), "{}", subject);
    }

    /// Whatever text: it is a subject, a pattern, or refused; never a panic.
    #[test]
    fn any_text_is_judged(text in any::<String>()) {
        if Subject::new(text.as_str()).is_ok() {
            prop_assert!(Pattern::new(text.as_str()).is_ok());
        }
    }
}

#[test]
fn what_is_wrong_with_a_subject_is_said() {
    let subject = |text: &str| Subject::new(text).unwrap_err().to_string();
    let pattern = |text: &str| Pattern::new(text).unwrap_err().to_string();
    let all = [
        subject(""),
        subject("order."),
        subject("order placed"),
        subject("order.*"),
        subject(&"x".repeat(513)),
        pattern("order.>.placed"),
        pattern("order.17*"),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    a subject is empty; name it like order.placed
    "order." has an empty token; put one dot between two tokens, and none at the ends
    "order placed" has white space or a control character; use letters, digits, - and _
    "order.*" has a wildcard; publish to one subject, and use * and > to subscribe
    a subject of 513 bytes is too long, at most 512 are taken
    "order.>.placed" has > before its end; > stands for all the rest, use * for one token
    "order.17*" has a wildcard inside a token; * and > stand alone between dots
    "#);
}

/// What nats-server says of the same pairs (tested against a real one in `tests/services`).
#[test]
fn wildcards_mean_what_they_mean_to_nats() {
    for (pattern, subject, matches) in [
        ("order.*", "order.1", true),
        ("order.*", "order", false),
        ("order.*", "order.1.placed", false),
        ("order.>", "order.1.placed", true),
        ("order.>", "order", false),
        (">", "order", true),
        ("*.*", "a.b", true),
        ("*.b.>", "a.b.c", true),
        ("*.b.>", "a.b", false),
        // Ours alone.
        (">", "system.lifecycle", false),
        ("system.>", "system.lifecycle", true),
    ] {
        let (pattern, subject) = (Pattern::new(pattern).unwrap(), Subject::new(subject).unwrap());
        assert_eq!(pattern.matches(&subject), matches, "{pattern} {subject}");
    }
}
