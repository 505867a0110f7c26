//! Transactions.

use bowline_api::etcdserverpb as pb;
use bytes::Bytes;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;

use super::op::prefix_range;
use super::{Client, ClientError, Op, OpResponse, kv};

/// A comparison of a [`Txn`].
///
/// A key that does not exist has the version, the revisions and the lease 0. A comparison of its value never holds, not
/// even [`Operand::ne`].
#[derive(Clone, Debug, PartialEq)]
pub struct Compare(pb::Compare);

/// What a [`Compare`] compares with a value.
#[derive(Clone, Debug)]
#[must_use]
pub struct Operand<V> {
    target: CompareTarget,
    key: Bytes,
    range_end: Bytes,
    union: fn(V) -> TargetUnion,
}

impl Compare {
    /// The number of puts since the key was created; 0 if there is no such key.
    pub fn version(key: impl Into<Bytes>) -> Operand<i64> {
        Operand::new(CompareTarget::Version, key.into(), TargetUnion::Version)
    }

    /// The revision that created the key; 0 if there is no such key.
    pub fn create_revision(key: impl Into<Bytes>) -> Operand<i64> {
        Operand::new(CompareTarget::Create, key.into(), TargetUnion::CreateRevision)
    }

    /// The revision of the last put; 0 if there is no such key.
    pub fn mod_revision(key: impl Into<Bytes>) -> Operand<i64> {
        Operand::new(CompareTarget::Mod, key.into(), TargetUnion::ModRevision)
    }

    /// The value.
    pub fn value(key: impl Into<Bytes>) -> Operand<Bytes> {
        Operand::new(CompareTarget::Value, key.into(), TargetUnion::Value)
    }

    /// The id of the lease that the key is attached to; 0 if there is none, or no such key.
    pub fn lease(key: impl Into<Bytes>) -> Operand<i64> {
        Operand::new(CompareTarget::Lease, key.into(), TargetUnion::Lease)
    }
}

impl<V> Operand<V> {
    fn new(target: CompareTarget, key: Bytes, union: fn(V) -> TargetUnion) -> Operand<V> {
        Operand { target, key, range_end: Bytes::new(), union }
    }

    /// The comparison must hold for every key that begins with the key; an empty one means all keys. If there is no such
    /// key, it is compared as one that does not exist.
    pub fn prefix(mut self) -> Operand<V> {
        (self.key, self.range_end) = prefix_range(self.key);
        self
    }

    /// The comparison must hold for every key from the key up to, but not including, `end`. One zero byte means all keys
    /// from the key on. If there is no such key, it is compared as one that does not exist.
    pub fn range_end(mut self, end: impl Into<Bytes>) -> Operand<V> {
        self.range_end = end.into();
        self
    }

    /// It equals `value`.
    #[must_use]
    pub fn eq(self, value: impl Into<V>) -> Compare {
        self.compare(CompareResult::Equal, value)
    }

    /// It does not equal `value`.
    #[must_use]
    pub fn ne(self, value: impl Into<V>) -> Compare {
        self.compare(CompareResult::NotEqual, value)
    }

    /// It is greater than `value`.
    #[must_use]
    pub fn gt(self, value: impl Into<V>) -> Compare {
        self.compare(CompareResult::Greater, value)
    }

    /// It is less than `value`.
    #[must_use]
    pub fn lt(self, value: impl Into<V>) -> Compare {
        self.compare(CompareResult::Less, value)
    }

    fn compare(self, result: CompareResult, value: impl Into<V>) -> Compare {
        Compare(pb::Compare {
            result: result.into(),
            target: self.target.into(),
            key: self.key,
            range_end: self.range_end,
            target_union: Some((self.union)(value.into())),
        })
    }
}

/// The comparisons and operations of a transaction: see [`Op::txn`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Branches(pub(crate) pb::TxnRequest);

impl Branches {
    /// Adds a comparison. All of them must hold.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Branches {
        self.0.compare.push(compare.0);
        self
    }

    /// Adds an operation to run if all comparisons hold.
    #[must_use]
    pub fn then(mut self, operation: impl Into<Op>) -> Branches {
        self.0.success.push(operation.into().into());
        self
    }

    /// Adds an operation to run otherwise.
    #[must_use]
    pub fn or_else(mut self, operation: impl Into<Op>) -> Branches {
        self.0.failure.push(operation.into().into());
        self
    }
}

/// A transaction that is being built: see [`Client::txn`].
#[derive(Debug)]
#[must_use]
pub struct Txn<'a> {
    client: &'a mut Client,
    branches: Branches,
    repeatable: bool,
}

impl Txn<'_> {
    /// Adds a comparison. All of them must hold.
    pub fn when(mut self, compare: Compare) -> Self {
        self.branches = self.branches.when(compare);
        self
    }

    /// Adds an operation to run if all comparisons hold.
    pub fn then(mut self, operation: impl Into<Op>) -> Self {
        self.branches = self.branches.then(operation);
        self
    }

    /// Adds an operation to run otherwise.
    pub fn or_else(mut self, operation: impl Into<Op>) -> Self {
        self.branches = self.branches.or_else(operation);
        self
    }

    /// Promises that running the transaction twice is harmless. Then it is repeated, as a read, if its outcome is
    /// unknown. It may even run again after an answer, if a member has held back an earlier attempt.
    ///
    /// Comparisons usually make a transaction repeatable: the second run finds what the first one wrote, and takes the
    /// other branch.
    pub fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Runs the transaction.
    ///
    /// A transaction that only reads is repeated at other endpoints if it fails, and so is one that is
    /// [`repeatable`](Txn::repeatable). Any other is sent again only if it was certainly not done.
    ///
    /// # Errors
    /// See [`ClientError`]. After [`ClientError::Unknown`] it may have been done, or may still be done.
    pub async fn commit(self) -> Result<TxnResponse, ClientError> {
        Ok(self.client.run_txn(self.branches.0, self.repeatable).await?.into())
    }
}

/// Whether the transaction changes no key, whatever its comparisons say.
fn only_reads(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|operation| match &operation.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(txn)) => only_reads(txn),
        _ => false,
    })
}

/// The outcome of a [`Txn`].
#[derive(Clone, Debug, PartialEq)]
pub struct TxnResponse {
    /// The revision of the store after the transaction.
    pub revision: i64,
    /// Whether all comparisons held.
    pub succeeded: bool,
    /// What each operation of the branch that ran has returned, in order.
    pub responses: Vec<OpResponse>,
}

impl From<pb::TxnResponse> for TxnResponse {
    fn from(response: pb::TxnResponse) -> TxnResponse {
        TxnResponse {
            revision: response.header.map_or(0, |header| header.revision),
            succeeded: response.succeeded,
            responses: response.responses.into_iter().filter_map(OpResponse::of).collect(),
        }
    }
}

impl Client {
    /// Begins a transaction, which compares keys and runs one of two lists of operations, atomically.
    ///
    /// # Example
    /// ```no_run
    /// # use bowline_client::{Client, ClientError, Compare, Op};
    /// # async fn run(client: &mut Client) -> Result<(), ClientError> {
    /// // Sets the key if nobody has set it before.
    /// let first = Compare::version("leader").eq(0);
    /// let txn = client.txn().when(first).then(Op::put("leader", "me")).or_else(Op::get("leader"));
    /// let answer = txn.commit().await?;
    /// if !answer.succeeded {
    ///     println!("it is {:?}", answer.responses[0].kvs());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn txn(&mut self) -> Txn<'_> {
        Txn { client: self, branches: Branches::default(), repeatable: false }
    }

    /// Runs a transaction: a request of the API. It is repeated only if it changes no key.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn txn_request(&mut self, request: impl Into<pb::TxnRequest>) -> Result<pb::TxnResponse, ClientError> {
        self.run_txn(request.into(), false).await
    }

    async fn run_txn(&mut self, request: pb::TxnRequest, repeatable: bool) -> Result<pb::TxnResponse, ClientError> {
        let send = |channel| {
            let (mut kv, request) = (kv(channel), request.clone());
            async move { kv.txn(request).await }
        };
        if repeatable || only_reads(&request) { self.read_at(send).await } else { self.write_at(send).await }
    }
}
