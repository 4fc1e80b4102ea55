//! What an outlet loses while nobody looks.

use super::*;

/// It was asked for its last number only after a failure: what came next hid a loss that was
/// smaller, and the relay was done with events that nobody had.
#[tokio::test]
async fn a_loss_that_is_smaller_than_the_next_page_is_found() {
    let post = Arc::new(Post::default());
    let running = relay(Arc::clone(&post) as _, EventFilter::ALL).await;
    running.append("order-1", 60).await;
    running.reached(60).await;
    post.lose(50);
    running.append("order-1", 40).await;
    post.until_it_has(1..=100).await;
    let had: Vec<_> = post.has()[..50].to_vec();
    assert_eq!(had, (1..=50).collect::<Vec<_>>(), "it went back no further than it had to");
}

#[tokio::test]
async fn a_loss_is_found_while_nothing_is_sent() {
    let post = Arc::new(Post::default());
    let look_every = Duration::from_millis(20);
    let running = relay_that_looks(Arc::clone(&post) as _, EventFilter::ALL, look_every).await;
    running.append("order-1", 30).await;
    running.reached(30).await;
    post.lose(20);
    post.until_it_has(1..=30).await;
}

/// A queue that keeps everything was full one day, and the relay stopped.
#[tokio::test]
async fn a_queue_that_is_a_log_is_never_full() {
    let options = QueueOptions::new("events").retention(Retention::Log).max_messages(10);
    let queue = Broker::default().queue(options.sole_sender());
    let receiver = queue.receiver("g").unwrap();
    let running = relay(Arc::new(QueueOutlet::new(queue.sender())), EventFilter::ALL).await;
    running.append("order-1", 25).await;
    running.reached(25).await;
    let got = receiver.receive(100, DEADLINE).await.unwrap();
    let positions: Vec<_> =
        got.iter().map(|one| one.message.headers["Smith-Position"].clone()).collect();
    assert_eq!(positions, (16..=25).map(|n: u64| n.to_string()).collect::<Vec<_>>());
}
