//! A whole node without its edge, on a SQLite file, whose commits can fail in chosen ways.

use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::{
    ActorSystem, ChildSpec, Clock, HealthSpec, Policies, Strategy, SupervisorSpec,
};
use tokio::sync::watch;

use crate::aggregate::tests::faulty::{Faults, FaultyConnect};
use crate::bus::{BusActor, BusArgs, EventBus};
use crate::command::{CommandBus, CommandOptions};
use crate::consumer::Consumers;
use crate::dead_letter::{DeadLetters, Letters};
use crate::event::Position;
use crate::pool::{Lease, Pool, PoolArgs, PoolHandle, PoolMessage};
use crate::process::Processes;
use crate::projection::handle::{Node, PlanArgs, ProjectionRef, register};
use crate::saga::manager::{ManagerArgs, SagaManager};
use crate::saga::{Definition, Definitions, OpenSagas, Sagas};
use crate::store::Append;
use crate::store::committer::{
    Committed, Committer, CommitterArgs, CommitterHandle, CommitterMessage,
};
use crate::store::sqlite::tests::Home;
use crate::timer::Timers;

pub(crate) const POOL: &str = "/resources/pool";
pub(crate) const COMMITTER: &str = "/resources/committer";

pub(crate) struct World {
    pub(crate) system: ActorSystem,
    pub(crate) bus: EventBus,
    pub(crate) letters: DeadLetters,
    pub(crate) sagas: Sagas,
    pub(crate) consumers: Consumers,
    pub(crate) processes: Processes,
    pub(crate) timers: Timers,
    pub(crate) commands: CommandBus,
    pub(crate) faults: Arc<Faults>,
    pub(crate) head: Arc<watch::Sender<Position>>,
    committer: CommitterHandle,
    summaries: ProjectionRef,
    home: Arc<Home>,
    path: std::path::PathBuf,
    most_sagas: usize,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Vec::new()).await
    }

    pub(crate) async fn with(sagas: Vec<Arc<dyn Definition>>) -> Self {
        Self::small(sagas, usize::MAX).await
    }

    /// With room for so many running sagas.
    pub(crate) async fn small(sagas: Vec<Arc<dyn Definition>>, most_sagas: usize) -> Self {
        let home = Arc::new(Home::new());
        let path = home.file().await;
        Self::on(home, path, sagas, most_sagas).await
    }

    /// The same store with another program.
    pub(crate) async fn again(self, sagas: Vec<Arc<dyn Definition>>) -> Self {
        self.system.shutdown(Duration::from_secs(20)).await;
        self.bus.close();
        let (home, path, most) = (Arc::clone(&self.home), self.path.clone(), self.most_sagas);
        drop(self);
        Self::on(home, path, sagas, most).await
    }

    /// The same store with another program, whose read models are to be made again from the log: as
    /// after the migration that gave them a file of their own.
    pub(crate) async fn again_from_the_log(self, sagas: Vec<Arc<dyn Definition>>) -> Self {
        self.system.shutdown(Duration::from_secs(20)).await;
        self.bus.close();
        let (home, path, most) = (Arc::clone(&self.home), self.path.clone(), self.most_sagas);
        drop(self);
        let models = crate::store::sqlite::read_models_of(&path);
        let models = rusqlite::Connection::open(models).unwrap();
        for table in ["documents", "parked", "checkpoints", "projection_builds", "log"] {
            models.execute(&format!("delete from {table}"), ()).unwrap();
        }
        drop(models);
        Self::on(home, path, sagas, most).await
    }

    async fn on(
        home: Arc<Home>,
        path: std::path::PathBuf,
        sagas: Vec<Arc<dyn Definition>>,
        most_sagas: usize,
    ) -> Self {
        let patient = Duration::from_secs(1);
        let faults = Arc::new(Faults::default());
        let connect = Arc::new(FaultyConnect::new(&path, Arc::clone(&faults)));
        let head = Arc::new(watch::Sender::new(Position::ZERO));
        let committer = CommitterArgs::new(POOL, Arc::clone(&head));
        let resources = SupervisorSpec::new("resources")
            .strategy(Strategy::RestForOne)
            .intensity(10_000, patient)
            .child(ChildSpec::component::<Pool>("pool", PoolArgs::new(connect)))
            .child(ChildSpec::component::<Committer>("committer", committer));

        let bus = EventBus::new(Clock::starting_at(1_000_000), 11);
        let letters = DeadLetters::new(bus.clone());
        let args = BusArgs::new(bus.clone(), "/messaging/subscriptions", Arc::new(letters.clone()));
        let subscriptions =
            SupervisorSpec::dynamic("subscriptions").intensity(10_000, patient).keep_children();
        let messaging = SupervisorSpec::new("messaging")
            .intensity(10_000, patient)
            .child(subscriptions)
            .child(ChildSpec::component::<BusActor>("bus", args));

        let given = PlanArgs {
            pool: POOL.into(),
            owner: "test".into(),
            head: head.subscribe(),
            health: HealthSpec::every(Duration::from_secs(60)),
        };
        let (listed, open) = (register(Letters), register(OpenSagas));
        let mut projections = SupervisorSpec::new("projections").intensity(10_000, patient);
        for plan in [listed.plan, open.plan] {
            if let Node::Actor(actor) = plan(given.clone()) {
                projections = projections.child(actor);
            }
        }
        let definitions = Definitions::new(sagas).unwrap();
        let manager = ManagerArgs {
            pool: POOL.into(),
            committer: COMMITTER.into(),
            running: "/sagas/running".into(),
            owner: "test".into(),
            head: head.subscribe(),
            shown: Arc::default(),
            definitions: definitions.clone(),
        };
        let sagas = SupervisorSpec::new("sagas")
            .strategy(Strategy::OneForAll)
            .intensity(10_000, patient)
            .child(ChildSpec::component::<SagaManager>("manager", manager))
            .child(
                SupervisorSpec::dynamic("running")
                    .intensity(10_000, patient)
                    .max_children(most_sagas),
            );
        let root = SupervisorSpec::new("world")
            .strategy(Strategy::RestForOne)
            .intensity(10_000, patient)
            .child(resources)
            .child(messaging)
            .child(SupervisorSpec::dynamic("aggregates").intensity(10_000, patient))
            .child(projections)
            .child(sagas)
            .child(SupervisorSpec::dynamic("consumers").intensity(10_000, patient).keep_children())
            .child(SupervisorSpec::dynamic("timers").intensity(10_000, patient).keep_children());
        let epoch_us = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        let system = ActorSystem::builder(root)
            .policies(Policies::new())
            .epoch_us(epoch_us)
            .start()
            .await
            .unwrap();
        let aggregates = system.supervisor("/aggregates").unwrap();
        let commands =
            CommandBus::new(aggregates, POOL, COMMITTER, CommandOptions::default(), Vec::new());
        let pool = PoolHandle::new(system.find::<PoolMessage>(POOL).unwrap());
        let listed = listed.handle.bind(pool.clone(), "/projections");
        let summaries = open.handle.bind(pool.clone(), "/projections");
        letters.open(commands.clone(), listed);
        let consumers = Consumers::new(
            system.supervisor("/consumers").unwrap(),
            POOL,
            "test",
            head.subscribe(),
            bus.clone(),
            Arc::new(letters.clone()),
            HealthSpec::every(Duration::from_secs(60)),
        );
        let committer = CommitterHandle::new(system.find::<CommitterMessage>(COMMITTER).unwrap());
        let timers = Timers::new(
            system.supervisor("/timers").unwrap(),
            (POOL, pool.clone()),
            "test",
            bus.clone(),
            Arc::new(letters.clone()),
            system.clock(),
            HealthSpec::every(Duration::from_secs(60)),
        );
        let processes = Processes::new(
            system.supervisor("/consumers").unwrap(),
            consumers.clone(),
            commands.clone(),
            timers.clone(),
            (POOL, pool.clone()),
            "test",
            head.subscribe(),
        );
        let random = system.clone();
        let sagas = Sagas::new(
            definitions,
            committer.clone(),
            pool,
            summaries.clone(),
            system.clock(),
            move || random.random_u64(),
        );
        Self {
            system,
            bus,
            letters,
            sagas,
            consumers,
            processes,
            timers,
            commands,
            faults,
            head,
            committer,
            summaries,
            home,
            path,
            most_sagas,
        }
    }

    /// The file of the store.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Appends through the committer.
    pub(crate) async fn commit(&self, append: Append) -> Committed {
        self.committer.submit(vec![append]).await?.durable().await
    }

    /// Waits until everything that is in the log is in the lists.
    pub(crate) async fn settled(&self) {
        let head = self.lease().await.store.head().await.unwrap();
        self.summaries.wait_for(head).await.unwrap();
        self.letters.wait_for(head).await.unwrap();
    }

    pub(crate) async fn lease(&self) -> Lease {
        loop {
            let pool = self.system.find::<PoolMessage>(POOL).unwrap();
            if let Ok(lease) = PoolHandle::new(pool).lease().await
                && lease.store.head().await.is_ok()
            {
                return lease;
            }
            tokio::task::yield_now().await;
        }
    }
}
