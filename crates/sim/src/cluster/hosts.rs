//! All hosts, and questions about several of them: who leads, who could lead, and whose loss the cluster survives. The
//! only thing that changes here is who leads.

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};

use bowline_raft::{Group, Index, Membership, MembershipChange, NodeId, Position, Raft};

use crate::cluster::clock::Moment;
use crate::cluster::host::Host;

/// Maximum number of voters in a change that is asked for.
const MOST_VOTERS: usize = 9;
/// Maximum number of disks that may be lost for good.
const MOST_LOST: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Hosts {
    hosts: Vec<Host>,
    /// Those that lead in their own view, the latest last.
    leading: Vec<usize>,
    /// When the latest of them began to lead.
    pub(crate) led_since: Moment,
}

impl Deref for Hosts {
    type Target = [Host];

    fn deref(&self) -> &[Host] {
        &self.hosts
    }
}

impl DerefMut for Hosts {
    fn deref_mut(&mut self) -> &mut [Host] {
        &mut self.hosts
    }
}

/// Who leads.
impl Hosts {
    pub(crate) fn push(&mut self, host: Host) {
        self.hosts.push(host);
    }

    pub(crate) fn leading(&self) -> &[usize] {
        &self.leading
    }

    /// The host that became leader last.
    pub(crate) fn last_leader(&self) -> Option<usize> {
        self.leading.last().copied()
    }

    /// The latest leader with its core, if it is up.
    pub(crate) fn leader(&self) -> Option<(usize, &Raft)> {
        let leader = self.last_leader()?;
        Some((leader, self.raft(leader)?))
    }

    /// The latest leader, unless its process is paused.
    pub(crate) fn running_leader(&self) -> Option<usize> {
        self.last_leader().filter(|leader| !self[*leader].paused)
    }

    pub(crate) fn leads(&mut self, host: usize, now: Moment) {
        self.leading.push(host);
        self.led_since = now;
    }

    pub(crate) fn leads_no_more(&mut self, host: usize) {
        self.leading.retain(|leader| *leader != host);
    }

    /// The core of a replica that is up.
    pub(crate) fn raft(&self, host: usize) -> Option<&Raft> {
        self[host].node.as_ref().map(|node| node.raft())
    }

    /// The leader among `core` with the highest term, if it has committed in its term.
    pub(crate) fn led_by(&self, core: &BTreeSet<usize>) -> Option<usize> {
        let leader = self.leading.iter().copied().filter(|host| core.contains(host));
        let leader = leader.max_by_key(|host| self.raft(*host).map(Raft::term))?;
        let raft = self.raft(leader)?;
        let commits = raft.log().term_at(raft.commit_index()) == Some(raft.term());
        commits.then_some(leader)
    }
}

/// Whose loss the cluster survives. `committed` is the number of entries that are committed anywhere.
impl Hosts {
    pub(crate) fn is_lost(&self, id: NodeId) -> bool {
        self.get(id.0 as usize - 1).is_none_or(|host| host.lost)
    }

    /// Whether a majority of these voters still has its disk, also without `except`.
    fn is_alive(&self, voters: &BTreeSet<NodeId>, except: Option<usize>) -> bool {
        let intact = |id: &&NodeId| {
            let host = id.0 as usize - 1;
            self.get(host).is_some_and(|it| !it.lost && Some(host) != except && !it.disk.is_suspect())
        };
        voters.iter().filter(intact).count() * 2 > voters.len()
    }

    /// Whether this change may be asked for: a majority of the new voters must still have their disks.
    pub(crate) fn survives(&self, leader: &Raft, change: &MembershipChange) -> bool {
        let mut voters = leader.membership().incoming().voters.clone();
        match change {
            MembershipChange::Promote(id) => {
                voters.insert(*id);
            }
            MembershipChange::Remove(id) | MembershipChange::Demote(id) => {
                voters.remove(id);
            }
            MembershipChange::Replace(Group { voters: group, .. }) => voters.clone_from(group),
            MembershipChange::AddLearner(_) | MembershipChange::Revert => {}
        }
        self.is_alive(&voters, None) && voters.len() <= MOST_VOTERS
    }

    /// Whether nothing that may be in force depends on this disk.
    pub(crate) fn may_lose(&self, host: usize, committed: u64) -> bool {
        // While one disk is suspect, the others must keep what it lost.
        if self.iter().any(|it| it.disk.is_suspect()) {
            return false;
        }
        if self[host].lost || self.iter().filter(|it| it.lost).count() >= MOST_LOST {
            return false;
        }
        let left = (0..self.len()).filter(|other| !self[*other].lost && *other != host).collect();
        self.memberships_in_force(committed).iter().all(|group| self.is_alive(group, Some(host)))
            && self.can_elect(&left)
    }

    /// Whether these could elect a leader if they were all healthy: one of them must be a voter in its own
    /// configuration, and those whose logs are not newer must be a quorum of it.
    pub(crate) fn can_elect(&self, hosts: &BTreeSet<usize>) -> bool {
        let able: BTreeSet<usize> = hosts.iter().copied().filter(|host| !self[*host].disk.is_suspect()).collect();
        able.iter().any(|candidate| {
            let (last, membership) = self.log_of(*candidate);
            let votes = |id: NodeId| {
                let host = id.0 as usize - 1;
                able.contains(&host) && self.log_of(host).0 <= last
            };
            let voters = membership.voters();
            !voters.is_empty() && voters.contains(&self[*candidate].id) && membership.quorum().is_reached_by(votes)
        })
    }

    /// The last position and the configuration of a replica's log.
    fn log_of(&self, host: usize) -> (Position, Membership) {
        let it = &self[host];
        if it.node.is_some() {
            return (it.shadow.last(), it.shadow.membership().clone());
        }
        let last = it.disk.last();
        (last, it.disk.memberships_since(last.index).last().map_or_else(Membership::default, |last| (*last).clone()))
    }

    /// The voters of every group that may decide something, now or after a crash: the groups at the commit index and
    /// later, in all logs that hold what is committed. Other logs decide nothing: no majority of the group in force
    /// would elect their replicas.
    pub(crate) fn memberships_in_force(&self, committed: u64) -> BTreeSet<BTreeSet<NodeId>> {
        let committed = Index(committed);
        let mut groups = BTreeSet::new();
        let mut note = |membership: &Membership| {
            groups.insert(membership.incoming().voters.clone());
            groups.extend(membership.outgoing().map(|group| group.voters.clone()));
        };
        for host in self.iter().filter(|host| !host.lost) {
            if host.node.is_some() && host.shadow.last().index >= committed {
                host.shadow.memberships_since(committed).for_each(&mut note);
            } else if host.node.is_none() && host.disk.last().index >= committed {
                host.disk.memberships_since(committed).into_iter().for_each(&mut note);
            }
        }
        groups.remove(&BTreeSet::new());
        groups
    }
}
