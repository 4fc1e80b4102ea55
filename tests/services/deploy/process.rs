//! A process that runs the program, as the tests see it.

use std::path::Path;
use std::sync::Arc;

use mister_smith_testkit::Program;

use super::program::{self, Answer, Request, Version};
use crate::server::DEADLINE;

/// A process. Dropped, it is killed; in a test that panics, it tells what it wrote.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) version: Version,
    program: Arc<Program>,
}

impl Process {
    /// Starts it, and waits until it answers.
    pub(super) async fn start(home: &Path, url: &str, name: &str, version: Version) -> Arc<Self> {
        let diary = home.join("diary").display().to_string();
        let env = [
            (program::NAME, name),
            (program::VERSION, version.name()),
            (program::STORE, url),
            (program::DIARY, &*diary),
        ];
        let log = home.join(format!("{name}.log"));
        let program = Program::start("deploy::program::runs", env, &log);
        let process = Self { name: name.to_owned(), version, program };
        let tree = tokio::time::timeout(DEADLINE, process.ask(&Request::Tree)).await;
        assert!(matches!(tree, Ok(Some(Answer::Tree(_)))), "{name}: {tree:?}");
        Arc::new(process)
    }

    /// What it answers; `None` if it has gone, and may have done it.
    pub(super) async fn ask(&self, request: &Request) -> Option<Answer> {
        let answer = self.program.ask(&serde_json::to_string(request).unwrap()).await?;
        // A line that was cut off by a kill is no answer.
        serde_json::from_str(&answer).ok()
    }

    pub(super) async fn kill9(&self) {
        self.program.kill9().await;
    }

    /// Stops in order.
    pub(super) async fn stop(&self) {
        let stopped = tokio::time::timeout(DEADLINE, self.ask(&Request::Stop)).await.unwrap();
        assert!(matches!(stopped, Some(Answer::Stopped(true))), "{}: {stopped:?}", self.name);
        let ended = tokio::time::timeout(DEADLINE, self.program.gone()).await;
        assert!(ended.unwrap().success());
    }
}
