//! Searches for an order of one register's operations that explains their results.
//!
//! An operation is *open* while it isn't linearised, and *minimal* if no open operation that has
//! returned did so before its call: only minimal operations can come next. Five rules, each by an
//! exchange argument on any order that completes the current one, keep the search narrow:
//!
//! 1. *A minimal read of the current value comes next.* Moving it to the front changes nothing for
//!    the others. Afterwards no open read can be answered by the current value: each waits for an
//!    operation that returned before, and following those leads to a write. So what has been
//!    linearised is the whole configuration, without the value.
//! 2. *A minimal write of a value that no open read returns comes next.* In any other place it is
//!    followed by a write or the end, so it can be taken out, and here it hides nothing (rule 1).
//! 3. *A minimal write comes next, if each open read of its value either can follow it at once, or
//!    is called after the end of an operation that is called after the write's end.* The latter
//!    reads can't be answered by this write in any order. Taken out of their places, the write and
//!    its reads uncover no other value to any read. With values that are written once, this rule
//!    decides everything and the search never branches.
//! 4. *A write without a known outcome is only ever used just before a read of its value*, or it
//!    could be left out. Of several minimal writes of one value, the one that returns first is used
//!    first; an unknown one counts as returning last; unknown ones are used in the order of their
//!    calls. Swapping them is always possible.
//! 5. *A value with open reads but without open writes is hopeless*, unless it is the current one.
//!
//! What is left, writes of repeated values, is tried one after another. Configurations that were
//! branched from are remembered (Lowe 2017) as the minimal finished operations, which stand for the
//! whole set (all operations called after the first open return are open), and the count of used
//! unknown writes for each value that still matters. The memory is exact, not a hash.

use std::collections::BTreeSet;

use super::register::{INITIAL, Op, Register};

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SearchResult {
    /// There is an order.
    Linearizable,
    /// There is none.
    Stuck,
    /// The bound was reached first.
    OutOfSteps,
}

/// The steps taken so far, and their bound.
#[derive(Debug)]
pub(super) struct Steps {
    taken: u64,
    max: u64,
}

impl Steps {
    pub(super) fn new(max: u64) -> Steps {
        Steps { taken: 0, max }
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    fn exhausted(&self) -> bool {
        self.taken > self.max
    }

    fn count(&mut self) {
        self.taken = self.taken.saturating_add(1);
    }
}

/// Searches for an order of the register's operations.
pub(super) fn search(register: &Register, steps: &mut Steps) -> SearchResult {
    Search::new(register, steps).run()
}

/// Marks the end of the list, and "no operation".
const NONE: u32 = u32::MAX;
/// The event before the first and after the last.
const HEAD: usize = 0;

#[derive(Clone, Copy)]
struct Event {
    time: u64,
    op: u32,
    is_call: bool,
}

/// A write that may come next. The order is by value, then by which is used first (rule 4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    value: u32,
    /// `u64::MAX` for a write without a known outcome.
    ret: u64,
    /// [`NONE`] for a write without a known outcome.
    op: u32,
}

/// A choice that can be undone.
struct Branch {
    untried: Vec<Candidate>,
    trail: usize,
    current: u32,
}

enum Settled {
    AllDone,
    Stuck,
    Choice(Vec<Candidate>),
    OutOfSteps,
}

struct Search<'a> {
    ops: &'a [Op],
    /// Calls and returns of the finished operations, linked in time order while open.
    events: Vec<Event>,
    next: Vec<u32>,
    previous: Vec<u32>,
    /// By operation: the places of its two events.
    call_event: Vec<u32>,
    return_event: Vec<u32>,
    /// By value.
    open_reads: Vec<u32>,
    /// By value: writes not used yet, those without a known outcome included.
    open_writes: Vec<u32>,
    /// By value: the calls of its writes without a known outcome, ascending.
    unknown_calls: Vec<Vec<u64>>,
    /// By value: how many of those are used.
    unknown_used: Vec<u32>,
    /// Values with open reads and used unknown writes: a configuration must contain their counts.
    mixed: BTreeSet<u32>,
    current: u32,
    trail: Vec<Candidate>,
    seen: BTreeSet<Box<[u32]>>,
    steps: &'a mut Steps,
}

impl<'a> Search<'a> {
    fn new(register: &'a Register, steps: &'a mut Steps) -> Search<'a> {
        let ops = &register.ops[..];
        let mut search = Search {
            ops,
            events: vec![Event { time: 0, op: NONE, is_call: false }],
            next: Vec::new(),
            previous: Vec::new(),
            call_event: vec![NONE; ops.len()],
            return_event: vec![NONE; ops.len()],
            open_reads: vec![0; register.values],
            open_writes: vec![0; register.values],
            unknown_calls: vec![Vec::new(); register.values],
            unknown_used: vec![0; register.values],
            mixed: BTreeSet::new(),
            current: INITIAL,
            trail: Vec::new(),
            seen: BTreeSet::new(),
            steps,
        };
        for op in ops {
            let value = op.value as usize;
            match op.is_write {
                true => search.open_writes[value] += 1,
                false => search.open_reads[value] += 1,
            }
        }
        search.link_events(register);
        search
    }

    fn link_events(&mut self, register: &Register) {
        for (time, is_return, at) in register.events() {
            let op = &self.ops[at];
            if op.ret.is_none() {
                self.unknown_calls[op.value as usize].push(time);
                continue;
            }
            let event = number(self.events.len());
            let places = match is_return {
                true => &mut self.return_event,
                false => &mut self.call_event,
            };
            places[at] = event;
            self.events.push(Event { time, op: number(at), is_call: !is_return });
        }
        let count = number(self.events.len());
        self.next = (1..count).chain([0]).collect();
        self.previous = [count - 1].into_iter().chain(0..count - 1).collect();
    }

    fn run(mut self) -> SearchResult {
        let mut branches: Vec<Branch> = Vec::new();
        loop {
            match self.settle() {
                Settled::AllDone => return SearchResult::Linearizable,
                Settled::OutOfSteps => return SearchResult::OutOfSteps,
                Settled::Stuck => {}
                Settled::Choice(mut untried) => {
                    // Candidates are taken from the end, so the write that must be done first is tried first.
                    untried.sort_unstable_by_key(|c| std::cmp::Reverse((c.ret, c.op, c.value)));
                    branches.push(Branch { untried, trail: self.trail.len(), current: self.current });
                }
            }
            loop {
                let Some(branch) = branches.last_mut() else {
                    return SearchResult::Stuck;
                };
                if let Some(candidate) = branch.untried.pop() {
                    let (trail, current) = (branch.trail, branch.current);
                    self.back_to(trail, current);
                    self.take(candidate);
                    break;
                }
                branches.pop();
            }
        }
    }

    /// Takes all steps that have no alternative, until the search ends or must choose.
    fn settle(&mut self) -> Settled {
        loop {
            if self.steps.exhausted() {
                return Settled::OutOfSteps;
            }
            self.absorb_reads();
            let current = self.current as usize;
            if self.open_reads[current] > 0 && self.open_writes[current] == 0 {
                return Settled::Stuck;
            }
            let mut candidates = self.candidates();
            let Some(first_return) = self.first_return() else {
                return Settled::AllDone;
            };
            let urgent = self.ops[self.events[first_return].op as usize];
            if !candidates.iter().any(|c| c.value == urgent.value) {
                return Settled::Stuck;
            }
            if let Some(&candidate) = candidates.iter().find(|&&c| self.completes(c)) {
                self.take(candidate);
                continue;
            }
            candidates.retain(|c| self.open_writes[c.value as usize] > 1);
            match candidates[..] {
                [] => return Settled::Stuck,
                [only] => self.take(only),
                _ if self.remember() => return Settled::Choice(candidates),
                _ => return Settled::Stuck,
            }
        }
    }

    /// Applies rule 1. One pass is enough: an event that an absorbed read held back comes later in the list.
    fn absorb_reads(&mut self) {
        let mut event = self.next[HEAD] as usize;
        while self.events[event].is_call {
            self.steps.count();
            let Event { op, .. } = self.events[event];
            if self.ops[op as usize].is_read_of(self.current) {
                // The next event may be its own return, which goes with it.
                let before = self.previous[event] as usize;
                self.linearise(op);
                event = self.next[before] as usize;
            } else {
                event = self.next[event] as usize;
            }
        }
    }

    /// Applies rule 2 and returns the writes that may come next, one for each value (rule 4).
    fn candidates(&mut self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let mut wanted = Vec::new();
        let mut event = self.next[HEAD] as usize;
        while self.events[event].is_call {
            self.steps.count();
            let at = self.events[event].op;
            let op = self.ops[at as usize];
            let value = op.value as usize;
            if !op.is_write {
                if (self.unknown_used[value] as usize) < self.unknown_calls[value].len() {
                    wanted.push(op.value);
                }
            } else if self.open_reads[value] > 0 {
                candidates.push(Candidate {
                    value: op.value,
                    ret: op.ret.expect("only finished operations are in the list"),
                    op: at,
                });
            } else {
                let before = self.previous[event] as usize;
                self.linearise(at);
                self.current = op.value;
                event = self.next[before] as usize;
                continue;
            }
            event = self.next[event] as usize;
        }
        let first_return = self.events[event].time;
        wanted.sort_unstable();
        wanted.dedup();
        candidates.extend(wanted.into_iter().filter_map(|value| {
            let used = self.unknown_used[value as usize] as usize;
            (self.unknown_calls[value as usize][used] <= first_return).then_some(Candidate {
                value,
                ret: u64::MAX,
                op: NONE,
            })
        }));
        candidates.sort_unstable();
        candidates.dedup_by_key(|c| c.value);
        candidates
    }

    /// The first open return, or `None` if no finished operation is open.
    fn first_return(&mut self) -> Option<usize> {
        let mut event = self.next[HEAD] as usize;
        while self.events[event].is_call {
            self.steps.count();
            event = self.next[event] as usize;
        }
        (event != HEAD).then_some(event)
    }

    /// Rule 3: whether the reads that can follow the candidate at once are all that it can answer.
    fn completes(&mut self, candidate: Candidate) -> bool {
        let mut missing = self.open_reads[candidate.value as usize];
        let mut held_back = false;
        let mut event = self.next[HEAD] as usize;
        while event != HEAD && missing > 0 {
            self.steps.count();
            let Event { op: at, is_call, .. } = self.events[event];
            let op = &self.ops[at as usize];
            if op.is_read_of(candidate.value) {
                if is_call && held_back {
                    return false;
                }
                missing -= u32::from(is_call);
            } else if !is_call && at != candidate.op {
                if op.call > candidate.ret {
                    // It stands between the candidate and all reads that are called from here on.
                    return true;
                }
                held_back = true;
            }
            event = self.next[event] as usize;
        }
        missing == 0
    }

    /// Remembers the configuration. Returns false if it is known already, and so led nowhere.
    fn remember(&mut self) -> bool {
        let mut key = Vec::new();
        let mut event = self.next[HEAD] as usize;
        while self.events[event].is_call {
            self.steps.count();
            key.push(self.events[event].op);
            event = self.next[event] as usize;
        }
        key.push(NONE);
        for &value in &self.mixed {
            self.steps.count();
            key.extend([value, self.unknown_used[value as usize]]);
        }
        self.seen.insert(key.into_boxed_slice())
    }

    fn take(&mut self, candidate: Candidate) {
        self.current = candidate.value;
        if candidate.op == NONE {
            let value = candidate.value as usize;
            self.unknown_used[value] += 1;
            self.open_writes[value] -= 1;
            self.trail.push(candidate);
            self.note_mixed(candidate.value);
        } else {
            self.linearise(candidate.op);
        }
    }

    /// Closes a finished operation.
    fn linearise(&mut self, at: u32) {
        let op = &self.ops[at as usize];
        for event in [self.call_event[at as usize], self.return_event[at as usize]] {
            let (before, after) = (self.previous[event as usize], self.next[event as usize]);
            self.next[before as usize] = after;
            self.previous[after as usize] = before;
        }
        match op.is_write {
            true => self.open_writes[op.value as usize] -= 1,
            false => self.open_reads[op.value as usize] -= 1,
        }
        self.trail.push(Candidate { value: op.value, ret: 0, op: at });
        self.note_mixed(op.value);
    }

    /// Reopens what was closed since the trail had this length, the last first.
    fn back_to(&mut self, trail: usize, current: u32) {
        self.current = current;
        for Candidate { value, op: at, .. } in self.trail.split_off(trail).into_iter().rev() {
            self.steps.count();
            if at == NONE {
                self.unknown_used[value as usize] -= 1;
                self.open_writes[value as usize] += 1;
            } else {
                for event in [self.return_event[at as usize], self.call_event[at as usize]] {
                    let (before, after) = (self.previous[event as usize], self.next[event as usize]);
                    self.next[before as usize] = event;
                    self.previous[after as usize] = event;
                }
                match self.ops[at as usize].is_write {
                    true => self.open_writes[value as usize] += 1,
                    false => self.open_reads[value as usize] += 1,
                }
            }
            self.note_mixed(value);
        }
    }

    fn note_mixed(&mut self, value: u32) {
        if self.unknown_calls[value as usize].is_empty() {
            return;
        }
        if self.unknown_used[value as usize] > 0 && self.open_reads[value as usize] > 0 {
            self.mixed.insert(value);
        } else {
            self.mixed.remove(&value);
        }
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("fewer events than fit in memory")
}
