use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn text() -> impl Strategy<Value = String> {
    let char = prop_oneof![
        Just('\0'),
        Just('\u{1}'),
        Just('\u{2}'),
        Just('\\'),
        Just('u'),
        Just('0'),
        Just('1'),
        Just('"'),
        any::<char>(),
    ];
    prop::collection::vec(char, 0..12).prop_map(|chars| chars.into_iter().collect())
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![any::<bool>().prop_map(Value::from), text().prop_map(Value::from)];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_text_comes_back_and_keeps_its_place(one in text(), two in text()) {
        let (a, b) = (stored(&one), stored(&two));
        prop_assert!(!a.contains('\0'));
        prop_assert_eq!(read(&a), one.as_str());
        prop_assert_eq!(a.cmp(&b), one.cmp(&two));
    }

    #[test]
    fn json_comes_back_and_says_the_same_as_its_texts(value in json()) {
        let before = value.to_string();
        let stored_text = stored_json(&before);
        prop_assert_eq!(read_json(&stored_text), before.as_str());
        let again: Value = serde_json::from_str(&stored_text).unwrap();
        prop_assert_eq!(again, each(&value));
    }
}

/// The value with each of its texts as it is stored.
fn each(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::from(&*stored(text)),
        Value::Array(all) => all.iter().map(each).collect(),
        Value::Object(all) => {
            Value::Object(all.iter().map(|(k, v)| (stored(k).into_owned(), each(v))).collect())
        }
        other => other.clone(),
    }
}
