//! JSON web tokens (RFC 7519), as etcd issues and accepts them: a token names its user and the revision of the users, and
//! is signed, so no member has to remember it.
//!
//! The method is the configured one. What a token's header says can only make it be refused: the header comes from
//! whoever sends the token.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use crate::config::parse_duration;
use crate::files;

#[cfg(test)]
mod tests;

/// Longest token, in bytes.
const MAX_BYTES: usize = 8 << 10;

/// How long a token is valid, unless `ttl` says otherwise.
const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// Bounds of `ttl`: a second, and a year.
const TTL_BOUNDS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);

/// Largest file with a key, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Shortest secret of HS256, in bytes (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// What the SubjectPublicKeyInfo of an Ed25519 key has before its 32 bytes (RFC 8410, section 4).
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const METHODS: &str = "EdDSA, with an Ed25519 key, or HS256, with a secret that all members share";

/// An error in the options or the keys of `jwt`, or a token that can't be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// An option has a value that is not allowed.
    #[error("{option} is {value:?}; allowed: {allowed}")]
    Value {
        /// The option's name.
        option: &'static str,
        /// Its value.
        value: String,
        /// The allowed values.
        allowed: String,
    },
    /// Something that is no option, or an option that is given twice.
    #[error(
        "{0:?} is not allowed; allowed: each of these once: sign-method=METHOD, pub-key=FILE, priv-key=FILE, ttl=TIME"
    )]
    Option(String),
    /// An option is missing.
    #[error("{option} is missing: {needed}")]
    Missing {
        /// The option's name.
        option: &'static str,
        /// Why it is needed.
        needed: &'static str,
    },
    /// The file that an option names can't be used.
    #[error("{option} is {path:?}: {why}")]
    File {
        /// The option's name.
        option: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it, and the remedy.
        why: String,
    },
    /// This member has only the public key.
    #[error("this member has only pub-key and can't sign tokens: give it priv-key, or ask another member")]
    NoPrivateKey,
    /// The user's name makes the token longer than 8 KiB.
    #[error("the user's name has {0} bytes, too many for a token")]
    LongName(usize),
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The user's name; never empty.
    pub user: String,
    /// The revision of the users when the token was issued.
    pub revision: u64,
}

/// Signs and verifies tokens. A copy shares the keys.
#[derive(Clone)]
pub struct Jwt {
    keys: Arc<Keys>,
    ttl: Duration,
    /// The options: file names, no secrets.
    options: String,
}

enum Keys {
    EdDsa { public: UnparsedPublicKey<Vec<u8>>, private: Option<Ed25519KeyPair> },
    Hs256(hmac::Key),
}

impl Jwt {
    /// Parses what follows `jwt,` in etcd's `--auth-token jwt,sign-method=EdDSA,pub-key=FILE,priv-key=FILE,ttl=10m`, and
    /// reads the files.
    ///
    /// With EdDSA, `priv-key` is a private Ed25519 key (PKCS#8, in PEM), and `pub-key` a public one
    /// (SubjectPublicKeyInfo, in PEM); one of them is enough, but without `priv-key` the member can't sign. With HS256,
    /// `priv-key` is a file with the secret: all its bytes, 32 or more. `ttl` is from 1s to 8760h, 5m if it is not given.
    ///
    /// # Errors
    /// The first option or file that can't be used, and what is allowed.
    pub fn from_options(options: &str) -> Result<Jwt, JwtError> {
        let mut values: [(&'static str, Option<&str>); 4] =
            [("sign-method", None), ("pub-key", None), ("priv-key", None), ("ttl", None)];
        for part in options.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || JwtError::Option(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            let known = values.iter_mut().find(|(known, given)| *known == name && given.is_none());
            known.ok_or_else(wrong)?.1 = Some(value);
        }
        let [(_, method), (_, public), (_, private), (_, ttl)] = values;
        let keys = match method {
            Some("EdDSA") => Keys::ed_dsa(public, private)?,
            Some("HS256") => Keys::hs256(public, private)?,
            Some(other) => return Err(refused("sign-method", other, METHODS)),
            None => return Err(JwtError::Missing { option: "sign-method", needed: METHODS }),
        };
        let parse = |text: &str| {
            let ttl = parse_duration(text).filter(|ttl| TTL_BOUNDS.contains(ttl));
            ttl.ok_or_else(|| refused("ttl", text, "a time from 1s to 8760h, such as 10m"))
        };
        Ok(Jwt { ttl: ttl.map_or(Ok(DEFAULT_TTL), parse)?, options: options.to_owned(), ..Jwt::of(keys) })
    }

    /// EdDSA with the private key of this seed.
    pub(super) fn of_seed(seed: &[u8; 32]) -> Jwt {
        let private = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes");
        let public = UnparsedPublicKey::new(&ED25519, private.public_key().as_ref().to_vec());
        Jwt::of(Keys::EdDsa { public, private: Some(private) })
    }

    /// HS256 with this secret.
    pub(super) fn of_secret(secret: &[u8]) -> Jwt {
        Jwt::of(Keys::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    fn of(keys: Keys) -> Jwt {
        Jwt { keys: Arc::new(keys), ttl: DEFAULT_TTL, options: String::new() }
    }

    /// Makes a token for a user, at the revision of the users. It is valid for `ttl` from `now`, in seconds since 1970.
    ///
    /// # Errors
    /// This member has only the public key, or the name is too long.
    pub fn sign(&self, user: &str, revision: u64, now: u64) -> Result<String, JwtError> {
        let expires = now.saturating_add(self.ttl.as_secs());
        let header = json!({ "alg": self.keys.method(), "typ": "JWT" });
        let claims = json!({ "username": user, "revision": revision, "exp": expires });
        let [header, claims] = [header, claims].map(|part| BASE64.encode(part.to_string()));
        let signed = format!("{header}.{claims}");
        let signature = self.keys.sign(signed.as_bytes()).ok_or(JwtError::NoPrivateKey)?;
        let token = format!("{signed}.{}", BASE64.encode(signature));
        if token.len() > MAX_BYTES { Err(JwtError::LongName(user.len())) } else { Ok(token) }
    }

    /// What a token says; `None` unless it is signed with the configured method and key, names its user and revision,
    /// and is valid at `now`, in seconds since 1970.
    #[must_use]
    pub fn verify(&self, token: &str, now: u64) -> Option<Claims> {
        if token.len() > MAX_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&BASE64.decode(header).ok()?).ok()?;
        // What is critical must be understood (RFC 7515, section 4.1.11), and nothing of it is.
        if header.get("alg")?.as_str()? != self.keys.method() || header.get("crit").is_some() {
            return None;
        }
        self.keys.verify(signed.as_bytes(), &BASE64.decode(signature).ok()?)?;
        claims(&BASE64.decode(payload).ok()?, now)
    }

    /// Whether this member can sign tokens.
    #[must_use]
    pub fn can_sign(&self) -> bool {
        !matches!(*self.keys, Keys::EdDsa { private: None, .. })
    }
}

/// The claims in a token's payload; `None` if one of them is missing or of another type, or the token is not valid now.
pub(super) fn claims(payload: &[u8], now: u64) -> Option<Claims> {
    let claims: Value = serde_json::from_slice(payload).ok()?;
    let number = |name| claims.get(name).map(Value::as_u64);
    let begun = number("nbf").is_none_or(|begin| begin.is_some_and(|begin| begin <= now));
    let user = claims.get("username")?.as_str().filter(|user| !user.is_empty())?.to_owned();
    let claims = Claims { user, revision: number("revision")?? };
    (begun && number("exp")?? > now).then_some(claims)
}

/// Two are equal if they have the same options, and so the same files.
impl PartialEq for Jwt {
    fn eq(&self, other: &Jwt) -> bool {
        self.options == other.options
    }
}

/// Shows no key.
impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Keys {
    fn ed_dsa(public: Option<&str>, private: Option<&str>) -> Result<Keys, JwtError> {
        let private = private.map(read_private).transpose()?;
        let of_private = private.as_ref().map(|pair| pair.public_key().as_ref().to_vec());
        let public = match (public, of_private) {
            (None, None) => {
                let needed = "a file with an Ed25519 key in PEM; with pub-key alone, a member can only verify tokens";
                return Err(JwtError::Missing { option: "priv-key", needed });
            }
            (None, Some(key)) => key,
            (Some(path), of_private) => {
                let key = read_public(path)?;
                if of_private.is_some_and(|other| other != key) {
                    let why = "it is not the public key of priv-key; give the one that belongs to it, or none";
                    return Err(unusable("pub-key", path, why));
                }
                key
            }
        };
        Ok(Keys::EdDsa { public: UnparsedPublicKey::new(&ED25519, public), private })
    }

    fn hs256(public: Option<&str>, private: Option<&str>) -> Result<Keys, JwtError> {
        if let Some(path) = public {
            return Err(refused("pub-key", path, "nothing: HS256 has one secret key, in priv-key"));
        }
        let needed = "a file with the secret that all members share, at least 32 random bytes";
        let path = private.ok_or(JwtError::Missing { option: "priv-key", needed })?;
        let mut secret = read("priv-key", path)?;
        if secret.len() < MIN_SECRET_BYTES {
            let why = format!("it has {} bytes; put at least {MIN_SECRET_BYTES} random ones into it", secret.len());
            return Err(unusable("priv-key", path, &why));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        super::wipe(&mut secret);
        Ok(Keys::Hs256(key))
    }

    /// Its name in a header.
    fn method(&self) -> &'static str {
        match self {
            Keys::EdDsa { .. } => "EdDSA",
            Keys::Hs256(_) => "HS256",
        }
    }

    fn sign(&self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Keys::EdDsa { private, .. } => Some(private.as_ref()?.sign(text).as_ref().to_vec()),
            Keys::Hs256(key) => Some(hmac::sign(key, text).as_ref().to_vec()),
        }
    }

    /// Some if the signature is right. The time does not depend on how much of it is right.
    fn verify(&self, text: &[u8], signature: &[u8]) -> Option<()> {
        match self {
            Keys::EdDsa { public, .. } => public.verify(text, signature),
            Keys::Hs256(key) => hmac::verify(key, text, signature),
        }
        .ok()
    }
}

fn read_private(path: &str) -> Result<Ed25519KeyPair, JwtError> {
    let mut text = read("priv-key", path)?;
    let der = PrivatePkcs8KeyDer::from_pem_slice(&text);
    super::wipe(&mut text);
    let why = "it has no private Ed25519 key as PKCS#8 in PEM; `openssl genpkey -algorithm ed25519` makes one";
    let der = der.map_err(|_| unusable("priv-key", path, why))?;
    // Not every program writes the public key into the file, so it is computed.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map_err(|_| unusable("priv-key", path, why))
}

fn read_public(path: &str) -> Result<Vec<u8>, JwtError> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(&read("pub-key", path)?).ok();
    let key = der.as_ref().and_then(|der| der.strip_prefix(&ED25519_PREFIX)).filter(|key| key.len() == 32);
    let why = "it has no public Ed25519 key in PEM; `openssl pkey -in PRIVATE -pubout` writes that of a private one";
    key.map(<[u8]>::to_vec).ok_or_else(|| unusable("pub-key", path, why))
}

/// The bytes of the file that an option names.
fn read(option: &'static str, path: &str) -> Result<Vec<u8>, JwtError> {
    match files::beginning(path, MAX_FILE_BYTES + 1) {
        Ok(bytes) if bytes.len() as u64 <= MAX_FILE_BYTES => Ok(bytes),
        Ok(_) => Err(unusable(option, path, &format!("it is larger than {MAX_FILE_BYTES} bytes, so it is no key"))),
        Err(error) => Err(unusable(option, path, &format!("{error}; give a file that the member can read"))),
    }
}

fn unusable(option: &'static str, path: &str, why: &str) -> JwtError {
    JwtError::File { option, path: path.to_owned(), why: why.to_owned() }
}

fn refused(option: &'static str, value: &str, allowed: &str) -> JwtError {
    JwtError::Value { option, value: value.to_owned(), allowed: allowed.to_owned() }
}
