//! Compressed payloads, from the wire to whoever processes them.

use bytes::Bytes;

use super::super::queue::in_process::Broker;
use super::super::queue::processor::ProcessorOptions;
use super::super::queue::{Queue, QueueError, QueueOptions, connect};
use super::super::wire::{CONTENT_ENCODING, CONTENT_TYPE, WireError, WireMessage};
use super::*;
use crate::event::ContentType;
use crate::event::compression::{Compression, CompressionError, Encoding};

fn wire(payload: impl Into<Bytes>, media_type: &str) -> WireMessage {
    WireMessage::new(&Subject::of(["jobs", "new"]), "1", payload).header(CONTENT_TYPE, media_type)
}

fn text() -> String {
    format!("[{}0]", "1,".repeat(4_000))
}

#[test]
fn a_header_says_what_was_done_and_reading_undoes_it() {
    let plain = wire(text(), "application/json");
    let packed = plain.clone().compress(&Compression::gzip());
    assert_eq!(packed.headers[CONTENT_ENCODING], "gzip");
    assert!(packed.payload.len() < 200);
    assert_eq!(packed.clone().compress(&Compression::gzip()), packed, "once is enough");
    assert_eq!(packed.clone().decompress(10_000).unwrap(), plain);
    let message = packed.to_message().unwrap();
    assert!(format!("{message:?}").contains("8003 bytes"), "{message:?}");
    let small = wire("[1]", "application/json");
    assert_eq!(small.clone().compress(&Compression::gzip()), small);
}

#[test]
fn json_and_message_pack_are_recognised_without_a_header_and_others_are_left_alone() {
    let (_, packed) = Compression::gzip().compress(&text().into());
    for (media_type, encoding) in [
        ("application/json; charset=utf-8", Encoding::Gzip),
        ("application/x-msgpack", Encoding::Gzip),
        ("application/octet-stream", Encoding::Identity),
        ("application/x-protobuf", Encoding::Identity),
        ("application/gzip", Encoding::Identity),
    ] {
        let wire = wire(packed.clone(), media_type);
        assert_eq!(wire.encoding(), Ok(encoding), "{media_type}");
    }
    let named = wire(packed.clone(), "application/json").header(CONTENT_ENCODING, "identity");
    assert_eq!(named.encoding(), Ok(Encoding::Identity));
    let proto = wire("\u{8}\u{7}", "application/vnd.google.protobuf");
    assert_eq!(proto.content_type(), ContentType::Protobuf);
    assert_eq!(wire("", "avro/binary").content_type(), ContentType::Avro);
}

#[test]
fn what_cannot_be_decompressed_says_why() {
    let packed = wire(text(), "application/json").compress(&Compression::gzip());
    let error = packed.clone().decompress(8_002).unwrap_err();
    assert_eq!(error, CompressionError::TooLarge { limit: 8_002 });
    let foreign = packed.header(CONTENT_ENCODING, "br");
    let error = foreign.to_message().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the payload cannot be decompressed: \"br\" is no encoding that is known; send gzip, zstd, \
         lz4 or identity"
    );
    let nowhere = WireMessage { subject: "a..b".to_owned(), ..WireMessage::default() };
    assert!(matches!(nowhere.to_message(), Err(WireError::Subject(_))));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_decompressed_is_a_dead_letter_and_holds_up_nobody() {
    let (town, broker) = (Town::start().await, Broker::default());
    let options = QueueOptions::new("jobs").compression(Compression::gzip());
    let sender = broker.queue(options.clone()).sender();
    let large = wire(text(), "application/json");
    let damaged = WireMessage {
        id: "2".to_owned(),
        payload: Bytes::from_static(b"\x1f\x8b\x08 no more"),
        ..wire("", "text/plain").header(CONTENT_ENCODING, "gzip")
    };
    let good = WireMessage { id: "3".to_owned(), ..wire("[1]", "application/json") };
    sender.send(&[large, damaged, good]).await.unwrap();

    let small = broker.queue(options.clone().read_limit(8_000));
    let queue = small.receiver("workers").unwrap();
    let seen = Seen::default();
    let given = seen.clone();
    let process = move |delivery: Delivery| {
        given.push(delivery.message.encoded().unwrap().data.len() as u64);
        async { Outcome::Ack }
    };
    let processing = ProcessorOptions::default().concurrency(1);
    town.bus.process("worker", Arc::clone(&queue), processing, process).await.unwrap();
    let kept = town.office.wait_for(2).await;
    while queue.waiting().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(seen.now(), [3]);
    let reasons: Vec<_> = kept.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "the payload cannot be decompressed: it would become larger than the limit of 8000 bytes",
            "the payload cannot be decompressed: the bytes are no complete gzip: invalid gzip header",
        ]
    );
    assert!(kept.iter().all(|letter| letter.cause == FailureCause::Failed));
    // The letter holds it as it came, and says so: whoever has a larger limit can read it.
    let letter = &kept[0].message;
    assert_eq!(letter.metadata().headers[CONTENT_ENCODING], "gzip");
    let wire = WireMessage::of(letter).unwrap();
    assert_eq!(wire.decompress(10_000).unwrap().payload, text());
    // Sent again, it is read by a processor with a larger limit, and is a letter again elsewhere.
    let process = {
        let seen = seen.clone();
        move |delivery: Delivery| {
            assert!(delivery.message.metadata().headers.is_empty());
            seen.push(delivery.message.encoded().unwrap().data.len() as u64);
            async { Outcome::Ack }
        }
    };
    let larger = broker.queue(options).receiver("workers").unwrap();
    town.bus.process("larger", larger, ProcessorOptions::default(), process).await.unwrap();
    for (name, id) in [("worker", 1), ("larger", 2)] {
        let again =
            NewMessage::encoded(letter.subject().clone(), letter.encoded().unwrap().clone())
                .id(letter.id())
                .metadata(letter.metadata().clone())
                .for_dead_letter(Uuid::from_u128(id));
        town.bus.deliver_to(name, again).await.unwrap();
    }
    assert_eq!(seen.wait_for(2).await, [3, 8_003]);
    assert_eq!(town.office.wait_for(3).await[2].reason, reasons[0]);
    while town.office.settled.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*town.office.settled.lock().unwrap(), [Uuid::from_u128(2)]);
}

#[tokio::test]
async fn an_encoding_that_is_not_built_is_refused_when_the_queue_is_opened() {
    for encoding in [Encoding::Gzip, Encoding::Zstd, Encoding::Lz4] {
        match Compression::of(encoding) {
            Ok(how) => {
                let options = QueueOptions::new("q").compression(how);
                assert!(connect("memory:", options).await.is_ok());
            }
            Err(error) => {
                assert_eq!(error, CompressionError::NotBuilt { encoding });
                let mut how = Compression::gzip();
                how.encoding = encoding;
                let options = QueueOptions::new("q").compression(how);
                let refused = connect("memory:", options).await.unwrap_err();
                assert!(matches!(refused, QueueError::NotBuilt { feature: "compression" }));
            }
        }
    }
}
