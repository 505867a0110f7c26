//! The cluster that is written to.

use anyhow::{Context, bail};
use bowline_api::etcdserverpb as pb;
use bowline_client::Client;
use bytes::Bytes;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;
use pb::response_op::Response;

use super::mapping::{Mapping, put};
use super::position::{KEY, Position};
use super::report::Remarks;
use super::source::{is_passing, read, wait_out};
use crate::client::words;
use crate::exit::NotDone;

pub(super) struct Destination {
    client: Client,
    remarks: Remarks,
    cluster: u64,
    /// The key of the position.
    key: Bytes,
    /// Its revision as this mirror knows it; 0 if there is none.
    known: i64,
    position: Option<Position>,
    /// Drawn at random, and how many writes there were.
    mirror: (u64, u64),
}

impl Destination {
    /// Reads the position.
    ///
    /// # Errors
    /// A member refuses, or the position can't be read.
    pub(super) async fn open(mut client: Client, remarks: Remarks, mapping: &Mapping) -> anyhow::Result<Destination> {
        let key: Bytes = [KEY, mapping.dest()].concat().into();
        let request = pb::RangeRequest { key: key.clone(), ..pb::RangeRequest::default() };
        let found = read(&mut client, remarks, &request).await?;
        let position = found.kvs.first().map(|kv| Position::decode(&kv.value));
        let unreadable =
            || format!("TO has a position that can't be read, in the key {}; delete it", words::quoted(&key));
        let position = position.map(|position| position.with_context(unreadable)).transpose()?;
        let known = found.kvs.first().map_or(0, |kv| kv.mod_revision);
        let cluster = found.header.unwrap_or_default().cluster_id;
        Ok(Destination { client, remarks, cluster, key, known, position, mirror: (getrandom::u64()?, 0) })
    }

    /// The id of its cluster.
    pub(super) fn cluster(&self) -> u64 {
        self.cluster
    }

    /// The key of the position.
    pub(super) fn key(&self) -> &Bytes {
        &self.key
    }

    /// The position that was found.
    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// Whose position is written from now on.
    pub(super) fn set(&mut self, position: Position) {
        self.position = Some(position);
    }

    /// How many keys there are in the mirror's range, without the position.
    ///
    /// # Errors
    /// A member refuses.
    pub(super) async fn count(&mut self, mapping: &Mapping) -> anyhow::Result<i64> {
        let (key, range_end) = mapping.dest_range();
        let all = pb::RangeRequest { key, range_end, count_only: true, ..pb::RangeRequest::default() };
        let inside = self.known > 0 && self.key.starts_with(mapping.dest());
        Ok(read(&mut self.client, self.remarks, &all).await?.count - i64::from(inside))
    }

    /// As [`read`].
    pub(super) async fn range(&mut self, request: &pb::RangeRequest) -> anyhow::Result<pb::RangeResponse> {
        Ok(read(&mut self.client, self.remarks, request).await?)
    }

    /// Writes in one transaction, together with the position: the last revision that is mirrored then. Tries again until
    /// it is done; it is done once.
    ///
    /// # Errors
    /// A member refuses, or somebody else has written the position.
    pub(super) async fn write(&mut self, mut ops: Vec<pb::RequestOp>, revision: Option<i64>) -> anyhow::Result<()> {
        let position = self.position.as_mut().context("the position is set before anything is written")?;
        position.revision = revision;
        self.mirror.1 += 1;
        let value = position.encode(self.mirror);
        ops.push(put(self.key.clone(), value.clone()));
        let unchanged = pb::Compare {
            key: self.key.clone(),
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            target_union: Some(TargetUnion::ModRevision(self.known)),
            ..pb::Compare::default()
        };
        let look = pb::RangeRequest { key: self.key.clone(), ..pb::RangeRequest::default() };
        let look = pb::RequestOp { request: Some(Request::RequestRange(look)) };
        let txn = pb::TxnRequest { compare: vec![unchanged], success: ops, failure: vec![look] };
        let mut told = false;
        loop {
            let answer = match self.client.txn_request(txn.clone()).await {
                Ok(answer) => answer,
                Err(error) if is_passing(&error) => {
                    wait_out(&mut told, self.remarks, error).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let found = answer.responses.into_iter().next().and_then(|response| response.response);
            self.known = match found {
                _ if answer.succeeded => answer.header.unwrap_or_default().revision,
                // An earlier attempt was done, although nobody said so.
                Some(Response::ResponseRange(found)) if found.kvs.first().is_some_and(|kv| kv.value == value) => {
                    found.kvs[0].mod_revision
                }
                _ => {
                    let key = words::quoted(&self.key);
                    bail!(NotDone(format!(
                        "somebody else has written the position at TO, in the key {key}: is there \
                                           another mirror to the same --dest-prefix?"
                    )));
                }
            };
            return Ok(());
        }
    }
}
