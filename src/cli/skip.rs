//! `smith events skip` and `skipped`: events that do not count, because somebody said so.

use anyhow::{Context as _, bail};
use clap::Args;
use mister_smith_actors::event::{Position, StreamId, Timestamp, Version};
use mister_smith_actors::store::notes::Skipped;

use super::output::{self, write};
use super::store::ReadArg;

/// Options of `smith events skip`.
#[derive(Clone, Debug, Args)]
pub(super) struct Skip {
    /// The event: its position (17), or its stream and version (account-7 3)
    #[arg(value_name = "EVENT", num_args = 1..=2, required = true)]
    event: Vec<String>,
    /// Why it does not count; kept for good
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who says so
    #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
    by: String,
    #[command(flatten)]
    store: ReadArg,
}

impl Skip {
    /// Notes it. The event stays in the log; an aggregate that cannot apply it passes it over.
    pub(super) async fn execute(self) -> anyhow::Result<()> {
        if self.reason.trim().is_empty() {
            bail!("--reason says nothing; whoever finds the event later wants to know why");
        }
        let open = self.store.open_to_write().await?;
        let store = &open.lease.store;
        let found = match &*self.event {
            [position] => {
                let at: u64 = position.parse().with_context(|| not_a_place(&self.event))?;
                store
                    .read_all(Position::new(at).minus(1), 1)
                    .await?
                    .into_iter()
                    .find(|event| event.position.get() == at)
            }
            [stream, version] => {
                let version: u64 = version.parse().with_context(|| not_a_place(&self.event))?;
                let before = Version::new(version).minus(1);
                let events = store.read_stream(&StreamId::new(stream.as_str())?, before, 1).await?;
                events.into_iter().find(|event| event.version.get() == version)
            }
            _ => bail!(not_a_place(&self.event)),
        };
        let Some(event) = found else { bail!("there is no event {}", self.event.join(" ")) };
        let now = jiff::Timestamp::now().as_microsecond();
        let skipped = Skipped {
            stream: event.stream.clone(),
            version: event.version,
            position: event.position,
            by: self.by,
            reason: self.reason,
            at: Timestamp::from_micros(now),
        };
        let new = open.lease.notes.skip(skipped).await?;
        let place = format!("{}/{} (position {})", event.stream, event.version, event.position);
        match new {
            true => write(format_args!(
                "{place} is passed over from now on, where it cannot be applied\n"
            ))?,
            false => bail!("{place} is passed over already; see smith events skipped"),
        };
        open.close().await;
        Ok(())
    }
}

fn not_a_place(given: &[String]) -> String {
    format!("{:?} is not an event; give a position, or STREAM VERSION", given.join(" "))
}

/// Options of `smith events skipped`.
#[derive(Clone, Debug, Args)]
pub(super) struct ListSkipped {
    /// Only those of this stream
    stream: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: ReadArg,
}

impl ListSkipped {
    pub(super) async fn execute(self) -> anyhow::Result<()> {
        let stream = self.stream.as_deref().map(StreamId::new).transpose()?;
        let open = self.store.open().await?;
        let skipped = open.lease.notes.skipped(stream.as_ref()).await?;
        if self.json {
            output::json(&serde_json::to_value(&skipped)?)?;
        }
        for Skipped { stream, version, position, by, reason, at } in &skipped {
            if !self.json {
                write(format_args!("{position}  {stream}/{version}  {at}  {by}: {reason}\n"))?;
            }
        }
        open.close().await;
        Ok(())
    }
}
