use std::sync::Arc;

use super::*;
use crate::event::Timestamp;
use crate::event::schema::storage::SchemaStorageError;
use crate::store::EventStore;
use crate::store::memory::MemoryStore;
use crate::store::schemas::EventStoreSchemas;

fn json(text: &str) -> Schema {
    Schema::json(text).unwrap()
}

fn with(of: &str) -> Schema {
    json(&format!(r#"{{"type": "object", "properties": {{"a": {{"type": "{of}"}}}}}}"#))
}

fn over(store: &Arc<MemoryStore>) -> SchemaRegistry {
    let store: Arc<dyn EventStore> = Arc::clone(store) as _;
    let clock = || Timestamp::from_micros(1_738_312_200_000_000);
    SchemaRegistry::new(Arc::new(EventStoreSchemas::new(store, clock)))
}

/// Two registries that share a storage and nothing else, as two nodes do.
fn pairs() -> Vec<(SchemaRegistry, SchemaRegistry)> {
    let memory: Arc<dyn SchemaStorage> = Arc::new(MemorySchemaStorage::new());
    let store = Arc::new(MemoryStore::new());
    vec![
        (SchemaRegistry::new(Arc::clone(&memory)), SchemaRegistry::new(memory)),
        (over(&store), over(&store)),
    ]
}

#[tokio::test]
async fn versions_are_counted_and_the_same_schema_has_one() {
    for (here, there) in pairs() {
        assert_eq!(here.register("s", &with("integer")).await.unwrap(), 1);
        assert_eq!(here.register("s", &with("number")).await.unwrap(), 2);
        assert_eq!(here.register("other", &with("string")).await.unwrap(), 1);
        for registry in [&here, &there] {
            assert_eq!(registry.register("s", &with("integer")).await.unwrap(), 1);
            assert_eq!(registry.register("s", &with("number")).await.unwrap(), 2);
            assert_eq!(registry.get("s", 1).await.unwrap(), with("integer"));
            let latest = registry.latest("s").await.unwrap();
            assert_eq!((latest.version, latest.schema), (2, with("number")));
            let listed = registry.list("s").await.unwrap();
            assert_eq!(listed.iter().map(|one| one.version).collect::<Vec<_>>(), [1, 2]);
            let subjects = registry.subjects().await.unwrap();
            assert_eq!(subjects, [Arc::from("other"), Arc::<str>::from("s")]);
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    for (registry, _) in pairs() {
        let error = registry.latest("s").await.unwrap_err();
        assert_eq!(error.to_string(), "there is no schema of s; register one");
        assert!(registry.list("s").await.unwrap().is_empty());
        registry.register("s", &with("string")).await.unwrap();
        let error = registry.get("s", 2).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "s has no schema version 2, the last is 1; register it first"
        );
        assert_eq!(error.class(), ErrorClass::User);
        assert!(registry.get("s", 0).await.is_err());
    }
}

#[tokio::test]
async fn an_incompatible_schema_is_refused_and_leaves_nothing() {
    for (registry, _) in pairs() {
        registry.register("s", &with("integer")).await.unwrap();
        let found = registry.check("s", &with("string")).await.unwrap();
        assert_eq!(found.len(), 1);
        let error = registry.register("s", &with("string")).await.unwrap_err();
        match &error {
            RegistryError::Incompatible(refused) => assert_eq!(refused.incompatibilities, found),
            other => panic!("{other}"),
        }
        assert_eq!(error.class(), ErrorClass::User);
        assert_eq!(registry.list("s").await.unwrap().len(), 1);
        assert!(registry.check("s", &with("number")).await.unwrap().is_empty());
        assert_eq!(registry.list("s").await.unwrap().len(), 1, "a check registers nothing");
    }
}

#[tokio::test]
async fn each_subject_has_its_mode_on_every_node() {
    for (here, there) in pairs() {
        let mode = here.compatibility("s").await.unwrap();
        assert_eq!(mode, CompatibilityMode::BackwardTransitive);
        // A mode can be set before there is a version.
        here.set_compatibility("s", CompatibilityMode::Forward).await.unwrap();
        here.set_compatibility("s", CompatibilityMode::Forward).await.unwrap();
        assert_eq!(there.compatibility("s").await.unwrap(), CompatibilityMode::Forward);
        there.register("s", &with("number")).await.unwrap();
        there.register("s", &with("integer")).await.unwrap();
        assert!(here.register("s", &with("string")).await.is_err());
        there.set_compatibility("s", CompatibilityMode::None).await.unwrap();
        assert_eq!(here.register("s", &with("string")).await.unwrap(), 3);
        let strict = here.clone().with_default_mode(CompatibilityMode::Full);
        assert_eq!(strict.compatibility("new").await.unwrap(), CompatibilityMode::Full);
    }
}

#[tokio::test]
async fn a_name_that_no_stream_can_have_is_refused() {
    let registry = over(&Arc::new(MemoryStore::new()));
    for name in ["", "a\nb", &"x".repeat(600)] {
        let error = registry.register(name, &with("string")).await.unwrap_err();
        assert!(
            matches!(error, RegistryError::Storage(SchemaStorageError::Subject { .. })),
            "{error}"
        );
        assert_eq!(error.class(), ErrorClass::User);
    }
}

#[tokio::test]
async fn a_subject_is_a_stream_of_the_log() {
    let store = Arc::new(MemoryStore::new());
    over(&store).register("order.placed", &with("string")).await.unwrap();
    let stream = crate::event::StreamId::new("schema-order.placed").unwrap();
    let events = store.read_stream(&stream, crate::event::Version::ZERO, 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(&*events[0].event_type, "schema.registered");
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn schemas_survive_the_program() {
    use crate::store::sqlite::tests::Home;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};

    let home = Home::new();
    let file = home.file().await;
    let schemas =
        [with("integer"), protobuf::message("M", [protobuf::field("a", 1, protobuf::Type::Int32)])];
    for round in 0..2 {
        let store = SqliteStore::open(&file, SqliteOptions::default()).await.unwrap();
        let storage = EventStoreSchemas::new(Arc::new(store), || Timestamp::from_micros(7));
        let registry = SchemaRegistry::new(Arc::new(storage));
        for (subject, schema) in ["a", "b"].into_iter().zip(&schemas) {
            if round == 0 {
                assert_eq!(registry.register(subject, schema).await.unwrap(), 1);
                registry.set_compatibility(subject, CompatibilityMode::Full).await.unwrap();
            }
            let kept = registry.get(subject, 1).await.unwrap();
            assert_eq!(kept.as_bytes(), schema.as_bytes());
            assert_eq!(registry.compatibility(subject).await.unwrap(), CompatibilityMode::Full);
        }
        assert_eq!(registry.subjects().await.unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn registries_that_register_at_once_never_share_a_number() {
    for round in 0..20 {
        let store = Arc::new(MemoryStore::new());
        let registries = [over(&store), over(&store)];
        // Each adds a property of its own; the half of them that is the same on both gets one number.
        let tasks: Vec<_> = (0..16)
            .map(|index| {
                let registry = registries[index % 2].clone();
                let name = if index < 8 { index / 2 } else { 100 + index };
                let schema =
                    json(&format!(r#"{{"properties": {{"p{name}": {{"type": "string"}}}}}}"#));
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    (registry.register("s", &schema).await.unwrap(), schema)
                })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        let listed = over(&store).list("s").await.unwrap();
        assert_eq!(listed.len(), 12, "round {round}: 4 that are the same twice, and 8 others");
        for (version, schema) in answers {
            assert_eq!(listed[usize::from(version) - 1].schema, schema, "round {round}");
        }
        assert_eq!(over(&store).subjects().await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_schemas_that_break_each_other_one_is_registered() {
    for round in 0..50 {
        let store = Arc::new(MemoryStore::new());
        let (here, there) = (over(&store), over(&store));
        let one = tokio::spawn(async move { here.register("s", &with("string")).await });
        let other = tokio::spawn(async move { there.register("s", &with("integer")).await });
        let (one, other) = (one.await.unwrap(), other.await.unwrap());
        assert_ne!(one.is_ok(), other.is_ok(), "round {round}: {one:?} {other:?}");
        let refused = one.and(other).unwrap_err();
        assert!(matches!(refused, RegistryError::Incompatible(_)), "round {round}: {refused}");
        assert_eq!(over(&store).list("s").await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_version_that_is_known_is_not_read_again() {
    /// Counts what is read.
    #[derive(Debug, Default)]
    struct Counting(MemorySchemaStorage, std::sync::atomic::AtomicUsize);

    impl SchemaStorage for Counting {
        fn load<'a>(
            &'a self,
            subject: &'a str,
            after: u64,
        ) -> futures_util::future::BoxFuture<
            'a,
            Result<Vec<storage::SchemaRecord>, SchemaStorageError>,
        > {
            self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.0.load(subject, after)
        }

        fn append<'a>(
            &'a self,
            subject: &'a str,
            after: u64,
            record: storage::SchemaRecord,
        ) -> futures_util::future::BoxFuture<'a, Result<(), SchemaStorageError>> {
            self.0.append(subject, after, record)
        }

        fn subjects(
            &self,
        ) -> futures_util::future::BoxFuture<'_, Result<Vec<Arc<str>>, SchemaStorageError>>
        {
            self.0.subjects()
        }
    }

    let storage = Arc::new(Counting::default());
    let registry = SchemaRegistry::new(Arc::clone(&storage) as _);
    registry.register("s", &with("string")).await.unwrap();
    let before = storage.1.load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..10 {
        registry.get("s", 1).await.unwrap();
        registry.register("s", &with("string")).await.unwrap();
    }
    assert_eq!(storage.1.load(std::sync::atomic::Ordering::Relaxed), before);
}
