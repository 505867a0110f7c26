//! Who a client is: passwords and tokens. The replicated state has the users and their roles; here is what needs random
//! numbers, keys, or a lot of computing.

use std::time::Duration;

mod fuzz;
mod jwt;
mod passwords;

pub use fuzz::fuzz_tokens;
pub use jwt::{Claims, Jwt, JwtError};
pub use passwords::{Passwords, Refusal, Verdict, is_hash};

/// Which tokens a client gets for its password.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenKind {
    /// Random ones, which the members remember ([`bowline_kv::tokens`]).
    Simple {
        /// How long a token lives after its last use, 1 s to 365 days.
        ttl: Duration,
    },
    /// Signed ones, which name their user.
    Jwt(Jwt),
}

/// Overwrites a secret. The compiler must not see that nobody reads it again.
fn wipe(secret: &mut [u8]) {
    secret.fill(0);
    std::hint::black_box(secret);
}
