//! The running process of a simulated replica: the core and its state machine. The state is in memory, or in a file
//! like a server's.

mod whole;

use bowline_kv::store::TxnRequest;
use bowline_node::{Node, Witness};
use bowline_raft::{Raft, Time};
use bytes::Bytes;

use crate::cluster::machine::Machine;

pub(crate) use whole::{Output, Reads, Whole, Worker};

/// A replica's process.
#[derive(Debug)]
pub(crate) enum Replica {
    /// Its state is rebuilt at each start from a snapshot and the log.
    InMemory(Box<Node<Machine>>),
    /// It is a whole member, with its state in redb on the disk.
    Whole(Box<Whole>),
}

impl Replica {
    pub(crate) fn set_witness(&mut self, witness: Witness) {
        match self {
            Replica::InMemory(node) => node.set_witness(witness),
            Replica::Whole(node) => node.set_witness(witness),
        }
    }

    pub(crate) fn next_deadline(&self) -> Time {
        match self {
            Replica::InMemory(node) => node.next_deadline(),
            Replica::Whole(node) => node.next_deadline(),
        }
    }

    pub(crate) fn raft(&self) -> &Raft {
        match self {
            Replica::InMemory(node) => node.raft(),
            Replica::Whole(node) => node.raft(),
        }
    }

    pub(crate) fn machine(&self) -> &Machine {
        match self {
            Replica::InMemory(node) => node.machine(),
            Replica::Whole(node) => node.machine(),
        }
    }

    /// The answer to a client's read; see [`Machine::look`].
    pub(crate) fn look(&mut self, key: &str, query: &TxnRequest) -> Bytes {
        self.machine().look(key, query)
    }

    pub(crate) fn is_in_transfer(&self) -> bool {
        match self {
            Replica::InMemory(node) => node.is_in_transfer(),
            Replica::Whole(node) => node.is_in_transfer(),
        }
    }

    /// The size of a snapshot of its state, in bytes.
    pub(crate) fn snapshot_bytes(&self) -> usize {
        match self {
            Replica::InMemory(node) => node.snapshot_bytes(),
            Replica::Whole(node) => node.snapshot_bytes(),
        }
    }

    /// Why its state can't be read any more.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        self.machine().is_broken().then_some("the state can't be read")
    }

    /// The process, if it is a whole member.
    pub(crate) fn whole(&self) -> Option<&Whole> {
        match self {
            Replica::InMemory(_) => None,
            Replica::Whole(node) => Some(node),
        }
    }

    /// As [`Replica::whole`].
    pub(crate) fn whole_mut(&mut self) -> Option<&mut Whole> {
        match self {
            Replica::InMemory(_) => None,
            Replica::Whole(node) => Some(node),
        }
    }
}
