//! What the documents show is what the program does: the README's code is the example's and its tree
//! the one that is printed; an example prints the lines in its head; the calls in `docs/coming-from.md`
//! and the tests in `docs/guarantees.md` are there.

use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The first fenced block behind `mark`.
fn block<'a>(text: &'a str, mark: &str) -> &'a str {
    let behind = &text[text.find(mark).expect("the mark is there")..];
    let start = behind.find("```").expect("a block") + 3;
    let body = &behind[start..];
    let first_line = body.find('\n').expect("a line") + 1;
    &body[first_line..body.find("\n```").expect("an end") + 1]
}

/// The lines, without the seconds that the node has been up, and without what is in use of the
/// pool at this moment.
fn without_time(tree: &str) -> Vec<String> {
    let still = |line: &str| match line.split_once(" up ") {
        Some((node, _)) if line.starts_with("node") => node.to_owned(),
        _ => (1..=4)
            .fold(line.to_owned(), |line, n| line.replace(&format!("{n}/4 in use"), "0/4 in use")),
    };
    tree.lines().map(still).collect()
}

/// Runs an example and returns what it prints.
fn run(example: &str) -> String {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--example", example])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_tree_in_the_readme_is_the_one_that_the_example_prints() {
    let printed = run("agent");
    let readme = read("README.md");
    assert_eq!(without_time(&printed), without_time(block(&readme, "<!-- tree: agent -->")));
}

#[test]
fn the_code_in_the_readme_is_the_examples() {
    let readme = read("README.md");
    let code = block(&readme, "An agent that crashes");
    let example = read("examples/agent.rs");
    let actor = |text: &str| {
        let start = text.find("struct Counter").unwrap();
        text[start..text.find("#[tokio::main]").unwrap()].to_owned()
    };
    assert_eq!(actor(code), actor(&example));
    for line in code.lines().filter(|line| line.contains("counter.")) {
        assert!(example.contains(line.trim()), "{line}");
    }
}

#[test]
fn the_examples_print_the_lines_in_their_heads() {
    for example in ["watch", "pool", "timers", "stream"] {
        let source = read(&format!("examples/{example}.rs"));
        let head: String = source
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
            .collect();
        assert_eq!(run(example), block(&head, "prints"), "{example}");
    }
}

/// All Rust sources below a folder.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// The tables are not compiled; their snippets are. So at least each name in them has to be one.
#[test]
fn what_the_tables_for_newcomers_name_is_there() {
    let mut code = String::new();
    for folder in ["supervisors/src", "actors/src", "src"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut code);
    }
    let is_there = |name: &str| {
        let starts = ["fn ", "struct ", "enum ", "trait ", "const ", "type "];
        starts.iter().any(|start| {
            code.match_indices(&format!("{start}{name}")).any(|(at, found)| {
                let next = code[at + found.len()..].chars().next().unwrap_or(' ');
                !next.is_alphanumeric() && next != '_'
            })
        }) || ["{", "(", ",", " {"].iter().any(|end| code.contains(&format!("    {name}{end}")))
    };
    let page = read("docs/coming-from.md");
    let (mut checked, mut missing) = (0, Vec::new());
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.contains("| here |")) {
        let here = row.split('|').nth(2).unwrap();
        // Every second piece between backticks is code.
        for code in here.split('`').skip(1).step_by(2) {
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            let mut at = 0;
            for word in words {
                let start = at;
                at += word.len() + 1;
                let called = code[start + word.len()..].starts_with('(');
                let of_type = code[..start].ends_with("::");
                let ours = word != "Msg" && !code[..start].ends_with("Msg::");
                let foreign = ["tokio", "futures", "Arc", "Mutex", "Duration", "std"];
                let is_foreign = foreign.iter().any(|name| code.starts_with(name));
                if (called || of_type) && ours && !is_foreign && word.len() > 1 {
                    checked += 1;
                    if !is_there(word) {
                        missing.push(word.to_owned());
                    }
                }
            }
        }
    }
    assert!(missing.is_empty() && checked > 150, "{checked} names, not there: {missing:?}");
}

#[test]
fn the_tests_that_show_the_kernels_guarantees_are_there() {
    let page = read("docs/guarantees.md");
    let (mut checked, mut missing) = (0, Vec::new());
    for name in page.split('`').skip(1).step_by(2) {
        let parts: Vec<_> = name.split("::").collect();
        let (file, test) = match parts[..] {
            ["supervisor", "tests", file, test] => {
                (format!("supervisors/src/supervisor/tests/{file}.rs"), test)
            }
            [binary @ ("kernel" | "faults" | "review"), file, test] => {
                (format!("supervisors/tests/{binary}/{file}.rs"), test)
            }
            _ => continue,
        };
        checked += 1;
        if !read(&file).contains(&format!("fn {test}(")) {
            missing.push(name.to_owned());
        }
    }
    assert!(missing.is_empty() && checked > 80, "{checked} tests, not there: {missing:?}");
}
