//! The formats beside other implementations: Python's msgpack, protobuf and fastavro (`peer.py`),
//! and the commands gzip, zstd and lz4.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mister_smith::actors::event::codec::{Avro, Codec, Json, MessagePack, Protobuf};
use mister_smith::actors::event::compression::{
    Compression, CompressionError, Encoding, decompress,
};
use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What the golden files hold; `actors/src/event/codec/golden/README.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sample {
    name: String,
    count: i64,
    small: u32,
    ratio: f64,
    open: bool,
    note: Option<String>,
    data: Bytes,
    items: Vec<Item>,
    tags: BTreeMap<String, i64>,
    state: State,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
struct Item {
    #[prost(string, tag = "1")]
    sku: String,
    #[prost(uint32, tag = "2")]
    pieces: u32,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration, Serialize, Deserialize,
)]
enum State {
    Open = 0,
    Closed = 1,
}

/// `sample.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct ProtoSample {
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
    items: Vec<Item>,
    #[prost(btree_map = "string, int64", tag = "9")]
    tags: BTreeMap<String, i64>,
    #[prost(enumeration = "State", tag = "10")]
    state: i32,
    #[prost(sint32, repeated, tag = "11")]
    steps: Vec<i32>,
}

impl From<Sample> for ProtoSample {
    fn from(of: Sample) -> Self {
        let Sample { name, count, small, ratio, open, note, data, items, tags, state } = of;
        let (state, steps) = (state.into(), vec![0, -1, 1, i32::MIN, i32::MAX]);
        Self { name, count, small, ratio, open, note, data, items, tags, state, steps }
    }
}

/// Values at the ends of what each format has a form of its own for.
fn samples() -> Vec<Sample> {
    let of = |n: usize| {
        let numbers = [0_i32, 31, 127, 128, 255, 256, 32_767, 65_535, 65_536, 2_147_483_647];
        let count =
            i64::from(numbers[n % numbers.len()]) * if n.is_multiple_of(3) { -1 } else { 1 };
        Sample {
            name: "é".repeat([0, 15, 16, 127, 128, 40_000][n % 6]),
            count: [count, i64::MIN, i64::MAX, count << 31][n % 4],
            small: numbers[n % numbers.len()].unsigned_abs() << (n % 2),
            ratio: [0.0, -0.0, 0.1, 1e-300, f64::MAX, f64::MIN_POSITIVE][n % 6],
            open: n.is_multiple_of(2),
            note: (n % 3 == 1).then(|| "\u{1F980}\n\t\"\\".to_owned()),
            data: (0..[0, 1, 255, 256, 70_000][n % 5]).map(|at| (at * 31) as u8).collect(),
            items: (0..[0, 1, 15, 16][n % 4] as u32)
                .map(|pieces| Item { sku: format!("sku {pieces}"), pieces: pieces * 4_000 })
                .collect(),
            tags: (0..[0, 1, 16][n % 3]).map(|at| (format!("tag {at}"), -at)).collect(),
            state: [State::Open, State::Closed][n % 2],
        }
    };
    (0..24).map(of).collect()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("actors/src/event/codec/golden").join(name)
}

/// What a program makes of its input.
#[track_caller]
fn run(program: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let started = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.unwrap_or_else(|error| {
        panic!("{} cannot be started: {error}; `scripts/test` installs it", program.display())
    });
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A program may write before it has read everything.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {args:?}: {stderr}", program.display());
    output.stdout
}

#[track_caller]
fn peer(what: &str, format: &str, input: &[u8]) -> Vec<u8> {
    // Beside the directory that Cargo has for the files of tests.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/codecs/peer.py");
    let python = target.join("peers/bin/python");
    run(&python, &[&script.display().to_string(), what, format], input)
}

/// They read what we wrote, and we read what they wrote.
#[track_caller]
fn agree<T: std::fmt::Debug + PartialEq>(
    format: &str,
    codec: &impl Codec<T>,
    exact: bool,
    of: impl Fn(Sample) -> T,
) {
    for sample in samples() {
        let value = of(sample.clone());
        let json = Json::new().encode(&sample).unwrap();
        let theirs = peer("write", format, &json);
        assert_eq!(codec.decode(&theirs).unwrap(), value, "{format}: what they wrote");
        let ours = codec.encode(&value).unwrap();
        assert!(ours == theirs || !exact, "{format}: {ours:?} is not {theirs:?}");
        let read = peer("read", format, &ours);
        let read: Sample = Json::new().decode(&read).unwrap();
        assert_eq!(read, sample, "{format}: what they read");
    }
}

#[test]
fn python_agrees_on_json() {
    for sample in samples() {
        let ours = Json::new().encode(&sample).unwrap();
        let theirs = peer("read", "json", &ours);
        assert_eq!(Codec::<Sample>::decode(&Json::new(), &theirs).unwrap(), sample);
    }
}

#[test]
fn python_agrees_on_message_pack() {
    agree("msgpack", &MessagePack::new(), true, |sample| sample);
}

#[test]
fn python_agrees_on_protobuf() {
    // Not byte for byte: prost leaves out the zero of a map's entry, which is allowed, and takes
    // the negative zero for the default.
    agree("protobuf", &Protobuf::new(), false, ProtoSample::from);
}

#[test]
fn fastavro_agrees() {
    let schema = std::fs::read_to_string(golden("sample.avsc")).unwrap();
    let format = format!("avro:{}", golden("sample.avsc").display());
    agree(&format, &Avro::new(&schema).unwrap(), true, |sample| sample);
}

#[test]
fn fastavro_resolves_schemas_as_we_do() {
    let file = |name: &str| std::fs::read_to_string(golden(name)).unwrap();
    let (earlier, today) = (golden("sample.earlier.avsc"), golden("sample.avsc"));
    let codec = Avro::new(&file("sample.earlier.avsc")).unwrap();
    let codec = codec.read_as(&file("sample.avsc")).unwrap();
    let payload = std::fs::read(golden("sample.earlier.avro")).unwrap();
    let ours: Sample = codec.decode(&payload).unwrap();
    let format = format!("avro:{}:{}", earlier.display(), today.display());
    let theirs: Sample = Json::new().decode(&peer("read", &format, &payload)).unwrap();
    assert_eq!(ours, theirs);
}

/// Texts that compress well, a little, and over many blocks.
fn texts() -> Vec<Bytes> {
    let orders = std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("actors/src/event/compression/golden/orders.ndjson"),
    )
    .unwrap();
    vec![Bytes::from_static(&[b'x'; 100]), orders.repeat(500).into(), orders.into()]
}

#[test]
fn the_commands_read_what_we_compress_and_compress_what_we_read() {
    for (how, command, variants) in [
        (Compression::gzip(), "gzip", &[&["-1"][..], &["-9"]][..]),
        (Compression::zstd(), "zstd", &[&["-1"], &["-19"], &["--fast=5", "--no-check"]]),
        (
            Compression::lz4(),
            "lz4",
            &[&["-1"], &["-9"], &["-BD", "-B4", "-BX"], &["--no-frame-crc"]],
        ),
    ] {
        let program = Path::new(command);
        for text in texts() {
            for level in [1, 9] {
                let (encoding, ours) = how.threshold(0).level(level).compress(&text);
                assert_eq!(encoding, how.encoding);
                assert_eq!(run(program, &["-q", "-d", "-c"], &ours), text, "{command} reads ours");
            }
            for variant in variants {
                let args = [&["-q", "-c"], *variant].concat();
                let theirs = Bytes::from(run(program, &args, &text));
                assert_eq!(Encoding::sniff(&theirs), how.encoding);
                let read = decompress(how.encoding, &theirs, text.len());
                assert!(read == Ok(text.clone()), "{command} {args:?}");
                let limit = text.len() - 1;
                let refused = decompress(how.encoding, &theirs, limit);
                assert_eq!(refused, Err(CompressionError::TooLarge { limit }));
            }
        }
    }
}

/// The memory that this process has used at most, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn a_gibibyte_of_zeros_is_refused_with_little_memory() {
    const LIMIT: usize = 16 << 20;
    for (command, args) in [
        ("gzip", "gzip -9"),
        ("zstd", "zstd -q -19 --long=27"),
        ("zstd", "zstd -q -1"),
        ("lz4", "lz4 -q -9"),
    ] {
        let shell = format!("head -c 1073741824 /dev/zero | {args} -c");
        let bomb = Bytes::from(run(Path::new("sh"), &["-c", &shell], b""));
        assert!(bomb.len() < 8 << 20, "{args}: {} bytes", bomb.len());
        let encoding = Encoding::from_name(command).unwrap();
        // Others run in this process, too: what counts is that it is far from a gigabyte.
        let before = peak();
        let refused = decompress(encoding, &bomb, LIMIT).unwrap_err();
        let grown = peak() - before;
        assert!(grown < 200 << 10, "{args}: {grown} KiB");
        match refused {
            CompressionError::TooLarge { limit } => assert_eq!(limit, LIMIT),
            // The window of 128 MiB is refused before anything is read.
            CompressionError::Corrupt { .. } => assert!(args.contains("--long"), "{refused}"),
            other => panic!("{args}: {other}"),
        }
    }
}
