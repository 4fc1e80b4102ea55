//! A node as a process of its own, which can be stopped and killed, and writes what it does into a
//! file: the test binary again, in a test that is ignored.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use mister_smith_testkit::eventually;
use tokio::process::{Child, Command};

use crate::server::DEADLINE;

const DIARY: &str = "SERVICES_DIARY";

/// The process, and its diary.
pub(crate) struct Other {
    pub(crate) child: Child,
    diary: PathBuf,
}

impl Other {
    /// Starts the ignored test `test` with these variables.
    pub(crate) fn start(test: &str, env: &[(&str, &str)], diary: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .envs(env.iter().copied())
            .env(DIARY, diary)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, diary: diary.to_owned() }
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let done = Command::new("kill").args([name, &pid]).status().await.unwrap();
        assert!(done.success());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let diary = std::fs::read_to_string(&self.diary).unwrap_or_default();
        diary.lines().map(str::to_owned).collect()
    }

    pub(crate) async fn writes(&self, line: &str) {
        eventually(DEADLINE, async || {
            let lines = self.lines();
            lines.iter().any(|one| one == line).then_some(()).ok_or(lines)
        })
        .await;
    }
}

/// Adds a line to the diary of this process.
pub(crate) fn write(line: &str) {
    use std::io::Write;
    let path = std::env::var_os(DIARY).unwrap();
    let mut diary = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    writeln!(diary, "{line}").unwrap();
}
