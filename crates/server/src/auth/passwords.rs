//! Hashes of passwords. To make or to check one takes much time and memory, so that nobody who gets the hashes can try
//! many passwords. That work must not stop the member: it has its own threads, and a bound.

use crate::threads;
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use tokio::sync::Semaphore;

#[cfg(test)]
mod tests;

/// Memory of a new hash, in KiB. This and the next two are the parameters that OWASP's "Password Storage Cheat Sheet"
/// recommends for Argon2id: as of 2025, m=19456, t=2, p=1.
const MEMORY_KIB: u32 = 19_456;

/// Number of passes over the memory of a new hash.
const PASSES: u32 = 2;

/// Number of lanes of a new hash.
const LANES: u32 = 1;

/// Longest password, in bytes.
const MAX_PASSWORD_BYTES: usize = 4_096;

/// Longest password that bcrypt uses as a whole, in bytes.
const MAX_BCRYPT_PASSWORD_BYTES: usize = 72;

/// Longest text of a hash, in bytes.
const MAX_HASH_BYTES: usize = 512;

/// The most that a hash may cost: memory in KiB, passes, and lanes.
const MOST: (u32, u32, u32) = (256 << 10, 10, 4);

/// The highest cost of bcrypt that a hash may have: about a second of work.
const MAX_BCRYPT_COST: u32 = 14;

/// How many may wait for a thread.
const MAX_WAITING: usize = 64;

/// Why a password was neither hashed nor checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many passwords wait already, or there is not enough memory.
    #[error("too many passwords are being checked: try again later")]
    Busy,
    /// A new password is longer than 4096 bytes.
    #[error("the password has {0} bytes; allowed: at most {MAX_PASSWORD_BYTES}")]
    TooLong(usize),
}

/// What a password is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is not the right one, there is none, or the hash is none.
    Wrong,
    /// It is the right one.
    Right,
    /// It is the right one, but its hash was made with bcrypt or with weaker parameters than those of a new one. Make a
    /// new one.
    Old,
}

/// Hashes and checks passwords, on half of the cores at most. A copy shares the bounds.
#[derive(Debug, Clone)]
pub struct Passwords {
    /// One permit for each that works or waits.
    places: Arc<Semaphore>,
    /// One permit for each that works.
    threads: Arc<Semaphore>,
    /// What new hashes cost.
    params: Params,
    /// The hash that stands in for a missing one.
    decoy: Arc<str>,
}

impl Passwords {
    /// Takes as long as it takes to hash a password.
    #[must_use]
    pub fn new() -> Passwords {
        let cores = threads::cores();
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("OWASP's parameters are allowed");
        Passwords::with(params, (cores / 2).max(1))
    }

    fn with(params: Params, threads: usize) -> Passwords {
        // Nobody knows a password for it: it is the hash of random bytes.
        let unknown: [u8; 32] = random();
        let decoy = hash(&params, &unknown).expect("a member that starts has the memory for one hash").into();
        let [places, threads] = [threads + MAX_WAITING, threads].map(|permits| Arc::new(Semaphore::new(permits)));
        Passwords { places, threads, params, decoy }
    }

    /// The hash of a new password, as a PHC string: argon2id with a random salt.
    ///
    /// # Errors
    /// Too many wait already, or the password is too long.
    pub async fn hash(&self, password: String) -> Result<String, Refusal> {
        let (password, params) = (Secret(password.into_bytes()), self.params.clone());
        if password.0.len() > MAX_PASSWORD_BYTES {
            return Err(Refusal::TooLong(password.0.len()));
        }
        self.work(move || hash(&params, &password.0)).await
    }

    /// Checks a password against a user's hash. `None` is the hash of a user who does not exist or has no password: it
    /// takes as long as a wrong password for a new hash, so that the time does not tell who exists. (A hash of bcrypt, or
    /// with other parameters, takes another time until it is made anew.)
    ///
    /// # Errors
    /// Too many wait already.
    pub async fn verify(&self, password: String, hash: Option<&str>) -> Result<Verdict, Refusal> {
        let password = Secret(password.into_bytes());
        if password.0.len() > MAX_PASSWORD_BYTES {
            return Ok(Verdict::Wrong);
        }
        let (hash, decoy, params) = (hash.map(str::to_owned), Arc::clone(&self.decoy), self.params.clone());
        self.work(move || {
            let Some(hash) = hash.as_deref().and_then(Hash::parse) else {
                let decoy = Hash::parse(&decoy).expect("an own hash is one");
                return decoy.fits(&password.0).map(|_| Verdict::Wrong);
            };
            Ok(match hash.fits(&password.0)? {
                false => Verdict::Wrong,
                true if hash.is_weaker_than(&params) => Verdict::Old,
                true => Verdict::Right,
            })
        })
        .await
    }

    /// Does some work on another thread, when there is one.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let thread = Arc::clone(&self.threads).acquire_owned().await.map_err(|_| Refusal::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            // The work ends even if nobody waits for it any more: only then others get its place.
            let _held = (place, thread);
            work()
        });
        // It does not panic. So the runtime is about to end, and nobody gets the answer.
        done.await.map_err(|_| Refusal::Busy)?
    }
}

impl Default for Passwords {
    fn default() -> Passwords {
        Passwords::new()
    }
}

/// Whether a text is a hash that [`Passwords::verify`] would use: of argon2id (a PHC string of version 19 with at most
/// 256 MiB, 10 passes and 4 lanes) or bcrypt (`$2a$`, `$2b$` or `$2y$` with a cost of at most 14), and at most 512 bytes
/// long.
#[must_use]
pub fn is_hash(text: &str) -> bool {
    Hash::parse(text).is_some()
}

/// A hash whose check takes a bounded time and memory.
enum Hash<'a> {
    Argon2id(Box<PasswordHash>, Params),
    Bcrypt(&'a str),
}

impl Hash<'_> {
    fn parse(text: &str) -> Option<Hash<'_>> {
        if text.len() > MAX_HASH_BYTES {
            return None;
        }
        if text.starts_with("$2") {
            return is_bcrypt(text).then_some(Hash::Bcrypt(text));
        }
        let hash = PasswordHash::new(text).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let (memory, passes, lanes) = MOST;
        let bounded = params.m_cost() <= memory && params.t_cost() <= passes && params.p_cost() <= lanes;
        let strong = hash.salt.is_some() && hash.hash.is_some_and(|output| output.len() >= 16);
        let known = hash.algorithm == Algorithm::Argon2id.ident() && hash.version == Some(Version::V0x13.into());
        (bounded && strong && known).then_some(Hash::Argon2id(Box::new(hash), params))
    }

    /// Whether it is the hash of this password.
    fn fits(&self, password: &[u8]) -> Result<bool, Refusal> {
        match self {
            Hash::Argon2id(hash, _) => match Argon2::default().verify_password(password, &**hash) {
                Err(argon2::password_hash::Error::OutOfMemory) => Err(Refusal::Busy),
                result => Ok(result.is_ok()),
            },
            // bcrypt ignores what is beyond that length, so any ending would be right. The work is done for its time.
            Hash::Bcrypt(text) => {
                Ok(bcrypt::verify(password, text).unwrap_or(false) && password.len() <= MAX_BCRYPT_PASSWORD_BYTES)
            }
        }
    }

    fn is_weaker_than(&self, params: &Params) -> bool {
        match self {
            Hash::Argon2id(_, own) => own.m_cost() < params.m_cost() || own.t_cost() < params.t_cost(),
            Hash::Bcrypt(_) => true,
        }
    }
}

/// Whether it is a hash of bcrypt with a bounded cost.
fn is_bcrypt(text: &str) -> bool {
    let versioned = ["$2a$", "$2b$", "$2y$"].iter().any(|version| text.starts_with(version));
    let cost = text.get(4..6).filter(|cost| cost.bytes().all(|byte| byte.is_ascii_digit()));
    let bounded = cost.and_then(|cost| cost.parse().ok()).is_some_and(|cost| (4..=MAX_BCRYPT_COST).contains(&cost));
    versioned && bounded && text.parse::<bcrypt::HashParts>().is_ok()
}

fn hash(params: &Params, password: &[u8]) -> Result<String, Refusal> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let salt: [u8; 16] = random();
    // Salt, output and password have lengths that are allowed, so only memory can be missing.
    argon2.hash_password_with_salt(password, &salt).map(|hash| hash.to_string()).map_err(|_| Refusal::Busy)
}

/// Random bytes of the system.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("a system that runs programs has random numbers");
    bytes
}

/// A password, which is overwritten when it is no longer needed.
struct Secret(Vec<u8>);

impl Drop for Secret {
    fn drop(&mut self) {
        super::wipe(&mut self.0);
    }
}
