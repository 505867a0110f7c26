//! What all actors of a cluster share: the time, the queue of events, the dice, the oracle, and the trace.

use bowline_raft::NodeId;

use crate::cluster::clock::Moment;
use crate::cluster::coverage::Coverage;
use crate::cluster::dice::Dice;
use crate::cluster::event::Event;
use crate::cluster::oracle::{Judged, Oracle};
use crate::cluster::page::Recorder;
use crate::cluster::plan::{Plan, SECOND};
use crate::cluster::queue::Queue;
use crate::cluster::reduction::Script;
use crate::cluster::trace::Line;

/// One source of random numbers for each purpose.
#[derive(Debug)]
pub(crate) struct Chances {
    pub(crate) network: Dice,
    pub(crate) disk: Dice,
    pub(crate) faults: Dice,
    pub(crate) hosts: Dice,
}

/// The state that each step of an actor gets.
pub(crate) struct Context<'a> {
    pub(crate) plan: Plan,
    pub(crate) now: Moment,
    pub(crate) queue: Queue<Event>,
    pub(crate) chances: Chances,
    pub(crate) script: Script,
    pub(crate) oracle: Oracle,
    pub(crate) coverage: Coverage,
    /// The safety phase is over: faults no longer strike, and those in force are not repaired.
    pub(crate) healed: bool,
    /// The replicas that were made whole after it; clients ask only these. Empty before.
    pub(crate) whole: Vec<usize>,
    /// Records the run for a page.
    pub(crate) recorder: Option<Recorder>,
    reader: Option<&'a mut dyn FnMut(Line)>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(plan: Plan, reader: Option<&'a mut dyn FnMut(Line)>, recorder: Option<Recorder>) -> Context<'a> {
        let seed = plan.chance();
        let chances = Chances {
            network: Dice::new(seed, 2),
            disk: Dice::new(seed, 3),
            faults: Dice::new(seed, 5),
            hosts: Dice::new(seed, 6),
        };
        Context {
            now: 0,
            queue: Queue::new(),
            chances,
            script: Script::of(&plan),
            oracle: Oracle::default(),
            coverage: Coverage::default(),
            healed: false,
            whole: Vec::new(),
            recorder,
            reader,
            plan,
        }
    }

    /// Adds a line to the trace, if anyone reads it.
    pub(crate) fn trace(&mut self, host: Option<usize>, text: impl FnOnce() -> String) {
        if self.reader.is_none() && self.recorder.is_none() {
            return;
        }
        let text = text();
        if let Some(recorder) = &mut self.recorder {
            recorder.note(self.now, host, text.clone());
        }
        if let Some(reader) = &mut self.reader {
            let id = host.map(|host| NodeId(host as u64 + 1));
            reader(Line { at: self.now, id, text });
        }
    }

    /// Records the result of a check.
    pub(crate) fn judge(&mut self, judged: Judged) {
        self.oracle.judge(self.now, judged);
    }

    /// Plans an event `after` this many nanoseconds.
    pub(crate) fn after(&mut self, after: Moment, event: Event) {
        self.queue.push(self.now + after, event);
    }

    /// How long a person takes, for example an operator or a restart by hand.
    pub(crate) fn patience(&self) -> Moment {
        (self.plan.settings.election_max * 4).min(SECOND * 4)
    }
}
