//! What survives a loss of power: the rules of every disk that is made to forget what was not synced.

use std::cmp::Ordering;

use bowline_raft::Random;

use super::SECTOR;

/// What survives of the unsynced writes and names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing.
    KeepNone,
    /// All of it.
    KeepAll,
    /// All but one sector of one write.
    AllButOneSector,
    /// A prefix of the writes, the last of them torn, and a prefix of the names.
    Prefix,
    /// A random choice of the writes and names, each whole.
    SomeWrites,
    /// A random choice of the sectors, whatever write they belong to, and of the names.
    SomeSectors,
}

impl Crash {
    /// All kinds.
    pub const ALL: [Crash; 6] =
        [Crash::KeepNone, Crash::KeepAll, Crash::AllButOneSector, Crash::Prefix, Crash::SomeWrites, Crash::SomeSectors];
}

/// Cuts a write at the sector boundaries. Each piece comes with its offset in the file.
pub fn pieces(mut offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let room = SECTOR - usize::try_from(offset % SECTOR as u64).expect("a sector is small");
        let (piece, after) = rest.split_at(room.min(rest.len()));
        let at = offset;
        offset += piece.len() as u64;
        rest = after;
        (!piece.is_empty()).then_some((at, piece))
    })
}

/// Decides for one crash what survives: first which names, in their order, then which writes.
#[derive(Debug)]
pub struct Chooser<'a> {
    crash: Crash,
    random: &'a mut Random,
    /// The write that [`Crash::Prefix`] tears, or that loses a sector by [`Crash::AllButOneSector`].
    chosen: usize,
    kept_names: usize,
    write: usize,
    name: usize,
}

/// Which part of one write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// All of it.
    Everything,
    /// This many sectors from the first on.
    First(usize),
    /// All but the sector with this number.
    AllBut(usize),
    /// Each sector with the same chance as its loss.
    Any,
}

impl<'a> Chooser<'a> {
    /// For a crash with so many unsynced writes and names.
    #[must_use]
    pub fn new(crash: Crash, writes: usize, names: usize, random: &'a mut Random) -> Chooser<'a> {
        let mut chooser = Chooser { crash, random, chosen: 0, kept_names: 0, write: 0, name: 0 };
        chooser.chosen = chooser.below(writes.max(1));
        chooser.kept_names = chooser.below(names + 1);
        chooser
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.next_u64() % (bound as u64)).expect("it is below the bound")
    }

    fn coin(&mut self) -> bool {
        self.random.next_u64() & (1 << 40) != 0
    }

    /// Whether the next change of a name survives.
    pub fn keeps_name(&mut self) -> bool {
        let name = self.name;
        self.name += 1;
        match self.crash {
            Crash::KeepNone => false,
            Crash::KeepAll | Crash::AllButOneSector => true,
            Crash::Prefix => name < self.kept_names,
            Crash::SomeWrites | Crash::SomeSectors => self.coin(),
        }
    }

    /// What survives of the next write, which has so many sectors.
    pub fn begin_write(&mut self, sectors: usize) -> Keep {
        let write = self.write;
        self.write += 1;
        match self.crash {
            Crash::KeepNone => Keep::Nothing,
            Crash::KeepAll => Keep::Everything,
            Crash::AllButOneSector if write != self.chosen => Keep::Everything,
            Crash::AllButOneSector => Keep::AllBut(self.below(sectors.max(1))),
            Crash::Prefix => match write.cmp(&self.chosen) {
                Ordering::Less => Keep::Everything,
                Ordering::Equal => Keep::First(self.below(sectors + 1)),
                Ordering::Greater => Keep::Nothing,
            },
            Crash::SomeWrites => [Keep::Nothing, Keep::Everything][usize::from(self.coin())],
            Crash::SomeSectors => Keep::Any,
        }
    }
}

impl Keep {
    /// Whether the sector with this number survives. To be asked once for each sector.
    pub fn sector(self, at: usize, chooser: &mut Chooser<'_>) -> bool {
        match self {
            Keep::Nothing => false,
            Keep::Everything => true,
            Keep::First(count) => at < count,
            Keep::AllBut(lost) => at != lost,
            Keep::Any => chooser.coin(),
        }
    }
}
