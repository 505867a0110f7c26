//! The records of the cluster's members: who they are, and where they can be reached.
//!
//! The records say which members the cluster shall have. The configuration of the consensus core follows them: the
//! leader changes it, step by step, until it has the members of the records.
//!
//! The rules are etcd's, and so are the texts of their errors.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::engine::Engine;
use super::read::Failure;
use super::types::{Member, MemberChange, MemberRequest, MemberResponse, MemberUrls};
use super::{KvError, Store};

/// Most members of a cluster; the consensus core allows no more.
pub(crate) const MAX_MEMBERS: usize = 64;

/// Most learners of a cluster, as in etcd. Voters that still catch up don't count.
const MAX_LEARNERS: usize = 1;

/// Most addresses of one kind that a member may have.
const MAX_URLS: usize = 16;

/// Longest address or name, in bytes.
const MAX_TEXT: usize = 300;

/// How many removed members are remembered, so that they can be told.
const MAX_REMOVED: usize = 128;

/// The records of the members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    records: BTreeMap<u64, Member>,
    /// The latest removed members, the oldest first.
    removed: VecDeque<u64>,
}

/// The records in a note or a snapshot. Field numbers never change.
#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(message, repeated, tag = "1")]
    members: Vec<Member>,
    #[prost(fixed64, repeated, tag = "2")]
    removed: Vec<u64>,
}

impl Members {
    /// Whether there is neither a record nor a removed member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.removed.is_empty()
    }

    /// The record of a member.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Member> {
        self.records.get(&id)
    }

    /// All records, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.records.values()
    }

    /// Whether a member was removed. Only the latest 128 are remembered.
    #[must_use]
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// The removed members that are remembered, the oldest first.
    pub fn removed(&self) -> impl Iterator<Item = u64> {
        self.removed.iter().copied()
    }

    pub(crate) fn encode(&self) -> Bytes {
        let members = self.records.values().cloned().collect();
        Note { members, removed: self.removed.iter().copied().collect() }.encode_to_vec().into()
    }

    /// Reads what [`Members::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are no records, or these break a rule.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Members, String> {
        let Note { members, removed } = Note::decode(bytes).map_err(|error| format!("its members: {error}"))?;
        let count = (members.len(), removed.len());
        let records: BTreeMap<u64, Member> = members.into_iter().map(|member| (member.id, member)).collect();
        let sound = count.0 <= MAX_MEMBERS && count.1 <= MAX_REMOVED && records.len() == count.0;
        let members = Members { records, removed: removed.into() };
        let checked = members.iter().all(|member| check(member).is_ok() && !members.is_removed(member.id));
        if sound && checked { Ok(members) } else { Err("its members break a rule".to_owned()) }
    }

    /// Makes a change.
    ///
    /// # Errors
    /// A rule forbids it; nothing has changed then.
    fn change(&mut self, change: &MemberChange) -> Result<(), KvError> {
        match change {
            MemberChange::Add(member) => self.add(member),
            MemberChange::Adopt(member) => {
                let known = self.records.contains_key(&member.id) || self.is_removed(member.id);
                if !known && self.records.len() < MAX_MEMBERS {
                    self.records.insert(member.id, member.clone());
                }
                Ok(())
            }
            MemberChange::Update(MemberUrls { id, peer_urls }) => {
                self.refuse_doubled(*id, peer_urls)?;
                self.record(*id)?.peer_urls.clone_from(peer_urls);
                Ok(())
            }
            MemberChange::Remove(id) => self.remove(*id),
            MemberChange::Publish(member) => {
                let record = self.record(member.id)?;
                if ![0, member.incarnation].contains(&record.incarnation) {
                    return Err(KvError::OtherFolder);
                }
                record.incarnation = member.incarnation;
                record.name.clone_from(&member.name);
                record.client_urls.clone_from(&member.client_urls);
                Ok(())
            }
            MemberChange::Promote(id) => {
                let record = self.record(*id)?;
                if !record.is_learner {
                    return Err(KvError::NotLearner);
                }
                record.is_learner = false;
                Ok(())
            }
        }
    }

    fn record(&mut self, id: u64) -> Result<&mut Member, KvError> {
        self.records.get_mut(&id).ok_or(KvError::MemberNotFound)
    }

    fn add(&mut self, member: &Member) -> Result<(), KvError> {
        if self.records.contains_key(&member.id) || self.is_removed(member.id) {
            return Err(KvError::MemberExists);
        }
        self.refuse_doubled(member.id, &member.peer_urls)?;
        if self.records.len() >= MAX_MEMBERS {
            return Err(KvError::TooManyMembers);
        }
        if member.is_learner {
            let learners = self.iter().filter(|member| member.is_learner).count();
            if learners >= MAX_LEARNERS {
                return Err(KvError::TooManyLearners);
            }
        } else {
            let (voters, started) = self.voters_without(member.id);
            // As in etcd: a single member may always get a second one.
            let first = voters == 1 && started == 1;
            if !first && started < majority(voters + 1) {
                return Err(KvError::TooFewStarted);
            }
        }
        self.records.insert(member.id, member.clone());
        Ok(())
    }

    fn remove(&mut self, id: u64) -> Result<(), KvError> {
        let is_learner = self.record(id)?.is_learner;
        let (voters, started) = self.voters_without(id);
        if !is_learner && started < majority(voters) {
            return Err(KvError::TooFewStarted);
        }
        self.records.remove(&id);
        if self.removed.len() == MAX_REMOVED {
            self.removed.pop_front();
        }
        self.removed.push_back(id);
        Ok(())
    }

    /// # Errors
    /// Another member has one of these addresses.
    fn refuse_doubled(&self, id: u64, peer_urls: &[String]) -> Result<(), KvError> {
        let mut others = self.iter().filter(|member| member.id != id);
        let doubled = others.any(|other| other.peer_urls.iter().any(|url| peer_urls.contains(url)));
        if doubled { Err(KvError::PeerUrlExists) } else { Ok(()) }
    }

    /// How many voters there are besides one, and how many of them have started once.
    fn voters_without(&self, id: u64) -> (usize, usize) {
        let voters = || self.iter().filter(|member| member.id != id && !member.is_learner);
        (voters().count(), voters().filter(|member| member.has_started()).count())
    }
}

fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

impl Member {
    /// Whether it has started once, and published its name.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.incarnation != 0
    }
}

impl MemberRequest {
    /// Whether it follows the rules that don't depend on the state.
    ///
    /// # Errors
    /// [`KvError::BadMemberUrls`]; or [`KvError::Unreadable`], which only a bug in a server can cause.
    pub fn check(&self) -> Result<(), KvError> {
        match self.change.as_ref().ok_or(KvError::Unreadable)? {
            MemberChange::Add(member) | MemberChange::Adopt(member) => {
                if member.peer_urls.is_empty() {
                    return Err(KvError::BadMemberUrls);
                }
                check(member)
            }
            MemberChange::Publish(member) if member.incarnation == 0 => Err(KvError::Unreadable),
            MemberChange::Publish(member) => check(member),
            MemberChange::Update(MemberUrls { peer_urls, .. }) if peer_urls.is_empty() => Err(KvError::BadMemberUrls),
            MemberChange::Update(MemberUrls { peer_urls, .. }) => check_urls(peer_urls),
            MemberChange::Remove(_) | MemberChange::Promote(_) => Ok(()),
        }
    }
}

fn check(member: &Member) -> Result<(), KvError> {
    if member.id == 0 || member.name.len() > MAX_TEXT {
        return Err(KvError::Unreadable);
    }
    check_urls(&member.peer_urls)?;
    check_urls(&member.client_urls)
}

fn check_urls(urls: &[String]) -> Result<(), KvError> {
    let good = urls.len() <= MAX_URLS && urls.iter().all(|url| (1..=MAX_TEXT).contains(&url.len()));
    if good { Ok(()) } else { Err(KvError::BadMemberUrls) }
}

impl<E: Engine> Store<E> {
    /// The records of the members. Copies share their contents.
    #[must_use]
    pub fn members(&self) -> &Arc<Members> {
        &self.meta.members
    }

    pub(crate) fn change_member(&mut self, request: &MemberRequest) -> Result<MemberResponse, Failure> {
        request.check()?;
        let change = request.change.as_ref().ok_or(KvError::Unreadable)?;
        let mut members = Members::clone(&self.meta.members);
        members.change(change)?;
        if let MemberChange::Remove(id) = change {
            self.meta.alarms.forget(*id);
            self.meta.comparison.forget(*id);
        }
        // Whoever watches the records compares pointers.
        if members != *self.meta.members {
            self.meta.members = Arc::new(members);
        }
        Ok(MemberResponse { revision: self.meta.revision, members: self.meta.members.iter().cloned().collect() })
    }
}
