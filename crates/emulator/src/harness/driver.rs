//! One run: starts the replicas and drives the emulation in real time.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use bowline_lan::LanId;
use bowline_lan::message::shorten;
use bowline_lan::socket::SocketKind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tempfile::TempDir;

use super::children::{Children, cannot_start};
use super::{Event, HarnessError, RunOptions, RunOutcome};
use crate::emulation::{Action, Emulation, Note};
use crate::switch::{Incoming, Switch};

/// The interval of progress reports. It is also the longest sleep, and so bounds the delay of changes
/// that wake no socket.
const TICK: Duration = Duration::from_millis(200);

/// How long a replica may live after it closed its socket, so that its exit can be reported as the
/// reason.
const GRACE: Duration = Duration::from_millis(200);

/// How many messages are handled before processes are checked and the observer is called.
const BATCH: usize = 256;

/// The most messages that are kept from before the run begins.
const MAX_EARLY_MESSAGES: usize = 10_000;

/// Started and connected replicas. Dropping it ends the replicas, closes the sockets and removes the
/// folder, in the order of the fields.
pub(super) struct Session {
    children: Children,
    switch: Switch,
    folder: Option<TempDir>,
    emulation: Emulation,
    early: Vec<(usize, Vec<u8>)>,
    /// When each replica closed its socket, if it did.
    closed: Vec<Option<Instant>>,
    silent: Vec<LanId>,
}

impl Session {
    /// Starts all replicas and waits for them to connect.
    pub(super) fn start(options: &RunOptions, kind: SocketKind) -> Result<Session, HarnessError> {
        let emulation = Emulation::new(options.scenario.clone(), options.seed, options.extra.clone());
        let ids = emulation.replica_ids().to_vec();
        let (folder, switch) = match kind {
            SocketKind::Udp => (None, Switch::udp(&ids)?),
            _ => {
                let folder = tempfile::Builder::new()
                    .prefix("lan-")
                    .tempdir()
                    .map_err(HarnessError::system("make a temporary folder"))?;
                let switch = Switch::local(folder.path(), &ids, kind)?;
                (Some(folder), switch)
            }
        };
        let mut session = Session {
            children: Children::default(),
            switch,
            folder,
            emulation,
            early: Vec::new(),
            closed: vec![None; ids.len()],
            silent: Vec::new(),
        };
        session.start_all(options, &ids)?;
        session.connect_all(options, &ids)?;
        Ok(session)
    }

    fn start_all(&mut self, options: &RunOptions, ids: &[LanId]) -> Result<(), HarnessError> {
        for own in ids {
            let folder = self.folder.as_ref().map(TempDir::path);
            let mut command = options.program.to_command(folder);
            command.args(self.switch.port().map(|port| port.to_string()));
            command.arg(own.as_str());
            command.args(ids.iter().filter(|id| *id != own).map(LanId::as_str));
            self.children
                .start(*own, command, &options.output)
                .map_err(|source| cannot_start(options.program.to_string(), &options.output, source))?;
        }
        Ok(())
    }

    /// Waits until every replica has connected, or until the time is up if at least one has.
    fn connect_all(&mut self, options: &RunOptions, ids: &[LanId]) -> Result<(), HarnessError> {
        let until = Instant::now() + options.patience;
        let mut buffer = Vec::new();
        loop {
            // Processes are checked before sockets are read, so that the last messages of an ended
            // replica have arrived.
            self.children.reap();
            while let Some(incoming) = self.switch.receive(&mut buffer) {
                match incoming {
                    Incoming::Message { from, length } => {
                        if self.early.len() < MAX_EARLY_MESSAGES {
                            self.early.push((from, buffer[..length].to_vec()));
                        }
                    }
                    Incoming::Closed { from } => self.closed[from] = Some(Instant::now()),
                }
            }
            let missing: Vec<usize> = (0..ids.len())
                .filter(|&replica| !self.switch.is_connected(replica) && self.closed[replica].is_none())
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            let dead = missing.iter().find_map(|&r| Some((r, self.children.status(r)?)));
            if let Some((replica, status)) = dead {
                return Err(self.died_at_start(replica, ids[replica], status));
            }
            if options.stopped() {
                return Err(HarnessError::Interrupted);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() && missing.len() < ids.len() {
                self.silent = missing.iter().map(|&replica| ids[replica]).collect();
                return Ok(());
            }
            if left.is_zero() {
                return Err(HarnessError::NobodyConnected {
                    kind: self.switch.kind(),
                    patience: options.patience,
                    program: options.program.to_string(),
                    last_words: indented(self.children.last_words(0)),
                });
            }
            self.wait(left.min(TICK))?;
        }
    }

    fn died_at_start(&mut self, replica: usize, id: LanId, status: ExitStatus) -> HarnessError {
        HarnessError::DiedAtStart {
            id,
            kind: self.switch.kind(),
            status,
            last_words: indented(self.children.last_words(replica)),
        }
    }

    /// Runs the scenario to its end.
    pub(super) fn drive(
        mut self,
        options: &RunOptions,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> Result<RunOutcome, HarnessError> {
        let start = Instant::now();
        let mut actions = Vec::new();
        let mut buffer = Vec::new();
        let mut next_tick = start;
        let mut children_ready = true;
        let mut lateness = Duration::ZERO;
        self.deliver_early(&mut actions, observer);
        while !self.emulation.finished() {
            if options.stopped() {
                return Err(HarnessError::Interrupted);
            }
            let now = start.elapsed();
            let due = self.emulation.next_deadline();
            if let Some(late) = due.and_then(|due| now.checked_sub(due)) {
                lateness = lateness.max(late);
            }
            self.emulation.wake(now, &mut actions);
            self.perform(now, &mut actions, observer);
            let drained = self.receive_batch(start, &mut buffer, &mut actions, observer);
            let ticks = Instant::now() >= next_tick;
            if ticks || children_ready {
                children_ready = false;
                self.look_after_children(start, &mut actions, observer);
            }
            if ticks {
                observer(Event::Progress(&self.emulation.progress()));
                next_tick = Instant::now() + TICK;
            }
            if drained {
                let due = self.emulation.next_deadline().unwrap_or_default();
                let sleep = due.saturating_sub(start.elapsed());
                let tick = next_tick.saturating_duration_since(Instant::now());
                children_ready = self.wait(sleep.min(tick))?;
            }
        }
        observer(Event::Progress(&self.emulation.progress()));
        // Counters are read before the children end and sockets close, as the system then forgets them.
        let counters = self.switch.counters();
        Ok(RunOutcome {
            socket: self.switch.kind(),
            exits: self.children.finish(),
            record: self.emulation.into_record(),
            silent: self.silent,
            counters,
            lateness,
        })
    }

    fn deliver_early(&mut self, actions: &mut Vec<Action>, observer: &mut dyn FnMut(Event<'_>)) {
        for (from, message) in std::mem::take(&mut self.early) {
            self.emulation.receive(Duration::ZERO, from, &message, actions);
            self.perform(Duration::ZERO, actions, observer);
        }
    }

    /// Handles messages that have arrived. Returns whether none is left.
    fn receive_batch(
        &mut self,
        start: Instant,
        buffer: &mut Vec<u8>,
        actions: &mut Vec<Action>,
        observer: &mut dyn FnMut(Event<'_>),
    ) -> bool {
        for _ in 0..BATCH {
            match self.switch.receive(buffer) {
                None => return true,
                Some(Incoming::Closed { from }) => self.closed[from] = Some(Instant::now()),
                Some(Incoming::Message { from, length }) => {
                    let now = start.elapsed();
                    self.emulation.receive(now, from, &buffer[..length], actions);
                    self.perform(now, actions, observer);
                }
            }
        }
        false
    }

    /// Performs actions. Messages go first, because the observer may be slow.
    fn perform(&mut self, now: Duration, actions: &mut Vec<Action>, observer: &mut dyn FnMut(Event<'_>)) {
        let mut notes: Vec<Note> = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Deliver { to, bytes, .. } => self.switch.send(to, &bytes),
                Action::Kill { replica } => {
                    self.children.kill(replica);
                    self.switch.close(replica);
                }
                Action::Note(note) => notes.push(note),
            }
        }
        for note in &notes {
            observer(Event::Note(now, note));
        }
    }

    /// Finds replicas that ended, or closed their socket, by themselves.
    fn look_after_children(&mut self, start: Instant, actions: &mut Vec<Action>, observer: &mut dyn FnMut(Event<'_>)) {
        self.children.listen();
        let mut dead: Vec<(usize, String)> = Vec::new();
        for replica in self.children.ended() {
            if let (false, Some(status)) = (self.children.was_killed(replica), self.children.status(replica)) {
                let words = self.children.last_words(replica);
                let last = words.last().map(|line| format!(": {}", shorten(line)));
                dead.push((replica, format!("{status}{}", last.unwrap_or_default())));
            }
        }
        for replica in 0..self.closed.len() {
            let overdue = self.closed[replica].is_some_and(|since| since.elapsed() > GRACE);
            if overdue && self.emulation.is_alive(replica) {
                self.children.kill(replica);
                dead.push((replica, "it closed its socket but did not exit".to_owned()));
            }
        }
        for (replica, why) in dead {
            let now = start.elapsed();
            self.switch.close(replica);
            self.emulation.replica_died(now, replica, why, actions);
            self.perform(now, actions, observer);
        }
    }

    /// Sleeps until something happens, but at most for `most`. Returns whether a process ended or
    /// wrote something.
    fn wait(&self, most: Duration) -> Result<bool, HarnessError> {
        let sockets = self.switch.sockets();
        let mut polled: Vec<PollFd<'_>> =
            sockets.map(|(socket, flags)| PollFd::from_borrowed_fd(socket, flags)).collect();
        let of_children = polled.len();
        let children = self.children.watched();
        polled.extend(children.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // At most 200 ms, so the conversion can't fail.
        let most = Timespec::try_from(most).unwrap_or_default();
        match poll(&mut polled, Some(&most)) {
            Ok(_) | Err(Errno::INTR) => Ok(polled[of_children..].iter().any(|fd| !fd.revents().is_empty())),
            Err(error) => Err(HarnessError::system("wait for the replicas")(error.into())),
        }
    }
}

fn indented(lines: Vec<String>) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}
