//! Runs the reference model beside a simulated cluster (I28): each step of each core must be a step of the model.

use std::sync::{Arc, Mutex, MutexGuard};

use bowline_node::Witness;
use bowline_raft::{NodeId, PersistId};

use crate::cluster::oracle::{Judged, Rule};
use crate::cluster::replica::Replica;
use crate::spec::{Deviation, Lockstep};

/// The model of the whole cluster; `None` if the plan has it off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model(Option<Arc<Mutex<Lockstep>>>);

impl Model {
    pub(crate) fn new(watches: bool) -> Model {
        Model(watches.then(Arc::default))
    }

    fn locked(&self) -> Option<MutexGuard<'_, Lockstep>> {
        let model = self.0.as_ref()?;
        Some(model.lock().expect("a run ends with the first panic"))
    }

    /// A replica has started from its disk. From now on each of its steps is compared.
    ///
    /// A replica whose disk is lost never comes back under its name. So the model keeps it: its copies count for what
    /// was committed with them.
    pub(crate) fn started(&self, node: &mut Replica) -> Judged {
        let Some(model) = &self.0 else { return Ok(()) };
        let judged = self.locked().map_or(Ok(()), |mut model| model.started(node.raft()));
        node.set_witness(watch(Arc::clone(model)));
        judged.map_err(|violation| broken(&violation))
    }

    /// The disk of a replica was restored from an old image.
    pub(crate) fn rolled_back(&self, id: NodeId) {
        if let Some(mut model) = self.locked() {
            model.rolled_back(id);
        }
    }

    /// The writes of a replica up to this one are durable, whether it knows it or not.
    pub(crate) fn durable(&self, id: NodeId, up_to: PersistId) {
        if let Some(mut model) = self.locked() {
            model.durable(id, up_to);
        }
    }

    /// The model's verdict on all steps so far.
    pub(crate) fn judged(&self) -> Judged {
        let Some(model) = self.locked() else { return Ok(()) };
        model.violation().map_or(Ok(()), |violation| Err(broken(violation)))
    }
}

fn watch(model: Arc<Mutex<Lockstep>>) -> Witness {
    Box::new(move |now, input, effects, raft| {
        // The model keeps the first deviation until it is asked for it.
        let _ = model.lock().expect("a run ends with the first panic").step(raft, now, input, effects);
    })
}

fn broken(violation: &Deviation) -> (Rule, String) {
    (Rule::Refinement, violation.to_string())
}
