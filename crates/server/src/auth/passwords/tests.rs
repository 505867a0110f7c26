use super::*;

/// The examples of Argon2's reference implementation and of the first implementation of bcrypt in Java.
const ARGON2ID: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
const BCRYPT_OF_NOTHING: &str = "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.";

/// With hashes that cost nearly nothing.
fn cheap(threads: usize) -> Passwords {
    Passwords::with(Params::new(64, 1, 1, None).expect("they are allowed"), threads)
}

async fn verdict(passwords: &Passwords, password: &str, hash: &str) -> Verdict {
    passwords.verify(password.to_owned(), Some(hash)).await.expect("nobody else is there")
}

#[tokio::test]
async fn a_password_fits_its_hash_and_no_other() {
    let passwords = cheap(1);
    for password in ["", "secret", "\u{e9}\0\n", &"x".repeat(MAX_PASSWORD_BYTES)] {
        let hash = passwords.hash(password.to_owned()).await.expect("nobody else is there");
        assert!(is_hash(&hash) && hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        assert_eq!(verdict(&passwords, password, &hash).await, Verdict::Right);
        assert_eq!(verdict(&passwords, &format!("{password}x"), &hash).await, Verdict::Wrong);
        let again = passwords.hash(password.to_owned()).await.expect("nobody else is there");
        assert_ne!(hash, again, "the salt is random");
    }
    let long = "x".repeat(MAX_PASSWORD_BYTES + 1);
    assert_eq!(passwords.hash(long.clone()).await, Err(Refusal::TooLong(MAX_PASSWORD_BYTES + 1)));
    assert_eq!(passwords.verify(long, None).await, Ok(Verdict::Wrong));
}

#[tokio::test]
async fn a_new_hash_has_the_recommended_parameters() {
    let passwords = Passwords::new();
    let hash = passwords.hash("secret".to_owned()).await.expect("nobody else is there");
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && is_hash(&hash), "{hash}");
    assert_eq!(verdict(&passwords, "secret", &hash).await, Verdict::Right);
    assert_eq!(verdict(&passwords, "password", ARGON2ID).await, Verdict::Old);
    assert_eq!(verdict(&cheap(1), "secret", &hash).await, Verdict::Right, "more than enough is not old");
}

#[tokio::test]
async fn published_hashes_are_verified() {
    let passwords = cheap(2);
    assert_eq!(verdict(&passwords, "password", ARGON2ID).await, Verdict::Right);
    assert_eq!(verdict(&passwords, "Password", ARGON2ID).await, Verdict::Wrong);
    assert_eq!(verdict(&passwords, "", BCRYPT_OF_NOTHING).await, Verdict::Old);
    assert_eq!(verdict(&passwords, "x", BCRYPT_OF_NOTHING).await, Verdict::Wrong);
    for version in ["$2a$", "$2b$", "$2y$"] {
        let hash = bcrypt::hash_with_salt("U*U", 5, [7; 16]).expect("the cost is allowed").to_string();
        let hash = hash.replace("$2b$", version);
        assert_eq!(verdict(&passwords, "U*U", &hash).await, Verdict::Old, "{hash}");
        assert_eq!(verdict(&passwords, "U*V", &hash).await, Verdict::Wrong, "{hash}");
    }
    let longest = "x".repeat(MAX_BCRYPT_PASSWORD_BYTES);
    let hash = bcrypt::hash_with_salt(&longest, 4, [7; 16]).expect("the cost is allowed").to_string();
    assert_eq!(verdict(&passwords, &longest, &hash).await, Verdict::Old);
    assert_eq!(verdict(&passwords, &format!("{longest}x"), &hash).await, Verdict::Wrong);
}

#[tokio::test]
async fn without_a_hash_every_password_is_wrong() {
    let passwords = cheap(1);
    for hash in [None, Some(""), Some("secret"), Some("$2a$31$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.")] {
        for password in ["", "secret"] {
            assert_eq!(passwords.verify(password.to_owned(), hash).await, Ok(Verdict::Wrong), "{hash:?}");
        }
    }
}

#[test]
fn only_hashes_with_a_bounded_cost_are_hashes() {
    let argon2 = |head: &str| format!("{head}$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4");
    for good in ["$argon2id$v=19$m=262144,t=10,p=4", "$argon2id$v=19$m=8,t=1,p=1"] {
        assert!(is_hash(&argon2(good)), "{good}");
    }
    for bad in [
        "$argon2id$v=19$m=262145,t=2,p=1",
        "$argon2id$v=19$m=4294967295,t=2,p=1",
        "$argon2id$v=19$m=99999999999,t=2,p=1",
        "$argon2id$v=19$m=19456,t=11,p=1",
        "$argon2id$v=19$m=19456,t=2,p=5",
        "$argon2id$v=19$m=19456,t=0,p=1",
        "$argon2id$v=19$m=19456,t=2,p=0",
        "$argon2id$v=19$m=7,t=2,p=1",
        "$argon2id$v=16$m=19456,t=2,p=1",
        "$argon2id$m=19456,t=2,p=1",
        "$argon2i$v=19$m=19456,t=2,p=1",
        "$argon2d$v=19$m=19456,t=2,p=1",
        "$scrypt$ln=15,r=8,p=1",
        "argon2id$v=19$m=19456,t=2,p=1",
    ] {
        assert!(!is_hash(&argon2(bad)), "{bad}");
    }
    let end = &BCRYPT_OF_NOTHING[6..];
    for (good, head) in [
        (true, "$2a$04"),
        (true, "$2b$14"),
        (true, "$2y$10"),
        (false, "$2a$03"),
        (false, "$2a$15"),
        (false, "$2a$31"),
        (false, "$2a$99"),
        (false, "$2a$+9"),
        (false, "$2x$10"),
        (false, "$2c$10"),
        (false, "$2$$10"),
    ] {
        assert_eq!(is_hash(&format!("{head}{end}")), good, "{head}");
    }
    let (salted, unsalted) = ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ", "$argon2id$v=19$m=256,t=2,p=1");
    // Of 12 bytes, which more passwords fit than should.
    let short = format!("{salted}$nf65EOgLrQMR/uIP");
    for bad in ["", "$", "$2", "$2a$", "secret", salted, unsalted, &short, &BCRYPT_OF_NOTHING[..59]] {
        assert!(!is_hash(bad), "{bad}");
    }
    assert!(!is_hash(&"$argon2id".repeat(1_000)));
    assert!(!is_hash(&format!("$2a$1\u{e9}{end}")), "no character is cut");
}

#[tokio::test]
async fn too_many_at_once_are_refused_and_the_others_are_served() {
    let passwords = cheap(1);
    // The only thread is taken, until the test gives it back.
    let thread = Arc::clone(&passwords.threads).acquire_owned().await.expect("it is never closed");
    let place = Arc::clone(&passwords.places).try_acquire_owned().expect("nobody else is there");
    let hashing = |passwords: &Passwords| {
        let passwords = passwords.clone();
        tokio::spawn(async move { passwords.hash("secret".to_owned()).await })
    };
    let waiting: Vec<_> = (0..MAX_WAITING).map(|_| hashing(&passwords)).collect();
    while passwords.places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(passwords.hash("secret".to_owned()).await, Err(Refusal::Busy));
    assert_eq!(passwords.verify("secret".to_owned(), None).await, Err(Refusal::Busy));
    // Whoever gives up makes room.
    waiting[0].abort();
    while passwords.places.available_permits() == 0 {
        tokio::task::yield_now().await;
    }
    let late = hashing(&passwords);
    drop((thread, place));
    for (number, task) in waiting.into_iter().enumerate().skip(1) {
        let hash = task.await.expect("it does not panic");
        assert!(hash.is_ok_and(|hash| is_hash(&hash)), "number {number}");
    }
    assert!(late.await.expect("it does not panic").is_ok());
    assert_eq!((passwords.places.available_permits(), passwords.threads.available_permits()), (1 + MAX_WAITING, 1));
}
