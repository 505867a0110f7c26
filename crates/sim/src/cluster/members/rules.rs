//! The rules of the members' records (I29), written down a second time, from etcd's: what a change must do, and when it
//! must be refused.

use std::collections::{BTreeMap, BTreeSet};

use bowline_kv::store::{KvError, Member, MemberChange, MemberUrls, Reply, Response};

/// The records as the committed log gives them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    /// Members with an alarm that they have no space.
    alarmed: BTreeSet<u64>,
}

impl Rules {
    pub(crate) fn get(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.members.keys().copied().collect()
    }

    pub(crate) fn removed(&self) -> Vec<u64> {
        self.removed.iter().copied().collect()
    }

    pub(crate) fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    pub(crate) fn alarmed(&self) -> &BTreeSet<u64> {
        &self.alarmed
    }

    /// An alarm of a member begins or ends.
    pub(crate) fn alarm(&mut self, id: u64, active: bool) {
        if active {
            self.alarmed.insert(id);
        } else {
            self.alarmed.remove(&id);
        }
    }

    /// A change takes effect with this reply. Returns whether it was done.
    ///
    /// # Errors
    /// The reply breaks a rule.
    pub(crate) fn took_effect(&mut self, change: &MemberChange, reply: &Reply) -> Result<bool, String> {
        let expected = self.after(change);
        let told = match (&expected, reply) {
            (Ok(members), Ok(Response::Member(response))) => members.values().eq(&response.members),
            (Err(error), Err(said)) => error == said,
            _ => false,
        };
        if !told {
            let expected = expected.map(|members| members.into_values().collect::<Vec<_>>());
            return Err(format!("{change:?} has the reply {reply:?} instead of {expected:?}"));
        }
        let Ok(members) = expected else { return Ok(false) };
        if let MemberChange::Remove(id) = change {
            self.removed.insert(*id);
            // A member that is gone has no alarm.
            self.alarmed.remove(id);
        }
        self.members = members;
        Ok(true)
    }

    /// The records after a change, or why it is refused.
    fn after(&self, change: &MemberChange) -> Result<BTreeMap<u64, Member>, KvError> {
        let mut after = self.members.clone();
        match change {
            MemberChange::Add(member) => {
                self.may_add(member)?;
                after.insert(member.id, member.clone());
            }
            MemberChange::Adopt(member) => {
                if !self.removed.contains(&member.id) {
                    after.entry(member.id).or_insert_with(|| member.clone());
                }
            }
            MemberChange::Update(MemberUrls { id, peer_urls }) => {
                self.has_no_other(*id, peer_urls)?;
                after.get_mut(id).ok_or(KvError::MemberNotFound)?.peer_urls.clone_from(peer_urls);
            }
            MemberChange::Remove(id) => {
                let gone = after.remove(id).ok_or(KvError::MemberNotFound)?;
                if !gone.is_learner && !has_quorum(after.values()) {
                    return Err(KvError::TooFewStarted);
                }
            }
            MemberChange::Publish(own) => {
                let record = after.get_mut(&own.id).ok_or(KvError::MemberNotFound)?;
                if record.incarnation != 0 && record.incarnation != own.incarnation {
                    return Err(KvError::OtherFolder);
                }
                let Member { is_learner, peer_urls, .. } = record.clone();
                *record = Member { is_learner, peer_urls, ..own.clone() };
            }
            MemberChange::Promote(id) => {
                let record = after.get_mut(id).ok_or(KvError::MemberNotFound)?;
                if !std::mem::take(&mut record.is_learner) {
                    return Err(KvError::NotLearner);
                }
            }
        }
        Ok(after)
    }

    fn may_add(&self, member: &Member) -> Result<(), KvError> {
        if member.peer_urls.is_empty() {
            return Err(KvError::BadMemberUrls);
        }
        if self.members.contains_key(&member.id) || self.removed.contains(&member.id) {
            return Err(KvError::MemberExists);
        }
        self.has_no_other(member.id, &member.peer_urls)?;
        if member.is_learner {
            let has_learner = self.members.values().any(|member| member.is_learner);
            return if has_learner { Err(KvError::TooManyLearners) } else { Ok(()) };
        }
        let alone = self.members.values().filter(|member| !member.is_learner).collect::<Vec<_>>();
        let second = alone.len() == 1 && alone[0].incarnation != 0;
        if second || has_quorum(self.members.values().chain([member])) { Ok(()) } else { Err(KvError::TooFewStarted) }
    }

    fn has_no_other(&self, id: u64, urls: &[String]) -> Result<(), KvError> {
        let others = || self.members.values().filter(|other| other.id != id);
        let shared = urls.iter().any(|url| others().any(|other| other.peer_urls.contains(url)));
        if shared { Err(KvError::PeerUrlExists) } else { Ok(()) }
    }
}

/// Whether more than half of the voters have started once.
fn has_quorum<'a>(members: impl Iterator<Item = &'a Member>) -> bool {
    let (mut voters, mut started) = (0, 0);
    for member in members.filter(|member| !member.is_learner) {
        voters += 1;
        started += usize::from(member.incarnation != 0);
    }
    started * 2 > voters
}
