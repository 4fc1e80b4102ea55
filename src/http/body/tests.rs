use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 20;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn status(encoding: &str, body: &[u8], limit: usize) -> u16 {
    decode_body(Some(encoding), body, limit).unwrap_err().status()
}

#[test]
fn identity_is_borrowed() {
    for encoding in [None, Some(""), Some("identity"), Some(" Identity ")] {
        let body = decode_body(encoding, b"plain", LIMIT).unwrap();
        assert!(matches!(body, Cow::Borrowed(b"plain")), "{encoding:?}");
    }
}

#[test]
fn gzip_is_unpacked_whatever_its_spelling() {
    for encoding in ["gzip", "GZIP", " x-gzip"] {
        assert_eq!(*decode_body(Some(encoding), &gzip(b"plain"), LIMIT).unwrap(), *b"plain");
    }
}

#[test]
fn members_of_one_gzip_body_are_joined() {
    let body = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
    assert_eq!(*decode_body(Some("gzip"), &body, LIMIT).unwrap(), *b"one two");
}

#[test]
fn the_limit_itself_is_allowed_and_one_more_is_not() {
    let plain = vec![7; 1000];
    assert!(decode_body(None, &plain, 1000).is_ok());
    assert_eq!(status("identity", &plain, 999), 413);
    assert!(decode_body(Some("gzip"), &gzip(&plain), 1000).is_ok());
    assert_eq!(status("gzip", &gzip(&plain), 999), 413);
}

#[test]
fn a_bomb_is_given_up_at_the_limit() {
    let bomb = gzip(&vec![0; 64 << 20]);
    assert!(bomb.len() < 100_000);
    assert_eq!(status("gzip", &bomb, LIMIT), 413);
    // Several members do not add up past the limit either.
    assert_eq!(status("gzip", &gzip(&vec![0; LIMIT]).repeat(3), LIMIT), 413);
}

#[test]
fn gzip_cut_anywhere_is_malformed() {
    let whole = gzip(b"a body that is long enough to be cut in many places");
    for end in 0..whole.len() {
        assert_eq!(status("gzip", &whole[..end], LIMIT), 400, "cut at {end}");
    }
    for end in 1..whole.len() {
        let two = [&whole[..], &whole[..end]].concat();
        assert_eq!(status("gzip", &two, LIMIT), 400, "second member cut at {end}");
    }
}

#[test]
fn damaged_gzip_is_malformed() {
    let mut body = gzip(b"some text, and its checksum does not fit");
    let checksum = body.len() - 8;
    body[checksum] ^= 1;
    assert_eq!(status("gzip", &body, LIMIT), 400);
    assert_eq!(status("gzip", b"{\"not\":\"gzip\"}", LIMIT), 400);
    assert_eq!(status("gzip", &[gzip(b"x"), b"rest".to_vec()].concat(), LIMIT), 400);
}

#[test]
fn an_unknown_encoding_is_told_what_is_known() {
    let error = decode_body(Some("br"), b"", LIMIT).unwrap_err();
    assert_eq!(error.status(), 415);
    let told = "content encoding \"br\" is not supported; send gzip or identity";
    assert_eq!(error.to_string(), told);
    assert_eq!(status("gzip, gzip", b"", LIMIT), 415);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body: Vec<u8>, limit in 0..2000_usize) {
        let _ = decode_body(Some("gzip"), &body, limit);
    }

    #[test]
    fn what_was_packed_comes_out(parts: Vec<Vec<u8>>) {
        prop_assume!(!parts.is_empty());
        let body: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
        prop_assert_eq!(decode_body(Some("gzip"), &body, LIMIT).unwrap().into_owned(), parts.concat());
    }
}
