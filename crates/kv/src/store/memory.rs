//! An engine in memory.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::{Batch, Engine, EngineError, EngineSize, Records, Revision};
use super::leases::{Lease, LeaseChange};
use super::record::Record;

/// 2 to this power main revisions share a piece of the map.
const PIECE_BITS: u32 = 10;

/// Records in memory, in pieces that views share. Making a view costs a reference for each piece, and a later write
/// copies the pieces that it changes: mostly the last one, as records are added at the end.
#[derive(Clone, Debug, Default)]
pub struct MemoryEngine {
    meta: Bytes,
    label: Bytes,
    records: MemoryRecords,
}

/// The records of a [`MemoryEngine`].
#[derive(Clone, Debug, Default)]
pub struct MemoryRecords {
    pieces: BTreeMap<i64, Arc<BTreeMap<Revision, Record>>>,
    leases: Arc<BTreeMap<i64, Lease>>,
    /// Bytes of the records and leases, without the maps.
    bytes: u64,
}

impl MemoryRecords {
    fn insert(&mut self, at: Revision, record: Record) {
        self.bytes += record.stored().len() as u64;
        let piece = self.pieces.entry(at.main >> PIECE_BITS).or_default();
        if let Some(old) = Arc::make_mut(piece).insert(at, record) {
            self.bytes -= old.stored().len() as u64;
        }
    }

    fn change(&mut self, change: LeaseChange) {
        let leases = Arc::make_mut(&mut self.leases);
        let before = match change {
            LeaseChange::Granted(lease) => leases.insert(lease.id, lease),
            LeaseChange::Gone(id) => leases.remove(&id),
        };
        self.bytes -= if before.is_some() { Lease::BYTES as u64 } else { 0 };
        self.bytes += if matches!(change, LeaseChange::Granted(_)) { Lease::BYTES as u64 } else { 0 };
    }

    fn remove(&mut self, at: Revision) {
        let number = at.main >> PIECE_BITS;
        let Some(piece) = self.pieces.get_mut(&number) else { return };
        if let Some(old) = Arc::make_mut(piece).remove(&at) {
            self.bytes -= old.stored().len() as u64;
        }
        if piece.is_empty() {
            self.pieces.remove(&number);
        }
    }
}

impl Records for MemoryRecords {
    fn get(&self, at: Revision) -> Result<Option<Record>, EngineError> {
        Ok(self.pieces.get(&(at.main >> PIECE_BITS)).and_then(|piece| piece.get(&at)).cloned())
    }

    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        if from >= until {
            return Ok(());
        }
        for piece in self.pieces.range(from.main >> PIECE_BITS..=until.main >> PIECE_BITS).map(|(_, piece)| piece) {
            for (at, record) in piece.range(from..until) {
                if visit(*at, record.clone()).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn leases(&self) -> Result<Vec<Lease>, EngineError> {
        Ok(self.leases.values().copied().collect())
    }
}

impl Records for &MemoryRecords {
    fn get(&self, at: Revision) -> Result<Option<Record>, EngineError> {
        (**self).get(at)
    }

    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        (**self).scan(from, until, visit)
    }

    fn leases(&self) -> Result<Vec<Lease>, EngineError> {
        (**self).leases()
    }
}

impl Engine for MemoryEngine {
    type Reader<'a> = &'a MemoryRecords;
    type View = MemoryRecords;

    fn meta(&self) -> Result<Bytes, EngineError> {
        Ok(self.meta.clone())
    }

    fn reader(&self) -> Result<&MemoryRecords, EngineError> {
        Ok(&self.records)
    }

    fn view(&self) -> Result<MemoryRecords, EngineError> {
        Ok(self.records.clone())
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), EngineError> {
        if batch.clear {
            self.records = MemoryRecords::default();
        }
        for (at, record) in batch.puts {
            self.records.insert(*at, record.clone());
        }
        for at in batch.deletes {
            self.records.remove(*at);
        }
        batch.leases.iter().for_each(|change| self.records.change(*change));
        self.meta = batch.meta.clone();
        Ok(())
    }

    fn checkpoint(&mut self, label: Option<&[u8]>) -> Result<(), EngineError> {
        if let Some(label) = label {
            self.label = Bytes::copy_from_slice(label);
        }
        Ok(())
    }

    fn label(&self) -> Result<Bytes, EngineError> {
        Ok(self.label.clone())
    }

    fn size(&self) -> EngineSize {
        EngineSize { total: self.records.bytes, in_use: self.records.bytes }
    }
}
