//! The starts of a search: a fresh cluster, or a state just before a known bug can show.

use super::Bounds;
use super::replica::Broken;
use super::space::{Action, Space, State};

/// A start of a search.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Its name.
    pub name: &'static str,
    /// What has happened before it, in one line.
    pub about: &'static str,
    pub(super) bounds: fn(&mut Bounds),
    pub(super) script: fn(&mut Script<'_>) -> Result<(), Broken>,
}

/// All starts.
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
        about: "like `led`, but every write takes a step of its own to reach the disk",
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
        about: "n1 of four has begun to remove n4 in term 1, but nobody heard it; n2 and n4 elected n3 in term 2",
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

/// Plays the steps before a start.
pub(super) struct Script<'a> {
    pub(super) space: &'a mut Space,
    pub(super) state: State,
}

impl Script<'_> {
    fn act(&mut self, action: Action) -> Result<(), Broken> {
        // The bounds apply only to the search, not to the steps before it.
        let bounds = std::mem::replace(&mut self.space.bounds.in_flight, usize::MAX);
        let entries = std::mem::replace(&mut self.space.bounds.entries, usize::MAX);
        let next = self.space.after(&self.state, action);
        self.space.bounds.in_flight = bounds;
        self.space.bounds.entries = entries;
        self.state = next?.ok_or("the steps before the start go beyond the bounds")?;
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

    /// Delivers the messages between these replicas, and those that follow, until there are none.
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

    /// Loses all messages on their way, except those from the first of `kept` to the second.
    fn lose_all_but(&mut self, kept: Option<(u64, u64)>) {
        let space = &self.space;
        self.state.network.retain(|message| {
            let envelope = space.messages.get(*message);
            kept == Some((envelope.from.0, envelope.to.0))
        });
    }

    /// Elects `id` with all votes, and delivers its messages to all.
    fn elect(&mut self, id: usize) -> Result<(), Broken> {
        let everyone: Vec<u64> = (1..=self.state.replicas.len() as u64).collect();
        self.time_out(id)?;
        self.settle(&everyone)?;
        self.act(Action::Heartbeat(id - 1))?;
        self.settle(&everyone)?;
        self.state.used = super::space::Used::default();
        Ok(())
    }

    /// Lets `id` stand for election until it wins with the votes of `by` only. Its messages as a leader stay on their
    /// way.
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

    /// A vote request from `id` to one of `by`, or its answer.
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
    // n1 notices that nobody answers, and steps down.
    script.time_out(1)?;
    script.win(1, &[2])?;
    script.lose_all_but(Some((1, 2)));
    // n2 rejects entries that don't follow its log, so n1 learns where to begin.
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
