//! Searches for an order of one key's operations: Wing and Gong's algorithm, with Lowe's memory of states that led
//! nowhere.

use std::collections::BTreeSet;

use super::{ABSENT, Step};

/// How a search ended.
pub(super) enum SearchResult {
    /// There is an order.
    Linearizable,
    /// There is no order. This step could not be placed when the most others were.
    Stuck(usize),
    /// The bound was reached first.
    OutOfSteps,
}

/// No step, or no event.
const END: usize = usize::MAX;

#[derive(Clone, Copy)]
struct Event {
    step: usize,
    is_call: bool,
}

/// What placing a step changed, to undo it.
struct Placed {
    step: usize,
    state: u32,
    frontier: usize,
    horizon: usize,
}

struct Search<'a> {
    steps: &'a [Step],
    events: Vec<Event>,
    /// The events of steps that are not placed, linked in time order. Event 0 is before the first and after the last.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// By step: its two events. A step that may be left out has no return event.
    call_event: Vec<usize>,
    return_event: Vec<usize>,
    placed: Vec<bool>,
    /// The first step that is not placed.
    frontier: usize,
    /// The last step that is placed.
    horizon: usize,
    state: u32,
    trail: Vec<Placed>,
    seen: BTreeSet<(u32, usize, Vec<u32>)>,
}

/// Searches for an order of `steps`, which are sorted by their calls.
pub(super) fn search(steps: &[Step], max_steps: u64) -> SearchResult {
    let mut search = Search::new(steps);
    let mut obligations = steps.iter().filter(|step| step.ret.is_some()).count();
    let (mut taken, mut most, mut stuck) = (0_u64, 0, 0);
    let mut at = search.next[0];
    while obligations > 0 {
        taken += 1;
        if taken > max_steps {
            return SearchResult::OutOfSteps;
        }
        let event = search.events[at];
        if event.is_call {
            if search.place(event.step) {
                obligations -= usize::from(steps[event.step].ret.is_some());
                at = search.next[0];
            } else {
                at = search.next[at];
            }
            continue;
        }
        // This step returned here, so it must come before all later steps, but it can't be placed.
        if search.trail.len() >= most {
            (most, stuck) = (search.trail.len(), event.step);
        }
        let Some(step) = search.take_back() else { return SearchResult::Stuck(stuck) };
        obligations += usize::from(steps[step].ret.is_some());
        at = search.next[search.call_event[step]];
    }
    SearchResult::Linearizable
}

impl<'a> Search<'a> {
    fn new(steps: &'a [Step]) -> Search<'a> {
        let mut times = Vec::with_capacity(steps.len() * 2);
        for (step, Step { call, ret, .. }) in steps.iter().enumerate() {
            times.push((*call, false, step));
            if let Some(ret) = ret {
                times.push((*ret, true, step));
            }
        }
        // At equal times calls come first, so that the two operations count as concurrent.
        times.sort_unstable();
        let head = Event { step: END, is_call: true };
        let mut search = Search {
            steps,
            events: vec![head],
            next: Vec::new(),
            previous: Vec::new(),
            call_event: vec![END; steps.len()],
            return_event: vec![END; steps.len()],
            placed: vec![false; steps.len()],
            frontier: 0,
            horizon: 0,
            state: ABSENT,
            trail: Vec::new(),
            seen: BTreeSet::new(),
        };
        for (_, is_return, step) in times {
            let event = search.events.len();
            let places = if is_return { &mut search.return_event } else { &mut search.call_event };
            places[step] = event;
            search.events.push(Event { step, is_call: !is_return });
        }
        let count = search.events.len();
        search.next = (1..count).chain([0]).collect();
        search.previous = [count - 1].into_iter().chain(0..count - 1).collect();
        search
    }

    /// Places a step next, if the state allows it and the result was not tried before.
    fn place(&mut self, step: usize) -> bool {
        let Step { demands, sets, .. } = self.steps[step];
        if demands.is_some_and(|state| state != self.state) {
            return false;
        }
        let before = Placed { step, state: self.state, frontier: self.frontier, horizon: self.horizon };
        self.placed[step] = true;
        while self.placed.get(self.frontier).copied().unwrap_or(false) {
            self.frontier += 1;
        }
        self.horizon = self.horizon.max(step);
        self.state = sets.unwrap_or(self.state);
        if !self.seen.insert((self.state, self.horizon, self.left_behind())) {
            self.placed[step] = false;
            (self.state, self.frontier, self.horizon) = (before.state, before.frontier, before.horizon);
            return false;
        }
        self.unlink(self.call_event[step]);
        self.unlink(self.return_event[step]);
        self.trail.push(before);
        true
    }

    /// Takes back the last placed step.
    fn take_back(&mut self) -> Option<usize> {
        let Placed { step, state, frontier, horizon } = self.trail.pop()?;
        (self.state, self.frontier, self.horizon) = (state, frontier, horizon);
        self.placed[step] = false;
        self.link(self.return_event[step]);
        self.link(self.call_event[step]);
        Some(step)
    }

    /// The unplaced steps before the last placed one. They are few: that one was called before they returned.
    fn left_behind(&self) -> Vec<u32> {
        let open = (self.frontier..self.horizon).filter(|step| !self.placed[*step]);
        open.map(|step| u32::try_from(step).expect("fewer steps than fit into memory")).collect()
    }

    fn unlink(&mut self, event: usize) {
        if event != END {
            let (before, after) = (self.previous[event], self.next[event]);
            self.next[before] = after;
            self.previous[after] = before;
        }
    }

    fn link(&mut self, event: usize) {
        if event != END {
            let (before, after) = (self.previous[event], self.next[event]);
            self.next[before] = event;
            self.previous[after] = event;
        }
    }
}
