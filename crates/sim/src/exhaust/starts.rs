//! Where a search begins: nowhere, or just before the places where history went wrong.

use super::Bounds;
use super::replica::Broken;
use super::space::{Action, Space, State};

/// A place to begin at.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Its name.
    pub name: &'static str,
    /// What has happened, in a line.
    pub about: &'static str,
    pub(super) bounds: fn(&mut Bounds),
    pub(super) script: fn(&mut Script<'_>) -> Result<(), Broken>,
}

/// All of them.
pub const STARTS: &[Start] = &[
    Start { name: "fresh", about: "nothing has happened yet", bounds: |_| (), script: |_| Ok(()) },
    Start {
        name: "led",
        about: "n1 leads term 1, and its first entry is committed everywhere",
        bounds: |_| (),
        script: |script| script.elect(1),
    },
    Start {
        name: "disks",
        about: "as `led`, and every write is on disk only after a step of its own",
        bounds: |bounds| {
            bounds.instant_disk = false;
            bounds.commands = 1;
            bounds.changes = 0;
        },
        script: |script| script.elect(1),
    },
    Start {
        name: "figure-8",
        about: "n1, back as the leader of term 3, sends n2 its entry of term 1; n3 has one of term 2",
        bounds: |bounds| {
            bounds.terms = 4;
            bounds.one_entry_messages = true;
            bounds.changes = 0;
            bounds.crashes = 0;
        },
        script: figure_8,
    },
    Start {
        name: "2015",
        about: "n1 of four has begun to remove n4 in term 1, unheard; n3 was elected in term 2 by n2 and n4",
        bounds: |bounds| {
            bounds.replicas = 4;
            bounds.commands = 0;
            bounds.crashes = 0;
            bounds.doubles = 0;
            bounds.drops = 0;
        },
        script: single_server,
    },
];

/// Plays the beginning by hand.
pub(super) struct Script<'a> {
    pub(super) space: &'a mut Space,
    pub(super) state: State,
}

impl Script<'_> {
    fn act(&mut self, action: Action) -> Result<(), Broken> {
        // A beginning is not bounded by what may come after it.
        let bounds = std::mem::replace(&mut self.space.bounds.in_flight, usize::MAX);
        let entries = std::mem::replace(&mut self.space.bounds.entries, usize::MAX);
        let next = self.space.after(&self.state, action);
        self.space.bounds.in_flight = bounds;
        self.space.bounds.entries = entries;
        self.state = next?.ok_or("a beginning goes beyond all bounds")?;
        if !self.space.bounds.instant_disk {
            let writing = |script: &Self, at: usize| script.space.replicas.get(script.state.replicas[at]).is_writing();
            for at in 0..self.state.replicas.len() {
                while writing(self, at) {
                    self.state =
                        self.space.after(&self.state, Action::Persist(at))?.ok_or("a write is always allowed")?;
                }
            }
        }
        Ok(())
    }

    fn time_out(&mut self, id: usize) -> Result<(), Broken> {
        let leads = self.space.replicas.get(self.state.replicas[id - 1]).raft.is_leader();
        let first = if leads { id - 1 } else { usize::from(id == 1) };
        self.act(Action::TimeOut(id - 1, first))
    }

    /// Delivers what is on its way among these, and what follows, until nothing is.
    fn settle(&mut self, among: &[u64]) -> Result<(), Broken> {
        loop {
            let within = |message: &&u32| {
                let envelope = self.space.messages.get(**message);
                among.contains(&envelope.from.0) && among.contains(&envelope.to.0)
            };
            let Some(message) = self.state.network.iter().find(within).copied() else { return Ok(()) };
            self.act(Action::Deliver(message))?;
        }
    }

    /// Everything that is on its way gets lost, except between these two.
    fn lose_all_but(&mut self, kept: Option<(u64, u64)>) {
        let space = &self.space;
        self.state.network.retain(|message| {
            let envelope = space.messages.get(*message);
            kept == Some((envelope.from.0, envelope.to.0))
        });
    }

    /// `id` is elected by everyone, and what it says reaches everyone.
    fn elect(&mut self, id: usize) -> Result<(), Broken> {
        let everyone: Vec<u64> = (1..=self.state.replicas.len() as u64).collect();
        self.time_out(id)?;
        self.settle(&everyone)?;
        self.act(Action::Heartbeat(id - 1))?;
        self.settle(&everyone)?;
        self.state.used = super::space::Used::default();
        Ok(())
    }

    /// `id` stands for election until it wins, with the votes of `by` and no others; what it says as
    /// a leader is on its way to them.
    fn win(&mut self, id: usize, by: &[u64]) -> Result<(), Broken> {
        for _ in 0..4 {
            self.time_out(id)?;
            while let Some(message) = self.vote_on_its_way(id as u64, by) {
                self.act(Action::Deliver(message))?;
            }
            if self.space.replicas.get(self.state.replicas[id - 1]).raft.is_leader() {
                return Ok(());
            }
        }
        Err(format!("n{id} can't win this beginning"))
    }

    /// A question for a vote from `id` to one of `by`, or its answer.
    fn vote_on_its_way(&self, id: u64, by: &[u64]) -> Option<u32> {
        let is_vote = |message: &&u32| {
            let envelope = self.space.messages.get(**message);
            let (from, to) = (envelope.from.0, envelope.to.0);
            let between = (from == id && by.contains(&to)) || (to == id && by.contains(&from));
            between && envelope.message.to_string().contains("Vote")
        };
        self.state.network.iter().find(is_vote).copied()
    }
}

fn figure_8(script: &mut Script<'_>) -> Result<(), Broken> {
    script.elect(1)?;
    script.act(Action::Propose(0, 1))?;
    script.lose_all_but(None);
    script.win(3, &[2])?;
    script.lose_all_but(None);
    // It notices that nobody answers, and stands again.
    script.time_out(1)?;
    script.win(1, &[2])?;
    script.lose_all_but(Some((1, 2)));
    // n2 refuses what it can't join to its log: now n1 knows where to begin.
    while let Some(message) = script.state.network.iter().copied().find(|message| {
        let text = script.space.messages.get(*message).message.to_string();
        text.contains("rejected") || text.contains("prev=2@1")
    }) {
        script.act(Action::Deliver(message))?;
    }
    Ok(())
}

fn single_server(script: &mut Script<'_>) -> Result<(), Broken> {
    script.elect(1)?;
    script.act(Action::Remove(0, 3))?;
    script.lose_all_but(None);
    script.win(3, &[2, 4])?;
    script.lose_all_but(Some((3, 4)));
    script.time_out(1)?;
    script.state.used = super::space::Used::default();
    Ok(())
}
