//! Checks what clients were told about their writes: both success and refusal must be true (I22).

use crate::cluster::oracle::{Judged, Rule};

#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// Copies of the request that may still take effect: on their way, waiting at a replica, or lost track of.
    loose: u32,
    /// The client was told that it has not happened and never will.
    denied: bool,
}

/// The fate of each operation.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    fates: Vec<Fate>,
}

impl Fates {
    fn fate(&mut self, op: u64) -> &mut Fate {
        let at = usize::try_from(op).expect("operations are counted from 0");
        if self.fates.len() <= at {
            self.fates.resize(at + 1, Fate::default());
        }
        &mut self.fates[at]
    }

    /// A copy of the request was sent.
    pub(crate) fn copy_sent(&mut self, op: u64) {
        self.fate(op).loose += 1;
    }

    /// A copy can no longer take effect, because it was certainly refused.
    pub(crate) fn copy_gone(&mut self, op: u64) {
        let fate = self.fate(op);
        fate.loose = fate.loose.saturating_sub(1);
    }

    /// The client gives up after a refusal. Returns whether the operation can't happen any more.
    pub(crate) fn give_up(&mut self, op: u64) -> bool {
        let fate = self.fate(op);
        fate.denied |= fate.loose == 0;
        fate.denied
    }

    /// The operation took effect.
    pub(crate) fn took_effect(&mut self, op: u64) -> Judged {
        match self.fate(op).denied {
            true => Err((Rule::AnswersAreTrue, format!("operation {op} took effect after it was certainly refused"))),
            false => Ok(()),
        }
    }
}
