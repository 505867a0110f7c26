//! Commands of the store that are no client's operation, each with a number of its own, from `base` on.

use bowline_kv::store::Command;
use bytes::Bytes;

use crate::cluster::machine::{Applied, numbered};
use crate::cluster::oracle::{Judged, Rule};

/// What has become of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    /// It took effect.
    Taken,
    /// It was said that it never will.
    Refused,
}

/// The commands, by number.
#[derive(Debug)]
pub(crate) struct Numbered {
    base: u64,
    commands: Vec<(Command, Fate)>,
}

impl Numbered {
    pub(crate) fn new(base: u64) -> Numbered {
        Numbered { base, commands: Vec::new() }
    }

    /// Gives a command its number.
    pub(crate) fn number(&mut self, command: Command) -> u64 {
        self.commands.push((command, Fate::Open));
        self.base | (self.commands.len() as u64 - 1)
    }

    fn at(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.base)?).ok()
    }

    pub(crate) fn command(&self, number: u64) -> Option<&Command> {
        self.commands.get(self.at(number)?).map(|(command, _)| command)
    }

    /// The bytes of a command in the log.
    pub(crate) fn encoded(&self, number: u64) -> Bytes {
        let command = self.command(number).map(|command| command.to_bytes()).unwrap_or_default();
        numbered(&command, number)
    }

    /// Returns the command that took effect. Each may do so only once (I19), and not after it was refused (I22).
    pub(crate) fn took_effect(&mut self, applied: &Applied) -> Result<Command, (Rule, String)> {
        let Some((command, fate)) = self.at(applied.op).and_then(|at| self.commands.get_mut(at)) else {
            return Err((Rule::AnswersAreTrue, format!("nobody sent the command at {}", applied.index)));
        };
        match std::mem::replace(fate, Fate::Taken) {
            Fate::Open => Ok(command.clone()),
            Fate::Taken => {
                let what = format!("{command:?} takes effect a second time at {}", applied.index);
                Err((Rule::ExactlyOnce, what))
            }
            Fate::Refused => {
                let what = format!("{command:?} takes effect at {} after it was certainly refused", applied.index);
                Err((Rule::AnswersAreTrue, what))
            }
        }
    }

    /// A replica says that a command is done, or, if not `done`, that it was refused for good. Only one copy of it was
    /// sent.
    pub(crate) fn answered(&mut self, number: u64, done: bool) -> Judged {
        let Some((command, fate)) = self.at(number).and_then(|at| self.commands.get_mut(at)) else { return Ok(()) };
        match (done, *fate) {
            (true, Fate::Taken) => Ok(()),
            (true, _) => Err((Rule::AnswersAreTrue, format!("{command:?} is said to be done, but it is not"))),
            (false, Fate::Taken) => {
                Err((Rule::AnswersAreTrue, format!("{command:?} is said to be refused, but it took effect")))
            }
            (false, _) => {
                *fate = Fate::Refused;
                Ok(())
            }
        }
    }
}
