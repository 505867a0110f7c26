//! What clients ask of the multi-version store, as commands and read-only transactions; and a history of every revision
//! that checks the answers (I23).

use std::collections::BTreeMap;

use bowline_checker::keys;
use bowline_kv::store::{
    Command, CompactionRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue, KvError,
    Operation, OperationResponse, PutRequest, RangeRequest, RangeResponse, Reply, Response, ResponseOp, TxnRequest,
    TxnResponse, decode_reply,
};
use bytes::Bytes;

use crate::cluster::machine::{numbered, value_of, writer_of};
use crate::cluster::wire::UNKNOWN_FIELD;

/// An operation on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Put,
    Delete,
    /// Deletes all keys at once.
    Clear,
    /// Puts if the key still holds the value seen, or, for `None`, if it doesn't exist.
    Swap(Option<Seen>),
    /// Puts this key too, with the same value.
    Pair(u64),
    Compact(i64),
    Get,
    /// Reads a key at an earlier revision.
    Past(i64),
    /// Reads all keys.
    All,
}

/// A value that a client has seen: its writer and revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) writer: u64,
    pub(crate) revision: i64,
}

/// An operation with everything that its bytes depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) op: u64,
    pub(crate) key: u64,
    pub(crate) bytes: usize,
    pub(crate) shape: Shape,
}

fn name(key: u64) -> Bytes {
    Bytes::from(format!("k{key}"))
}

fn number(name: &[u8]) -> Option<u64> {
    std::str::from_utf8(name.strip_prefix(b"k")?).ok()?.parse().ok()
}

impl Asked {
    fn put(&self, key: u64) -> PutRequest {
        let value = value_of(self.op, self.bytes).into();
        PutRequest { key: name(key), value, prev_kv: true, ..PutRequest::default() }
    }

    fn range(&self) -> RangeRequest {
        let one = RangeRequest { key: name(self.key), ..RangeRequest::default() };
        match self.shape {
            Shape::All => RangeRequest { key: Bytes::from_static(b"k"), range_end: Bytes::from_static(b"l"), ..one },
            Shape::Past(revision) => RangeRequest { revision, ..one },
            _ => one,
        }
    }

    /// The store's command, if it writes.
    pub(crate) fn command(&self) -> Option<Command> {
        Some(match self.shape {
            Shape::Put => Command::Put(self.put(self.key)),
            Shape::Delete => {
                Command::DeleteRange(DeleteRangeRequest { key: name(self.key), range_end: Bytes::new(), prev_kv: true })
            }
            Shape::Clear => Command::DeleteRange(DeleteRangeRequest {
                key: Bytes::from_static(b"k"),
                range_end: Bytes::from_static(b"l"),
                prev_kv: true,
            }),
            Shape::Swap(expect) => Command::Txn(TxnRequest {
                compare: vec![self.condition(expect)],
                success: vec![Operation::Put(self.put(self.key)).into()],
                failure: vec![Operation::Range(self.range()).into()],
            }),
            Shape::Pair(other) => Command::Txn(TxnRequest {
                compare: Vec::new(),
                success: vec![Operation::Put(self.put(self.key)).into(), Operation::Put(self.put(other)).into()],
                failure: Vec::new(),
            }),
            Shape::Compact(revision) => Command::Compact(CompactionRequest { revision, physical: false }),
            Shape::Get | Shape::Past(_) | Shape::All => return None,
        })
    }

    fn condition(&self, expect: Option<Seen>) -> Compare {
        let (key, range_end, result) = (name(self.key), Bytes::new(), CompareResult::Equal);
        let target = match expect {
            Some(seen) => CompareTarget::Mod(seen.revision),
            None => CompareTarget::Create(0),
        };
        Compare { key, range_end, result: result.into(), target: Some(target) }
    }

    /// The bytes in the log, if it writes: the store's command, and the operation's number.
    pub(crate) fn encode(&self) -> Option<Bytes> {
        let command = self.command()?;
        // Some clients have a later version.
        let extension = if self.op % 8 == 5 { UNKNOWN_FIELD } else { &[] };
        Some([&numbered(&command.to_bytes(), self.op)[..], extension].concat().into())
    }

    /// The query of a read: a transaction with a range.
    pub(crate) fn query(&self) -> TxnRequest {
        TxnRequest { success: vec![Operation::Range(self.range()).into()], ..TxnRequest::default() }
    }
}

/// What a key holds, and since which revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    writer: u64,
    bytes: usize,
    since: i64,
}

impl Held {
    fn is(&self, kv: &KeyValue) -> bool {
        kv.mod_revision == self.since && kv.value == value_of(self.writer, self.bytes).as_bytes()
    }
}

/// The history of the store, from the commands in the order of the log: what every revision holds, even compacted ones.
#[derive(Debug)]
pub(crate) struct History {
    revision: i64,
    compacted: i64,
    /// An alarm forbids what needs space.
    pub(crate) is_full: bool,
    keys: BTreeMap<u64, Vec<(i64, Option<Held>)>>,
}

impl Default for History {
    fn default() -> History {
        History { revision: 1, compacted: -1, is_full: false, keys: BTreeMap::new() }
    }
}

impl History {
    fn held(&self, key: u64, at: i64) -> Option<Held> {
        let versions = self.keys.get(&key)?;
        let place = versions.partition_point(|(revision, _)| *revision <= at);
        versions[place.checked_sub(1)?].1
    }

    fn all(&self, at: i64) -> Vec<Held> {
        let mut names: Vec<(Bytes, u64)> = self.keys.keys().map(|key| (name(*key), *key)).collect();
        names.sort();
        names.into_iter().filter_map(|(_, key)| self.held(key, at)).collect()
    }

    fn set(&mut self, key: u64, asked: Option<&Asked>) {
        let since = self.revision;
        let held = asked.map(|asked| Held { writer: asked.op, bytes: asked.bytes, since });
        self.keys.entry(key).or_default().push((since, held));
    }

    /// A command takes effect. The store's reply must tell what it did (I23).
    pub(crate) fn took_effect(&mut self, asked: &Asked, reply: &Reply) -> Result<(), String> {
        let before = self.revision;
        let expected = self.apply(asked);
        let said = self.is_told(asked, before, expected, reply);
        if said {
            Ok(())
        } else {
            Err(format!("the reply to operation {} at revision {before} is wrong: {reply:?}", asked.op))
        }
    }

    /// Applies a command. Returns whether it was done, or why not.
    fn apply(&mut self, asked: &Asked) -> Result<bool, KvError> {
        let now = self.revision;
        match asked.shape {
            Shape::Put | Shape::Swap(_) | Shape::Pair(_) if self.is_full => return Err(KvError::NoSpace),
            Shape::Swap(expect) => {
                let held = self.held(asked.key, now).map(|held| held.since);
                if held != expect.map(|seen| seen.revision) {
                    return Ok(false);
                }
                self.revision += 1;
                self.set(asked.key, Some(asked));
            }
            Shape::Put => {
                self.revision += 1;
                self.set(asked.key, Some(asked));
            }
            Shape::Pair(other) => {
                self.revision += 1;
                self.set(asked.key, Some(asked));
                self.set(other, Some(asked));
            }
            Shape::Delete | Shape::Clear => {
                let keys: Vec<u64> = self.keys.keys().copied().collect();
                let meant = keys.into_iter().filter(|key| asked.shape == Shape::Clear || *key == asked.key);
                let there: Vec<u64> = meant.filter(|key| self.held(*key, now).is_some()).collect();
                self.revision += i64::from(!there.is_empty());
                there.into_iter().for_each(|key| self.set(key, None));
            }
            Shape::Compact(at) if at <= self.compacted => return Err(KvError::Compacted),
            Shape::Compact(at) if at > now => return Err(KvError::FutureRevision),
            Shape::Compact(at) => self.compacted = at,
            Shape::Get | Shape::Past(_) | Shape::All => {}
        }
        Ok(true)
    }

    fn is_told(&self, asked: &Asked, before: i64, done: Result<bool, KvError>, reply: &Reply) -> bool {
        let now = self.revision;
        let was = self.held(asked.key, before);
        let one = |kv: Option<&KeyValue>| match (was, kv) {
            (Some(held), Some(kv)) => held.is(kv),
            (None, None) => true,
            _ => false,
        };
        match (asked.shape, done, reply) {
            (Shape::Put, Ok(_), Ok(Response::Put(put))) => put.revision == now && one(put.prev_kv.as_ref()),
            (Shape::Delete, Ok(_), Ok(Response::DeleteRange(gone))) => {
                gone.revision == now && gone.deleted == now - before && one(gone.prev_kvs.first())
            }
            (Shape::Clear, Ok(_), Ok(Response::DeleteRange(gone))) => {
                let all = self.all(before);
                gone.revision == now
                    && gone.deleted == all.len() as i64
                    && all.iter().zip(&gone.prev_kvs).all(|(held, kv)| held.is(kv))
            }
            (Shape::Swap(_), Ok(true), Ok(Response::Txn(txn))) => {
                txn.revision == now
                    && txn.succeeded
                    && matches!(&txn.responses[..], [ResponseOp { response: Some(OperationResponse::Put(put)) }] if one(put.prev_kv.as_ref()))
            }
            (Shape::Swap(_), Ok(false), Ok(Response::Txn(txn))) => {
                txn.revision == now
                    && !txn.succeeded
                    && matches!(&txn.responses[..], [ResponseOp { response: Some(OperationResponse::Range(range)) }] if one(range.kvs.first()))
            }
            (Shape::Pair(_), Ok(_), Ok(Response::Txn(txn))) => {
                let first = txn.responses.first();
                txn.revision == now
                    && txn.succeeded
                    && txn.responses.len() == 2
                    && matches!(first, Some(ResponseOp { response: Some(OperationResponse::Put(put)) }) if one(put.prev_kv.as_ref()))
            }
            (Shape::Compact(_), Ok(_), Ok(Response::Compact(compaction))) => compaction.revision == now,
            (_, Err(error), Err(said)) => error == *said,
            _ => false,
        }
    }

    /// Whether an answer to a read is true of the revision that it names.
    pub(crate) fn is_true(&self, asked: &Asked, reply: &Reply) -> bool {
        match (asked.shape, reply) {
            (Shape::Past(at), Err(KvError::Compacted)) => return at < self.compacted,
            (Shape::Past(at), Err(KvError::FutureRevision)) => return at > 1,
            _ => {}
        }
        let Some(range) = reply.as_ref().ok().and_then(range_of) else { return false };
        let at = match asked.shape {
            Shape::Past(at) if at > 0 => at,
            _ => range.revision,
        };
        let held = match asked.shape {
            Shape::All => self.all(at),
            _ => self.held(asked.key, at).into_iter().collect(),
        };
        range.revision <= self.revision
            && at <= range.revision
            && range.count == held.len() as i64
            && range.kvs.len() == held.len()
            && held.iter().zip(&range.kvs).all(|(held, kv)| held.is(kv))
    }

    /// Something other than the clients' keys has changed, or someone else has compacted.
    pub(crate) fn went_on(&mut self, revision: i64, compacted: i64) {
        (self.revision, self.compacted) = (revision, compacted);
    }

    /// The latest revision.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }
}

/// The revision that an answer names.
pub(crate) fn revision_of(reply: &Reply) -> Option<i64> {
    reply.as_ref().ok().map(Response::revision)
}

/// The range that a read-only operation has read.
fn range_of(response: &Response) -> Option<&RangeResponse> {
    let Response::Txn(TxnResponse { responses, .. }) = response else { return None };
    if let [ResponseOp { response: Some(OperationResponse::Range(range)) }] = &responses[..] {
        Some(range)
    } else {
        None
    }
}

/// The key and the value that an answer shows, if it shows one: later swaps may expect it.
pub(crate) fn seen(asked: &Asked, reply: &Reply) -> Option<(u64, Option<Seen>)> {
    let of = |kv: &KeyValue| Some(Seen { writer: writer(kv)?, revision: kv.mod_revision });
    match (asked.shape, reply.as_ref().ok()?) {
        (Shape::Get, read) => Some((asked.key, range_of(read)?.kvs.first().and_then(of))),
        (Shape::Put, Response::Put(put)) => Some((asked.key, Some(Seen { writer: asked.op, revision: put.revision }))),
        _ => None,
    }
}

fn writer(kv: &KeyValue) -> Option<u64> {
    writer_of(std::str::from_utf8(&kv.value).ok()?)
}

/// Decodes a reply; `None` if it can't be decoded.
pub(crate) fn reply_of(bytes: &[u8]) -> Option<Reply> {
    decode_reply(bytes).ok()
}

/// Splits an operation by key, for the checker. `reply` is the answer, if there is one.
pub(crate) fn by_key(asked: &Asked, reply: Option<&Reply>, keys: u64) -> Vec<(u64, keys::Request, keys::Answer)> {
    use keys::{Answer, Request};
    let found = |kv: Option<&KeyValue>| Answer::Found(kv.and_then(writer).map(|writer| writer.to_string()));
    let value = asked.op.to_string();
    let reply = reply.map(Result::as_ref);
    match (asked.shape, reply) {
        (Shape::Put, Some(Ok(Response::Put(put)))) => {
            vec![(asked.key, Request::Put(value), found(put.prev_kv.as_ref()))]
        }
        (Shape::Put, _) => vec![(asked.key, Request::Put(value), Answer::Unknown)],
        (Shape::Delete, Some(Ok(Response::DeleteRange(gone)))) => {
            vec![(asked.key, Request::Delete, found(gone.prev_kvs.first()))]
        }
        (Shape::Delete, _) => vec![(asked.key, Request::Delete, Answer::Unknown)],
        (Shape::Clear, Some(Ok(Response::DeleteRange(gone)))) => {
            let was = |key: u64| gone.prev_kvs.iter().find(|kv| number(&kv.key) == Some(key));
            (0..keys).map(|key| (key, Request::Delete, found(was(key)))).collect()
        }
        (Shape::Clear, _) => (0..keys).map(|key| (key, Request::Delete, Answer::Unknown)).collect(),
        (Shape::Swap(expect), told) => {
            let expect = expect.map(|seen| seen.writer.to_string());
            let answer = match told {
                Some(Ok(Response::Txn(txn))) if txn.succeeded => Answer::Done,
                Some(Ok(Response::Txn(txn))) => match txn.responses.first() {
                    Some(ResponseOp { response: Some(OperationResponse::Range(range)) }) => found(range.kvs.first()),
                    _ => Answer::Unknown,
                },
                _ => Answer::Unknown,
            };
            vec![(asked.key, Request::Swap { expect, value }, answer)]
        }
        (Shape::Pair(other), told) => {
            let answer = |at: usize| match told {
                Some(Ok(Response::Txn(txn))) => match txn.responses.get(at) {
                    Some(ResponseOp { response: Some(OperationResponse::Put(put)) }) => found(put.prev_kv.as_ref()),
                    _ => Answer::Unknown,
                },
                _ => Answer::Unknown,
            };
            vec![(asked.key, Request::Put(value.clone()), answer(0)), (other, Request::Put(value), answer(1))]
        }
        (Shape::Get | Shape::All, Some(Ok(read))) => {
            let kvs = range_of(read).map_or(&[][..], |range| &range.kvs);
            let is = |key: u64| kvs.iter().find(|kv| number(&kv.key) == Some(key));
            let read = if asked.shape == Shape::All { 0..keys } else { asked.key..asked.key + 1 };
            read.map(|key| (key, Request::Get, found(is(key)))).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::machine::empty_store;
    use bowline_raft::Index;

    fn asked(op: u64, key: u64, shape: Shape) -> Asked {
        Asked { op, key, bytes: 5, shape }
    }

    #[test]
    fn the_history_agrees_with_the_store_and_with_nothing_else() {
        let (mut store, mut history) = (empty_store(), History::default());
        let swap = |writer, revision| Shape::Swap(Some(Seen { writer, revision }));
        let shapes = [
            (0, Shape::Put),
            (0, Shape::Swap(None)),
            (0, swap(0, 2)),
            (1, Shape::Pair(2)),
            (3, Shape::Delete),
            (1, Shape::Delete),
            (0, swap(0, 2)),
            (0, Shape::Compact(4)),
            (0, Shape::Compact(4)),
            (0, Shape::Compact(400)),
            (0, Shape::Clear),
        ];
        for (op, (key, shape)) in (0..).zip(shapes) {
            let asked = asked(op, key, shape);
            let command = asked.command().expect("it writes");
            let reply = store.apply_command(Index(op + 1), &command);
            let mut wrong = reply.clone();
            if let Ok(Response::Put(put)) = &mut wrong {
                put.revision += 1;
                let keys = history.keys.clone();
                let before = History { revision: history.revision, compacted: history.compacted, is_full: false, keys };
                assert!({ before }.took_effect(&asked, &wrong).is_err(), "a revision too many");
            }
            history.took_effect(&asked, &reply).expect("what the store says is so");
        }
        assert_eq!(history.revision(), store.revision());
        assert_eq!(history.compacted, store.compacted_revision());
    }

    #[test]
    fn a_read_is_true_of_its_revision_only() {
        let (mut store, mut history) = (empty_store(), History::default());
        let get = asked(9, 0, Shape::Get);
        let read = |store: &bowline_kv::store::Store<_>| store.ask(&get.query()).map(Response::Txn);
        let mut replies = vec![read(&store)];
        for op in 0..2 {
            let put = asked(op, 0, Shape::Put);
            history
                .took_effect(&put, &store.apply_command(Index(op + 1), &put.command().expect("it writes")))
                .expect("so");
            replies.push(read(&store));
        }
        assert!(replies.iter().all(|reply| history.is_true(&get, reply)));
        let mut newer = replies[1].clone().expect("it is answered");
        if let Response::Txn(TxnResponse { responses, .. }) = &mut newer
            && let ResponseOp { response: Some(OperationResponse::Range(range)) } = &mut responses[0]
        {
            range.revision = 3;
        }
        assert_ne!(Ok(&newer), replies[1].as_ref());
        assert!(!history.is_true(&get, &Ok(newer)), "an old value under a new revision");
    }
}
