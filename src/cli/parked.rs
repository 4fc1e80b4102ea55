//! Parked events of a projection as the store knows them: what can be done while no node runs.

use mister_smith_actors::projection::desk::ParkedDesk;
use mister_smith_actors::store::read_model::documents::ParkedQuery;
use mister_smith_actors::store::read_model::query::MAX_LIST;
use serde_json::{Value, json};

use super::store::Open;

/// All that is parked of a projection.
pub(super) async fn list(url: &str, projection: &str) -> anyhow::Result<Value> {
    let open = Open::to_read(url).await?;
    let desk = ParkedDesk::new(open.lease.documents.clone(), projection);
    let (mut all, mut query) = (Vec::new(), ParkedQuery { limit: MAX_LIST, ..Default::default() });
    loop {
        let page = desk.page(&query).await?;
        let Some(last) = page.last() else { break };
        query.after = Some((last.id.clone(), last.position));
        all.extend(page);
    }
    open.close().await;
    Ok(json!({ "parked": all }))
}

/// Lets the parked events of a document be applied again, by whichever node is next.
pub(super) async fn retry(url: &str, projection: &str, id: &str) -> anyhow::Result<Value> {
    let open = Open::to_write(url).await?;
    let desk = ParkedDesk::new(open.lease.documents.clone(), projection);
    let found = desk.retry(id).await?;
    open.close().await;
    Ok(json!({ "asked": found }))
}

/// Leaves the first parked event of a document out.
pub(super) async fn skip(url: &str, projection: &str, id: &str) -> anyhow::Result<Value> {
    let open = Open::to_write(url).await?;
    let desk = ParkedDesk::new(open.lease.documents.clone(), projection);
    let found = desk.skip(id).await?;
    open.close().await;
    Ok(json!({ "skipped": found }))
}
