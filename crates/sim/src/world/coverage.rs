//! What was exercised: how often each fault struck and each rare path was taken.

use bowline_raft::probe::{self, Probe};

macro_rules! faults {
    ($($name:ident: $code:literal, $title:literal,)*) => {
        /// A kind of fault, or of trouble that is no fault of anyone.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $(#[doc = $title] $name,)*
        }

        impl Fault {
            /// All kinds.
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)*];
            /// How many there are.
            pub const COUNT: usize = Fault::ALL.len();

            /// The kind of that name.
            ///
            /// # Errors
            /// One line that names all kinds.
            pub fn named(name: &str) -> Result<Fault, String> {
                let found = Fault::ALL.iter().copied().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name));
                found.ok_or_else(|| {
                    let names: Vec<String> = Fault::ALL.iter().map(|fault| format!("{fault:?}")).collect();
                    format!("{name:?} is no kind of fault; there are {}", names.join(", "))
                })
            }

            /// Its number in the catalogue of faults.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Fault::$name => $code,)* }
            }

            /// What it is, in words.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Fault::$name => $title,)* }
            }
        }
    };
}

faults! {
    Drop: "N1", "message lost",
    Duplicate: "N2", "message doubled",
    Replay: "N2", "message replayed much later",
    Reorder: "N3", "message overtaken",
    Slow: "N4", "message in the slow tail",
    Isolate: "N5", "replica isolated",
    OneWay: "N6", "replica deaf or mute",
    Bridge: "N7", "cluster split, with or without a bridge",
    Links: "N7", "single links cut",
    Succession: "N5", "leaders isolated one after the other",
    Flap: "N8", "link flapping",
    Swizzle: "N9", "replicas cut one by one, back in another order",
    Narrow: "N10", "link with little capacity",
    Mangle: "N11/N12", "message that makes no sense",
    Stranger: "N14", "message from a stranger",
    ClientCut: "N15", "clients cut off from the leader",
    Crash: "P1", "crash",
    CrashInside: "P1", "crash between two effects of one step",
    CrashLoop: "P2", "crash loop",
    PowerLoss: "P3", "power loss of the whole cluster",
    Pause: "P4", "pause (SIGSTOP)",
    OldMail: "P4", "leader paused, and deaf to all but the mail that waited",
    Retune: "P5", "restart with other settings",
    CrashInTransfer: "P6", "crash during a transfer of a snapshot",
    CrashInChange: "P7", "crash during a change of the membership",
    SlowApply: "P8", "slow apply",
    Handover: "P10", "transfer of the leadership",
    CutHandover: "P10", "leader cut off while it hands over",
    LostWrites: "D1", "unsynced writes lost in a crash",
    TornWrite: "D2", "write torn in a crash",
    RottenLog: "D3/D4", "bit rot in the log, found at the start",
    RottenSnapshot: "D5", "bit rot in a stored snapshot or state, found at the start",
    RottenVote: "D6", "bit rot in term and vote, or in the identity",
    SyncError: "D9", "sync failed, process stopped",
    DiskFull: "D10", "disk full, writes refused until there is room",
    SlowDisk: "D11", "slow disk",
    ReadError: "D12", "disk not readable at the start",
    Wipe: "D13", "disk lost, replaced by a new member",
    OldImage: "D14", "disk restored from an old image",
    Drift: "C1", "clocks at the ends of their bound",
    WildClock: "C1/C2", "clocks far beyond any bound (no leases)",
    Suspend: "C3", "machine suspended, clock jumps at the end",
    LeaseMoves: "C4", "lease kept alive under another leader than before",
    Churn: "M1", "change of the membership asked for",
    RemovedLives: "M2", "removed replica keeps running",
    EarlyPromotion: "M3", "promotion of a learner that may lag",
    Rejoin: "M4", "removed replica added again, with its old disk",
    RemoveMany: "M5", "removal of most members asked for",
    Retry: "K1", "client tries again",
    Unknown: "K2", "client gives up, outcome unknown",
    Huge: "K3", "value above a limit",
}

/// Counts of what was exercised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// By fault, in the order of [`Fault::ALL`].
    pub faults: Vec<u64>,
    /// By probe, in the order of [`Probe::ALL`].
    pub probes: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage { faults: vec![0; Fault::COUNT], probes: vec![0; Probe::COUNT] }
    }
}

impl Coverage {
    pub(crate) fn struck(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
    }

    /// Takes what this thread's probes have counted.
    pub(crate) fn take_probes(&mut self) {
        self.probes = probe::take();
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Coverage) {
        let sums = self.faults.iter_mut().zip(&other.faults).chain(self.probes.iter_mut().zip(&other.probes));
        for (sum, count) in sums {
            *sum = sum.saturating_add(*count);
        }
    }

    /// The faults with their counts.
    pub fn by_fault(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.iter().copied().zip(self.faults.iter().copied())
    }

    /// The probes with their counts.
    pub fn by_probe(&self) -> impl Iterator<Item = (Probe, u64)> {
        Probe::ALL.iter().copied().zip(self.probes.iter().copied())
    }
}
