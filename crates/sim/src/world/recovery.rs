//! What a process finds on its disk when it starts, and what it does if that is damaged: it never
//! guesses. A disk that can't be read now is tried again later; one whose snapshot is rotten is lost.

use bowline_node::RecoveredNode;

use crate::world::coverage::Fault;
use crate::world::plan::{MILLI, SECOND, Sabotage};
use crate::world::stage::{Event, World};

impl World<'_> {
    /// What a replica starts with; `None` if it can't start now, or never again.
    pub(crate) fn recovered(&mut self, host: usize) -> Option<RecoveredNode> {
        if self.hosts[host].unreadable > 0 && self.may_strike() {
            self.hosts[host].unreadable -= 1;
            self.coverage.struck(Fault::ReadError);
            self.tell(Some(host), || "can't read its disk: it stays down for a while".to_owned());
            let at = self.now + self.chances.nemesis.between(100 * MILLI, 3 * SECOND);
            self.queue.push(at, Event::Start { host });
            return None;
        }
        let sabotage = self.plan.sabotage;
        let it = &mut self.hosts[host];
        match sabotage {
            Some(Sabotage::ForgottenVotes) => it.disk.forget_vote(),
            Some(Sabotage::OldImages) => it.restore_image(),
            _ => {}
        }
        if it.disk.is_rotten() && sabotage != Some(Sabotage::TrustedRot) {
            self.tell(Some(host), || "finds its snapshot rotten".to_owned());
            self.coverage.struck(Fault::RottenSnapshot);
            self.lose(host);
            return None;
        }
        let it = &mut self.hosts[host];
        it.note_image();
        it.disk.note_suspicion();
        Some(it.disk.recover())
    }

    /// A sector of the log can't be read any more: whatever is found at the next start, it isn't what was
    /// acknowledged. While it is not repaired, all others keep what they have.
    pub(crate) fn rot_log(&mut self, host: usize) -> bool {
        if !self.may_lose(host) {
            return false;
        }
        self.crash(host, false);
        let it = &mut self.hosts[host];
        let first = it.disk.rot_log(&mut self.chances.nemesis);
        self.restart_soon(host);
        let Some(first) = first else { return false };
        let id = self.hosts[host].id;
        self.oracle.promises.damaged(id);
        self.tell(Some(host), || format!("a sector of its log ROTS: {first} and all after it are lost"));
        true
    }

    /// A bit of a stored snapshot flips. Nobody notices before the file is read; but from now on no
    /// majority may depend on it.
    pub(crate) fn rot(&mut self, host: usize) -> bool {
        if !self.may_lose(host) {
            return false;
        }
        let bit = self.chances.nemesis.word();
        let rots = self.hosts[host].disk.rot(bit);
        if rots {
            self.tell(Some(host), || "a bit of its stored snapshot flips".to_owned());
            // Soon somebody looks.
            self.crash(host, false);
            self.restart_soon(host);
        }
        rots
    }
}
