//! The members, their addresses, and their introductions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_node::raft::NodeId;
use tokio::sync::Notify;

use super::handshake::{Hello, Identity, Introduction};
use super::traffic::Traffic;
use super::version::{self, Protocol};

/// The members of the cluster, as one of them knows them. Copies share their contents.
#[derive(Clone, Debug)]
pub struct Directory {
    own: Identity,
    protocol: Protocol,
    introduction: Introduction,
    /// Host and port of each member's peer port.
    addresses: Arc<BTreeMap<NodeId, String>>,
    heard: Arc<Mutex<BTreeMap<NodeId, Heard>>>,
    /// For each member, wakes the tasks that wait for it to connect.
    knocks: Arc<BTreeMap<NodeId, Notify>>,
    traffic: Arc<BTreeMap<NodeId, Arc<Traffic>>>,
    cluster_version: Arc<AtomicU32>,
}

#[derive(Clone, Debug)]
struct Heard {
    /// The incarnation of its data folder.
    incarnation: u64,
    introduction: Introduction,
}

impl Directory {
    /// A directory of these members, including this one, with this member's name and its address for clients.
    #[must_use]
    pub fn new(
        own: Identity,
        protocol: Protocol,
        (name, client_url): (&str, &str),
        addresses: BTreeMap<NodeId, String>,
    ) -> Directory {
        let introduction = Introduction::new(name, client_url, protocol);
        let knocks = addresses.keys().map(|id| (*id, Notify::new())).collect();
        let traffic = addresses.keys().map(|id| (*id, Arc::default())).collect();
        let (addresses, knocks, traffic) = (Arc::new(addresses), Arc::new(knocks), Arc::new(traffic));
        let (heard, cluster_version) = (Arc::default(), Arc::default());
        Directory { own, protocol, introduction, addresses, heard, knocks, traffic, cluster_version }
    }

    /// The identity of this member.
    #[must_use]
    pub fn own(&self) -> Identity {
        self.own
    }

    /// The peer protocol of this member.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The introduction of this member.
    #[must_use]
    pub fn own_introduction(&self) -> &Introduction {
        &self.introduction
    }

    /// All members, with host and port of their peer port.
    pub fn addresses(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.addresses.iter().map(|(id, address)| (*id, address.as_str()))
    }

    /// All members but this one, with host and port.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.addresses().filter(|(id, _)| *id != self.own.replica)
    }

    /// The traffic with a member.
    #[must_use]
    pub fn traffic(&self, id: NodeId) -> Arc<Traffic> {
        // There is no traffic with anybody else.
        self.traffic.get(&id).cloned().unwrap_or_default()
    }

    /// The introduction of a member; empty before it was received.
    #[must_use]
    pub fn introduction(&self, id: NodeId) -> Introduction {
        if id == self.own.replica {
            return self.introduction.clone();
        }
        self.lock().get(&id).map(|heard| heard.introduction.clone()).unwrap_or_default()
    }

    /// Stores the introduction of a member.
    ///
    /// # Errors
    /// It is not another member, it has a different data folder than before, or its program is too old for the cluster;
    /// the text tells which.
    pub fn hear(&self, id: NodeId, incarnation: u64, introduction: &Introduction) -> Result<(), String> {
        if id == self.own.replica || !self.addresses.contains_key(&id) {
            return Err(format!("member {} is not another member of this cluster: check --initial-cluster", id.0));
        }
        version::check(self.cluster_version.load(Relaxed), id, introduction.version)?;
        let mut all = self.lock();
        if all.get(&id).is_some_and(|heard| heard.incarnation != incarnation) {
            // It may have voted and acknowledged entries with the other folder, and has forgotten that now.
            return Err(format!(
                "member {} has a different data folder than before: start it with the earlier one, or with a copy of \
                 that; a member whose folder is lost can't be replaced yet",
                id.0
            ));
        }
        all.insert(id, Heard { incarnation, introduction: introduction.clone() });
        Ok(())
    }

    /// Sets the version of the cluster, from which on members with older programs are refused.
    pub fn set_cluster_version(&self, version: u32) {
        self.cluster_version.fetch_max(version, Relaxed);
    }

    /// Like [`Directory::hear`], for a member that connects; also wakes the tasks that wait for it.
    ///
    /// # Errors
    /// See [`Directory::hear`].
    pub fn judge(&self, hello: &Hello) -> Result<(), String> {
        let from = hello.from.replica;
        self.hear(from, hello.from.incarnation, &hello.introduction)?;
        if let Some(knock) = self.knocks.get(&from) {
            knock.notify_waiters();
        }
        Ok(())
    }

    /// Waits until a member connects: then it can probably be reached, too.
    pub async fn knocked(&self, id: NodeId) {
        match self.knocks.get(&id) {
            Some(knock) => knock.notified().await,
            None => std::future::pending().await,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Heard>> {
        // Every change is complete before the lock is released, even after a panic.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let own = Identity { cluster: 7, replica: NodeId(1), incarnation: 1 };
        let addresses = (1..=3).map(|id| (NodeId(id), format!("host{id}:2380"))).collect();
        Directory::new(own, Protocol::CURRENT, ("one", "http://one"), addresses)
    }

    #[test]
    fn only_other_members_are_heard() {
        let directory = directory();
        let two = Introduction::new("two", "http://two", Protocol::CURRENT);
        assert_eq!(directory.introduction(NodeId(2)), Introduction::default());
        assert_eq!(directory.hear(NodeId(2), 1, &two), Ok(()));
        assert_eq!(directory.introduction(NodeId(2)), two);
        assert!(directory.hear(NodeId(1), 1, &two).is_err(), "nobody else is this member");
        assert!(directory.hear(NodeId(4), 1, &two).is_err(), "there is no such member");
        assert_eq!(directory.peers().count(), 2);
    }

    #[test]
    fn a_program_that_is_too_old_for_the_cluster_is_refused() {
        let directory = directory();
        let two = Introduction { version: 5, ..Introduction::new("two", "http://two", Protocol::CURRENT) };
        directory.set_cluster_version(5);
        assert_eq!(directory.hear(NodeId(2), 1, &two), Ok(()));
        directory.set_cluster_version(4);
        let error = directory.hear(NodeId(2), 1, &Introduction { version: 4, ..two }).expect_err("too old");
        assert!(error.starts_with("the cluster has version 5 of the peer protocol, but the program of member 2"));
    }

    #[test]
    fn another_folder_under_a_known_id_is_refused() {
        let directory = directory();
        let two = Introduction::default();
        assert_eq!(directory.hear(NodeId(2), 5, &two), Ok(()));
        assert_eq!(directory.hear(NodeId(2), 5, &two), Ok(()));
        assert!(directory.hear(NodeId(2), 6, &two).is_err());
        assert!(directory.hear(NodeId(2), 4, &two).is_err());
        assert_eq!(directory.hear(NodeId(3), 4, &two), Ok(()));
    }

    #[tokio::test]
    async fn whoever_connects_is_tried_at_once() {
        let directory = directory();
        let from = Identity { cluster: 7, replica: NodeId(2), incarnation: 5 };
        let (introduction, channel) = (Introduction::default(), super::super::handshake::Channel::Control);
        let hello = Hello { from, to: NodeId(1), channel, introduction };
        let (other, waiting) = (directory.clone(), directory.clone());
        let knocked = tokio::spawn(async move { waiting.knocked(NodeId(2)).await });
        tokio::task::yield_now().await;
        assert!(!knocked.is_finished());
        other.judge(&hello).expect("it is a member");
        knocked.await.expect("it is told");
    }
}
