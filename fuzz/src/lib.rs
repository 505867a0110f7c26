//! What the targets share: seeds, written where the fuzzer looks for them, and numbers made of its bytes.

use std::path::PathBuf;

/// Writes seeds into the folder that `BOWLINE_FUZZ_SEEDS` names, if it does: good input to begin with. They are made
/// of the code itself, so none can be out of date.
pub fn seed(inputs: impl IntoIterator<Item = Vec<u8>>) {
    let Some(folder) = std::env::var_os("BOWLINE_FUZZ_SEEDS").map(PathBuf::from) else { return };
    std::fs::create_dir_all(&folder).expect("the folder for seeds can be made");
    for (number, input) in inputs.into_iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:03}")), input).expect("a seed can be written");
    }
}

/// Takes values from the fuzzer's bytes, as long as there are some.
#[derive(Debug)]
pub struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    /// All of these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Source<'a> {
        Source(bytes)
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number that is mostly small, sometimes anything.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..0xf0 => u64::from(small % 24),
            0xf0..0xf8 => u64::from(self.byte()) << 4,
            0xf8..0xfc => u64::MAX - u64::from(self.byte()),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// True half of the time.
    pub fn flag(&mut self) -> bool {
        self.byte().is_multiple_of(2)
    }

    /// Up to so many bytes.
    pub fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = (usize::from(self.byte()) % (most + 1)).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
