//! A reduced run of a seed: the kinds of fault, members, clients, strikes and operations that are kept, as options of
//! the command that replays it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::cluster::clock::Moment;
use crate::cluster::dice::Dice;
use crate::cluster::faults::Fault;
use crate::cluster::plan::{Plan, SECOND};
use crate::cluster::schedule::{Schedule, Scheduled};

/// Maximum number of strikes or operations that can be named.
const MOST_NAMED: usize = 10_000;
/// Limit of the times that can be named, in seconds.
const LONGEST: u64 = 3_600;

/// A strike: a kind of fault, and the number within the kind, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike {
    /// Its kind.
    pub fault: Fault,
    /// Its number within its kind.
    pub number: u32,
}

/// The start of a client's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Start {
    /// When it starts, in nanoseconds; it starts later if the client is still busy.
    pub at: Moment,
    /// The client.
    pub client: u32,
    /// Its number among the client's operations, from 1: it decides what is read or written.
    pub number: u32,
}

/// What is left out of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reduction {
    /// Kinds of fault that don't strike.
    pub without: Vec<Fault>,
    /// Maximum number of founding members.
    pub members: Option<usize>,
    /// Maximum number of initial learners.
    pub learners: Option<usize>,
    /// Maximum number of clients.
    pub clients: Option<usize>,
    /// Only these strikes.
    pub strikes: Option<Vec<Strike>>,
    /// Only these operations, which start at these moments.
    pub operations: Option<Vec<Start>>,
    /// Selects other random numbers for the same plan, because they may reach the violation sooner than the seed's own.
    pub luck: Option<u64>,
    /// The safety phase ends at this moment, in nanoseconds.
    pub end: Option<u64>,
    /// No liveness phase follows.
    pub safety_only: bool,
    /// Decides what happens out of turn.
    pub schedule: Option<Schedule>,
}

impl Reduction {
    /// Reduces a plan.
    pub fn apply(&self, plan: &mut Plan) {
        if let Some(schedule) = &self.schedule {
            plan.schedule = Some(Scheduled::new(schedule.clone(), plan));
        }
        self.without.iter().for_each(|fault| plan.without(*fault));
        plan.voters = plan.voters.min(self.members.unwrap_or(plan.voters)).max(1);
        plan.learners = plan.learners.min(self.learners.unwrap_or(plan.learners));
        if let Some(clients) = self.clients {
            plan.limit_clients(clients);
        }
        if let Some(strikes) = &self.strikes {
            plan.strikes = Some(strikes.iter().copied().collect());
        }
        if let Some(operations) = &self.operations {
            let mut starts = operations.clone();
            starts.sort_unstable();
            plan.operations = Some(starts);
        }
        plan.luck = self.luck.unwrap_or(plan.luck);
        plan.safety = plan.safety.min(self.end.unwrap_or(plan.safety));
        plan.liveness &= !self.safety_only;
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Reduction::default()
    }

    /// Checks the sizes of options from a command line.
    ///
    /// # Errors
    /// One line that names the option, its value and what is allowed.
    pub fn checked(self) -> Result<Reduction, String> {
        for (option, count) in [
            ("--strikes", self.strikes.as_ref().map_or(0, Vec::len)),
            ("--operations", self.operations.as_ref().map_or(0, Vec::len)),
        ] {
            if count > MOST_NAMED {
                return Err(format!("{option}: {count} items; at most {MOST_NAMED} are allowed"));
            }
        }
        for (option, count) in [("--members", self.members), ("--clients", self.clients)] {
            if count == Some(0) {
                return Err(format!("{option} 0: at least 1 is needed"));
            }
        }
        Ok(self)
    }
}

impl fmt::Display for Reduction {
    /// Formats it as options of the command that replays.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.without.is_empty() {
            let names: Vec<String> = self.without.iter().map(|fault| format!("{fault:?}")).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        let counts = [("members", self.members), ("learners", self.learners), ("clients", self.clients)];
        for (option, count) in counts {
            if let Some(count) = count {
                write!(f, " --{option} {count}")?;
            }
        }
        if let Some(strikes) = &self.strikes {
            write!(f, " --strikes {}", named(strikes))?;
        }
        if let Some(operations) = &self.operations {
            write!(f, " --operations {}", named(operations))?;
        }
        if let Some(luck) = self.luck {
            write!(f, " --luck {luck}")?;
        }
        if let Some(end) = self.end {
            write!(f, " --seconds {}", Seconds(end))?;
        }
        if self.safety_only {
            write!(f, " --safety-only")?;
        }
        if let Some(schedule) = &self.schedule {
            write!(f, " --schedule {schedule}")?;
        }
        Ok(())
    }
}

fn named<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "none".to_owned(),
        items => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

/// Parses a list of strikes or operations, as a failure prints it; `none` is the empty list.
///
/// # Errors
/// One line about the item that can't be parsed.
pub fn parse_list<T: FromStr<Err = String>>(text: &str) -> Result<Vec<T>, String> {
    if text == "none" {
        return Ok(Vec::new());
    }
    if text.split(',').count() > MOST_NAMED {
        return Err(format!("at most {MOST_NAMED} items are allowed"));
    }
    text.split(',').map(str::parse).collect()
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.fault, self.number)
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Strike, String> {
        let wrong = || format!("{text:?} is not a strike; expected a kind of fault and a number from 1, like Crash.3");
        let (name, number) = text.split_once('.').ok_or_else(wrong)?;
        let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
        Ok(Strike { fault: Fault::named(name)?, number })
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.client, self.number, Seconds(self.at))
    }
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Start, String> {
        let wrong = || {
            format!("{text:?} is not an operation; expected CLIENT.NUMBER@SECONDS with a number from 1, like 0.3@1.25")
        };
        let (name, at) = text.split_once('@').ok_or_else(wrong)?;
        let (client, number) = name.split_once('.').ok_or_else(wrong)?;
        let client = client.parse().map_err(|_| wrong())?;
        let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
        Ok(Start { at: parse_seconds(at).map_err(|_| wrong())?, client, number })
    }
}

/// Nanoseconds, shown as seconds without rounding.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:09}", self.0 / SECOND, self.0 % SECOND);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Parses seconds with at most nine decimals into nanoseconds, exactly, without floating point.
///
/// # Errors
/// One line that says what is allowed.
pub fn parse_seconds(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("{text:?} is not a number of seconds; expected 0 to less than {LONGEST}, with at most nine decimals")
    };
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(decimals) || decimals.len() > 9 {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().ok().filter(|whole| *whole < LONGEST).ok_or_else(wrong)?;
    let nanos: u64 = format!("{decimals:0<9}").parse().map_err(|_| wrong())?;
    Ok(whole * SECOND + nanos)
}

/// The strikes and operations of a run. Each has its own dice, so that leaving one out changes nothing that another
/// draws.
#[derive(Debug, Default)]
pub(crate) struct Script {
    seed: u64,
    only: Option<BTreeSet<Strike>>,
    /// By fault: how many strikes there were.
    strikes: Vec<u32>,
    /// By client: how many operations there were.
    operations: Vec<u32>,
    /// By client: the operations still to come, the last one first. `None` if clients start operations by themselves.
    to_come: Option<Vec<Vec<Start>>>,
    /// What happened, in order.
    pub(crate) happened: Happened,
}

/// The strikes and operations of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Happened {
    pub(crate) strikes: Vec<Strike>,
    pub(crate) operations: Vec<Start>,
}

impl Script {
    pub(crate) fn of(plan: &Plan) -> Script {
        let clients = plan.clients();
        let to_come = plan.operations.as_ref().map(|starts| {
            let mut by_client = vec![Vec::new(); clients];
            for start in starts.iter().rev() {
                if let Some(list) = by_client.get_mut(start.client as usize) {
                    list.push(*start);
                }
            }
            by_client
        });
        Script {
            seed: plan.chance(),
            only: plan.strikes.clone(),
            strikes: vec![0; Fault::COUNT],
            operations: vec![0; clients],
            to_come,
            happened: Happened::default(),
        }
    }

    /// The dice for the next strike of a kind, and whether it may strike. The time to the following strike is drawn
    /// from the same dice, so the times of a kind's strikes don't depend on anything else.
    pub(crate) fn next_strike(&mut self, fault: Fault) -> (Dice, bool) {
        let number = &mut self.strikes[fault as usize];
        *number += 1;
        let strike = Strike { fault, number: *number };
        let strikes = self.only.as_ref().is_none_or(|only| only.contains(&strike));
        if strikes {
            self.happened.strikes.push(strike);
        }
        (self.strike_dice(strike), strikes)
    }

    /// The dice for the time of the first strike of a kind, if any of its strikes is wanted.
    pub(crate) fn first_strike(&self, fault: Fault) -> Option<Dice> {
        let some = self.only.as_ref().is_none_or(|only| only.iter().any(|strike| strike.fault == fault));
        some.then(|| self.strike_dice(Strike { fault, number: 0 }))
    }

    fn strike_dice(&self, strike: Strike) -> Dice {
        Dice::new(self.seed, 1 << 40 | (strike.fault as u64) << 32 | u64::from(strike.number))
    }

    /// The dice for a client's next operation, if there is one.
    pub(crate) fn next_operation(&mut self, now: Moment, client: usize) -> Option<Dice> {
        let number = match &mut self.to_come {
            Some(to_come) => to_come[client].pop()?.number,
            None => self.operations[client] + 1,
        };
        self.operations[client] = number;
        let start = Start { at: now, client: client as u32, number };
        self.happened.operations.push(start);
        Some(self.operation_dice(start))
    }

    /// When a client's first operation begins, if there is one.
    pub(crate) fn first_start(&self, client: usize, pause: Moment) -> Option<Moment> {
        match &self.to_come {
            Some(to_come) => to_come[client].last().map(|start| start.at),
            None => Some(self.operation_dice(Start { at: 0, client: client as u32, number: 0 }).below(pause + 1)),
        }
    }

    /// When a client's next operation begins, if there is one: after a pause, or at its given moment.
    pub(crate) fn next_start(&self, client: usize, after_pause: Moment, now: Moment) -> Option<Moment> {
        match &self.to_come {
            Some(to_come) => to_come[client].last().map(|start| start.at.max(now)),
            None => Some(after_pause),
        }
    }

    fn operation_dice(&self, start: Start) -> Dice {
        Dice::new(self.seed, 1 << 41 | u64::from(start.client) << 32 | u64::from(start.number))
    }
}

/// The dice for one run of one replica's process. Restarts of other replicas don't change them.
pub(crate) fn run_dice(seed: u64, host: usize, run: u32) -> Dice {
    Dice::new(seed, 1 << 42 | (host as u64) << 32 | u64::from(run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_is_read() {
        let strike: Strike = "crashinside.12".parse().expect("a strike");
        assert_eq!(strike, Strike { fault: Fault::CrashInside, number: 12 });
        assert_eq!(strike.to_string(), "CrashInside.12");
        let start: Start = "2.7@1.000000031".parse().expect("an operation");
        assert_eq!(start, Start { at: 1_000_000_031, client: 2, number: 7 });
        assert_eq!(start.to_string(), "2.7@1.000000031");
        let reduction = Reduction {
            members: Some(3),
            strikes: Some(vec![]),
            operations: Some(vec![start]),
            end: Some(1_500_000_000),
            safety_only: true,
            ..Reduction::default()
        };
        let told = " --members 3 --strikes none --operations 2.7@1.000000031 --seconds 1.5 --safety-only";
        assert_eq!(reduction.to_string(), told);
        assert_eq!(parse_list::<Strike>("none"), Ok(vec![]));
        assert_eq!(parse_list::<Strike>("CrashInside.12"), Ok(vec![strike]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_a_line() {
        for text in ["", "Crash", "Crash.0", "Crash.x", "Crash.99999999999", "NoFault.1", "Crash.1,,"] {
            let error = parse_list::<Strike>(text).expect_err(text);
            assert!(!error.contains('\n'), "{error}");
        }
        for text in ["1.2", "1@2", "1.0@2", "1.1@-2", "1.1@2.0000000001", "1.1@99999999", "1.1@1e3"] {
            assert!(parse_list::<Start>(text).is_err(), "{text}");
        }
        assert!(Reduction { members: Some(0), ..Reduction::default() }.checked().is_err());
    }
}
