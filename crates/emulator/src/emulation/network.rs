//! Decides which messages between replicas arrive: cuts and losses.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Random;

/// Faults beyond those of scenario files, for the simulator. All times count from the start of the
/// run, not from the start of the lifetime.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtraFaults {
    /// Cuts of single links.
    pub partitions: Vec<LinkCut>,
    /// The times and indexes of replicas to kill. An index that is out of range is ignored.
    pub kills: Vec<(Duration, usize)>,
    /// The time from which the network loses no messages by chance, if any.
    pub lossless_from: Option<Duration>,
    /// Each client counts its `MID`s from 1, so that all clients use the same ones.
    pub same_mids: bool,
}

/// A cut of single, directed links for some time. When it begins, clients forget their leader, as in
/// `part_hard`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkCut {
    /// When it begins.
    pub from: Duration,
    /// When it ends.
    pub until: Duration,
    /// The links, as pairs of sender and receiver.
    pub blocked: BTreeSet<(usize, usize)>,
}

/// What happens to a message between two living replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives,
    Lost,
    Cut,
}

#[derive(Debug, Clone)]
pub(super) struct Network {
    drops: f64,
    random: Random,
    /// The replicas on the side of the majority, while an event cuts the network in two.
    majority: Option<BTreeSet<usize>>,
    link_cuts: Vec<LinkCut>,
    lossless_from: Duration,
}

impl Network {
    pub(super) fn new(drops: f64, random: Random, extra: &ExtraFaults) -> Network {
        Network {
            drops,
            random,
            majority: None,
            link_cuts: extra.partitions.clone(),
            lossless_from: extra.lossless_from.unwrap_or(Duration::MAX),
        }
    }

    pub(super) fn split(&mut self, majority: BTreeSet<usize>) {
        self.majority = Some(majority);
    }

    /// Returns whether there was anything to heal.
    pub(super) fn heal(&mut self) -> bool {
        self.majority.take().is_some()
    }

    pub(super) fn is_cut(&self, now: Duration) -> bool {
        self.majority.is_some() || self.link_cuts.iter().any(|cut| cut.is_on(now))
    }

    pub(super) fn fate(&mut self, now: Duration, from: usize, to: usize) -> Fate {
        // A random number is drawn for every message, so that a cut does not change later losses.
        let lost = self.random.chance(self.drops) && now < self.lossless_from;
        let split = self.majority.as_ref().is_some_and(|side| side.contains(&from) != side.contains(&to));
        let blocked = || self.link_cuts.iter().any(|cut| cut.is_on(now) && cut.blocked.contains(&(from, to)));
        if split || blocked() {
            Fate::Cut
        } else if lost {
            Fate::Lost
        } else {
            Fate::Arrives
        }
    }
}

impl LinkCut {
    fn is_on(&self, now: Duration) -> bool {
        self.from <= now && now < self.until
    }
}

/// A random majority of all replicas. It contains `wanted`, if given, and prefers living replicas, so
/// that it can still decide if enough of them live.
pub(super) fn random_majority(random: &mut Random, alive: &[bool], wanted: Option<usize>) -> BTreeSet<usize> {
    let mut order: Vec<usize> = (0..alive.len()).collect();
    random.shuffle(&mut order);
    order.sort_by_key(|&replica| (Some(replica) != wanted, !alive[replica]));
    order.truncate(alive.len() / 2 + 1);
    order.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_majority_prefers_the_living_and_holds_the_leader() {
        let mut random = Random::new(1);
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let alive = [true, false, true, true, true];
            let side = random_majority(&mut random, &alive, Some(3));
            assert_eq!(side.len(), 3);
            assert!(side.contains(&3) && !side.contains(&1));
            seen.insert(side);
        }
        assert_eq!(seen.len(), 3);
        let side = random_majority(&mut random, &[true, false, false], None);
        assert!(side.contains(&0) && side.len() == 2);
    }

    #[test]
    fn cuts_and_losses_decide_the_fate() {
        let cut =
            LinkCut { from: Duration::from_secs(2), until: Duration::from_secs(3), blocked: BTreeSet::from([(0, 1)]) };
        let mut network =
            Network::new(0.0, Random::new(1), &ExtraFaults { partitions: vec![cut], ..ExtraFaults::default() });
        let at = Duration::from_secs;
        assert_eq!(network.fate(at(1), 0, 1), Fate::Arrives);
        assert_eq!(network.fate(at(2), 0, 1), Fate::Cut);
        assert_eq!(network.fate(at(2), 1, 0), Fate::Arrives);
        assert_eq!(network.fate(at(3), 0, 1), Fate::Arrives);
        network.split(BTreeSet::from([0, 1]));
        assert_eq!(network.fate(at(4), 0, 1), Fate::Arrives);
        assert_eq!(network.fate(at(4), 2, 1), Fate::Cut);
        assert_eq!(network.fate(at(4), 1, 2), Fate::Cut);
        assert!(network.heal() && !network.heal());
        assert_eq!(network.fate(at(4), 1, 2), Fate::Arrives);
        let mut network = Network::new(
            0.3,
            Random::new(1),
            &ExtraFaults { lossless_from: Some(Duration::from_secs(9)), ..ExtraFaults::default() },
        );
        let lost = (0..10_000).filter(|_| network.fate(at(1), 0, 1) == Fate::Lost).count();
        assert!((2_800..3_200).contains(&lost), "{lost}");
        assert!((0..1_000).all(|_| network.fate(at(9), 0, 1) == Fate::Arrives), "it has healed");
    }
}
