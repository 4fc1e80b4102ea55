//! What may use what: the walls of the workspace, read from its sources.
//!
//! A wall that only a document knows falls with the first hurried change.

use std::fs;
use std::path::{Path, PathBuf};

/// The folders of `actors/src` and their layers: each may use its own and earlier ones.
const LAYERS: [(u32, &[&str]); 4] = [
    (1, &["event", "consistency", "guard", "guarded", "error", "component"]),
    (2, &["store", "bus", "settle", "cache", "pool"]),
    (
        3,
        &[
            "aggregate",
            "command",
            "query",
            "ingest",
            "projection",
            "dead_letter",
            "saga",
            "consumer",
            "process",
            "timer",
            "outbox",
            "inbox",
            "repository",
            "agent",
        ],
    ),
    (4, &["pipeline", "dataflow", "service"]),
];

/// Files, and folders, that know a database or a broker.
const ADAPTERS: [&str; 4] = ["sqlite", "postgres", "nats", "redis"];

/// Who may name an adapter without being one, and why.
const NAMES_AN_ADAPTER: [(&str, &str); 6] = [
    ("actors/src/pool.rs", "`connector` picks the adapter of an address"),
    ("actors/src/bus/broker.rs", "`connector` picks the adapter of an address"),
    ("actors/src/bus/queue.rs", "`connect` picks the adapter of an address"),
    (
        "src/migrate/database.rs",
        "migrations are SQL, and find the file that the adapter would open",
    ),
    ("src/cli/archive.rs", "only one kind of store has partitions"),
    ("src/system/builder.rs", "locks the file that the adapter would open"),
];

/// More code lines than this, and a file is several ideas.
const LONGEST_FILE: usize = 500;

/// Files that are longer, and why.
const LONG_FILES: [(&str, &str); 0] = [];

/// What the kernel may depend on. No format, no socket, no file.
const KERNEL_DEPENDENCIES: [&str; 13] = [
    "backtrace",
    "erased-serde",
    "futures-core",
    "indexmap",
    "pin-project-lite",
    "quanta",
    "ractor",
    "rand",
    "serde",
    "slab",
    "thiserror",
    "tokio",
    "tracing",
];

/// A source file outside the tests.
struct Source {
    /// From the root of the workspace, with `/`.
    path: String,
    /// Its lines without comments; blank ones stay, so that numbers are right.
    code: Vec<String>,
}

impl Source {
    fn in_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    fn is_adapter(&self) -> bool {
        adapter_in(self.path.trim_end_matches(".rs").split('/')).is_some()
    }

    fn text(&self) -> String {
        self.code.join("\n")
    }

    /// Where lines hold `word`: `path:line`.
    fn places(&self, word: &str) -> impl Iterator<Item = String> {
        let hits = self.code.iter().enumerate().filter(move |(_, line)| line.contains(word));
        hits.map(|(i, line)| format!("{}:{}: {}", self.path, i + 1, line.trim()))
    }
}

fn adapter_in<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    words.into_iter().find(|word| ADAPTERS.contains(word))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file below a folder, in the order of names.
fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(source(&path));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn source(path: &Path) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let path = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    // A `//` inside a string is an address; comments have a blank or nothing in front.
    let uncommented = |line: &str| match line.find("//") {
        Some(at) if line[..at].chars().next_back().is_none_or(char::is_whitespace) => {
            line[..at].to_owned()
        }
        _ => line.to_owned(),
    };
    Source { path, code: text.lines().map(uncommented).collect() }
}

/// The sources of the three crates without their tests.
fn shipped() -> Vec<Source> {
    let mut all = sources("supervisors/src");
    all.extend(sources("actors/src"));
    all.extend(sources("src"));
    all.retain(|source| !source.in_test());
    all
}

#[track_caller]
fn none(found: Vec<String>, cure: &str) {
    assert!(found.is_empty(), "{cure}\n  {}", found.join("\n  "));
}

// --- edges -----------------------------------------------------------------------------------------

/// The paths behind every `prefix::` in a text; `use crate::{a, b::{c, d}}` is `a`, `b::c`, `b::d`.
fn paths_behind(text: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let marker = format!("{prefix}::");
    for (at, _) in text.match_indices(&marker) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '$')) {
            continue;
        }
        expand("", &mut text[at + marker.len()..].chars().peekable(), &mut found);
    }
    found
}

/// Reads one path, or one `{…}` of them, and appends each behind `base`.
fn expand(
    base: &str,
    text: &mut std::iter::Peekable<std::str::Chars<'_>>,
    found: &mut Vec<String>,
) {
    let mut path = base.to_owned();
    while let Some(&c) = text.peek() {
        match c {
            '{' => {
                text.next();
                loop {
                    while text.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
                    if text.next_if_eq(&'}').is_some() || text.peek().is_none() {
                        return;
                    }
                    expand(&path, text, found);
                    // A rename, or whatever ends an element.
                    while text.next_if(|c| !matches!(c, ',' | '}')).is_some() {}
                }
            }
            c if c.is_alphanumeric() || matches!(c, '_' | ':' | '*') => {
                path.push(c);
                text.next();
            }
            _ => break,
        }
    }
    found.push(path.trim_end_matches(':').to_owned());
}

#[test]
fn paths_are_read_from_every_form_of_use() {
    let text = "use crate::event::StreamId;\npub use crate::{\n    error::ErrorClass as E,\n    \
                store::{self, sqlite::{Database, statement::*}},\n};\nfn f() -> crate::pool::Lease {}\
                \nuse other_crate::bus;";
    assert_eq!(
        paths_behind(text, "crate"),
        [
            "event::StreamId",
            "error::ErrorClass",
            "store::self",
            "store::sqlite::Database",
            "store::sqlite::statement::*",
            "pool::Lease",
        ]
    );
}

fn layer(folder: &str) -> Option<u32> {
    LAYERS.iter().find(|(_, names)| names.contains(&folder)).map(|(layer, _)| *layer)
}

#[test]
fn no_folder_of_the_actors_uses_a_later_layer() {
    let mut upward = Vec::new();
    for source in sources("actors/src").iter().filter(|source| !source.in_test()) {
        let inside = source.path.strip_prefix("actors/src/").unwrap();
        if inside == "lib.rs" {
            continue;
        }
        let own = inside.split('/').next().unwrap().trim_end_matches(".rs");
        let from = layer(own).unwrap_or_else(|| panic!("{own} has no layer; add it to LAYERS"));
        for used in paths_behind(&source.text(), "crate") {
            let other = used.split("::").next().unwrap();
            let to = layer(other).unwrap_or_else(|| panic!("{other} has no layer"));
            if to > from {
                upward.push(format!("{}: {used} (layer {from} uses {to})", source.path));
            }
        }
        // Out of a folder by `super` would be an edge that nobody sees.
        let depth = inside.split('/').count();
        let out = vec!["super"; depth].join("::");
        upward.extend(source.places(&format!("{out}::")));
    }
    none(upward, "a port that both need belongs to the earlier layer");
}

#[test]
fn adapters_are_named_by_nobody_but_their_kind_and_the_connect_function() {
    let mut found = Vec::new();
    for source in shipped().iter().filter(|source| !source.path.starts_with("supervisors/")) {
        if source.is_adapter() || NAMES_AN_ADAPTER.iter().any(|(path, _)| *path == source.path) {
            continue;
        }
        for adapter in ADAPTERS {
            found.extend(source.places(&format!("{adapter}::")));
        }
    }
    none(found, "take a `Lease`, or go through `pool::connector`");

    // One adapter may use another one of the same kind, a SQLite pool the SQLite store.
    let mut across = Vec::new();
    for source in sources("actors/src").iter().filter(|source| source.is_adapter()) {
        let own = adapter_in(source.path.trim_end_matches(".rs").split('/')).unwrap();
        for used in paths_behind(&source.text(), "crate") {
            if adapter_in(used.split("::")).is_some_and(|other| other != own) {
                across.push(format!("{}: {used}", source.path));
            }
        }
    }
    none(across, "an adapter knows its own backend only");
}

#[test]
fn only_adapters_know_sql() {
    let mut found = Vec::new();
    for source in sources("actors/src").iter().filter(|s| !s.is_adapter() && !s.in_test()) {
        for backend in ["sqlx::", "async_nats::", "fred::"] {
            found.extend(source.places(backend));
        }
    }
    none(found, "put it behind a port, into a file named after the backend");
}

#[test]
fn the_exceptions_are_still_needed() {
    for (path, reason) in NAMES_AN_ADAPTER.iter().chain(&LONG_FILES) {
        assert!(root().join(path).exists(), "{path} is gone; so is its exception ({reason})");
    }
    for (path, _) in NAMES_AN_ADAPTER {
        let source = source(&root().join(path));
        let named = ADAPTERS.iter().any(|name| source.places(&format!("{name}::")).count() > 0);
        assert!(named, "{path} names no adapter any more");
    }
    for (path, _) in LONG_FILES {
        assert!(code_lines(&source(&root().join(path))) > LONGEST_FILE, "{path} is short now");
    }
}

// --- crates ----------------------------------------------------------------------------------------

/// The names in one section of a manifest.
fn section(manifest: &str, name: &str) -> Vec<String> {
    let text = read(manifest);
    let lines = text.lines().skip_while(|line| *line != format!("[{name}]")).skip(1);
    let entries = lines.take_while(|line| !line.starts_with('['));
    let names = entries.filter_map(|line| line.split(['=', '.', ' ']).next());
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn the_kernel_knows_no_format_no_socket_and_no_file() {
    assert_eq!(section("supervisors/Cargo.toml", "dependencies"), KERNEL_DEPENDENCIES);
    let workspace = read("Cargo.toml");
    let tokio = workspace.lines().find(|line| line.starts_with("tokio = ")).unwrap();
    let kernel = read("supervisors/Cargo.toml");
    assert!(kernel.contains("[dependencies]") && kernel.contains("\ntokio.workspace = true"));
    for feature in ["net", "fs", "process", "io-", "signal", "full"] {
        assert!(!tokio.contains(&format!("\"{feature}")), "tokio's {feature} is for other crates");
    }
    let mut found = Vec::new();
    for source in sources("supervisors/src").iter().filter(|source| !source.in_test()) {
        for word in ["std::fs", "std::net", "std::env", "std::process", "std::io", "serde_json"] {
            found.extend(source.places(word));
        }
    }
    none(found, "what needs the outside belongs to actors/ or src/");
}

#[test]
fn the_crates_look_in_one_direction() {
    let of = |manifest: &str| section(manifest, "dependencies");
    let ours = |names: &[String]| {
        names.iter().filter(|name| name.starts_with("mister-smith")).cloned().collect::<Vec<_>>()
    };
    assert!(ours(&of("supervisors/Cargo.toml")).is_empty());
    assert_eq!(ours(&of("actors/Cargo.toml")), ["mister-smith-supervisors"]);
    assert_eq!(ours(&of("Cargo.toml")), ["mister-smith-supervisors", "mister-smith-actors"]);
    for name in ["axum", "hyper", "clap"] {
        assert!(!of("actors/Cargo.toml").iter().any(|found| found == name), "actors and {name}");
    }
}

// --- habits ----------------------------------------------------------------------------------------

#[test]
fn nothing_unwraps_outside_tests() {
    let mut found = Vec::new();
    for source in shipped() {
        found.extend(source.places(".unwrap()"));
    }
    none(found, "`expect` says why it cannot happen; else return the error");
}

#[test]
fn every_select_says_who_goes_first() {
    let mut found = Vec::new();
    let mut all = shipped();
    all.extend(sources("tests/support/src"));
    for source in &all {
        let text = source.text();
        for (at, _) in text.match_indices("select!") {
            let inside = text[at..].split_once('{').map_or("", |(_, inside)| inside.trim_start());
            if !inside.starts_with("biased;") {
                let line = text[..at].lines().count();
                found.push(format!("{}:{line}", source.path));
            }
        }
    }
    none(found, "a `select!` without `biased;` picks by chance, and a seed gives many traces");
}

#[test]
fn runs_of_one_seed_are_alike() {
    let mut found = Vec::new();
    let mut all = shipped();
    all.retain(|source| !source.path.starts_with("src/"));
    for source in &all {
        // Iterated in an order that differs from run to run.
        found.extend(source.places("HashMap"));
        found.extend(source.places("HashSet"));
        // Clock and randomness come through the node's context.
        for word in ["SystemTime::now", "thread_rng", "rand::rng(", "rand::random", "Uuid::now_v7"]
        {
            found.extend(source.places(word));
        }
        // A task that nobody holds outlives its actor.
        if source.path != "supervisors/src/actor.rs" {
            found.extend(source.places("tokio::spawn("));
        }
    }
    none(found, "take an IndexMap or a BTreeMap, the context's clock and randomness, a TaskGuard");
}

#[test]
fn modules_are_not_called_mod_rs() {
    let mut all = shipped();
    all.extend(sources("tests"));
    let found = all.into_iter().map(|source| source.path).filter(|path| path.ends_with("/mod.rs"));
    none(found.collect(), "write foo.rs beside foo/");
}

fn code_lines(source: &Source) -> usize {
    source.code.iter().filter(|line| !line.trim().is_empty()).count()
}

#[test]
fn no_file_is_longer_than_one_idea() {
    let long = shipped().into_iter().filter(|source| {
        code_lines(source) > LONGEST_FILE
            && !LONG_FILES.iter().any(|(path, _)| *path == source.path)
    });
    let found =
        long.map(|source| format!("{}: {} lines of code", source.path, code_lines(&source)));
    none(found.collect(), "split it, or name it in LONG_FILES with the reason");
}
