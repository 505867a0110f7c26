//! A path of the search as text: each step, and what it changed.

use super::space::{Action, Space, State};

/// The line that names the broken rule begins with this.
pub(super) const BROKEN: &str = "✗ ";

/// Describes the steps from `start`, with the replicas' names in `start`.
pub(super) fn trace(space: &mut Space, start: &State, actions: &[Action]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut state = start.clone();
    lines.push("the start:".to_owned());
    lines.extend((0..state.replicas.len()).map(|at| format!("    {}", describe(space, &state, at))));
    for (number, action) in actions.iter().enumerate() {
        let (_, naming) = space.canonical(&state);
        let action = space.called_before(*action, naming);
        lines.push(format!("{:>3}. {}", number + 1, name(space, action)));
        match space.after(&state, action) {
            Ok(Some(next)) => {
                for at in (0..state.replicas.len()).filter(|at| state.replicas[*at] != next.replicas[*at]) {
                    let (old, new) = (describe(space, &state, at), describe(space, &next, at));
                    if old != new {
                        lines.push(format!("       {new}"));
                    }
                }
                for message in next.network.iter().filter(|message| !state.network.contains(message)) {
                    let envelope = space.messages.get(*message);
                    lines.push(format!("       {} → {} {}", envelope.from, envelope.to, envelope.message));
                }
                state = next;
            }
            Ok(None) => lines.push("       (beyond the bounds)".to_owned()),
            Err(rule) => lines.push(format!("       {BROKEN}{rule}")),
        }
    }
    lines
}

fn describe(space: &Space, state: &State, at: usize) -> String {
    let raft = &space.replicas.get(state.replicas[at]).raft;
    let role = match (raft.is_leader(), raft.leader()) {
        (true, _) => "leads".to_owned(),
        (false, Some(leader)) => format!("follows {leader}"),
        (false, None) if raft.voted_for() == Some(raft.id()) => "stands".to_owned(),
        (false, None) => raft.voted_for().map_or("waits".to_owned(), |id| format!("voted for {id}")),
    };
    let log: Vec<String> = raft.log().iter().map(|entry| entry.position().to_string()).collect();
    let commit = space.committed(state, at);
    format!(
        "{} {role} in {}, log [{}], committed {commit}, members {}",
        raft.id(),
        raft.term(),
        log.join(" "),
        raft.membership()
    )
}

fn name(space: &Space, action: Action) -> String {
    let message = |number: u32| {
        let envelope = space.messages.get(number);
        format!("{} from {}: {}", envelope.to, envelope.from, envelope.message)
    };
    match action {
        Action::Deliver(number) => format!("{} arrives", message(number)),
        Action::Double(number) => format!("{} arrives, and will arrive again", message(number)),
        Action::Drop(number) => format!("{} is lost", message(number)),
        Action::TimeOut(at, first) if at == first => format!("n{} gets no answers from a quorum", at + 1),
        Action::TimeOut(at, first) => {
            format!("n{} has heard nothing for an election timeout, and reaches n{} first", at + 1, first + 1)
        }
        Action::Heartbeat(at) => format!("n{} sends heartbeats, and sends again what was not answered", at + 1),
        Action::Propose(at, number) => format!("n{} is given command {number}", at + 1),
        Action::Remove(at, other) => format!("n{} is told to remove n{}", at + 1, other + 1),
        Action::Persist(at) => format!("the oldest write of n{} reaches the disk", at + 1),
        Action::Restart(at) => format!("n{} crashes and starts again", at + 1),
    }
}
