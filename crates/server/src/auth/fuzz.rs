//! Entry for a fuzzer: hostile bytes in place of a client's token.

use std::sync::LazyLock;
use std::time::Duration;

use bowline_kv::store::LoggedIn;
use bowline_kv::tokens::{Tokens, digest};
use bowline_node::raft::Time;

use super::jwt::{Jwt, claims};

/// The keys that RFC 8037 (appendix A.1) and RFC 7515 (appendix A.1.1) publish.
pub(super) static PUBLISHED: LazyLock<[Jwt; 2]> = LazyLock::new(|| {
    let seed = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
        0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
    ];
    let secret = [
        0x03, 0x23, 0x35, 0x4b, 0x2b, 0x0f, 0xa5, 0xbc, 0x83, 0x7e, 0x06, 0x65, 0x77, 0x7b, 0xa6, 0x8f, 0x5a, 0xb3,
        0x28, 0xe6, 0xf0, 0x54, 0xc9, 0x28, 0xa9, 0x0f, 0x84, 0xb2, 0xd2, 0x50, 0x2e, 0xbf, 0xd3, 0xfb, 0x5a, 0x92,
        0xd2, 0x06, 0x47, 0xef, 0x96, 0x8a, 0xb4, 0xc3, 0x77, 0x62, 0x3d, 0x22, 0x3d, 0x2e, 0x21, 0x72, 0x05, 0x2e,
        0x4f, 0x08, 0xc0, 0xcd, 0x9a, 0xf5, 0x67, 0xd0, 0x80, 0xa3,
    ];
    [Jwt::of_seed(&seed), Jwt::of_secret(&secret)]
});

/// Verifies a token of each kind. Only those that were issued may be accepted, and nothing may panic. The bytes also
/// stand for the claims of a token with a right signature.
pub fn fuzz_tokens(data: &[u8]) {
    let mut tokens = Tokens::new(Duration::from_secs(1), 2);
    let user = LoggedIn { user: "ann".into(), at: 1 };
    tokens.issue(Time(1), digest("aaaaaaaaaaaaaaaa"), user, 7);
    if let Ok(text) = str::from_utf8(data) {
        let user = tokens.user_of(Time(2), text);
        assert_eq!(user.is_some(), text == "aaaaaaaaaaaaaaaa.7", "only that token was issued");
        for jwt in &*PUBLISHED {
            // The fuzzer knows no key, and what the standards signed names no user.
            assert_eq!(jwt.verify(text, 1), None, "this token was not issued");
        }
    }
    if let Some(claims) = claims(data, 1) {
        assert!(!claims.user.is_empty(), "a token names a user");
        for jwt in &*PUBLISHED {
            let token = jwt.sign(&claims.user, claims.revision, 1);
            let read = token.as_ref().ok().and_then(|token| jwt.verify(token, 1));
            assert_eq!(read.as_ref(), token.is_ok().then_some(&claims), "what is signed is accepted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_tokens_get_through() {
        for data in [&b"aaaaaaaaaaaaaaaa.7"[..], br#"{"exp":2,"revision":3,"username":"ann"}"#, b"a.b.c", b"\xff", b""]
        {
            fuzz_tokens(data);
        }
        let long = format!(r#"{{"exp":2,"revision":3,"username":"{}"}}"#, "x".repeat(8_000));
        fuzz_tokens(long.as_bytes());
    }
}
