//! The store as a node's state machine: bytes in, bytes out.

use bowline_node::raft::Index;
use bowline_node::{InvalidSnapshot, Recall, StateMachine};
use bytes::Bytes;

use super::Store;
use super::auth::Submission;
use super::engine::Engine;
use super::reply::encode_reply;

impl<E: Engine> Store<E> {
    /// Applies the command of the log entry at `index`, as bytes; every replica refuses the same bytes
    /// in the same way.
    pub fn apply_bytes(&mut self, index: Index, command: &[u8]) -> Bytes {
        encode_reply(&match Submission::from_bytes(command) {
            Ok(Submission { by, command }) => self.apply_by(index, &by, &command),
            Err(_) => self.apply_unreadable(index),
        })
    }
}

impl<E: Engine + Default> StateMachine for Store<E> {
    fn apply(&mut self, index: Index, command: &[u8]) -> Bytes {
        self.apply_bytes(index, command)
    }

    /// The store does not know which command wrote what.
    fn recall(&self, _command: &[u8], _proposed_at: Index) -> Recall {
        Recall::Forgotten
    }

    /// If there is a [`Store::fault`], the result is empty, which nobody can restore.
    fn snapshot(&self) -> Bytes {
        let mut out = Vec::new();
        match self.dump().map(|dump| dump.write_to(&mut out)) {
            Ok(Ok(_)) => out.into(),
            _ => Bytes::new(),
        }
    }

    fn restore(snapshot: &[u8]) -> Result<Store<E>, InvalidSnapshot> {
        let mut rest = snapshot;
        let store = Store::restore_from(E::default(), &mut rest).map_err(|error| InvalidSnapshot(error.to_string()))?;
        if !rest.is_empty() {
            return Err(InvalidSnapshot(format!("{} bytes follow its end", rest.len())));
        }
        Ok(store)
    }
}
