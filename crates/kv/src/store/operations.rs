//! What is counted of what a store does with keys.
//!
//! As in etcd's mvcc layer, whose numbers dashboards know: each comparison is a read, and so is looking at what a
//! write replaces; a write that has comparisons reads for them before it begins, as a transaction of its own; and only
//! a transaction of more than one operation counts as one. So a put that asks for what it replaces counts as a
//! transaction, and one comparison with one put does not. What is refused does not count.

use std::ops::AddAssign;

/// Numbers of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Reads of a key or a range.
    pub ranges: u64,
    /// Puts.
    pub puts: u64,
    /// Deletions of a key or a range, however many keys were there; where a lease ends, one for each of its keys.
    pub deletes: u64,
    /// Transactions of more than one of those.
    pub txns: u64,
}

impl Operations {
    /// So many reads.
    pub(crate) fn of_ranges(ranges: u64) -> Operations {
        Operations { ranges, ..Operations::default() }
    }

    /// These, as one transaction.
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
