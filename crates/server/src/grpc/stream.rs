//! Streams a range in pieces.
//!
//! All pieces have the revision of the first, which is read like any range. Each next one begins after the last key.
//! Merged, they are the answer to the same Range.

use bowline_api::etcdserverpb as pb;
use bowline_kv::store::{Principal, Query, RangeRequest, RangeResponse};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::caller::Caller;
use super::{Context, convert, errors};

pub(super) type RangeChunks = ReceiverStream<Result<pb::RangeStreamResponse, Status>>;

/// Target size of a piece, in bytes.
const AIM: usize = 512 << 10;

/// Number of keys in the first piece, when their size is unknown.
const FIRST_KEYS: i64 = 64;

/// Maximum number of keys in a piece.
const MAX_KEYS: i64 = 8_192;

/// Number of pieces that may wait for a slow client.
const AHEAD: usize = 2;

/// Starts the stream.
pub(super) fn stream_range(context: Context, by: Principal, request: pb::RangeRequest) -> Result<RangeChunks, Status> {
    let sorted = request.sort_target != 0 || request.sort_order == pb::range_request::SortOrder::Descend as i32;
    if sorted {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    if filters.iter().any(|filter| *filter != 0) {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    let range = convert::range(request);
    range.check(&context.limits).map_err(errors::of_store)?;
    let (pieces, stream) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        if let Err(status) = send_pieces(&context.on_behalf_of(by), range, &pieces).await {
            // The client may be gone.
            let _ = pieces.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(stream))
}

async fn send_pieces(
    caller: &Caller<'_>,
    mut range: RangeRequest,
    pieces: &mpsc::Sender<Result<pb::RangeStreamResponse, Status>>,
) -> Result<(), Status> {
    let mut left = if range.limit > 0 { range.limit } else { i64::MAX };
    let mut keys = FIRST_KEYS;
    let mut count = None;
    loop {
        range.limit = if range.count_only { 0 } else { keys.min(left) };
        // Only the first piece must read the latest state. The others have its revision, which this member has.
        let found = caller.range(range.clone(), range.serializable || count.is_some()).await?;
        // Only the first piece covers, and so counts, the whole range.
        let count = *count.get_or_insert(found.count);
        left -= i64::try_from(found.kvs.len()).unwrap_or(i64::MAX);
        let last = !found.more || left <= 0;
        keys = next_keys(&found);
        let next = found.kvs.last().map(|kv| behind(&kv.key));
        if range.revision <= 0 {
            range.revision = found.revision;
        }
        let revision = found.revision;
        let mut piece = convert::range_response(caller.context.header(revision), found);
        if last {
            piece.count = count;
        } else {
            piece = pb::RangeResponse { header: None, kvs: piece.kvs, more: false, count: 0 };
        }
        if pieces.send(Ok(pb::RangeStreamResponse { range_response: Some(piece) })).await.is_err() {
            return Ok(());
        }
        match next {
            Some(next) if !last => range.key = next,
            _ => return Ok(()),
        }
    }
}

/// The number of keys for a piece of the target size, if the next keys have the size of the last ones.
fn next_keys(found: &RangeResponse) -> i64 {
    let bytes: usize = found.kvs.iter().map(|kv| kv.key.len() + kv.value.len() + 32).sum();
    let each = (bytes / found.kvs.len().max(1)).max(1);
    i64::try_from(AIM / each).unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS)
}

/// The first key after this one.
fn behind(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
