use super::*;

#[tokio::test(start_paused = true)]
async fn it_looks_until_there_is_something() {
    let mut looks = 0;
    let found = eventually(Duration::from_secs(5), async || {
        looks += 1;
        if looks == 20 { Ok("here") } else { Err(looks) }
    })
    .await;
    assert_eq!((found, looks), ("here", 20));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "wait/tests.rs:20:5: not within 5s; last seen: \"nothing\"")]
async fn at_the_deadline_it_says_what_it_saw_and_for_whom() {
    // The line number in the expectation is that of this call.
    let nothing = async || Err::<(), _>("nothing");
    let wait = Duration::from_secs(5);
    eventually(wait, nothing).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the first look did not return")]
async fn a_look_that_hangs_is_cut_off() {
    eventually(Duration::from_secs(5), std::future::pending::<Result<(), ()>>).await;
}
