//! The running process of a simulated replica: the core and its state machine. The state is in memory, or in a file
//! like a server's.

mod on_disk;

use bowline_kv::store::TxnRequest;
use bowline_node::{Node, NodeEffect, NodeInput, Witness};
use bowline_raft::{Raft, Time};
use bytes::Bytes;

use crate::cluster::machine::Machine;

pub(crate) use on_disk::OnDiskNode;

/// A replica's process.
#[derive(Debug)]
pub(crate) enum Replica {
    /// Its state is rebuilt at each start from a snapshot and the log.
    InMemory(Box<Node<Machine>>),
    /// Its state is in redb on the disk.
    OnDisk(Box<OnDiskNode>),
}

impl Replica {
    pub(crate) fn handle(&mut self, now: Time, input: NodeInput, out: &mut Vec<NodeEffect>) {
        match self {
            Replica::InMemory(node) => node.handle(now, input, out),
            Replica::OnDisk(node) => node.handle(now, input, out),
        }
    }

    pub(crate) fn set_witness(&mut self, witness: Witness) {
        match self {
            Replica::InMemory(node) => node.set_witness(witness),
            Replica::OnDisk(node) => node.set_witness(witness),
        }
    }

    pub(crate) fn next_deadline(&self) -> Time {
        match self {
            Replica::InMemory(node) => node.next_deadline(),
            Replica::OnDisk(node) => node.next_deadline(),
        }
    }

    pub(crate) fn raft(&self) -> &Raft {
        match self {
            Replica::InMemory(node) => node.raft(),
            Replica::OnDisk(node) => node.raft(),
        }
    }

    pub(crate) fn machine(&self) -> &Machine {
        match self {
            Replica::InMemory(node) => node.machine(),
            Replica::OnDisk(node) => node.machine(),
        }
    }

    /// The answer to a client's read; see [`Machine::look`].
    pub(crate) fn look(&mut self, key: &str, query: &TxnRequest) -> Bytes {
        match self {
            Replica::InMemory(node) => node.machine().look(key, query),
            Replica::OnDisk(node) => node.look(key, query),
        }
    }

    pub(crate) fn is_in_transfer(&self) -> bool {
        match self {
            Replica::InMemory(node) => node.is_in_transfer(),
            Replica::OnDisk(node) => node.is_in_transfer(),
        }
    }

    /// The size of a snapshot of its state, in bytes.
    pub(crate) fn snapshot_bytes(&self) -> usize {
        match self {
            Replica::InMemory(node) => node.snapshot_bytes(),
            Replica::OnDisk(node) => node.snapshot_bytes(),
        }
    }

    pub(crate) fn unrestored_snapshots(&self) -> u64 {
        match self {
            Replica::InMemory(node) => node.unrestored_snapshots(),
            Replica::OnDisk(node) => node.unrestored_snapshots(),
        }
    }

    /// Why its state can't be read or written any more; see [`OnDiskNode::fault`].
    pub(crate) fn fault(&self) -> Option<&str> {
        match self {
            Replica::InMemory(_) => None,
            Replica::OnDisk(node) => node.fault(),
        }
    }

    /// The process, if its state is in a file.
    pub(crate) fn on_disk(&mut self) -> Option<&mut OnDiskNode> {
        match self {
            Replica::InMemory(_) => None,
            Replica::OnDisk(node) => Some(node),
        }
    }
}
