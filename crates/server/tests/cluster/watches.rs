//! Requests for watches that can't be granted: each is answered, and the stream goes on.

use bowline_api::etcdserverpb as pb;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::harness::{Cluster, PATIENCE, put};

/// Most watchers of a stream.
const MOST: usize = 100_000;

fn create(key: &str) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest { key: key.to_owned().into(), ..Default::default() };
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

async fn next(responses: &mut Streaming<pb::WatchResponse>) -> pb::WatchResponse {
    let message = tokio::time::timeout(PATIENCE, responses.message()).await;
    message.expect("in time").expect("no error").expect("the stream is open")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_watched_is_refused_and_the_stream_goes_on() {
    let cluster = Cluster::start(1, &[]);
    cluster.leader().await;
    let mut kv = cluster.client(1).await;
    let (requests, waiting) = mpsc::channel(64);
    requests.send(create("k")).await.expect("there is room");
    let mut watch = WatchClient::new(cluster.channel(1).await);
    let mut responses = watch.watch(ReceiverStream::new(waiting)).await.expect("a stream").into_inner();
    assert!(next(&mut responses).await.created);

    requests.send(pb::WatchRequest { request_union: None }).await.expect("the stream is open");
    let refused = next(&mut responses).await;
    assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, false, true));
    assert_eq!(refused.cancel_reason, "bowline: this member does not know this kind of watch request");

    let sender = requests.clone();
    let sent = tokio::spawn(async move {
        for number in 1..=MOST {
            sender.send(create(&format!("k/{number}"))).await.expect("the stream is open");
        }
    });
    for _ in 1..MOST {
        let created = next(&mut responses).await;
        assert!(created.created && !created.canceled, "{created:?}");
    }
    sent.await.expect("it does not panic");
    let refused = next(&mut responses).await;
    assert_eq!((refused.watch_id, refused.created, refused.canceled), (-1, true, true));
    assert_eq!(refused.cancel_reason, "bowline: a stream has at most 100000 watchers; use another stream");

    kv.put(put("k", "v")).await.expect("written");
    let event = next(&mut responses).await;
    assert_eq!((event.watch_id, event.events.len()), (0, 1), "the first watch is still there");
}
