//! Who can mend a failure: `?` in a handler keeps what the kernel's errors say of themselves.

use mister_smith_supervisors::*;

use crate::kit::*;

/// Does what it is told to others, and dies of what comes back.
struct Caller;

enum Call {
    Ask(Address<Do>),
    Tell(Address<Do>),
    Start(SupervisorRef, &'static str),
    Parse(&'static str),
}

impl Actor for Caller {
    type Message = Call;
    type Args = ();

    async fn start((): &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, call: Call, _: &mut Context<Self>) -> Result<(), Failure> {
        match call {
            Call::Ask(other) => drop(other.ask_within(secs(1), Do::DropPort).await?),
            Call::Tell(other) => other.try_tell(Do::Note(0))?,
            Call::Start(supervisor, id) => supervisor.restart_child(id).await?,
            Call::Parse(number) => drop(number.parse::<u64>()?),
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_mark_keeps_the_class_of_the_kernels_errors() {
    let log = Log::default();
    let tree = root()
        .intensity(1_000, secs(1))
        .child(puppet("other", &log).mailbox(1, Overflow::Fail))
        .child(puppet("gone", &log).restart(RestartPolicy::Temporary))
        .child(ChildSpec::actor::<Caller>("caller", ()));
    let system = start(tree).await;
    let supervisor = system.supervisor("/").unwrap();
    let (other, gone) = (at(&system, "/other"), at(&system, "/gone"));
    let caller = system.find::<Call>("/caller").unwrap();
    let died_of = async |call| {
        caller.try_tell(call).unwrap();
        tokio::time::sleep(secs(2)).await;
        let failure = system.tree().find("/caller").unwrap().last_failure.clone().unwrap();
        failure.class.unwrap()
    };

    assert_eq!(died_of(Call::Ask(other.clone())).await, ErrorClass::System, "no reply");
    assert_eq!(died_of(Call::Start(supervisor.clone(), "other")).await, ErrorClass::User);
    assert_eq!(died_of(Call::Parse("seven")).await, ErrorClass::System, "not the kernel's");

    system.suspend("/other").await.unwrap();
    other.try_tell(Do::Note(0)).unwrap();
    assert_eq!(died_of(Call::Tell(other.clone())).await, ErrorClass::Transient, "full");
    assert_eq!(died_of(Call::Ask(other)).await, ErrorClass::Transient, "full");

    gone.try_tell(Do::End).unwrap();
    settle().await;
    assert_eq!(died_of(Call::Tell(gone.clone())).await, ErrorClass::Permanent, "stopped");
    assert_eq!(died_of(Call::Ask(gone)).await, ErrorClass::Permanent, "stopped");
}

#[test]
fn a_start_error_and_an_explicit_class_say_what_they_mean() {
    let stopped = || AskError::Stopped { path: Path::parse("/a") };
    let StartError::Failed(failure) = StartError::from(stopped()) else {
        panic!("an error is no reason to ignore");
    };
    assert_eq!(failure.class(), ErrorClass::Permanent);
    assert_eq!(failure.message(), "/a has stopped");
    assert_eq!(Failure::wrap(ErrorClass::User, stopped()).class(), ErrorClass::User);
}
