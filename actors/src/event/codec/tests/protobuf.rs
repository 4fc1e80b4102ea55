use super::*;

/// `golden/sample.proto`, as `prost-build` makes it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProtoSample {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "2")]
    count: i64,
    #[prost(uint32, tag = "3")]
    small: u32,
    #[prost(double, tag = "4")]
    ratio: f64,
    #[prost(bool, tag = "5")]
    open: bool,
    #[prost(string, optional, tag = "6")]
    note: Option<String>,
    #[prost(bytes = "bytes", tag = "7")]
    data: Bytes,
    #[prost(message, repeated, tag = "8")]
    items: Vec<ProtoItem>,
    #[prost(btree_map = "string, int64", tag = "9")]
    tags: BTreeMap<String, i64>,
    #[prost(enumeration = "ProtoState", tag = "10")]
    state: i32,
    #[prost(sint32, repeated, tag = "11")]
    steps: Vec<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProtoItem {
    #[prost(string, tag = "1")]
    sku: String,
    #[prost(uint32, tag = "2")]
    pieces: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
enum ProtoState {
    Open = 0,
    Closed = 1,
}

pub(super) fn proto(of: Sample, steps: Vec<i32>) -> ProtoSample {
    let Sample { name, count, small, ratio, open, note, data, items, tags, state } = of;
    let items = items.into_iter().map(|Item { sku, pieces }| ProtoItem { sku, pieces });
    let state = match state {
        State::Open => ProtoState::Open,
        State::Closed => ProtoState::Closed,
    };
    ProtoSample {
        name,
        count,
        small,
        ratio,
        open,
        note,
        data,
        items: items.collect(),
        tags,
        state: state.into(),
        steps,
    }
}

#[test]
fn golden_protobuf() {
    let value = proto(sample(), vec![0, -1, 1, i32::MIN, i32::MAX]);
    golden(&Protobuf::new(), &value, include_bytes!("../golden/sample.binpb"));
}

#[test]
fn parts_of_a_message_and_changed_ones_are_answered() {
    // A message that ends between two fields is a message.
    survives(&Protobuf::new(), &proto(sample(), vec![1]), false);
}

#[derive(Clone, PartialEq, prost::Message)]
struct Chain {
    #[prost(message, optional, boxed, tag = "1")]
    next: Option<Box<Chain>>,
}

#[test]
fn a_message_that_is_nested_too_deep_is_refused() {
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        let mut outer = vec![0x0a];
        prost::encode_length_delimiter(bytes.len(), &mut outer).unwrap();
        outer.append(&mut bytes);
        bytes = outer;
    }
    let error = Codec::<Chain>::decode(&Protobuf::new(), &bytes).unwrap_err();
    assert!(error.to_string().contains("recursion limit"), "{error}");
    // Groups are nested at two bytes each.
    assert!(Codec::<Chain>::decode(&Protobuf::new(), &[0x13; 100_000]).is_err());
}

#[test]
fn a_length_that_the_message_does_not_hold_costs_nothing() {
    let data = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert!(Codec::<ProtoSample>::decode(&Protobuf::new(), &data).is_err());
    let error = Codec::<ProtoSample>::decode(&Protobuf::new().limit(9), &data).unwrap_err();
    assert_eq!(
        error,
        CodecError::TooLarge { codec: ContentType::Protobuf, bytes: data.len(), limit: 9 }
    );
}

proptest! {
    #[test]
    fn a_message_comes_back(sample in any_sample(), steps in vec(any::<i32>(), 0..5)) {
        let value = proto(sample, steps);
        let bytes = Protobuf::new().encode(&value).unwrap();
        prop_assert_eq!(Codec::<ProtoSample>::decode(&Protobuf::new(), &bytes).unwrap(), value);
    }

    #[test]
    fn any_bytes_are_answered(data in vec(any::<u8>(), 0..200)) {
        let _ = Codec::<ProtoSample>::decode(&Protobuf::new(), &data);
    }
}
