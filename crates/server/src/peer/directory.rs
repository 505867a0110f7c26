//! The members, their addresses, and their introductions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline_kv::store::Members;
use bowline_member::check_version;
use bowline_node::raft::{Membership, NodeId};
use bowline_tls::Keeper;
use tokio::sync::{Notify, watch};

use super::handshake::{ClusterInfo, Hello, Identity, Introduction, MemberInfo, Refusal};
use super::traffic::Traffic;
use super::version::Protocol;
use crate::config::Url;

/// The members of the cluster, as one of them knows them. Copies share their contents.
#[derive(Clone, Debug)]
pub struct Directory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    own: Identity,
    protocol: Protocol,
    introduction: Introduction,
    tls: Option<Arc<Keeper>>,
    /// Host and port of the peer port of the members that this one knew at its start.
    first: BTreeMap<NodeId, String>,
    known: Mutex<Known>,
    /// Counts the changes of the peers.
    changes: watch::Sender<u64>,
    /// Whether another member said that this one was removed.
    removed: watch::Sender<bool>,
    cluster_version: AtomicU32,
}

#[derive(Debug, Default)]
struct Known {
    members: Arc<Members>,
    membership: Arc<Membership>,
    /// All members but this one.
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    heard: Option<Heard>,
    /// Wakes the tasks that wait for it to connect.
    knock: Arc<Notify>,
    traffic: Arc<Traffic>,
}

#[derive(Clone, Debug)]
struct Heard {
    /// The incarnation of its data folder.
    incarnation: u64,
    introduction: Introduction,
}

impl Directory {
    /// The directory of a member, which introduces itself so. `first`: host and port of the peer port of each member
    /// that it knows at its start. They count until the state has records of members. `tls`: how members talk to each
    /// other; without it, in plain text.
    #[must_use]
    pub fn new(
        own: Identity,
        protocol: Protocol,
        introduction: Introduction,
        first: BTreeMap<NodeId, String>,
        tls: Option<Arc<Keeper>>,
    ) -> Directory {
        let (known, changes, removed) = (Mutex::default(), watch::Sender::new(0), watch::Sender::new(false));
        let cluster_version = AtomicU32::new(0);
        let directory = Directory(Arc::new(Shared {
            own,
            protocol,
            introduction,
            tls,
            first,
            known,
            changes,
            removed,
            cluster_version,
        }));
        directory.follow(&Arc::default(), &Arc::default());
        directory
    }

    /// The identity of this member.
    #[must_use]
    pub fn own(&self) -> Identity {
        self.0.own
    }

    /// The peer protocol of this member.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.0.protocol
    }

    /// The introduction of this member.
    #[must_use]
    pub fn own_introduction(&self) -> &Introduction {
        &self.0.introduction
    }

    /// The TLS between members, if there is any.
    pub(super) fn tls(&self) -> Option<&Arc<Keeper>> {
        self.0.tls.as_ref()
    }

    /// The address with scheme of a member's peer port, from its host and port.
    #[must_use]
    pub fn url(&self, authority: &str) -> String {
        let scheme = if self.0.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{authority}")
    }

    /// Takes the present records and the present configuration.
    pub fn follow(&self, members: &Arc<Members>, membership: &Arc<Membership>) {
        let mut known = self.lock();
        (known.members, known.membership) = (Arc::clone(members), Arc::clone(membership));
        let mut ids = membership.members();
        match members.iter().next() {
            Some(_) => ids.extend(members.iter().map(|member| NodeId(member.id))),
            None => ids.extend(self.0.first.keys()),
        }
        // A removed member takes part until the configuration is without it.
        ids.retain(|id| *id != self.0.own.replica && !known.is_gone(*id));
        let before = known.peers.keys().copied().collect::<BTreeSet<_>>();
        known.peers.retain(|id, _| ids.contains(id));
        for id in &ids {
            known.peers.entry(*id).or_default();
        }
        drop(known);
        if before != ids {
            self.0.changes.send_modify(|count| *count += 1);
        }
    }

    /// All members but this one.
    #[must_use]
    pub fn peers(&self) -> BTreeSet<NodeId> {
        self.lock().peers.keys().copied().collect()
    }

    /// Waits until a member is one no longer.
    pub async fn left(&self, id: NodeId) {
        let mut changes = self.0.changes.subscribe();
        while self.lock().peers.contains_key(&id) {
            // The sender lives as long as this directory.
            let _ = changes.changed().await;
        }
    }

    /// Host and port of a member's peer port, if it is known. A member may have several addresses: each attempt gets
    /// the next one.
    #[must_use]
    pub fn address(&self, id: NodeId, attempt: usize) -> Option<String> {
        let known = self.lock();
        let record = known.members.get(id.0).filter(|record| !record.peer_urls.is_empty());
        let recorded = record.map(|record| record.peer_urls[attempt % record.peer_urls.len()].as_str());
        let heard = known.peers.get(&id).and_then(|peer| peer.heard.as_ref());
        let told = heard.map(|heard| heard.introduction.peer_url.as_str()).filter(|url| !url.is_empty());
        let url = recorded.or(told).and_then(Url::parse).map(|url| url.authority().to_owned());
        url.or_else(|| self.0.first.get(&id).cloned())
    }

    /// The traffic with a member.
    #[must_use]
    pub fn traffic(&self, id: NodeId) -> Arc<Traffic> {
        // There is no traffic with anybody else.
        self.lock().peers.get(&id).map(|peer| Arc::clone(&peer.traffic)).unwrap_or_default()
    }

    /// The introduction of a member; empty before it was received.
    #[must_use]
    pub fn introduction(&self, id: NodeId) -> Introduction {
        if id == self.0.own.replica {
            return self.0.introduction.clone();
        }
        let known = self.lock();
        let heard = known.peers.get(&id).and_then(|peer| peer.heard.as_ref());
        heard.map(|heard| heard.introduction.clone()).unwrap_or_default()
    }

    /// Stores the introduction of a member.
    ///
    /// # Errors
    /// It is not another member, it has a different data folder than before, or its program is too old for the cluster;
    /// the text tells which.
    pub fn hear(&self, id: NodeId, incarnation: u64, introduction: &Introduction) -> Result<(), Refusal> {
        let mut known = self.lock();
        if known.is_gone(id) {
            return Err(Refusal::Removed(format!("member {:x} was removed from the cluster", id.0)));
        }
        let recorded = known.members.get(id.0).map(|record| record.incarnation).filter(|recorded| *recorded != 0);
        let Some(peer) = known.peers.get_mut(&id) else {
            let text = "is not another member of this cluster: check --initial-cluster, or add it with \
                        `bowline member add`";
            return Err(Refusal::Reason(format!("member {:x} {text}", id.0)));
        };
        check_version(self.0.cluster_version.load(Relaxed), id, introduction.version).map_err(Refusal::Reason)?;
        let before = recorded.or(peer.heard.as_ref().map(|heard| heard.incarnation));
        if before.is_some_and(|before| before != incarnation) {
            // It may have voted and acknowledged entries with the other folder, and has forgotten that now.
            return Err(Refusal::Reason(format!(
                "member {:x} has a different data folder than before: start it with the earlier one; if that is lost, \
                 replace the member: bowline join --replace {:x}",
                id.0, id.0
            )));
        }
        peer.heard = Some(Heard { incarnation, introduction: introduction.clone() });
        Ok(())
    }

    /// Sets the version of the cluster, from which on members with older programs are refused.
    pub fn set_cluster_version(&self, version: u32) {
        self.0.cluster_version.fetch_max(version, Relaxed);
    }

    /// Like [`Directory::hear`], for a member that connects; also wakes the tasks that wait for it.
    ///
    /// # Errors
    /// See [`Directory::hear`].
    pub fn judge(&self, hello: &Hello) -> Result<(), Refusal> {
        let from = hello.from.replica;
        self.hear(from, hello.from.incarnation, &hello.introduction)?;
        if let Some(peer) = self.lock().peers.get(&from) {
            peer.knock.notify_waiters();
        }
        Ok(())
    }

    /// Waits until a member connects: then it can probably be reached, too.
    pub async fn knocked(&self, id: NodeId) {
        let knock = self.lock().peers.get(&id).map(|peer| Arc::clone(&peer.knock));
        match knock {
            Some(knock) => knock.notified().await,
            None => std::future::pending().await,
        }
    }

    /// What a new member asks for before it starts.
    #[must_use]
    pub fn cluster(&self) -> ClusterInfo {
        let known = self.lock();
        let of = |record: &bowline_kv::store::Member| MemberInfo {
            id: record.id,
            peer_urls: record.peer_urls.clone(),
            has_started: record.has_started(),
        };
        let mut members: Vec<MemberInfo> = known.members.iter().map(of).collect();
        if members.is_empty() {
            let first = self.0.first.iter();
            members.extend(first.map(|(id, address)| MemberInfo {
                id: id.0,
                peer_urls: vec![self.url(address)],
                has_started: true,
            }));
        }
        ClusterInfo { cluster: self.0.own.cluster, members }
    }

    /// Notes that another member says that this one was removed.
    pub(super) fn note_removal(&self) {
        self.0.removed.send_replace(true);
    }

    /// Whether another member said that this one was removed from the cluster.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        *self.0.removed.borrow()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change is complete before the lock is released, even after a panic.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether a member was removed, and the configuration is without it.
    fn is_gone(&self, id: NodeId) -> bool {
        self.members.is_removed(id.0) && !self.membership.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use bowline_kv::store::{Command, Member, MemberChange, MemberRequest, MemoryEngine, Store};
    use bowline_node::raft::{Group, Index};

    use super::*;

    /// The records after these changes.
    fn records(changes: Vec<MemberChange>) -> Arc<Members> {
        let mut store = Store::open(MemoryEngine::default()).expect("memory does not fail");
        for (index, change) in (1..).zip(changes) {
            let command = Command::Member(MemberRequest { change: Some(change) });
            store.apply_command(Index(index), &command).expect("a good change");
        }
        Arc::clone(store.members())
    }

    fn fresh() -> Directory {
        let own = Identity { cluster: 7, replica: NodeId(1), incarnation: 1 };
        let first = (1..=3).map(|id| (NodeId(id), format!("host{id}:2380"))).collect();
        Directory::new(own, Protocol::CURRENT, Introduction::new("one", "http://one", Protocol::CURRENT), first, None)
    }

    fn adopted(id: u64, incarnation: u64) -> MemberChange {
        let peer_urls = vec![format!("http://recorded{id}:1"), format!("http://recorded{id}:2")];
        MemberChange::Adopt(Member { id, peer_urls, incarnation, ..Member::default() })
    }

    fn membership(ids: &[u64]) -> Arc<Membership> {
        Arc::new(Membership::simple(Group::of_voters(ids.iter().copied().map(NodeId))))
    }

    fn reason(refused: Result<(), Refusal>) -> String {
        match refused {
            Err(Refusal::Reason(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_other_members_are_heard() {
        let directory = fresh();
        let two = Introduction::new("two", "http://two", Protocol::CURRENT);
        assert_eq!(directory.introduction(NodeId(2)), Introduction::default());
        assert_eq!(directory.hear(NodeId(2), 1, &two), Ok(()));
        assert_eq!(directory.introduction(NodeId(2)), two);
        assert!(directory.hear(NodeId(1), 1, &two).is_err(), "nobody else is this member");
        assert!(directory.hear(NodeId(4), 1, &two).is_err(), "there is no such member");
        assert_eq!(directory.peers().len(), 2);
    }

    #[test]
    fn a_program_that_is_too_old_for_the_cluster_is_refused() {
        let directory = fresh();
        let two = Introduction { version: 5, ..Introduction::new("two", "http://two", Protocol::CURRENT) };
        directory.set_cluster_version(5);
        assert_eq!(directory.hear(NodeId(2), 1, &two), Ok(()));
        directory.set_cluster_version(4);
        let error = reason(directory.hear(NodeId(2), 1, &Introduction { version: 4, ..two }));
        assert!(error.starts_with("the cluster has version 5 of the peer protocol, but the program of member 2"));
    }

    #[test]
    fn another_folder_under_a_known_id_is_refused() {
        let directory = fresh();
        let two = Introduction::default();
        assert_eq!(directory.hear(NodeId(2), 5, &two), Ok(()));
        assert_eq!(directory.hear(NodeId(2), 5, &two), Ok(()));
        assert!(directory.hear(NodeId(2), 6, &two).is_err());
        assert!(directory.hear(NodeId(2), 4, &two).is_err());
        assert_eq!(directory.hear(NodeId(3), 4, &two), Ok(()));
        let fresh = fresh();
        fresh.follow(&records(vec![adopted(2, 5)]), &membership(&[1, 2, 3]));
        let told = reason(fresh.hear(NodeId(2), 6, &two));
        assert!(told.contains("a different data folder than before"), "the record outlasts restarts: {told}");
    }

    #[test]
    fn members_come_and_go_with_the_records_and_the_configuration() {
        let directory = fresh();
        let ids = |directory: &Directory| directory.peers().into_iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(ids(&directory), [2, 3]);
        let told = Introduction { peer_url: "http://told:9".to_owned(), ..Introduction::default() };
        // It is in the configuration, but its record is not applied here yet.
        directory.follow(&Arc::default(), &membership(&[1, 2, 4]));
        assert_eq!(ids(&directory), [2, 3, 4]);
        assert_eq!(directory.address(NodeId(4), 0), None);
        assert_eq!(directory.hear(NodeId(4), 1, &told), Ok(()));
        assert_eq!(directory.address(NodeId(4), 0).as_deref(), Some("told:9"));
        directory.follow(&records(vec![adopted(1, 0), adopted(2, 0), adopted(4, 0)]), &membership(&[1, 2, 4]));
        assert_eq!(ids(&directory), [2, 4], "a member that was only known at the start is none");
        assert_eq!(directory.address(NodeId(4), 0).as_deref(), Some("recorded4:1"));
        assert_eq!(directory.address(NodeId(4), 1).as_deref(), Some("recorded4:2"));
        assert_eq!(directory.introduction(NodeId(4)), told, "what was heard is kept");
        let without = records(vec![adopted(1, 1), adopted(2, 1), adopted(4, 1), MemberChange::Remove(4)]);
        directory.follow(&without, &membership(&[1, 2, 4]));
        assert_eq!(ids(&directory), [2, 4], "it takes part until the configuration is without it");
        directory.follow(&without, &membership(&[1, 2]));
        assert_eq!(ids(&directory), [2]);
        assert!(matches!(directory.hear(NodeId(4), 1, &told), Err(Refusal::Removed(_))));
        assert!(!directory.is_removed());
        directory.note_removal();
        assert!(directory.is_removed());
    }

    #[tokio::test]
    async fn whoever_connects_is_tried_at_once() {
        let directory = fresh();
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

    #[tokio::test]
    async fn whoever_serves_a_member_learns_that_it_has_left() {
        let directory = fresh();
        let waiting = directory.clone();
        let left = tokio::spawn(async move { waiting.left(NodeId(3)).await });
        directory.follow(&records(vec![adopted(1, 0), adopted(2, 0), adopted(3, 0)]), &membership(&[1, 2, 3]));
        tokio::task::yield_now().await;
        assert!(!left.is_finished());
        directory.follow(&records(vec![adopted(1, 0), adopted(2, 0)]), &membership(&[1, 2]));
        left.await.expect("it is told");
    }
}
