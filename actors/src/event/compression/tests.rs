use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ORDERS: &[u8] = include_bytes!("golden/orders.ndjson");

/// Every encoding that this program has.
fn all() -> Vec<Compression> {
    let encodings = [Encoding::Gzip, Encoding::Zstd, Encoding::Lz4];
    encodings.into_iter().filter_map(|encoding| Compression::of(encoding).ok()).collect()
}

fn forced(how: Compression, data: &[u8]) -> Bytes {
    let (encoding, packed) = how.threshold(0).compress(&Bytes::copy_from_slice(data));
    assert_eq!(encoding, how.encoding, "it did not shrink");
    packed
}

#[test]
fn golden_payloads_of_the_commands_are_read() {
    for (encoding, file) in [
        (Encoding::Gzip, &include_bytes!("golden/orders.gz")[..]),
        (Encoding::Zstd, include_bytes!("golden/orders.zst")),
        (Encoding::Zstd, include_bytes!("golden/orders.stream.zst")),
        (Encoding::Lz4, include_bytes!("golden/orders.lz4")),
        (Encoding::Lz4, include_bytes!("golden/orders.linked.lz4")),
    ] {
        assert_eq!(Encoding::sniff(file), encoding);
        let file = Bytes::from_static(file);
        let read = decompress(encoding, &file, ORDERS.len());
        match encoding.is_built() {
            true => assert!(read.unwrap() == ORDERS, "{encoding}"),
            false => assert_eq!(read, Err(CompressionError::NotBuilt { encoding })),
        }
        if encoding.is_built() {
            let less = decompress(encoding, &file, ORDERS.len() - 1);
            let limit = ORDERS.len() - 1;
            assert_eq!(less, Err(CompressionError::TooLarge { limit }), "{encoding}");
            // Parts behind each other are one payload.
            let twice = Bytes::from([&file[..], &file[..]].concat());
            let read = decompress(encoding, &twice, 10_000).unwrap();
            assert!(read == [ORDERS, ORDERS].concat(), "{encoding}: {} bytes", read.len());
        }
    }
}

#[test]
fn what_is_small_or_does_not_shrink_stays_as_it_is() {
    let noise: Bytes = {
        let mut state = 1_u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(10_000).collect()
    };
    for how in all() {
        assert_eq!(how.compress(&noise), (Encoding::Identity, noise.clone()));
        let small = Bytes::from(vec![0; DEFAULT_THRESHOLD - 1]);
        assert_eq!(how.compress(&small).0, Encoding::Identity);
        assert_eq!(how.compress(&vec![0; DEFAULT_THRESHOLD].into()).0, how.encoding);
        assert_eq!(how.threshold(0).compress(&Bytes::new()).0, Encoding::Identity);
    }
    let orders = Bytes::from_static(ORDERS);
    assert_eq!(Compression::none().threshold(0).compress(&orders), (Encoding::Identity, orders));
}

#[test]
fn bombs_are_refused() {
    const LIMIT: usize = 1 << 20;
    for how in all() {
        // 64 MiB of nothing.
        let bomb = forced(how, &vec![0; 64 << 20]);
        assert!(bomb.len() < LIMIT, "{}: {} bytes", how.encoding, bomb.len());
        let refused = decompress(how.encoding, &bomb, LIMIT);
        assert_eq!(refused, Err(CompressionError::TooLarge { limit: LIMIT }), "{}", how.encoding);
        assert_eq!(decompress(how.encoding, &bomb, 64 << 20).unwrap().len(), 64 << 20);
    }
}

#[cfg(feature = "compression")]
#[test]
fn a_frame_that_lies_about_its_size_or_asks_for_a_large_window_is_refused() {
    let bomb = forced(Compression::zstd(), &vec![0; 1 << 20]);
    // The descriptor of the frame says 4 bytes of size at offset 5 (with a window) or so: say that
    // it is smaller than it is.
    let size = u32::to_le_bytes(1 << 20);
    let at = bomb.windows(4).position(|bytes| bytes == size).expect("it says its size");
    let mut lying = bomb.to_vec();
    lying[at..at + 4].copy_from_slice(&1_000_u32.to_le_bytes());
    let refused = decompress(Encoding::Zstd, &lying.into(), 4_096).unwrap_err();
    assert!(matches!(refused, CompressionError::Corrupt { .. }), "{refused}");
    // Larger than it is.
    let mut lying = bomb.to_vec();
    lying[at..at + 4].copy_from_slice(&(8_u32 << 20).to_le_bytes());
    assert!(decompress(Encoding::Zstd, &lying.into(), 16 << 20).is_err());
    // A window of 2 GiB, an empty last block (RFC 8878, 3.1.1).
    let window = Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0]);
    let refused = decompress(Encoding::Zstd, &window, 16 << 20).unwrap_err();
    assert!(refused.to_string().contains("too much memory"), "{refused}");
}

#[test]
fn parts_and_changed_bytes_are_errors() {
    for how in all() {
        let packed = forced(how, ORDERS);
        for end in 0..packed.len() {
            let part = decompress(how.encoding, &packed.slice(..end), 1 << 20);
            assert!(part.is_err(), "{}: the first {end} bytes: {part:?}", how.encoding);
        }
        for at in 0..packed.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = packed.to_vec();
                changed[at] ^= change;
                // Bits that say nothing of the content may change; the content may not.
                if let Ok(read) = decompress(how.encoding, &changed.into(), 1 << 20) {
                    assert_eq!(read, ORDERS, "{}: byte {at}", how.encoding);
                }
            }
        }
        let longer = [&packed[..], b"x"].concat();
        assert!(decompress(how.encoding, &longer.into(), 1 << 20).is_err(), "{}", how.encoding);
    }
}

#[test]
fn names_are_read_in_any_case_and_others_are_not_known() {
    for (name, encoding) in [
        ("gzip", Some(Encoding::Gzip)),
        ("X-GZIP", Some(Encoding::Gzip)),
        (" zstd ", Some(Encoding::Zstd)),
        ("LZ4", Some(Encoding::Lz4)),
        ("identity", Some(Encoding::Identity)),
        ("", Some(Encoding::Identity)),
        ("br", None),
        ("gzip, zstd", None),
    ] {
        assert_eq!(Encoding::from_name(name), encoding, "{name}");
    }
    for how in all() {
        assert_eq!(Encoding::from_name(how.encoding.name()), Some(how.encoding));
    }
}

#[test]
fn levels_beyond_the_ends_are_the_ends() {
    for how in all() {
        for level in [i32::MIN, -1, 0, 5, 9, 19, i32::MAX] {
            let packed = forced(how.level(level), ORDERS);
            assert_eq!(decompress(how.encoding, &packed, 1 << 20).unwrap(), ORDERS);
        }
    }
}

proptest! {
    #[test]
    fn what_was_compressed_comes_back(data in vec(prop_oneof![9 => 0..4_u8, 1 => any::<u8>()], 0..5_000)) {
        let data = Bytes::from(data);
        for how in all() {
            let (encoding, packed) = how.threshold(1).compress(&data);
            prop_assert!(packed.len() <= data.len());
            prop_assert_eq!(decompress(encoding, &packed, data.len()).unwrap(), &data);
        }
    }

    #[test]
    fn any_bytes_are_answered(data in vec(any::<u8>(), 0..200)) {
        for (how, magic) in all().into_iter().zip([
            &[0x1f, 0x8b, 0x08][..],
            &[0x28, 0xb5, 0x2f, 0xfd],
            &[0x04, 0x22, 0x4d, 0x18],
        ]) {
            let data = Bytes::from([magic, &data].concat());
            if let Ok(read) = decompress(how.encoding, &data, 10_000) {
                prop_assert!(read.len() <= 10_000);
            }
        }
    }
}
