//! The words of the golden scripts: each line of a script is one command to a small cluster.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use bowline_raft::{Config, Group, Index, Input, MembershipChange, NodeId, ReadKind};
use goldenscript::{ArgumentConsumer, Command, Context};

use super::cluster::{Cluster, Envelope, kind};
use super::narrate;

type Answer<T> = Result<T, Box<dyn Error>>;

/// Runs one script, whose command `cluster` makes the replicas.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) cluster: Cluster,
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Answer<String> {
        let mut args = command.consume_args();
        let said = match command.name.as_str() {
            "cluster" => self.cluster(&mut args)?,
            "deliver" | "drop" | "duplicate" | "delay" | "arrive" | "stabilize" | "messages" | "partition" | "cut"
            | "heal" => self.network(&command.name, &mut args)?,
            "tick" | "run" | "campaign" | "elect" => self.time(&command.name, &mut args)?,
            "propose" | "read" | "change" | "transfer" => self.request(&command.name, &mut args)?,
            "crash" | "restart" | "damage" | "disk" | "machine" | "compact" => {
                self.machine(&command.name, &mut args)?
            }
            "status" | "log" | "explain" => self.show(&command.name, &mut args)?,
            name => return Err(format!("no such command: {name}").into()),
        };
        args.reject_next()?;
        let mut lines = std::mem::take(&mut self.cluster.trace);
        lines.extend(said);
        Ok(lines.join("\n"))
    }
}

fn id(args: &mut ArgumentConsumer<'_>) -> Answer<NodeId> {
    Ok(NodeId(args.next_pos().ok_or("which replica?")?.parse()?))
}

fn ids(list: &str) -> Answer<BTreeSet<NodeId>> {
    list.split('-').map(|id| Ok(NodeId(id.parse()?))).collect()
}

fn span(text: &str) -> Answer<Duration> {
    Ok(Duration::from_millis(text.strip_suffix("ms").ok_or("a span ends with ms")?.parse()?))
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(
    args: &mut ArgumentConsumer<'_>,
    key: &str,
    default: T,
) -> Answer<T> {
    Ok(args.take_key(key).map(str::parse).transpose()?.unwrap_or(default))
}

impl Script {
    /// The replicas that are named, or all.
    fn some(&self, args: &mut ArgumentConsumer<'_>) -> Answer<Vec<NodeId>> {
        let mut named = Vec::new();
        while let Some(id) = args.next_pos() {
            named.push(NodeId(id.parse()?));
        }
        Ok(if named.is_empty() { self.cluster.ids() } else { named })
    }

    /// `cluster voters=3 learners=1 spares=1 seed=7 ...` with the settings that a script needs.
    fn cluster(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer<Vec<String>> {
        let (voters, learners) = (number(args, "voters", 3)?, number(args, "learners", 0)?);
        let spares = number(args, "spares", 0)?;
        let mut config = Config::new(NodeId(0), number(args, "seed", 1)?);
        config.max_retained_bytes = number(args, "retained", 0)?;
        config.max_message_entries = number(args, "entries", config.max_message_entries)?;
        config.max_inflight_messages = number(args, "window", config.max_inflight_messages)?;
        config.max_uncommitted_bytes = number(args, "uncommitted", config.max_uncommitted_bytes)?;
        config.max_applying_bytes = number(args, "applying", config.max_applying_bytes)?;
        config.max_waiting_reads = number(args, "reads", config.max_waiting_reads)?;
        config.max_promotion_lag = number(args, "lag", 0)?;
        config.lease_reads = args.take_key("lease") != Some("off");
        config.eager_commit = args.take_key("commit") == Some("eager");
        config.thrifty = args.take_key("thrifty").map(span).transpose()?;
        self.cluster = Cluster::new(voters, learners, spares, |id| Config { id, ..config.clone() });
        Ok(Vec::new())
    }

    /// Takes the messages out that the arguments describe: all, or those `from=`, `to=`, `kind=`,
    /// or of them the `nth=`.
    fn pick(list: &mut Vec<Envelope>, args: &mut ArgumentConsumer<'_>) -> Answer<Vec<Envelope>> {
        let parse = |id: &str| id.parse().map(NodeId);
        let (from, to) = (args.take_key("from").map(parse).transpose()?, args.take_key("to").map(parse).transpose()?);
        let name = args.take_key("kind");
        let nth = args.take_key("nth").map(str::parse::<usize>).transpose()?;
        let fits = |envelope: &Envelope| {
            from.is_none_or(|from| from == envelope.from)
                && to.is_none_or(|to| to == envelope.to)
                && name.is_none_or(|name| name == kind(&envelope.message.body))
        };
        let mut seen = 0;
        let (mut picked, mut kept) = (Vec::new(), Vec::new());
        for envelope in list.drain(..) {
            let fitting = fits(&envelope);
            seen += usize::from(fitting);
            let side = if fitting && nth.is_none_or(|nth| nth == seen) { &mut picked } else { &mut kept };
            side.push(envelope);
        }
        *list = kept;
        if picked.is_empty() { Err("no such message".into()) } else { Ok(picked) }
    }

    fn network(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Answer<Vec<String>> {
        match name {
            "deliver" => {
                let picked = Self::pick(&mut self.cluster.network, args)?;
                self.arrive(picked);
            }
            "arrive" => {
                let picked = Self::pick(&mut self.cluster.delayed, args)?;
                self.arrive(picked);
            }
            "drop" => {
                for envelope in Self::pick(&mut self.cluster.network, args)? {
                    let line = format!("{} ✗ {} {} dropped", envelope.from, envelope.to, envelope.message);
                    self.cluster.trace.push(line);
                    self.cluster.lost(envelope);
                }
            }
            "duplicate" | "delay" => {
                let (after, word) = if name == "delay" { (false, "delayed") } else { (true, "doubled") };
                for envelope in Self::pick(&mut self.cluster.network, args)? {
                    let line = format!("{} ⋯ {} {} {word}", envelope.from, envelope.to, envelope.message);
                    self.cluster.trace.push(line);
                    if after {
                        self.cluster.network.push(envelope.clone());
                    }
                    self.cluster.delayed.push(envelope);
                }
            }
            "stabilize" => self.cluster.deliver_all(),
            "messages" => {
                let list = self.cluster.network.iter().chain(&self.cluster.delayed);
                return Ok(list.map(|e| format!("{} → {} {}", e.from, e.to, e.message)).collect());
            }
            "partition" => {
                let groups = std::iter::from_fn(|| args.next_pos()).map(ids).collect::<Answer<Vec<_>>>()?;
                self.cluster.partition(&groups);
            }
            "cut" => {
                let link = (id(args)?, id(args)?);
                self.cluster.cut.insert(link);
            }
            _ => self.cluster.cut.clear(),
        }
        Ok(Vec::new())
    }

    fn arrive(&mut self, picked: Vec<Envelope>) {
        for envelope in picked {
            let line = format!("{} ← {} {}", envelope.to, envelope.from, envelope.message);
            self.cluster.trace.push(line);
            self.cluster.deliver(envelope);
        }
    }

    fn time(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Answer<Vec<String>> {
        match name {
            "tick" | "run" => {
                let span = span(args.next_pos().ok_or("how long?")?)?;
                let ids = self.some(args)?;
                self.cluster.tick(&ids, span, name == "run");
            }
            _ => {
                let id = id(args)?;
                let (clock, due) = (self.cluster.host(id).own.clock, self.cluster.host(id).raft().next_deadline());
                self.cluster.host_mut(id).own.clock = clock.max(due);
                self.cluster.feed(id, Input::Wake);
                if name == "elect" {
                    self.cluster.deliver_all();
                }
            }
        }
        Ok(Vec::new())
    }

    fn request(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Answer<Vec<String>> {
        let id = id(args)?;
        let clock = self.cluster.host(id).own.clock;
        let deadline = args.take_key("within").map(span).transpose()?.map(|span| clock.after(span));
        let input = match name {
            "propose" => {
                let command = args.next_pos().ok_or("which command?")?;
                let size = number(args, "size", 0)?;
                let bytes = format!("{command:.<size$}").into_bytes();
                let token = self.cluster.token(id, command, Some(&bytes));
                Input::Propose { token, command: bytes.into(), deadline }
            }
            "read" => {
                let kind = if args.take_key("by") == Some("quorum") { ReadKind::Quorum } else { ReadKind::Lease };
                let token = self.cluster.token(id, args.next_pos().unwrap_or("read"), None);
                Input::Read { token, kind, deadline }
            }
            "change" => {
                let what = args.next_pos().ok_or("which change?")?;
                let change = change(what, args)?;
                Input::ChangeMembership { token: self.cluster.token(id, what, None), change }
            }
            _ => {
                let to = args.next_pos().map(str::parse).transpose()?.map(NodeId);
                Input::TransferLeadership { token: self.cluster.token(id, "transfer", None), to }
            }
        };
        self.cluster.feed(id, input);
        Ok(Vec::new())
    }

    fn machine(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Answer<Vec<String>> {
        let id = id(args)?;
        match name {
            "crash" => self.cluster.crash(id),
            "restart" => {
                self.cluster.restart(id);
                let status = narrate::Status::of(self.cluster.host(id).raft());
                return Ok(vec![format!("{id} starts as {}, commit {}", status.role, status.commit)]);
            }
            "damage" => {
                let from = Index(number(args, "from", 1)?);
                let end = self.cluster.damage(id, from, args.take_key("end") != Some("unknown"));
                return Ok(vec![format!("{id} has lost its log from {from} on; it may have reached {end}")]);
            }
            "disk" | "machine" => {
                let verb = args.next_pos().ok_or("hold, sync or release?")?;
                let count = number(args, "count", usize::MAX)?;
                let host = self.cluster.host_mut(id);
                let held = if name == "disk" { &mut host.own.disk_held } else { &mut host.own.machine_held };
                *held = verb == "hold" || (verb == "sync" && *held);
                match (name, verb) {
                    (_, "hold") => {}
                    ("disk", "sync" | "release") => self.cluster.sync(id, count),
                    ("machine", "release") => self.cluster.work(id),
                    _ => return Err(format!("{name} can't {verb}").into()),
                }
            }
            _ => {
                let index = self.cluster.store_snapshot(id).ok_or("nothing to compact")?;
                return Ok(vec![format!("{id} has a snapshot of everything up to {index}")]);
            }
        }
        Ok(Vec::new())
    }

    fn show(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Answer<Vec<String>> {
        let mut lines = Vec::new();
        for id in self.some(args)? {
            let Some(raft) = &self.cluster.host(id).replica else {
                lines.push(format!("{id} is down"));
                continue;
            };
            match name {
                "status" => {
                    let status = narrate::Status::of(raft);
                    let (commit, applied) = (status.commit, raft.last_applied());
                    let last = raft.log().last();
                    lines.push(format!(
                        "{} last={last} commit={commit} applied={applied} {}",
                        status.role, status.membership
                    ));
                }
                "log" => {
                    let entries: Vec<_> = raft.log().iter().map(narrate::entry).collect();
                    lines.push(format!("{id} after {}: {}", raft.log().base(), entries.join(", ")));
                }
                _ => lines.push(raft.explain().to_string().trim_end().to_owned()),
            }
        }
        Ok(lines)
    }
}

fn change(what: &str, args: &mut ArgumentConsumer<'_>) -> Answer<MembershipChange> {
    Ok(match what {
        "add-learner" => MembershipChange::AddLearner(id(args)?),
        "promote" => MembershipChange::Promote(id(args)?),
        "demote" => MembershipChange::Demote(id(args)?),
        "remove" => MembershipChange::Remove(id(args)?),
        "revert" => MembershipChange::Revert,
        "replace" => {
            let voters = ids(args.next_pos().ok_or("which voters?")?)?;
            let learners = args.take_key("learners").map(ids).transpose()?.unwrap_or_default();
            MembershipChange::Replace(Group { voters, learners })
        }
        _ => return Err(format!("no such change: {what}").into()),
    })
}
