//! Everything a process writes, kept line by line.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a process wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it came from.
    pub stream: Stream,
    /// The line without its end; what is not UTF-8 is replaced.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.stream == Stream::Stdout { ' ' } else { '!' };
        write!(f, "{mark} {}", self.text)
    }
}

/// The lines of one life of a process, shared with the tasks that read its pipes.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    lines: Arc<Mutex<Vec<Line>>>,
    /// How many lines there are, to wait for the next one.
    count: watch::Sender<usize>,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { lines: Arc::default(), count: watch::Sender::new(0) }
    }

    /// Reads a pipe to its end, which comes when the process, and all that inherited it, ended.
    pub(crate) fn read(
        &self,
        stream: Stream,
        pipe: impl AsyncRead + Unpin + Send + 'static,
    ) -> JoinHandle<()> {
        let output = self.clone();
        tokio::spawn(async move {
            let mut pipe = BufReader::new(pipe);
            let mut bytes = Vec::new();
            while pipe.read_until(b'\n', &mut bytes).await.is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                output.push(Line { stream, text });
                bytes.clear();
            }
        })
    }

    fn push(&self, line: Line) {
        let mut lines = self.lock();
        lines.push(line);
        let count = lines.len();
        drop(lines);
        // Two pipes are read at once: never step back.
        self.count.send_modify(|seen| *seen = count.max(*seen));
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lock().clone()
    }

    /// The first line, past or to come, for which `pick` has an answer. Waits forever.
    pub(crate) async fn find<T>(&self, mut pick: impl FnMut(&Line) -> Option<T>) -> T {
        let mut count = self.count.subscribe();
        let mut looked_at = 0;
        loop {
            count.mark_unchanged();
            let fresh: Vec<Line> = self.lock()[looked_at..].to_vec();
            looked_at += fresh.len();
            if let Some(found) = fresh.iter().find_map(&mut pick) {
                return found;
            }
            count.changed().await.expect("self holds the sender");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
