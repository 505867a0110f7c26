//! The search itself. It is breadth-first, so that the first violation found has a shortest path.

use super::interner::{Fingerprints, mix};
use super::space::{Action, Space, State};
use super::trace;
use super::{Counterexample, Report};

/// The states to search next, one after the other, each preceded by its length.
#[derive(Default)]
struct Queue {
    words: Vec<u32>,
    count: u32,
}

impl Queue {
    fn push(&mut self, code: &[u32]) {
        self.words.push(code.len() as u32);
        self.words.extend_from_slice(code);
        self.count += 1;
    }
}

/// How a state was found.
struct Origin {
    parent: u32,
    action: u32,
}

/// Searches the states that can be reached from `start`, up to `most` of them, as long as `watch` returns true.
pub(super) fn search(space: &mut Space, start: &State, most: u64, watch: &mut dyn FnMut(u64, u32) -> bool) -> Report {
    let mut seen = Fingerprints::new();
    let mut origins = Vec::new();
    let mut level = Queue::default();
    let (code, _) = space.canonical(start);
    seen.insert(fingerprint(&code));
    origins.push(Origin { parent: u32::MAX, action: 0 });
    level.push(&code);
    let mut report = Report { states: 1, ..Report::default() };
    let mut first = 0_u32;
    'search: while level.count > 0 {
        let mut next = Queue::default();
        let next_first = origins.len() as u32;
        let mut at = 0;
        for offset in 0..level.count {
            let length = level.words[at] as usize;
            let state = space.decoded(&level.words[at + 1..=at + length]);
            at += length + 1;
            let parent = first + offset;
            for action in space.actions(&state) {
                report.steps += 1;
                let reached = match space.after(&state, action) {
                    Ok(Some(reached)) => reached,
                    Ok(None) => {
                        report.beyond_bounds += 1;
                        continue;
                    }
                    Err(rule) => {
                        let actions = path(&origins, parent, action);
                        let trace = trace::trace(space, start, &actions);
                        // Take the rule from the trace, which uses the original names of the replicas.
                        let told = trace.last().and_then(|line| line.trim().strip_prefix(trace::BROKEN));
                        let rule = told.map_or(rule, str::to_owned);
                        report.violation = Some(Counterexample { rule, steps: actions.len(), trace });
                        report.depth += 1;
                        break 'search;
                    }
                };
                let (code, _) = space.canonical(&reached);
                if seen.insert(fingerprint(&code)) {
                    origins.push(Origin { parent, action: action.code() });
                    next.push(&code);
                    report.states += 1;
                }
            }
            let goes_on = !parent.is_multiple_of(1 << 10) || watch(report.states, report.depth);
            if report.states >= most || !goes_on {
                break 'search;
            }
        }
        report.depth += 1;
        report.widest = report.widest.max(u64::from(next.count));
        first = next_first;
        level = next;
        report.exhausted = level.count == 0;
    }
    report.replica_states = space.replicas.len() as u64;
    report.messages = space.messages.len() as u64;
    report.table_bytes = (seen.bytes() + origins.len() * size_of::<Origin>() + level.words.len() * 4) as u64;
    report
}

fn fingerprint(code: &[u32]) -> u64 {
    code.iter().fold(0, |hash, word| mix(hash ^ u64::from(*word)))
}

/// The actions that lead to `last` and then through `action`.
fn path(origins: &[Origin], last: u32, action: Action) -> Vec<Action> {
    let mut actions = vec![action];
    let mut at = last;
    while let Some(origin) = origins.get(at as usize).filter(|origin| origin.parent != u32::MAX) {
        actions.push(Action::of(origin.action));
        at = origin.parent;
    }
    actions.reverse();
    actions
}
