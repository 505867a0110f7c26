//! What a process finds on its disk when it starts, and what it does if that is damaged: it never guesses. A
//! disk that can't be read now is tried again later; one that can't be trusted at all is lost.

use crate::world::coverage::Fault;
use crate::world::disk::{Damage, Ended, Rot, Start};
use crate::world::oracle::Rule;
use crate::world::plan::{MILLI, SECOND, Sabotage};
use crate::world::stage::{Event, World};

impl World<'_> {
    /// What a replica starts with; `None` if it can't start now, or never again.
    pub(crate) fn recovered(&mut self, host: usize) -> Option<Start> {
        let sabotage = self.plan.sabotage;
        let strikes = self.may_strike();
        let it = &mut self.hosts[host];
        if sabotage == Some(Sabotage::OldImages) {
            it.restore_image();
        }
        let readable = it.unreadable == 0 || !strikes;
        it.unreadable = it.unreadable.saturating_sub(1);
        match it.disk.start(readable, &mut self.chances.disk) {
            Ok(Ok(mut start)) => {
                if sabotage == Some(Sabotage::ForgottenVotes) {
                    it.disk.forget_vote(&mut start.found);
                }
                it.note_image();
                Some(start)
            }
            Ok(Err(what)) => {
                it.disk.close();
                self.judge(Err((Rule::RestartKeepsPromises, format!("n{} starts: {what}", host + 1))));
                None
            }
            Err(why) => {
                if !readable {
                    self.coverage.struck(Fault::ReadError);
                }
                self.tell(Some(host), || format!("can't start, and stays down for a while: {why}"));
                let at = self.now + self.chances.nemesis.between(100 * MILLI, 3 * SECOND);
                self.queue.push(at, Event::Start { host });
                None
            }
        }
    }

    /// Bits of what a replica has stored flip. Whatever is found at the next start, while it is not repaired, all
    /// others keep what they have.
    pub(crate) fn rot(&mut self, host: usize, where_to: Rot) -> bool {
        if !self.may_lose(host) {
            return false;
        }
        if where_to == Rot::Snapshot && self.plan.sabotage == Some(Sabotage::TrustedRot) {
            let bit = self.chances.nemesis.word();
            self.hosts[host].disk.rot_unseen(bit);
            self.crash(host, false);
            self.restart_soon(host);
            return true;
        }
        self.crash(host, false);
        if self.hosts[host].is_lost() {
            return false;
        }
        let rotten = self.hosts[host].disk.rot(where_to, &mut self.chances.nemesis);
        self.restart_soon(host);
        match rotten {
            Ok(Some((path, damage))) => {
                self.tell(Some(host), || format!("bits of {path} flip"));
                self.is_damaged(host, &damage);
                true
            }
            Ok(None) => false,
            Err(what) => {
                self.judge(Err((Rule::RestartKeepsPromises, format!("n{} rots: {what}", host + 1))));
                true
            }
        }
    }

    /// A disk has lost what was promised, and its replica will know.
    pub(crate) fn is_damaged(&mut self, host: usize, damage: &Damage) {
        if damage.suspect {
            let id = self.hosts[host].id;
            self.oracle.promises.damaged(id);
            self.tell(Some(host), || "has LOST a part of its log, and will know".to_owned());
        }
        if let Some(why) = &damage.ruined {
            self.tell(Some(host), || format!("can't use its disk any more: {why}"));
            self.lose(host);
        }
    }

    /// Bounds a disk to so many further bytes, or not at all.
    pub(crate) fn limit_disk(&mut self, host: usize, more: Option<u64>) {
        if let Ended::Failed(why) = self.hosts[host].disk.limit(more)
            && self.hosts[host].is_up()
        {
            self.stop_for(host, &why);
        }
    }
}
