//! Alarms: the replicated reasons why the store refuses requests.
//!
//! An alarm belongs to a member and has a kind, and one alarm is enough for the whole cluster. With an alarm
//! [`AlarmKind::NoSpace`], commands that need space are refused. With an alarm [`AlarmKind::Corrupt`], everything that
//! reads or changes keys or leases is refused.
//!
//! An alarm that its member raised by itself (`automatic`) is taken back by that member. One that an operator activated
//! stays until an operator deactivates it.

use std::collections::BTreeMap;

use super::codec::{CodecError, Sink, Source};
use super::engine::Engine;
use super::read::Failure;
use super::types::{Alarm, AlarmKind, AlarmRequest, AlarmResponse, Operation, PutRequest, RequestOp, TxnRequest};
use super::{Command, KvError, Store};

/// What a put takes beyond its key and value, in bytes. Etcd's number.
const PUT_OVERHEAD: u64 = 256;

/// What a lease takes, in bytes. Etcd's number.
const LEASE_BYTES: u64 = 64;

/// The active alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alarms(BTreeMap<(u64, AlarmKind), bool>);

impl Alarms {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// In the order of the members.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Alarm> {
        self.0.iter().map(|((member, kind), automatic)| Alarm {
            member: *member,
            kind: (*kind).into(),
            automatic: *automatic,
        })
    }

    fn is_active(&self, kind: AlarmKind) -> bool {
        self.0.keys().any(|(_, active)| *active == kind)
    }

    /// Adds one that was read from a note or snapshot.
    ///
    /// # Errors
    /// Its kind is unknown, or it is not after the one before it.
    pub(crate) fn restore(&mut self, alarm: Alarm) -> Result<(), &'static str> {
        let kind = AlarmKind::try_from(alarm.kind).ok().filter(|kind| *kind != AlarmKind::None);
        let key = (alarm.member, kind.ok_or("it holds an alarm of an unknown kind")?);
        if self.0.last_key_value().is_some_and(|(last, _)| *last >= key) {
            return Err("its alarms are not in order");
        }
        self.0.insert(key, alarm.automatic);
        Ok(())
    }

    /// Activates an alarm, unless it is active. It stays until an operator deactivates it.
    pub(crate) fn raise(&mut self, member: u64, kind: AlarmKind) {
        self.0.entry((member, kind)).or_insert(false);
    }

    /// Removes the alarms of a member that is no longer one.
    pub(crate) fn forget(&mut self, member: u64) {
        self.0.retain(|(of, _), _| *of != member);
    }

    fn change(&mut self, request: &AlarmRequest) -> Result<Option<Alarm>, KvError> {
        let AlarmRequest { member, automatic, active, .. } = *request;
        let kind = AlarmKind::try_from(request.kind).map_err(|_| KvError::Unreadable)?;
        if kind == AlarmKind::None {
            return Ok(None);
        }
        let alarm = |automatic| Some(Alarm { member, kind: kind.into(), automatic });
        let key = (member, kind);
        Ok(match (self.0.get(&key), active) {
            // An operator's alarm stays one.
            (before, true) => {
                let automatic = automatic && before.is_none_or(|automatic| *automatic);
                self.0.insert(key, automatic);
                alarm(automatic)
            }
            (Some(before), false) if *before || !automatic => {
                let before = *before;
                self.0.remove(&key);
                alarm(before)
            }
            (_, false) => None,
        })
    }
}

impl Alarm {
    pub(crate) fn write(&self, out: &mut impl Sink) {
        out.u64(self.member);
        out.u32(self.kind.cast_unsigned());
        out.bool(self.automatic);
    }

    pub(crate) fn read(source: &mut Source<'_>) -> Result<Alarm, CodecError> {
        Ok(Alarm {
            member: source.u64("member")?,
            kind: source.u32("alarm")?.cast_signed(),
            automatic: source.bool("automatic")?,
        })
    }
}

impl Command {
    /// About how many bytes of the store it needs, as etcd estimates them; 0 if it needs none. Unlike in etcd, the puts
    /// of nested transactions count, too.
    #[must_use]
    pub fn cost(&self) -> u64 {
        match self {
            Command::Put(put) => cost_of_put(put),
            Command::Txn(txn) => cost_of_txn(txn),
            Command::LeaseGrant(_) => LEASE_BYTES,
            Command::DeleteRange(_)
            | Command::Compact(_)
            | Command::LeaseRevoke(_)
            | Command::LeaseExpire(_)
            | Command::ClusterVersion(_)
            | Command::Alarm(_)
            | Command::Member(_)
            | Command::Compare(_)
            | Command::Auth(_) => 0,
        }
    }
}

fn cost_of_put(put: &PutRequest) -> u64 {
    PUT_OVERHEAD + (put.key.len() + put.value.len()) as u64
}

/// That of the larger branch.
fn cost_of_txn(txn: &TxnRequest) -> u64 {
    let of = |branch: &[RequestOp]| -> u64 {
        let costs = branch.iter().map(|op| match &op.operation {
            Some(Operation::Put(put)) => cost_of_put(put),
            Some(Operation::Txn(txn)) => cost_of_txn(txn),
            Some(Operation::Range(_) | Operation::DeleteRange(_)) | None => 0,
        });
        costs.sum()
    };
    of(&txn.success).max(of(&txn.failure))
}

impl<E: Engine> Store<E> {
    /// The active alarms, in the order of their members.
    pub fn alarms(&self) -> impl Iterator<Item = Alarm> {
        self.meta.alarms.iter()
    }

    pub(crate) fn change_alarm(&mut self, request: &AlarmRequest) -> Result<AlarmResponse, Failure> {
        let alarms = self.meta.alarms.change(request)?.into_iter().collect();
        Ok(AlarmResponse { revision: self.meta.revision, alarms })
    }

    /// The active alarms of a kind; of all kinds, if it is [`AlarmKind::None`].
    pub(crate) fn list_alarms(&self, kind: i32) -> AlarmResponse {
        let wanted = |alarm: &Alarm| kind == i32::from(AlarmKind::None) || alarm.kind == kind;
        AlarmResponse { revision: self.meta.revision, alarms: self.alarms().filter(wanted).collect() }
    }

    /// # Errors
    /// [`KvError::Corrupt`]: an alarm says that the members' states differ.
    pub(crate) fn refuse_corrupt(&self) -> Result<(), KvError> {
        if self.meta.alarms.is_active(AlarmKind::Corrupt) { Err(KvError::Corrupt) } else { Ok(()) }
    }

    /// # Errors
    /// An alarm forbids the command.
    pub(crate) fn refuse_alarmed(&self, command: &Command) -> Result<(), KvError> {
        // A corrupt member must be replaced, by whoever may do that.
        let concerns_members = matches!(
            command,
            Command::Alarm(_)
                | Command::ClusterVersion(_)
                | Command::Member(_)
                | Command::Compare(_)
                | Command::Auth(_)
        );
        if !concerns_members {
            self.refuse_corrupt()?;
        }
        let full = command.cost() > 0 && self.meta.alarms.is_active(AlarmKind::NoSpace);
        if full { Err(KvError::NoSpace) } else { Ok(()) }
    }
}
