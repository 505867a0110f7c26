//! Watchers of all keys, and how long events take to reach each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_client::{Channel, ClientError};
use bytes::{BufMut, Bytes, BytesMut};
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

use crate::keys::Keys;
use crate::measure::Recorder;
use crate::worker::MAX_ANSWER;

/// Bytes at the beginning of a value that say to which phase a put belongs, and when it began.
pub(crate) const STAMP: usize = 16;

/// Numbers the phases of this program.
static PHASES: AtomicU64 = AtomicU64::new(0);

/// The place of events among the kinds of [`crate::plan::Work::Watch`].
const EVENT: usize = 1;

/// What the values of a phase's puts begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    phase: u64,
    /// Times count from here.
    epoch: Instant,
}

impl Stamp {
    /// A value whose first bytes say that a put began at `from`.
    pub(crate) fn on(self, value: &Bytes, from: Instant) -> Bytes {
        let mut stamped = BytesMut::with_capacity(value.len());
        stamped.put_u64_le(self.phase);
        stamped.put_u64_le(from.saturating_duration_since(self.epoch).as_nanos() as u64);
        stamped.put_slice(value.get(STAMP..).unwrap_or_default());
        stamped.freeze()
    }

    /// When the put began, if it belongs to this phase.
    fn read(self, value: &[u8]) -> Option<Instant> {
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
        let phase = number(value.get(..8)?)?;
        let from = Duration::from_nanos(number(value.get(8..STAMP)?)?);
        if phase == self.phase { self.epoch.checked_add(from) } else { None }
    }
}

/// A phase, for those who watch.
#[derive(Clone, Debug)]
struct Watched {
    stamp: Stamp,
    recorder: Arc<Recorder>,
    events: Arc<AtomicU64>,
}

/// Open watches. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Watchers {
    count: u64,
    watched: watch::Sender<Option<Watched>>,
}

impl Watchers {
    /// Opens `count` watches of all keys on so many streams, which share the connections.
    ///
    /// # Errors
    /// A stream can't be opened, a watch is refused, or there is no answer in time.
    pub(crate) async fn open(
        channels: &[Channel],
        keys: &Keys,
        (count, streams): (u64, u64),
        patience: Duration,
    ) -> Result<Watchers, ClientError> {
        let (watched, phase) = watch::channel(None);
        for stream in 0..streams {
            let (channel, phase) = (channels[stream as usize % channels.len()].clone(), phase.clone());
            // As evenly as it goes.
            let share = count / streams + u64::from(stream < count % streams);
            let opened = tokio::time::timeout(patience, open(channel, keys, share)).await;
            let opened = opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
            let (requests, messages) = opened.map_err(|status| ClientError::Refused {
                endpoint: format!("stream {} of watches", stream + 1),
                status: Box::new(status),
            })?;
            tokio::spawn(read(messages, requests, phase, stream as usize));
        }
        Ok(Watchers { count, watched })
    }

    /// Begins a phase, whose events are noted from now on. Returns what the values must begin with.
    pub(crate) fn begin(&self, recorder: &Arc<Recorder>) -> Stamp {
        // Another program may do the same at the same time.
        let phase = u64::from(std::process::id()) << 32 | PHASES.fetch_add(1, Ordering::Relaxed);
        let stamp = Stamp { phase, epoch: Instant::now() };
        let (recorder, events) = (Arc::clone(recorder), Arc::default());
        self.watched.send_replace(Some(Watched { stamp, recorder, events }));
        stamp
    }

    /// How many events of `puts` have not come yet.
    pub(crate) fn missing(&self, puts: u64) -> u64 {
        let came = self.watched.borrow().as_ref().map_or(0, |watched| watched.events.load(Ordering::Relaxed));
        (puts * self.count).saturating_sub(came)
    }
}

type Stream = (mpsc::UnboundedSender<pb::WatchRequest>, Streaming<pb::WatchResponse>);

/// Opens a stream with `count` watches.
async fn open(channel: Channel, keys: &Keys, count: u64) -> Result<Stream, Status> {
    let (requests, sent) = mpsc::unbounded_channel();
    let (key, range_end) = keys.range();
    for _ in 0..count {
        let create = pb::WatchCreateRequest { key: key.clone(), range_end: range_end.clone(), ..Default::default() };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The other end is below.
        let _ = requests.send(create);
    }
    let mut client = WatchClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    let mut messages = client.watch(UnboundedReceiverStream::new(sent)).await?.into_inner();
    for _ in 0..count {
        let created = messages.message().await?.ok_or_else(|| Status::unavailable("the stream has ended"))?;
        if !created.created || created.canceled {
            return Err(Status::unknown(format!("a watch was refused: {}", created.cancel_reason)));
        }
    }
    Ok((requests, messages))
}

/// Notes the events of a stream, until it ends or nobody wants them any more. Without its `requests`, it would end.
async fn read(
    mut messages: Streaming<pb::WatchResponse>,
    requests: mpsc::UnboundedSender<pb::WatchRequest>,
    mut phase: watch::Receiver<Option<Watched>>,
    shard: usize,
) {
    loop {
        let message = tokio::select! {
            message = messages.message() => message,
            changed = phase.changed() => if changed.is_ok() { continue } else { break },
        };
        let now = Instant::now();
        let Some(watched) = phase.borrow().clone() else { continue };
        let failed = match message {
            Ok(Some(message)) if message.canceled => format!("a watch was cancelled: {}", message.cancel_reason),
            Ok(Some(message)) => {
                for kv in message.events.iter().filter_map(|event| event.kv.as_ref()) {
                    if let Some(from) = watched.stamp.read(&kv.value) {
                        watched.recorder.note(shard, EVENT, from, now);
                        watched.events.fetch_add(1, Ordering::Relaxed);
                    }
                }
                continue;
            }
            Ok(None) => "a stream of watches has ended".to_owned(),
            Err(status) => format!("a stream of watches has ended: {}", bowline_client::reason(&status)),
        };
        watched.recorder.fail(shard, &failed, 1);
        break;
    }
    drop(requests);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_the_phase_and_the_beginning_of_its_put() {
        let epoch = Instant::now();
        let (first, second) = (Stamp { phase: 1, epoch }, Stamp { phase: 2, epoch });
        let from = epoch + Duration::from_nanos(123_456_789);
        let value = first.on(&Bytes::from(vec![b'x'; 20]), from);
        assert_eq!((value.len(), &value[STAMP..]), (20, &b"xxxx"[..]));
        assert_eq!((first.read(&value), second.read(&value)), (Some(from), None));
        assert_eq!(first.read(&value[..STAMP - 1]), None, "a value of somebody else");
        assert_eq!(first.read(&[0xff; STAMP]), None);
    }
}
