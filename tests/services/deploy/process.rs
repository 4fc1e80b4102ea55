//! A process that runs the program, as the tests see it.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::program::{self, Answer, Request, Version};
use crate::server::DEADLINE;

/// A process. Dropped, it is killed; in a test that panics, it tells what it wrote.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) version: Version,
    child: AsyncMutex<Child>,
    stdin: AsyncMutex<ChildStdin>,
    waiting: Arc<Mutex<Waiting>>,
    log: PathBuf,
}

/// Who waits for which answer; nobody any more once it is gone.
#[derive(Default)]
struct Waiting {
    next: u64,
    answers: Option<BTreeMap<u64, oneshot::Sender<Answer>>>,
}

impl Process {
    /// Starts it, and waits until it answers.
    pub(super) async fn start(home: &Path, url: &str, name: &str, version: Version) -> Arc<Self> {
        let log = home.join(format!("{name}.log"));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "deploy::program::runs", "--ignored", "--nocapture"])
            .env(program::NAME, name)
            .env(program::VERSION, version.name())
            .env(program::STORE, url)
            .env(program::DIARY, home.join("diary"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = child.stdout.take().unwrap();
        let waiting = Waiting { next: 0, answers: Some(BTreeMap::new()) };
        let waiting = Arc::new(Mutex::new(waiting));
        tokio::spawn(listen(stdout, Arc::clone(&waiting)));
        let (child, stdin) = (AsyncMutex::new(child), AsyncMutex::new(stdin));
        let process = Self { name: name.to_owned(), version, child, stdin, waiting, log };
        let tree = tokio::time::timeout(DEADLINE, process.ask(&Request::Tree)).await;
        assert!(matches!(tree, Ok(Some(Answer::Tree(_)))), "{name}: {tree:?}");
        Arc::new(process)
    }

    /// What it answers; `None` if it has gone, and may have done it.
    pub(super) async fn ask(&self, request: &Request) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        let number = {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.next += 1;
            let number = waiting.next;
            waiting.answers.as_mut()?.insert(number, reply);
            number
        };
        let line = format!("{number} {}\n", serde_json::to_string(request).unwrap());
        // What could not be written is told as what is not answered: nobody listens any more.
        let _ = self.stdin.lock().await.write_all(line.as_bytes()).await;
        answer.await.ok()
    }

    pub(super) async fn kill9(&self) {
        self.child.lock().await.kill().await.unwrap();
    }

    /// Stops in order.
    pub(super) async fn stop(&self) {
        let stopped = tokio::time::timeout(DEADLINE, self.ask(&Request::Stop)).await.unwrap();
        assert!(matches!(stopped, Some(Answer::Stopped(true))), "{}: {stopped:?}", self.name);
        let ended = tokio::time::timeout(DEADLINE, async { self.child.lock().await.wait().await });
        assert!(ended.await.unwrap().unwrap().success());
    }
}

/// Hands answers over until the end.
async fn listen(stdout: ChildStdout, waiting: Arc<Mutex<Waiting>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // The harness writes to the same line.
        let Some((_, line)) = line.split_once("answer ") else { continue };
        let Some((number, text)) = line.split_once(' ') else { continue };
        // A line that was cut off by a kill is no answer.
        let (Ok(number), Ok(answer)) = (number.parse(), serde_json::from_str(text)) else {
            continue;
        };
        let mut waiting = waiting.lock().unwrap();
        let reply = waiting.answers.as_mut().and_then(|answers| answers.remove(&number));
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
    }
    waiting.lock().unwrap().answers = None;
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- {} ---\n{log}", self.name);
        }
    }
}
