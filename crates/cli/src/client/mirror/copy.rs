//! Copies the present keys of the source, all at one revision, and writes only what differs.

use std::collections::BTreeMap;

use bowline_api::etcdserverpb as pb;
use bytes::Bytes;

use super::destination::Destination;
use super::mapping::{self, Mapping, delete, put};
use super::report::Report;
use super::source::{Source, is_compacted};

/// Target size of a page, in bytes, and bounds on its number of keys.
const AIM: usize = 1 << 20;
const FIRST_KEYS: i64 = 64;
const MAX_KEYS: i64 = 4_096;

/// Makes the destination's range equal to the source's. Returns the revision of the source.
///
/// # Errors
/// A member refuses, or somebody else writes to the destination.
pub(super) async fn copy(
    source: &mut Source,
    destination: &mut Destination,
    mapping: &Mapping,
    report: &mut Report,
) -> anyhow::Result<i64> {
    loop {
        let (_, revision) = source.look().await?;
        // From now on a restart knows that what is there is a part of a copy.
        destination.write(Vec::new(), None).await?;
        if copy_at(revision, source, destination, mapping, report).await? {
            destination.write(Vec::new(), Some(revision)).await?;
            return Ok(revision);
        }
    }
}

/// Copies as of a revision. Returns whether that was possible: the source may compact it meanwhile.
async fn copy_at(
    revision: i64,
    source: &mut Source,
    destination: &mut Destination,
    mapping: &Mapping,
    report: &mut Report,
) -> anyhow::Result<bool> {
    let ((mut from, end), (mut dest_from, dest_end)) = (mapping.source_range(), mapping.dest_range());
    let mut limit = FIRST_KEYS;
    loop {
        let (key, range_end) = (from.clone(), end.clone());
        let request = pb::RangeRequest { key, range_end, revision, limit, ..pb::RangeRequest::default() };
        let page = match source.range(&request).await {
            Err(error) if is_compacted(&error) => return Ok(false),
            page => page?,
        };
        limit = next_limit(&page);
        let next = page.kvs.last().filter(|_| page.more).map(|last| behind(&last.key));
        let dest_until = next.as_ref().map_or_else(|| dest_end.clone(), |next| mapping.to_dest(next));
        let position = destination.key().clone();
        let wanted = page.kvs.into_iter().map(|kv| (mapping.to_dest(&kv.key), kv.value));
        let wanted = wanted.filter(|(key, _)| *key != position).collect();
        equalise(wanted, (dest_from, dest_until.clone()), destination, report).await?;
        match next {
            Some(next) => (from, dest_from) = (next, dest_until),
            None => return Ok(true),
        }
    }
}

/// Makes a range of the destination equal to these pairs.
async fn equalise(
    mut wanted: BTreeMap<Bytes, Bytes>,
    (mut from, end): (Bytes, Bytes),
    destination: &mut Destination,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut limit = FIRST_KEYS;
    loop {
        let (key, range_end) = (from, end.clone());
        let page = destination.range(&pb::RangeRequest { key, range_end, limit, ..Default::default() }).await?;
        limit = next_limit(&page);
        let next = page.kvs.last().filter(|_| page.more).map(|last| behind(&last.key));
        let mut ops = Vec::new();
        for kv in page.kvs.into_iter().filter(|kv| kv.key != *destination.key()) {
            match wanted.remove(&kv.key) {
                Some(value) if value == kv.value => {}
                Some(value) => ops.push(put(kv.key, value)),
                None => ops.push(delete(kv.key)),
            }
        }
        if next.is_none() {
            ops.extend(std::mem::take(&mut wanted).into_iter().map(|(key, value)| put(key, value)));
        }
        for part in mapping::parts(ops) {
            report.wrote(&part);
            destination.write(part, None).await?;
        }
        match next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

/// The number of keys for a page of the target size, if the next keys have the size of the last ones.
fn next_limit(page: &pb::RangeResponse) -> i64 {
    let bytes: usize = page.kvs.iter().map(|kv| kv.key.len() + kv.value.len() + 32).sum();
    let each = (bytes / page.kvs.len().max(1)).max(1);
    i64::try_from(AIM / each).unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS)
}

/// The first key after this one.
fn behind(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}
