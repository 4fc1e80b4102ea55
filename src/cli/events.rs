//! `smith events`: what is in the log.

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use mister_smith_actors::event::{Position, RecordedEvent, StreamId, Version};
use mister_smith_actors::store::subscription::Subscription;
use mister_smith_actors::store::{EventFilter, EventStore, MAX_PAGE, MAX_SCAN, StoreError};
use serde_json::json;

use super::output::{self, Flow, write};
use super::skip::{ListSkipped, Skip};
use super::store::ReadArg;

/// Events that `stats` looks at one by one, from the end of the log.
const SAMPLE: u64 = 100_000;

/// Options of `smith events`.
#[derive(Clone, Debug, Args)]
pub(super) struct Events {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Print the last events, and with --follow those that come
    Tail(Tail),
    /// Print one event with all that is known of it
    Show {
        /// Its position (17), or its stream and version (account-7/3)
        event: String,
        #[command(flatten)]
        options: Options,
    },
    /// Count what is in the log
    Stats(Options),
    /// Say that an event does not count, so that an aggregate that cannot apply it starts again
    Skip(Skip),
    /// Print the events that do not count, with who said so and why
    Skipped(ListSkipped),
}

#[derive(Clone, Debug, Args)]
struct Options {
    #[command(flatten)]
    store: ReadArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Args)]
struct Tail {
    /// How many of the last events
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: u64,
    /// Begin after this position instead
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// Go on with the events that come
    #[arg(short, long)]
    follow: bool,
    /// Only events of this stream
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Only events of streams of this category (what is before the first - of their name)
    #[arg(long, value_name = "NAME")]
    category: Vec<String>,
    /// Only events of this type
    #[arg(long = "type", value_name = "NAME")]
    types: Vec<String>,
    #[command(flatten)]
    options: Options,
}

impl Events {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Tail(tail) => tail.execute().await?,
            Action::Show { event, options } => show(&event, &options).await?,
            Action::Stats(options) => stats(&options).await?,
            Action::Skip(skip) => skip.execute().await?,
            Action::Skipped(list) => list.execute().await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(event: &RecordedEvent, json: bool) -> anyhow::Result<Flow> {
    match json {
        // One line each, so that `jq` and `grep` take them as they come.
        true => write(format_args!("{}\n", output::event(event))),
        false => write(format_args!("{}\n", output::line(event))),
    }
}

impl Tail {
    async fn execute(self) -> anyhow::Result<()> {
        let stream = self.stream.as_deref().map(StreamId::new).transpose()?;
        let filter = EventFilter::ALL
            .categories(self.category.iter().map(String::as_str))
            .types(self.types.iter().map(String::as_str));
        let open = self.options.store.open().await?;
        let store = open.lease.store.clone();
        let wanted =
            |event: &RecordedEvent| stream.as_ref().is_none_or(|stream| event.stream == *stream);
        let head = store.head().await?;
        let mut after = match self.from {
            Some(from) => Position::new(from),
            None => {
                let (last, begin) = match &stream {
                    Some(stream) => (of_stream(&*store, stream, &filter, self.lines).await?, head),
                    None => (last(&*store, &filter, head, self.lines).await?, head),
                };
                for event in &last {
                    if print(event, self.options.json)? == Flow::End {
                        return Ok(());
                    }
                }
                begin
            }
        };
        if self.from.is_some() || self.follow {
            let mut follows = Subscription::new(store, after, 500).filter(filter);
            loop {
                let page = match self.follow {
                    true => Some(follows.next().await?),
                    false => follows.ready().await?,
                };
                let Some(page) = page else { break };
                for event in page.iter().filter(|event| wanted(event)) {
                    if print(event, self.options.json)? == Flow::End {
                        return Ok(());
                    }
                }
                after = follows.position();
            }
        }
        tracing::debug!(%after, "the end of the log");
        open.close().await;
        Ok(())
    }
}

/// The last events of a stream that a filter lets through, oldest first.
async fn of_stream(
    store: &dyn EventStore,
    stream: &StreamId,
    filter: &EventFilter,
    count: u64,
) -> anyhow::Result<Vec<RecordedEvent>> {
    let mut found = Vec::new();
    let mut before = Version::new(u64::MAX);
    while (found.len() as u64) < count {
        let page = match store.read_stream_backward(stream, before, 500).await {
            Err(StoreError::Archived { up_to, .. }) => {
                ends_at(up_to);
                break;
            }
            page => page?,
        };
        let Some(first) = page.last() else { break };
        before = first.version;
        found.extend(page.into_iter().filter(|one| filter.accepts(&one.stream, &one.event_type)));
    }
    found.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    found.reverse();
    Ok(found)
}

/// The last events of the log that a filter lets through, oldest first.
///
/// It looks back in steps that double, and the store passes over what is not asked for: a type that
/// is rare costs a read for each [`MAX_SCAN`] positions. Where the log was archived and its files
/// are not at hand, it begins there.
async fn last(
    store: &dyn EventStore,
    filter: &EventFilter,
    head: Position,
    count: u64,
) -> anyhow::Result<Vec<RecordedEvent>> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut found = VecDeque::new();
    if !could_match(store, filter).await? {
        return Ok(Vec::new());
    }
    let (mut end, mut step) = (head, (count as u64).clamp(100, MAX_SCAN));
    let mut floor = Position::ZERO;
    while found.len() < count && end > floor {
        let begin = end.minus(step).max(floor);
        match part(store, filter, begin, end, count - found.len()).await {
            Ok(mut part) => {
                part.append(&mut found);
                found = part;
                (end, step) = (begin, (step * 2).min(MAX_SCAN));
            }
            // Once more, from there on.
            Err(StoreError::Archived { up_to, .. }) if up_to > floor => {
                ends_at(up_to);
                floor = up_to;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found.into())
}

/// Says that older events are somewhere else.
fn ends_at(floor: Position) {
    tracing::warn!("events up to position {floor} were archived; --archive-dir shows them");
}

/// Whether the log holds any of the types that a filter names.
async fn could_match(store: &dyn EventStore, filter: &EventFilter) -> Result<bool, StoreError> {
    if filter.types.is_empty() {
        return Ok(true);
    }
    let known = store.event_types().await?;
    Ok(known.iter().any(|known| filter.types.contains(&known.name)))
}

/// The last `count` events of a part of the log that a filter lets through.
async fn part(
    store: &dyn EventStore,
    filter: &EventFilter,
    begin: Position,
    end: Position,
    count: usize,
) -> Result<VecDeque<RecordedEvent>, StoreError> {
    let (mut found, mut at) = (VecDeque::new(), begin);
    while at < end {
        let page = store.read_matching(filter, at, MAX_PAGE).await?;
        if page.scanned_to <= at {
            break;
        }
        at = page.scanned_to;
        found.extend(page.events.into_iter().filter(|event| event.position <= end));
        let more = found.len().saturating_sub(count);
        found.drain(..more);
    }
    Ok(found)
}

async fn show(place: &str, options: &Options) -> anyhow::Result<()> {
    let open = options.store.open().await?;
    let store = &open.lease.store;
    let found = match (place.parse::<u64>(), place.rsplit_once('/')) {
        (Ok(position), _) => store.read_all(Position::new(position).minus(1), 1).await?,
        (_, Some((stream, version))) => {
            let version: u64 = version.parse().with_context(|| {
                format!("{place:?} is no place; give a position, or STREAM/VERSION")
            })?;
            let stream = StreamId::new(stream)?;
            store.read_stream(&stream, Version::new(version).minus(1), 1).await?
        }
        _ => bail!("{place:?} is no place; give a position, or STREAM/VERSION"),
    };
    let Some(event) = found.first() else { bail!("there is no event {place}") };
    output::json(&output::event(event))?;
    open.close().await;
    Ok(())
}

async fn stats(options: &Options) -> anyhow::Result<()> {
    let open = options.store.open().await?;
    let store = &open.lease.store;
    let head = store.head().await?;
    let types = store.event_types().await?;
    let (mut by_type, mut by_category) = (BTreeMap::new(), BTreeMap::new());
    let (mut bytes, mut events) = (0_u64, 0_u64);
    let mut at = Position::new(head.get().saturating_sub(SAMPLE));
    // Up to where the log ended when it began: on a busy log there is always another page.
    while at < head {
        let page = match store.read_all(at, MAX_PAGE).await {
            Err(StoreError::Archived { up_to, .. }) if up_to > at => {
                at = up_to;
                continue;
            }
            page => page?,
        };
        let Some(last) = page.last() else { break };
        at = last.position;
        for event in page.iter().filter(|event| event.position <= head) {
            *by_type.entry(event.event_type.to_string()).or_insert(0_u64) += 1;
            *by_category.entry(event.stream.category().to_owned()).or_insert(0_u64) += 1;
            bytes += event.size() as u64;
            events += 1;
        }
    }
    let mean = bytes.checked_div(events).unwrap_or(0);
    if options.json {
        output::json(&json!({
            "head": head,
            "store_id": store.store_id(),
            "types": types,
            "looked_at": events,
            "by_type": by_type,
            "by_category": by_category,
            "mean_bytes": mean,
        }))?;
    } else {
        let whole = if events == head.get() { "all of them" } else { "the last ones" };
        let mut text = format!(
            "{} events, {} types; of {events} ({whole}), {mean} bytes each:\n",
            head,
            types.len()
        );
        for (title, counts) in [("type", &by_type), ("category", &by_category)] {
            let mut counts: Vec<_> = counts.iter().collect();
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            text.push_str(&format!("\n{title}\n"));
            for (name, count) in counts.iter().take(20) {
                text.push_str(&format!("{count:>10}  {name}\n"));
            }
            if counts.len() > 20 {
                text.push_str(&format!("{:>10}  more\n", counts.len() - 20));
            }
        }
        write(format_args!("{text}"))?;
    }
    open.close().await;
    Ok(())
}
