//! A disk that is restored from an old image (D14), as an operator does who brings a machine back from a backup:
//! votes and acknowledgements of its replica are gone, and nothing on the disk says so.
//!
//! Only who was promised them can tell. So a disk is restored only while a leader runs that has all of the replica's
//! log acknowledged, and the replica first hears that leader and nobody else: what the core owes then is to notice.
//! If the leader's process dies before it was asked, nobody knows any more, and the operator gives the disk up.

use crate::world::oracle::Rule;
use crate::world::stage::World;

/// A replica that came back with an old image and has not been told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restored {
    pub(crate) host: usize,
    /// The leader that knows.
    pub(crate) witness: usize,
}

impl World<'_> {
    /// Makes an image of somebody's disk, or puts an earlier one in its place.
    pub(crate) fn strike_image(&mut self) -> bool {
        if !self.plan.settings.return_check || self.restored.is_some() {
            return false;
        }
        let victim = self.chances.nemesis.index(self.hosts.len());
        let renewed = self.chances.nemesis.percent(30);
        let it = &mut self.hosts[victim];
        if it.image.is_none() || renewed {
            if !it.is_lost() && it.disk.is_idle() && !it.disk.is_suspect() {
                it.image = Some(Box::new(it.disk.image()));
            }
            return false;
        }
        let Some(witness) = self.witness_of(victim) else { return false };
        if !self.may_lose(victim) {
            return false;
        }
        self.restore(victim, witness);
        true
    }

    /// The leader that would notice.
    fn witness_of(&self, victim: usize) -> Option<usize> {
        let witness = *self.leading.last()?;
        let (it, leader) = (&self.hosts[victim], &self.hosts[witness]);
        let (node, image) = (it.node.as_ref()?, it.image.as_ref()?);
        let leads = leader.node.as_ref().filter(|_| witness != victim && !leader.paused)?;
        let is_heard = !self.network.is_cut(victim, witness) && !self.network.is_cut(witness, victim);
        let (raft, last) = (node.raft(), it.disk.last());
        let follows = raft.term() == leads.raft().term() && raft.leader() == Some(leader.id);
        let on_disk = it.disk.is_idle() && raft.log().last() == last;
        let knows = on_disk && leads.raft().match_index(it.id) == Some(last.index);
        let is_older = image.hard_state().term < raft.term() || image.last().index < last.index;
        // Who takes itself for the only voter asks nobody, and nobody can help it.
        let memberships = image.memberships_since(image.last().index);
        let alone = memberships.last().is_some_and(|members| members.quorum().is_reached_by(|id| id == it.id));
        (is_heard && follows && knows && is_older && !alone).then_some(witness)
    }

    fn restore(&mut self, victim: usize, witness: usize) {
        self.crash(victim, true);
        let it = &mut self.hosts[victim];
        let Some(image) = it.image.take() else { return };
        let newer = std::mem::replace(&mut it.disk, *image);
        it.disk.is_older_than(&newer);
        let (id, term, last) = (it.id, it.disk.hard_state().term, it.disk.last());
        self.oracle.promises.rolled_back(id);
        self.model.rolled_back(id);
        self.restored = Some(Restored { host: victim, witness });
        let (had, had_term) = (newer.last(), newer.hard_state().term);
        self.tell(Some(victim), || {
            format!("its disk is RESTORED from an old image: {term} and entries up to {last}, not {had_term} and {had}")
        });
        self.restart_soon(victim);
    }

    /// Whether a message between these is kept back: who was restored hears its witness first.
    pub(crate) fn keeps_apart(&self, from: usize, to: usize) -> bool {
        self.restored.is_some_and(|Restored { host, witness }| {
            (from == host && to != witness) || (to == host && from != witness)
        })
    }

    /// Once a replica has asked its witness, it must know.
    pub(crate) fn judge_return(&mut self, host: usize) {
        let Some(Restored { witness, .. }) = self.restored.filter(|restored| restored.host == host) else { return };
        let Some(node) = &self.hosts[host].node else { return };
        if !node.raft().has_met(self.hosts[witness].id) {
            return;
        }
        self.restored = None;
        if node.raft().suspect().is_none() {
            let what = format!("n{} came back with an old image, and nobody told it", host + 1);
            self.judge(Err((Rule::RestartKeepsPromises, what)));
        }
    }

    /// A process has died, and what it remembered with it.
    pub(crate) fn forget_witness(&mut self, died: usize) {
        if self.restored.is_some_and(|restored| restored.witness == died) {
            self.give_restored_up();
        }
    }

    /// Nobody can tell any more what is missing on a disk that was restored.
    pub(crate) fn give_restored_up(&mut self) {
        if let Some(Restored { host, .. }) = self.restored.take() {
            self.tell(Some(host), || "nobody is left who knows what is missing on its disk".to_owned());
            self.lose(host);
        }
    }
}
