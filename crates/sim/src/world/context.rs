//! What all actors of a world share: the time, what will happen next, chance, the judge, and who is told of it.

use bowline_raft::NodeId;

use crate::world::clock::Moment;
use crate::world::coverage::Coverage;
use crate::world::dice::Dice;
use crate::world::event::Event;
use crate::world::oracle::{Judged, Oracle};
use crate::world::page::Camera;
use crate::world::plan::{Plan, SECOND};
use crate::world::queue::Queue;
use crate::world::reduction::Script;
use crate::world::story::Line;

/// One source of chance for each purpose.
#[derive(Debug)]
pub(crate) struct Chances {
    pub(crate) network: Dice,
    pub(crate) disk: Dice,
    pub(crate) faults: Dice,
    pub(crate) hosts: Dice,
}

/// What each step of an actor is given.
pub(crate) struct Context<'a> {
    pub(crate) plan: Plan,
    pub(crate) now: Moment,
    pub(crate) queue: Queue<Event>,
    pub(crate) chances: Chances,
    pub(crate) script: Script,
    pub(crate) oracle: Oracle,
    pub(crate) coverage: Coverage,
    /// The safety phase is over: nothing strikes any more, and nothing is mended.
    pub(crate) healed: bool,
    /// The replicas that were made whole then: only these are asked. None before.
    pub(crate) whole: Vec<usize>,
    /// Films it all for a page.
    pub(crate) camera: Option<Camera>,
    teller: Option<&'a mut dyn FnMut(Line)>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(plan: Plan, teller: Option<&'a mut dyn FnMut(Line)>, camera: Option<Camera>) -> Context<'a> {
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
            camera,
            teller,
            plan,
        }
    }

    /// Adds a line to the story, if anyone listens.
    pub(crate) fn tell(&mut self, host: Option<usize>, text: impl FnOnce() -> String) {
        if self.teller.is_none() && self.camera.is_none() {
            return;
        }
        let text = text();
        if let Some(camera) = &mut self.camera {
            camera.told(self.now, host, text.clone());
        }
        if let Some(teller) = &mut self.teller {
            let id = host.map(|host| NodeId(host as u64 + 1));
            teller(Line { at: self.now, id, text });
        }
    }

    /// Judges something that was looked at.
    pub(crate) fn judge(&mut self, judged: Judged) {
        self.oracle.judge(self.now, judged);
    }

    /// Plans something, `after` so many nanoseconds.
    pub(crate) fn after(&mut self, after: Moment, event: Event) {
        self.queue.push(self.now + after, event);
    }

    /// A wait for people: an operator, a restart by hand.
    pub(crate) fn patience(&self) -> Moment {
        (self.plan.settings.election_max * 4).min(SECOND * 4)
    }
}
