//! The seeds of the fuzzers, and everything that they ever found, through the same functions.

use std::fs;
use std::path::{Path, PathBuf};

use super::{alone, targets};

fn files(of: &str, target: &str) -> Vec<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(of).join(target);
    let Ok(entries) = fs::read_dir(place) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(of: &str) {
    for (target, run) in targets::TARGETS {
        for file in files(of, target) {
            eprintln!("{}", file.display());
            run(&fs::read(file).unwrap());
        }
    }
}

#[test]
fn what_the_fuzzers_found_does_no_harm() {
    alone(|| replay("findings"));
}

#[test]
fn seeds_do_no_harm() {
    alone(|| replay("seeds"));
}

#[test]
fn parts_of_seeds_do_no_harm() {
    alone(|| {
        for (target, run) in targets::TARGETS {
            for file in files("seeds", target) {
                let bytes = fs::read(&file).unwrap();
                eprintln!("{}", file.display());
                for end in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
                    run(&bytes[..end]);
                }
            }
        }
    });
}

#[test]
fn each_target_has_seeds_and_a_program() {
    for (target, _) in targets::TARGETS {
        assert!(!files("seeds", target).is_empty(), "{target} has no seeds");
        let program = format!("fuzz/targets/{target}.rs");
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(program);
        assert!(program.exists(), "{} is missing", program.display());
    }
}
