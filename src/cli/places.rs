//! Followers of the log as the store knows them: what can be seen and asked while no node runs.

use anyhow::bail;
use mister_smith_actors::event::Position;
use mister_smith_actors::store::claims::{Claims, Place, Request};
use serde_json::json;

use super::output::{self, write};
use super::store::Open;

/// What is done.
pub(super) enum Wanted<'a> {
    Pause(&'a str),
    Resume(&'a str),
    /// `beginning`, `end` or the position of the first event.
    Replay(&'a str, &'a str),
    Skip(&'a str, u64),
}

/// Shows everybody who follows the log of a store.
pub(super) async fn list(url: &str, as_json: bool) -> anyhow::Result<()> {
    let open = Open::to_read(url).await?;
    let mut places = open.lease.claims.places().await?;
    places.retain(Place::follows_the_log);
    match as_json {
        true => output::json(&json!({ "places": places })).map(drop)?,
        false => write(format_args!("{}", table(&places))).map(drop)?,
    }
    open.close().await;
    Ok(())
}

/// Leaves a request in a store.
pub(super) async fn ask(url: &str, wanted: Wanted<'_>, as_json: bool) -> anyhow::Result<()> {
    let open = Open::to_write(url).await?;
    let (name, request) = match wanted {
        Wanted::Pause(name) => (name, Request::Pause),
        Wanted::Resume(name) => (name, Request::Resume),
        Wanted::Skip(name, position) => (name, Request::Skip(Position::new(position))),
        Wanted::Replay(name, from) => {
            let to = match (from, from.parse::<u64>()) {
                ("beginning", _) => Position::ZERO,
                ("end", _) => open.lease.store.head().await?,
                (_, Ok(first)) => Position::new(first).minus(1),
                _ => bail!("--from {from}: without a node give beginning, end or a position"),
            };
            (name, Request::GoTo(to))
        }
    };
    let name = full(&*open.lease.claims, name).await?;
    let number = open.lease.claims.ask(&name, request).await?;
    match as_json {
        true => output::json(&json!({ "name": name, "request": request, "number": number }))
            .map(drop)?,
        false => {
            write(format_args!("{name}: noted; whichever node has it, or is next, does it\n"))
                .map(drop)?;
        }
    }
    open.close().await;
    Ok(())
}

/// `mailer` is the consumer of that name; relays, deadlines and sagas have names of their own kind.
async fn full(claims: &dyn Claims, name: &str) -> anyhow::Result<String> {
    let consumer = format!("consumer.{name}");
    for name in [consumer.as_str(), name] {
        if claims.place(name).await?.is_some() {
            return Ok(name.to_owned());
        }
    }
    bail!(
        "nothing named {name} follows the log of this store; `smith consumers list --store` shows what does"
    )
}

fn table(places: &[Place]) -> String {
    let mut text = String::new();
    for place in places {
        let state = match (place.paused, place.held) {
            (true, _) => "paused",
            (_, true) => "running",
            _ => "nobody",
        };
        let trying = match place.tries {
            0 => String::new(),
            tries => format!("   {tries} died of {}", place.trying),
        };
        let waits = match place.asked.saturating_sub(place.heard) {
            0 => String::new(),
            waits => format!("   {waits} requests wait"),
        };
        text.push_str(&format!(
            "{:<32}  {state:<8}  position {:<10}{trying}{waits}\n",
            place.name, place.position
        ));
    }
    if text.is_empty() { "nothing follows the log\n".to_owned() } else { text }
}
