//! Counts of a store's operations on keys.
//!
//! They follow etcd's mvcc layer, because dashboards use its numbers: each comparison is a read, and so is looking up
//! what a write replaces. The comparisons of a write are read before it begins, as a transaction of their own. Only
//! a transaction with more than one operation counts as a transaction. So a put that returns the previous value counts
//! as one, and one comparison with one put does not. Refused requests do not count.

use std::ops::AddAssign;

/// Numbers of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Reads of a key or a range.
    pub ranges: u64,
    /// Puts.
    pub puts: u64,
    /// Deletions of a key or a range, however many keys existed; the end of a lease counts once for each of its keys.
    pub deletes: u64,
    /// Transactions with more than one of these.
    pub txns: u64,
}

impl Operations {
    /// This many reads.
    pub(crate) fn of_ranges(ranges: u64) -> Operations {
        Operations { ranges, ..Operations::default() }
    }

    /// Counts these as one transaction, if they are more than one.
    pub(crate) fn as_txn(self) -> Operations {
        Operations { txns: u64::from(self.ranges + self.puts + self.deletes > 1), ..self }
    }
}

impl AddAssign for Operations {
    fn add_assign(&mut self, other: Operations) {
        self.ranges += other.ranges;
        self.puts += other.puts;
        self.deletes += other.deletes;
        self.txns += other.txns;
    }
}
