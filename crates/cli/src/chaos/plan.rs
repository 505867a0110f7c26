//! The plan of the nemesis, drawn from a seed. The same seed gives the same faults in the same order, but not at the
//! same moments.

use std::time::Duration;

use bowline_emulator::Random;

/// The target of a fault, resolved when it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// The leader; the first member if no leader is known.
    Leader,
    /// One of the others: this number modulo their count.
    Follower(u64),
}

/// What a cut does to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Bytes wait until the link is healed.
    Stall,
    /// Connections break, and new ones are refused.
    Refuse,
}

/// The direction in which a member is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It neither receives nor sends.
    Both,
    /// It receives nothing.
    In,
    /// Nothing that it sends arrives.
    Out,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// kill -9.
    Kill(Whom),
    /// SIGTERM: it stops in good order, and is started again when everything is healed.
    Stop(Whom),
    /// kill -9 of all at once.
    KillAll,
    /// kill -9, and what was not synced is lost, in whole or in part.
    PowerLoss { whom: Whom, draw: u64 },
    /// The same of all at once.
    PowerLossOfAll { draw: u64 },
    /// SIGSTOP, and SIGCONT when it is over.
    Pause(Whom),
    /// kill -9, then `bits` of its log are flipped.
    Damage { whom: Whom, bits: u64, draw: u64 },
    /// One member is cut off from all others.
    Isolate { whom: Whom, way: Way, cut: Cut },
    /// The members are split into two sides; the bits of `draw` assign them.
    Split { draw: u64, cut: Cut },
    /// The link between two members is cut.
    CutPair { draw: u64, cut: Cut },
    /// All links of a member are slowed down by `millis`.
    Slow { whom: Whom, millis: u64 },
    /// Some bits that a member sends are flipped.
    Corrupt { whom: Whom },
    /// The small disk is filled to the last byte.
    FillDisk,
    /// kill -9, the data is deleted, and when everything is healed, a new member takes the place.
    Replace(Whom),
    /// The leadership is transferred, and at once the data of the former leader is deleted, as in [`Fault::Replace`].
    ReplaceMoved(u64),
    /// The leadership is transferred.
    MoveLeader(u64),
    /// A member passes on large values.
    Large(Whom),
}

/// The names of the faults, in the order of the report.
pub(super) const KINDS: [&str; 19] = [
    "kill leader",
    "kill",
    "stop leader",
    "stop",
    "kill all",
    "power loss",
    "power loss of all",
    "pause",
    "damaged log",
    "one-way cut",
    "isolation",
    "split",
    "cut pair",
    "slow links",
    "corrupt bytes",
    "full disk",
    "replaced",
    "replaced after a move",
    "large values",
];

/// The name of the graceful fault.
pub(super) const MOVE: &str = "leader moved";

impl Fault {
    pub(super) fn kind(self) -> &'static str {
        match self {
            Fault::Kill(Whom::Leader) => "kill leader",
            Fault::Kill(Whom::Follower(_)) => "kill",
            Fault::Stop(Whom::Leader) => "stop leader",
            Fault::Stop(Whom::Follower(_)) => "stop",
            Fault::KillAll => "kill all",
            Fault::PowerLoss { .. } => "power loss",
            Fault::PowerLossOfAll { .. } => "power loss of all",
            Fault::Pause(_) => "pause",
            Fault::Damage { .. } => "damaged log",
            Fault::Isolate { way: Way::Both, .. } => "isolation",
            Fault::Isolate { .. } => "one-way cut",
            Fault::Split { .. } => "split",
            Fault::CutPair { .. } => "cut pair",
            Fault::Slow { .. } => "slow links",
            Fault::Corrupt { .. } => "corrupt bytes",
            Fault::FillDisk => "full disk",
            Fault::Replace(_) => "replaced",
            Fault::ReplaceMoved(_) => "replaced after a move",
            Fault::Large(_) => "large values",
            Fault::MoveLeader(_) => MOVE,
        }
    }
}

/// Faults that last at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Strike {
    pub(super) faults: Vec<Fault>,
    /// Time until they are healed.
    pub(super) hold: Duration,
    /// Time without faults after that.
    pub(super) calm: Duration,
    /// Don't wait until the cluster serves again, so that the next strike hits it while it recovers.
    pub(super) hurry: bool,
}

/// The names of all faults as words of a command line.
fn words() -> impl Iterator<Item = String> {
    KINDS.iter().chain([&MOVE]).map(|kind| kind.replace(' ', "-"))
}

/// Checks a fault of a command line.
///
/// # Errors
/// There is no such fault.
pub(super) fn word(text: &str) -> Result<String, String> {
    let known = words().find(|word| word == text);
    known.ok_or_else(|| format!("allowed: {}", words().collect::<Vec<_>>().join(", ")))
}

/// The endless sequence of strikes of a seed.
pub(super) struct Plan {
    random: Random,
    /// The only faults that come, as [`words`]; if there are none, all come.
    only: Vec<String>,
}

impl Plan {
    pub(super) fn new(seed: u64, only: &[String]) -> Plan {
        Plan { random: Random::stream(seed, 1), only: only.to_vec() }
    }

    fn comes(&self, fault: Fault) -> bool {
        self.only.is_empty() || self.only.contains(&fault.kind().replace(' ', "-"))
    }

    /// Number of different faults that come.
    fn kinds(&self) -> usize {
        let all = words().filter(|word| self.only.is_empty() || self.only.contains(word));
        all.count()
    }

    fn whom(&mut self) -> Whom {
        if self.random.chance(0.45) { Whom::Leader } else { Whom::Follower(self.random.next_u64()) }
    }

    fn cut(&mut self) -> Cut {
        if self.random.chance(0.5) { Cut::Stall } else { Cut::Refuse }
    }

    fn fault(&mut self) -> Fault {
        let draw = self.random.next_u64();
        match self.random.below(100) {
            0..11 => Fault::Kill(Whom::Leader),
            11..15 => Fault::Kill(Whom::Follower(draw)),
            15..21 => Fault::Stop(Whom::Leader),
            21..24 => Fault::Stop(Whom::Follower(draw)),
            24..28 => Fault::KillAll,
            28..34 => Fault::PowerLoss { whom: self.whom(), draw },
            34..39 => Fault::PowerLossOfAll { draw },
            39..48 => Fault::Pause(self.whom()),
            48..55 => Fault::Damage { whom: self.whom(), bits: 1 + self.random.below(3), draw },
            55..62 => {
                let way = if self.random.chance(0.5) { Way::In } else { Way::Out };
                Fault::Isolate { whom: self.whom(), way, cut: self.cut() }
            }
            62..68 => Fault::Isolate { whom: self.whom(), way: Way::Both, cut: self.cut() },
            68..73 => Fault::Split { draw, cut: self.cut() },
            73..78 => Fault::CutPair { draw, cut: self.cut() },
            78..84 => Fault::Slow { whom: self.whom(), millis: 20 + self.random.below(400) },
            84..89 => Fault::Corrupt { whom: self.whom() },
            89..92 => Fault::FillDisk,
            92..94 => Fault::Replace(self.whom()),
            94..96 => Fault::ReplaceMoved(draw),
            96..98 => Fault::Large(self.whom()),
            _ => Fault::MoveLeader(draw),
        }
    }
}

impl Iterator for Plan {
    type Item = Strike;

    fn next(&mut self) -> Option<Strike> {
        let count = match self.random.below(20) {
            0..11 => 1,
            11..18 => 2,
            _ => 3,
        };
        let count = count.min(self.kinds());
        let mut faults: Vec<Fault> = Vec::new();
        while faults.len() < count {
            let fault = self.fault();
            // No kind twice in one strike.
            if self.comes(fault) && faults.iter().all(|other| other.kind() != fault.kind()) {
                faults.push(fault);
            }
        }
        let hold = Duration::from_millis(200 + self.random.below(2_300));
        let calm = Duration::from_millis(100 + self.random.below(1_200));
        Some(Strike { faults, hold, calm, hurry: self.random.chance(0.25) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_every_fault_and_all_kinds_come() {
        let strikes = |seed| Plan::new(seed, &[]).take(400).collect::<Vec<_>>();
        assert_eq!(strikes(7), strikes(7));
        assert_ne!(strikes(7), strikes(8));
        let drawn: Vec<&str> = strikes(7).iter().flat_map(|strike| strike.faults.clone()).map(Fault::kind).collect();
        for kind in KINDS.iter().chain([&MOVE]) {
            assert!(drawn.contains(kind), "{kind} never comes");
        }
        assert!(strikes(7).iter().any(|strike| strike.faults.len() > 1));
    }

    #[test]
    fn only_the_wanted_faults_come() {
        let only = ["kill-leader", "replaced"].map(str::to_owned);
        let strikes: Vec<Strike> = Plan::new(7, &only).take(100).collect();
        let drawn: Vec<&str> = strikes.iter().flat_map(|strike| strike.faults.clone()).map(Fault::kind).collect();
        assert!(drawn.iter().all(|kind| ["kill leader", "replaced"].contains(kind)), "{drawn:?}");
        assert!(strikes.iter().any(|strike| strike.faults.len() == 2));
    }
}
