//! A program of a test's own, as a process: the test binary again, in a test that is ignored and
//! answers lines.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};

/// Lines of a log that a failed test prints.
const SHOWN: usize = 200;

/// A process that is asked over its standard input, and answers over its standard output: a line
/// is a number and a text, and an answer is `answer`, that number and a text. What it writes to
/// standard error is in its log.
///
/// Dropped, it is killed; in a test that panics, it shows the end of its log.
#[derive(Debug)]
pub struct Program {
    child: AsyncMutex<Child>,
    stdin: AsyncMutex<ChildStdin>,
    asked: Arc<Mutex<Asked>>,
    gone: watch::Receiver<bool>,
    log: PathBuf,
}

/// Who waits for which answer; nobody any more once it is gone.
#[derive(Debug, Default)]
struct Asked {
    next: u64,
    answers: Option<BTreeMap<u64, oneshot::Sender<String>>>,
}

impl Program {
    /// Starts the ignored test `test` of this binary, with these variables. The log grows at its
    /// end, if it is there.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn start<'a>(
        test: &str,
        env: impl IntoIterator<Item = (&'a str, &'a str)>,
        log: &Path,
    ) -> Arc<Self> {
        let stderr = OpenOptions::new().create(true).append(true).open(log).expect("a log file");
        let mut child = Command::new(std::env::current_exe().expect("this binary has a path"))
            .args(["--exact", test, "--ignored", "--nocapture"])
            .envs(env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .expect("this binary can be started again");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let asked = Arc::new(Mutex::new(Asked { next: 0, answers: Some(BTreeMap::new()) }));
        let (ended, gone) = watch::channel(false);
        tokio::spawn(listen(stdout, Arc::clone(&asked), ended));
        let (child, stdin) = (AsyncMutex::new(child), AsyncMutex::new(stdin));
        Arc::new(Self { child, stdin, asked, gone, log: log.to_owned() })
    }

    /// What it answers; `None` if it has gone, and may have done it.
    ///
    /// # Panics
    /// Somebody else has panicked while he asked.
    pub async fn ask(&self, text: &str) -> Option<String> {
        let (reply, answer) = oneshot::channel();
        let number = {
            let mut asked = self.asked.lock().expect("nobody panics with it");
            asked.next += 1;
            let number = asked.next;
            asked.answers.as_mut()?.insert(number, reply);
            number
        };
        let line = format!("{number} {text}\n");
        // What could not be written is told as what is not answered: nobody listens any more.
        let _ = self.stdin.lock().await.write_all(line.as_bytes()).await;
        answer.await.ok()
    }

    /// Ends it as a power cut would.
    ///
    /// # Panics
    /// It cannot be waited for.
    pub async fn kill9(&self) {
        self.child.lock().await.kill().await.expect("a child can be killed");
    }

    /// Waits until it has ended, by whatever; answers how.
    ///
    /// # Panics
    /// It cannot be waited for.
    pub async fn gone(&self) -> ExitStatus {
        let _ = self.gone.clone().wait_for(|gone| *gone).await;
        self.child.lock().await.wait().await.expect("a child can be waited for")
    }
}

/// Hands answers over until the end.
async fn listen(stdout: ChildStdout, asked: Arc<Mutex<Asked>>, ended: watch::Sender<bool>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // The harness writes to the same line.
        let Some((_, line)) = line.split_once("answer ") else { continue };
        let Some((number, text)) = line.split_once(' ') else { continue };
        let Ok(number) = number.parse() else { continue };
        let mut asked = asked.lock().expect("nobody panics with it");
        let reply = asked.answers.as_mut().and_then(|answers| answers.remove(&number));
        if let Some(reply) = reply {
            let _ = reply.send(text.to_owned());
        }
    }
    asked.lock().expect("nobody panics with it").answers = None;
    ended.send_replace(true);
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("--- the end of {} ---\n{}", self.log.display(), shown.join("\n"));
        }
    }
}
