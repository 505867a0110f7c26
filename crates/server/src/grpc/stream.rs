//! A range in pieces.
//!
//! All pieces are of one revision: that of the first, which is read as any range. Each next one goes on behind
//! the last key. Merged, they are the answer to the same Range.

use bowline_api::etcdserverpb as pb;
use bowline_kv::store::{Query, RangeRequest, RangeResponse};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Context, convert, errors};

pub(super) type RangeChunks = ReceiverStream<Result<pb::RangeStreamResponse, Status>>;

/// Bytes that a piece aims at.
const AIM: usize = 512 << 10;

/// Keys of the first piece, when nothing is known of their size.
const FIRST_KEYS: i64 = 64;

/// Most keys of a piece.
const MAX_KEYS: i64 = 8_192;

/// Pieces that may wait for a slow client.
const AHEAD: usize = 2;

/// Starts the stream.
pub(super) fn stream_range(context: Context, request: pb::RangeRequest) -> Result<RangeChunks, Status> {
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
        if let Err(status) = send_pieces(&context, range, &pieces).await {
            // A client that is gone needs no reason.
            let _ = pieces.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(stream))
}

async fn send_pieces(
    context: &Context,
    mut range: RangeRequest,
    pieces: &mpsc::Sender<Result<pb::RangeStreamResponse, Status>>,
) -> Result<(), Status> {
    let mut left = if range.limit > 0 { range.limit } else { i64::MAX };
    let mut keys = FIRST_KEYS;
    let mut count = None;
    loop {
        range.limit = if range.count_only { 0 } else { keys.min(left) };
        // Only the first piece has to be the latest state: the others are of its revision, which this member has.
        let found = context.range(range.clone(), range.serializable || count.is_some()).await?;
        // The first piece counts the whole range; the others begin later, and see less of it.
        let count = *count.get_or_insert(found.count);
        left -= i64::try_from(found.kvs.len()).unwrap_or(i64::MAX);
        let last = !found.more || left <= 0;
        keys = next_keys(&found);
        let next = found.kvs.last().map(|kv| behind(&kv.key));
        if range.revision <= 0 {
            range.revision = found.revision;
        }
        let revision = found.revision;
        let mut piece = convert::range_response(context.header(revision), found);
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

/// How many keys make a piece of the right size, if those to come are like those that came.
fn next_keys(found: &RangeResponse) -> i64 {
    let bytes: usize = found.kvs.iter().map(|kv| kv.key.len() + kv.value.len() + 32).sum();
    let each = (bytes / found.kvs.len().max(1)).max(1);
    i64::try_from(AIM / each).unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS)
}

/// The first key that comes after this one.
fn behind(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}
