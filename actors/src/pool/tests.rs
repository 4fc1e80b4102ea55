//! Guards against an inbox that grows without end where no outbox table is configured.

use std::time::Duration;

use sqlx::{Connection as _, SqliteConnection};

use super::PoolMessage;
use crate::store::messages::sqlite;
use crate::tests::world::{POOL, World};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_pool_forgets_old_messages_of_the_inbox() {
    let world = World::new().await;
    let url = format!("sqlite://{}", world.path().display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let now = world.system.clock().wall_us();
    let handled = [("old", now - 8 * 86_400_000_000), ("new", now - 6 * 86_400_000_000)];
    for (id, at) in handled {
        assert!(sqlite::first_time(&mut connection, "mailer", id).await.unwrap());
        let aged = sqlx::query("update inbox set at = ? where message_id = ?").bind(at).bind(id);
        aged.execute(&mut connection).await.unwrap();
    }
    let pool = world.system.find::<PoolMessage>(POOL).unwrap();
    pool.tell(PoolMessage::Prune).await.unwrap();
    let known = async |connection: &mut SqliteConnection| {
        let query = sqlx::query_scalar("select message_id from inbox");
        query.fetch_all(connection).await.unwrap()
    };
    let forgotten = async {
        loop {
            let known: Vec<String> = known(&mut connection).await;
            if known == ["new"] {
                return;
            }
            assert_eq!(known.len(), 2);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, forgotten).await.expect("the old one is forgotten");
}
