//! The simple tokens of a member: which user each of them stands for, and until when.
//!
//! A token is 16 random letters, a dot, and the index of the log entry that issued it, as in etcd:
//! `NfMKsvuXNhWzzLHl.12`. The log and this table hold only the SHA-256 of the letters, so nobody who reads them, or a
//! snapshot, can act as a user.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bowline_node::raft::Time;
use sha2::{Digest as _, Sha256};

use crate::store::LoggedIn;

#[cfg(test)]
mod tests;

/// Number of letters of a token.
pub const LETTERS: usize = 16;

/// Number of random bytes that [`draw`] needs.
pub const RANDOM_BYTES: usize = 24;

/// Longest token, in bytes: the letters, a dot, and the largest index.
pub const MAX_BYTES: usize = LETTERS + 1 + 20;

const ALPHABET: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The letters of a new token, from random bytes that nobody can guess.
///
/// The bytes are the digits of a fraction from 0 to 1. Its first 16 digits in base 52 are the letters. There are 2^192
/// fractions for 52^16 (about 2^91) texts, so each text has the same number of fractions, up to one: no text is more
/// likely than another by more than a factor of 1 + 2^-100.
#[must_use]
pub fn draw(mut random: [u8; RANDOM_BYTES]) -> String {
    let letter = |_| {
        let mut carry = 0;
        for byte in random.iter_mut().rev() {
            [carry, *byte] = (u16::from(*byte) * 52 + u16::from(carry)).to_be_bytes();
        }
        char::from(ALPHABET[usize::from(carry)])
    };
    (0..LETTERS).map(letter).collect()
}

/// The SHA-256 of the letters of a token: what the log and [`Tokens`] hold.
#[must_use]
pub fn digest(letters: &str) -> [u8; 32] {
    Sha256::digest(letters.as_bytes()).into()
}

/// The tokens of a member. It has no clock: it is told the time, which never runs backwards.
///
/// Each operation takes a time that is logarithmic in the number of tokens. A user who was deleted, or got another
/// password, still has its tokens here: the state says that they are too old.
pub struct Tokens {
    ttl: Duration,
    bound: usize,
    held: BTreeMap<Key, Held>,
    /// When each token expires.
    ends: BTreeSet<(Time, Key)>,
}

/// The digest of the letters, and the index.
type Key = ([u8; 32], u64);

struct Held {
    user: LoggedIn,
    end: Time,
}

impl Tokens {
    /// No tokens yet. A token lives for `ttl` after it was issued or last used. At most `bound` tokens are held, and at
    /// least one.
    #[must_use]
    pub fn new(ttl: Duration, bound: usize) -> Tokens {
        Tokens { ttl, bound: bound.max(1), held: BTreeMap::new(), ends: BTreeSet::new() }
    }

    /// Adds a token: the [`digest`] of its letters, the user who has logged in, and the index of the log entry that issued it. If there
    /// are too many, the one that expires first goes.
    pub fn issue(&mut self, now: Time, digest: [u8; 32], user: LoggedIn, index: u64) {
        self.drop_expired(now);
        let key = (digest, index);
        self.remove(&key);
        if self.held.len() >= self.bound
            && let Some((_, first)) = self.ends.first().copied()
        {
            self.remove(&first);
        }
        let end = now.after(self.ttl);
        self.ends.insert((end, key));
        self.held.insert(key, Held { user, end });
    }

    /// The user to whom a token was issued; `None` if it is unknown, expired or malformed. A use of a token lets it
    /// live for another `ttl` from now.
    pub fn user_of(&mut self, now: Time, token: &str) -> Option<LoggedIn> {
        self.drop_expired(now);
        let key = parse(token)?;
        let held = self.held.get_mut(&key).filter(|held| held.end > now)?;
        let end = now.after(self.ttl);
        self.ends.remove(&(held.end, key));
        self.ends.insert((end, key));
        held.end = end;
        Some(held.user.clone())
    }

    /// The number of tokens that are held, at most the bound. Those that have expired count until they are dropped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether no token is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Drops up to two expired tokens. As each call adds at most one, expired ones don't pile up, and no call takes long.
    fn drop_expired(&mut self, now: Time) {
        for _ in 0..2 {
            match self.ends.first().copied() {
                Some((end, key)) if end <= now => self.remove(&key),
                _ => return,
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(Held { end, .. }) = self.held.remove(key) {
            self.ends.remove(&(end, *key));
        }
    }
}

/// Shows only numbers: no digest and no user.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("ttl", &self.ttl)
            .field("bound", &self.bound)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The index of the log entry that issued a token: a member that has not applied it can't know the token yet. `None` if
/// the text can't be that of a token.
#[must_use]
pub fn index_of(token: &str) -> Option<u64> {
    parse(token).map(|(_, index)| index)
}

/// What a token's text is held under; `None` if the text can't be that of a token.
fn parse(token: &str) -> Option<Key> {
    let (letters, index) = token.split_once('.')?;
    let lettered = letters.len() == LETTERS && letters.bytes().all(|byte| byte.is_ascii_alphabetic());
    // One text for each token: no sign, and no zeros before the number.
    let plain = index.bytes().all(|byte| byte.is_ascii_digit()) && (index == "0" || !index.starts_with('0'));
    let index = index.parse().ok()?;
    (lettered && plain).then(|| (digest(letters), index))
}
