//! `smith replay`: events of the past, one JSON object a line.

use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mister_smith_actors::event::{Position, StreamId, Timestamp, Version};
use mister_smith_actors::store::EventFilter;
use mister_smith_actors::store::replay::{Replay, ReplayCursor, ReplayFrom};

use super::output::{self, Flow, write};
use super::store::ReadArg;

/// Options of `smith replay`.
#[derive(Clone, Debug, Args)]
pub(super) struct ReplayArgs {
    /// Begin after this position
    #[arg(long, value_name = "POSITION", conflicts_with_all = ["since", "stream"])]
    from: Option<u64>,
    /// Begin with what was recorded at this time (2025-01-31T08:30:00Z) or later
    #[arg(long, value_name = "TIME", conflicts_with = "stream")]
    since: Option<Timestamp>,
    /// Only this stream, from its first event
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// End with this position, or this version of the stream
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    /// Only events of streams of this category
    #[arg(long, value_name = "NAME")]
    category: Vec<String>,
    /// Only events of this type
    #[arg(long = "type", value_name = "NAME")]
    types: Vec<String>,
    /// At most this many events a second
    #[arg(long, value_name = "EVENTS")]
    rate: Option<u32>,
    /// Keep in this file how far it is, and go on from there if the file exists; the options
    /// above are those of the first time then
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    store: ReadArg,
}

impl ReplayArgs {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let open = self.store.open().await?;
        let store = open.lease.store.clone();
        let kept = match &self.resume {
            Some(file) if file.exists() => Some(read(file)?),
            _ => None,
        };
        let mut replay = match kept {
            Some(cursor) => Replay::resume(store, cursor),
            None => {
                let from = match (&self.stream, self.since, self.from) {
                    (Some(stream), ..) => {
                        ReplayFrom::Stream(StreamId::new(stream.as_str())?, Version::ZERO)
                    }
                    (_, Some(since), _) => ReplayFrom::Time(since),
                    (.., from) => ReplayFrom::Position(Position::new(from.unwrap_or(0))),
                };
                let filter = EventFilter::ALL
                    .categories(self.category.iter().map(String::as_str))
                    .types(self.types.iter().map(String::as_str));
                let replay = Replay::begin(store, from).await?.filter(filter);
                replay.to(self.to.unwrap_or(u64::MAX))
            }
        };
        if let Some(rate) = self.rate {
            replay = replay.rate(rate);
        }
        let bar = bar(&replay);
        while let Some(events) = replay.next().await? {
            let mut text = String::new();
            for event in &events {
                text.push_str(&output::event(event).to_string());
                text.push('\n');
            }
            if write(format_args!("{text}"))? == Flow::End {
                break;
            }
            // After they are out: at worst some are given out twice, and none is left out.
            if let Some(file) = &self.resume {
                keep(file, replay.cursor())?;
            }
            bar.set_position(replay.progress().at);
        }
        bar.finish_and_clear();
        if let Some(file) = &self.resume {
            keep(file, replay.cursor())?;
        }
        open.close().await;
        Ok(ExitCode::SUCCESS)
    }
}

/// A bar for a person who watches; nothing in a pipe.
fn bar(replay: &Replay) -> ProgressBar {
    let progress = replay.progress();
    if !stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = "{bar:40} {pos}/{len}  {per_sec}  {eta} left";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(progress.to).with_style(style);
    bar.set_position(progress.at);
    bar.reset_eta();
    bar
}

fn read(file: &Path) -> anyhow::Result<ReplayCursor> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!("{} does not say how far a replay is; remove it to begin again", file.display())
    })
}

/// Written beside and put in place, so that a kill leaves the old one or the new one.
fn keep(file: &Path, cursor: &ReplayCursor) -> anyhow::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let text = serde_json::to_vec_pretty(cursor)?;
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, file))
        .with_context(|| format!("cannot write {}", file.display()))
}
