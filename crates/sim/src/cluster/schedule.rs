//! A schedule: bytes that decide what happens out of turn in the safety phase. A fuzzer writes them, so that coverage
//! guides the search.

use std::fmt;
use std::str::FromStr;

use crate::cluster::clock::Moment;
use crate::cluster::faults::Fault;
use crate::cluster::plan::{Plan, SECOND};
use crate::cluster::reduction::Reduction;

/// Maximum length of a schedule, in bytes.
const LONGEST: usize = 8 << 10;
/// The safety phase of a cluster that a fuzzer runs.
const SAFETY: Moment = 3 * SECOND;
/// Of so many seeds, a fuzzer runs one with a liveness phase, which takes long.
const LIVENESS_EVERY: u64 = 8;

/// Decides, event by event, which is postponed, and which faults strike. Where there is a schedule, no fault strikes
/// that it does not name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule(Vec<u8>);

/// What a schedule decides next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// So many events happen when they are planned.
    InTurn(u32),
    /// The next event happens later, by [`wait`] of this number.
    Postpone(u32),
    /// A kind of fault strikes.
    Strike(Fault),
}

impl Schedule {
    /// A schedule of these bytes; those after the 8,192nd are left out.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Schedule {
        Schedule(bytes[..bytes.len().min(LONGEST)].to_vec())
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A schedule of a plan.
#[derive(Clone, Debug)]
pub(crate) struct Scheduled {
    schedule: Schedule,
    /// The kinds of fault that the plan had before it was reduced, so that a byte goes on meaning the same kind.
    kinds: Vec<Fault>,
}

impl Scheduled {
    pub(crate) fn new(schedule: Schedule, plan: &Plan) -> Scheduled {
        Scheduled { schedule, kinds: plan.faults.iter().map(|(fault, _)| *fault).collect() }
    }

    /// The choice at a place, unless the schedule ends before it.
    pub(crate) fn choice(&self, place: usize) -> Option<Choice> {
        self.schedule.0.get(place).map(|byte| match *byte {
            count @ 0..0x40 => Choice::InTurn(u32::from(count) + 1),
            wait @ 0x40..0x80 => Choice::Postpone(u32::from(wait) % 12),
            _ if self.kinds.is_empty() => Choice::InTurn(1),
            kind => Choice::Strike(self.kinds[usize::from(kind - 0x80) % self.kinds.len()]),
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Schedule, String> {
        let text = if text == "none" { "" } else { text };
        let digits = text.bytes().map(|digit| char::from(digit).to_digit(16)).collect::<Option<Vec<u32>>>();
        match digits {
            Some(digits) if digits.len() % 2 == 0 && digits.len() <= LONGEST * 2 => {
                Ok(Schedule(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()))
            }
            _ => Err(format!("expected none, or up to {LONGEST} bytes, each as two hexadecimal digits")),
        }
    }
}

/// A cluster made of a fuzzer's bytes: the first two choose the seed, the others are its schedule. Returns the plan
/// and the options that replay it.
#[must_use]
pub fn scheduled(bytes: &[u8]) -> (Plan, Reduction) {
    let (seed, schedule) = bytes.split_at(bytes.len().min(2));
    let seed = seed.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let mut plan = Plan::drawn(seed);
    let reduction = Reduction {
        schedule: Some(Schedule::new(schedule)),
        end: Some(SAFETY),
        safety_only: !seed.is_multiple_of(LIVENESS_EVERY),
        ..Reduction::default()
    };
    reduction.apply(&mut plan);
    (plan, reduction)
}

/// The time by which an event is postponed, in nanoseconds: 2^`doublings` of 256 parts of an election timeout.
pub(crate) fn wait(doublings: u32, election: Moment) -> Moment {
    (election << doublings) / 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{run, shrink};

    #[test]
    fn what_is_printed_is_what_is_read() {
        for bytes in [&[][..], &[0], &[0x7f, 0x80, 0xff]] {
            let schedule = Schedule::new(bytes);
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }
        for wrong in ["0", "0g", "é", &"00".repeat(LONGEST + 1)] {
            assert!(wrong.parse::<Schedule>().is_err(), "{wrong}");
        }
        assert_eq!(Schedule::new(&[7; LONGEST + 1]).bytes().len(), LONGEST);
    }

    #[test]
    fn a_schedule_decides_which_faults_strike_and_gives_the_same_run_twice() {
        let strikes = |bytes: &[u8]| {
            let (plan, _) = scheduled(bytes);
            let outcome = run(&plan, None);
            assert_eq!(outcome, run(&plan, None));
            assert_eq!(outcome.violation, None);
            let isolated = outcome.coverage.by_fault().find(|(fault, _)| *fault == Fault::Isolate);
            (isolated.map_or(0, |(_, times)| times), outcome.trace_hash)
        };
        let has = |seed: u8, wanted: Fault| Plan::drawn(seed.into()).faults.iter().any(|(fault, _)| *fault == wanted);
        let seed = (1..).find(|seed| has(*seed, Fault::Isolate)).expect("many seeds have it");
        let quiet = strikes(&[0, seed]);
        let all: Vec<u8> = [0, seed].into_iter().chain((0x80..=0xff).flat_map(|kind| [0x3f, kind])).collect();
        assert_eq!(quiet.0, 0);
        assert!(strikes(&all).0 > 0);
        let postponed = strikes(&[0, seed, 0x3f, 0x3f, 0x4b, 0x4a, 0x49, 0x48, 0x47, 0x46, 0x45, 0x44]);
        assert_eq!(postponed.0, quiet.0);
        assert_ne!(postponed.1, quiet.1);
    }

    #[test]
    fn a_violation_is_made_smaller_and_keeps_its_schedule() {
        let mut schedule = vec![0, 0];
        schedule.extend((0..400_u32).map(|place| if place % 3 == 0 { 0x80 + (place % 40) as u8 } else { 0x20 }));
        let found = (0..=255).find_map(|seed| {
            schedule[1] = seed;
            let (mut plan, reduction) = scheduled(&schedule);
            plan.sabotage = Some(crate::cluster::Sabotage::ForgottenVotes);
            run(&plan, None).violation.map(|violation| (plan, reduction, violation))
        });
        let (plan, reduction, violation) = found.expect("a seed shows that votes are lost");
        let (reduction, smaller) = shrink(&plan, &reduction, &violation, 150);
        assert_eq!(smaller.rule, violation.rule);
        let kept = reduction.schedule.clone().expect("the schedule is a part of it");
        assert!(kept.bytes().len() < 400, "{kept}");
        let mut again = plan.clone();
        reduction.apply(&mut again);
        assert_eq!(run(&again, None).violation.map(|found| found.rule), Some(violation.rule));
    }
}
