//! Determines the leader by observing the network.
//!
//! Every message names a leader. The leader is the living replica that the last messages of more
//! than half of the living replicas name. If there is none, it is the replica that the last `ok` to a
//! client named (or the sender, if it named none), if that lives. Otherwise there is no leader. So a
//! leader that was cut off is replaced as soon as a majority follows another one, and a short election
//! changes nothing.

use bowline_lan::LanId;

#[derive(Debug, Clone)]
pub(super) struct Leadership {
    /// The leader that each replica's last message named, if it is a replica.
    named: Vec<Option<usize>>,
    /// The leader that the last `ok` to a client named, or its sender if it named none.
    last_ok: Option<usize>,
    /// The last leader that was known, dead or alive.
    known: Option<usize>,
}

/// How the known leader changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    First(usize),
    Another { from: usize, to: usize },
}

impl Leadership {
    pub(super) fn new(replicas: usize) -> Leadership {
        Leadership { named: vec![None; replicas], last_ok: None, known: None }
    }

    /// Records the leader that a replica's message names. Returns whether it named another one before.
    pub(super) fn names(&mut self, replica: usize, leader: Option<usize>) -> bool {
        let changed = self.named[replica] != leader;
        self.named[replica] = leader;
        changed
    }

    pub(super) fn answered_ok(&mut self, replica: usize) {
        self.last_ok = self.named[replica].or(Some(replica));
    }

    /// Updates the last known leader and returns how it changed.
    pub(super) fn update(&mut self, alive: &[bool]) -> Change {
        let before = self.known;
        match (before, self.leader(alive)) {
            (None, Some(first)) => {
                self.known = Some(first);
                Change::First(first)
            }
            (Some(from), Some(to)) if from != to => {
                self.known = Some(to);
                Change::Another { from, to }
            }
            _ => Change::Nothing,
        }
    }

    pub(super) fn leader(&self, alive: &[bool]) -> Option<usize> {
        let living = alive.iter().filter(|alive| **alive).count();
        let mut votes = vec![0usize; alive.len()];
        for (replica, named) in self.named.iter().enumerate() {
            if let (true, Some(leader)) = (alive[replica], *named) {
                votes[leader] += 1;
            }
        }
        let followed = (0..alive.len()).find(|&r| alive[r] && votes[r] * 2 > living);
        followed.or(self.last_ok.filter(|&leader| alive[leader]))
    }
}

/// The index of the replica with this id.
pub(super) fn index_of(ids: &[LanId], id: LanId) -> Option<usize> {
    ids.iter().position(|known| *known == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_the_living_decides() {
        let mut leadership = Leadership::new(5);
        let mut alive = vec![true; 5];
        assert_eq!(leadership.update(&alive), Change::Nothing);
        for replica in [0, 1] {
            leadership.names(replica, Some(1));
        }
        assert_eq!(leadership.leader(&alive), None);
        alive[4] = false;
        alive[3] = false;
        assert_eq!(leadership.update(&alive), Change::First(1));
        assert_eq!(leadership.update(&alive), Change::Nothing);
        alive[1] = false;
        assert_eq!(leadership.leader(&alive), None);
    }

    #[test]
    fn the_last_ok_helps_out_until_a_majority_follows_another() {
        let mut leadership = Leadership::new(3);
        let alive = vec![true; 3];
        leadership.answered_ok(2);
        assert_eq!(leadership.update(&alive), Change::First(2));
        leadership.names(0, Some(1));
        assert_eq!(leadership.update(&alive), Change::Nothing);
        // A follower that answers says who leads.
        leadership.answered_ok(0);
        assert_eq!(leadership.leader(&alive), Some(1));
        leadership.answered_ok(2);
        assert_eq!(leadership.leader(&alive), Some(2));
        leadership.names(1, Some(1));
        assert_eq!(leadership.update(&alive), Change::Another { from: 2, to: 1 });
    }
}
