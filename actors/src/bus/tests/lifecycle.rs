use super::super::lifecycle_feed::LifecycleMessage;
use super::*;

#[tokio::test(start_paused = true)]
async fn a_component_hears_that_what_it_depends_on_was_restarted() {
    let town = Town::start().await;
    let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
    town.bus
        .subscribe(to("watcher", "system.lifecycle.*.messaging.bus"), move || {
            let heard = heard.clone();
            move |delivery: Delivery| {
                let LifecycleMessage::Happened(event) =
                    (*delivery.message.event::<LifecycleMessage>().unwrap()).clone();
                heard.send((delivery.message.subject().to_string(), event)).unwrap();
                async { Outcome::Ack }
            }
        })
        .await
        .unwrap();
    town.system.kill("/messaging/bus").unwrap();
    let (subject, failed) = events.recv().await.unwrap();
    assert_eq!(subject, "system.lifecycle.failed.messaging.bus");
    assert_eq!((failed.path.as_str(), failed.life), ("/messaging/bus", 1));
    let (subject, restarted) = events.recv().await.unwrap();
    assert_eq!(subject, "system.lifecycle.restarted.messaging.bus");
    assert_eq!(restarted.cause_seq, Some(failed.seq), "{restarted:?}");
    assert_eq!(restarted.missed, 0);
}
