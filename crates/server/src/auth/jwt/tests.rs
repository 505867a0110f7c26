use std::path::Path;

use super::super::fuzz::PUBLISHED;
use super::*;

const NOW: u64 = 1_700_000_000;

/// The signed example of RFC 8037, appendix A.4.
const ED_DSA_EXAMPLE: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3\
                              AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

/// The signed example of RFC 7515, appendix A.1.1.
const HS256_EXAMPLE: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA\
                             6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// A private key as `openssl genpkey -algorithm ed25519` writes it: the one of RFC 8410, section 10.3.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";

/// Its public key, of RFC 8410, section 10.1.
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
";

fn claims_of(user: &str, revision: u64) -> Option<Claims> {
    Some(Claims { user: user.to_owned(), revision })
}

/// A token with this header and payload, signed by the keys whatever they say.
fn signed(jwt: &Jwt, header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(payload));
    let signature = jwt.keys.sign(signed.as_bytes()).expect("there is a private key");
    format!("{signed}.{}", BASE64.encode(signature))
}

#[test]
fn what_is_signed_is_verified_until_it_expires() {
    for jwt in &*PUBLISHED {
        for (user, revision) in [("ann", 1), ("\u{e9} \"\\\n\0", u64::MAX), ("x", 0)] {
            let token = jwt.sign(user, revision, NOW).expect("it can sign");
            assert_eq!(jwt.verify(&token, NOW), claims_of(user, revision));
            assert_eq!(jwt.verify(&token, NOW + 299), claims_of(user, revision));
            assert_eq!(jwt.verify(&token, NOW + 300), None, "it has expired");
            assert_eq!(jwt.verify(&token, u64::MAX), None);
        }
        assert!(jwt.sign("ann", 1, u64::MAX).is_ok(), "time does not overflow");
        assert_eq!(jwt.sign(&"x".repeat(MAX_BYTES), 1, NOW), Err(JwtError::LongName(MAX_BYTES)));
    }
}

#[test]
fn a_token_that_is_changed_anywhere_is_refused() {
    for jwt in &*PUBLISHED {
        let token = jwt.sign("ann", 7, NOW).expect("it can sign");
        for place in 0..token.len() {
            for other in (0..128_u8).filter(|other| *other != token.as_bytes()[place]) {
                let mut changed = token.clone().into_bytes();
                changed[place] = other;
                let changed = String::from_utf8(changed).expect("it is ASCII");
                assert_eq!(jwt.verify(&changed, NOW), None, "{changed}");
            }
            assert_eq!(jwt.verify(&token[..place], NOW), None);
            assert_eq!(jwt.verify(&format!("{}{}", &token[..place], &token[place + 1..]), NOW), None);
        }
        for changed in [format!("{token}="), format!("{token}."), format!(".{token}"), format!(" {token}")] {
            assert_eq!(jwt.verify(&changed, NOW), None, "{changed}");
        }
    }
}

#[test]
fn only_the_configured_method_counts() {
    let [ed_dsa, hs256] = &*PUBLISHED;
    let payload = format!(r#"{{"username":"root","revision":1,"exp":{}}}"#, NOW + 1);
    for jwt in [ed_dsa, hs256] {
        let own = jwt.keys.method();
        assert_eq!(jwt.verify(&signed(jwt, &format!(r#"{{"alg":"{own}"}}"#), &payload), NOW), claims_of("root", 1));
        let other = if own == "HS256" { "EdDSA" } else { "HS256" };
        for header in [
            r#"{"alg":"none"}"#.to_owned(),
            format!(r#"{{"alg":"{other}"}}"#),
            format!(r#"{{"alg":"{}"}}"#, own.to_lowercase()),
            format!(r#"{{"alg":["{own}"]}}"#),
            format!(r#"{{"alg":"{own}","crit":["b64"],"b64":false}}"#),
            r#"{"typ":"JWT"}"#.to_owned(),
            format!(r#"["{own}"]"#),
            format!(r#""{own}""#),
            "null".to_owned(),
            String::new(),
        ] {
            assert_eq!(jwt.verify(&signed(jwt, &header, &payload), NOW), None, "{header}");
        }
        let unsigned = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(&payload));
        assert_eq!(jwt.verify(&unsigned, NOW), None);
    }
    // Whoever takes the public key for the secret of HS256 must not get in.
    let Keys::EdDsa { private: Some(private), .. } = &*ed_dsa.keys else { panic!("it is EdDSA") };
    let forger = Jwt::of_secret(private.public_key().as_ref());
    assert_eq!(ed_dsa.verify(&forger.sign("root", 1, NOW).expect("it can sign"), NOW), None);
    assert_eq!(ed_dsa.verify(&hs256.sign("root", 1, NOW).expect("it can sign"), NOW), None);
}

#[test]
fn claims_that_are_missing_or_odd_are_refused() {
    let [jwt, _] = &*PUBLISHED;
    let verify = |payload: &str| jwt.verify(&signed(jwt, r#"{"alg":"EdDSA"}"#, payload), NOW);
    // As etcd writes it, and with more than it needs.
    assert_eq!(verify(r#"{"exp":1700000001,"revision":2,"username":"ann"}"#), claims_of("ann", 2));
    let more = r#"{"exp":1700000001,"nbf":1700000000,"iat":5,"iss":"x","revision":2,"username":"ann","z":{"a":[]}}"#;
    assert_eq!(verify(more), claims_of("ann", 2));
    for payload in [
        r#"{"exp":1700000001,"revision":2}"#,
        r#"{"exp":1700000001,"username":"ann"}"#,
        r#"{"revision":2,"username":"ann"}"#,
        r#"{"exp":1700000000,"revision":2,"username":"ann"}"#,
        r#"{"exp":-1,"revision":2,"username":"ann"}"#,
        r#"{"exp":"1700000001","revision":2,"username":"ann"}"#,
        r#"{"exp":null,"revision":2,"username":"ann"}"#,
        r#"{"exp":1e400,"revision":2,"username":"ann"}"#,
        r#"{"exp":1700000001,"revision":"2","username":"ann"}"#,
        r#"{"exp":1700000001,"revision":-2,"username":"ann"}"#,
        r#"{"exp":1700000001,"revision":2.5,"username":"ann"}"#,
        r#"{"exp":1700000001,"revision":18446744073709551616,"username":"ann"}"#,
        r#"{"exp":1700000001,"revision":2,"username":""}"#,
        r#"{"exp":1700000001,"revision":2,"username":null}"#,
        r#"{"exp":1700000001,"revision":2,"username":["ann"]}"#,
        r#"{"exp":1700000001,"revision":2,"username":7}"#,
        r#"{"exp":1700000001,"nbf":1700000001,"revision":2,"username":"ann"}"#,
        r#"{"exp":1700000001,"nbf":"now","revision":2,"username":"ann"}"#,
        r#"[{"exp":1700000001,"revision":2,"username":"ann"}]"#,
        r#"{"exp":1700000001,"revision":2,"username":"ann"} x"#,
        r#"{"exp":1700000001,"revision":2,"username":"ann""#,
        "null",
        "7",
        "",
    ] {
        assert_eq!(verify(payload), None, "{payload}");
    }
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(claims(deep.as_bytes(), NOW), None);
}

#[test]
fn the_examples_of_the_standards_have_right_signatures() {
    let [ed_dsa, hs256] = &*PUBLISHED;
    for (jwt, token) in [(ed_dsa, ED_DSA_EXAMPLE), (hs256, HS256_EXAMPLE)] {
        let (text, signature) = token.rsplit_once('.').expect("it has a signature");
        let signature = BASE64.decode(signature).expect("it is Base64");
        assert_eq!(jwt.keys.verify(text.as_bytes(), &signature), Some(()));
        assert_eq!(jwt.keys.sign(text.as_bytes()), Some(signature));
        assert_eq!(jwt.verify(token, 0), None, "it names no user");
    }
}

#[test]
fn hostile_text_is_no_token() {
    for jwt in &*PUBLISHED {
        let token = jwt.sign("ann", 7, NOW).expect("it can sign");
        let long = format!("{token}.{}", "A".repeat(MAX_BYTES));
        for text in ["", ".", "..", "...", "a.b.c", "\u{e9}.\u{e9}.\u{e9}", "e30.e30.", "e30.e30.e30", &long] {
            assert_eq!(jwt.verify(text, NOW), None, "{text:.60}");
        }
    }
}

/// Writes files and makes options of them: `FOLDER` in the options stands for where they are.
fn with_files(options: &str) -> Result<Jwt, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| files::write(folder.path().join(name), bytes).expect("written");
    write("private", PRIVATE.as_bytes());
    write("public", PUBLIC.as_bytes());
    write("other", PUBLIC.replace("Gb9E", "Gb9F").as_bytes());
    write("secret", &[0xc3; 32]);
    write("short", &[0xc3; 31]);
    write("large", &[b'x'; 65_537]);
    let path = |folder: &Path| folder.to_str().expect("it is a plain path").to_owned();
    let result = Jwt::from_options(&options.replace("FOLDER", &path(folder.path())));
    result.map_err(|error| error.to_string().replace(&path(folder.path()), "FOLDER"))
}

#[test]
fn options_are_those_of_etcd() {
    let both =
        with_files("pub-key=FOLDER/public,priv-key=FOLDER/private,sign-method=EdDSA,ttl=1h30m").expect("they are good");
    assert!(both.can_sign());
    let token = both.sign("ann", 3, NOW).expect("it can sign");
    assert_eq!(both.verify(&token, NOW + 5_399), claims_of("ann", 3));
    assert_eq!(both.verify(&token, NOW + 5_400), None);
    let private = with_files("sign-method=EdDSA,priv-key=FOLDER/private").expect("the private key is enough");
    assert_eq!(private.verify(&token, NOW), claims_of("ann", 3));
    assert_eq!(private.sign("ann", 3, NOW + 5_100).as_ref(), Ok(&token), "five minutes are the default");
    let public = with_files("sign-method=EdDSA,pub-key=FOLDER/public").expect("the public key is enough to verify");
    assert_eq!(public.verify(&token, NOW), claims_of("ann", 3));
    assert_eq!((public.can_sign(), public.sign("ann", 3, NOW)), (false, Err(JwtError::NoPrivateKey)));
    let secret = with_files("sign-method=HS256,priv-key=FOLDER/secret,ttl=1s").expect("they are good");
    let other = secret.sign("bob", 9, NOW).expect("it can sign");
    assert_eq!(secret.verify(&other, NOW), claims_of("bob", 9));
    assert_eq!(Jwt::of_secret(&[0xc3; 32]).verify(&other, NOW), claims_of("bob", 9), "the bytes of the file count");
    assert_eq!(secret.verify(&token, NOW), None);
    assert_eq!(format!("{secret:?}"), format!("Jwt {{ options: {:?}, .. }}", secret.options), "no key is shown");
    assert!(both != private && both == both.clone());
}

#[test]
fn options_that_are_wrong_are_named_with_a_remedy() {
    for (options, error) in [
        ("", "sign-method is missing: EdDSA, with an Ed25519 key, or HS256, with a secret that all members share"),
        ("sign-method=RS256", "sign-method is \"RS256\"; allowed: EdDSA, with an Ed25519 key, or HS256, with a secret"),
        ("sign-method=ES256,priv-key=x", "sign-method is \"ES256\"; allowed: EdDSA, "),
        ("sign-method=none", "sign-method is \"none\"; allowed: EdDSA, "),
        ("sign-method=", "sign-method is \"\"; allowed: EdDSA, "),
        ("sign-method", "\"sign-method\" is not allowed; allowed: each of these once: sign-method=METHOD, "),
        ("key=x", "\"key=x\" is not allowed; allowed: each of these once: sign-method=METHOD, "),
        ("sign-method=HS256,sign-method=EdDSA", "\"sign-method=EdDSA\" is not allowed; allowed: each of these once: "),
        ("sign-method=EdDSA", "priv-key is missing: a file with an Ed25519 key in PEM; with pub-key alone, a member"),
        ("sign-method=HS256", "priv-key is missing: a file with the secret that all members share, at least 32"),
        (
            "sign-method=HS256,priv-key=FOLDER/secret,pub-key=FOLDER/public",
            "pub-key is \"FOLDER/public\"; allowed: nothing: HS256 has one secret key, in priv-key",
        ),
        (
            "sign-method=HS256,priv-key=FOLDER/short",
            "priv-key is \"FOLDER/short\": it has 31 bytes; put at least 32 random ones into it",
        ),
        ("sign-method=HS256,priv-key=FOLDER/large", "priv-key is \"FOLDER/large\": it is larger than 65536 bytes"),
        ("sign-method=HS256,priv-key=FOLDER/none", "priv-key is \"FOLDER/none\": No such file or directory"),
        ("sign-method=HS256,priv-key=FOLDER", "priv-key is \"FOLDER\": "),
        ("sign-method=EdDSA,priv-key=FOLDER/public", "priv-key is \"FOLDER/public\": it has no private Ed25519 key as"),
        ("sign-method=EdDSA,pub-key=FOLDER/private", "pub-key is \"FOLDER/private\": it has no public Ed25519 key in"),
        ("sign-method=EdDSA,pub-key=FOLDER/secret", "pub-key is \"FOLDER/secret\": it has no public Ed25519 key in"),
        (
            "sign-method=EdDSA,pub-key=FOLDER/other,priv-key=FOLDER/private",
            "pub-key is \"FOLDER/other\": it is not the public key of priv-key; give the one that belongs to it",
        ),
        ("sign-method=HS256,priv-key=FOLDER/secret,ttl=5", "ttl is \"5\"; allowed: a time from 1s to 8760h, such as"),
        ("sign-method=HS256,priv-key=FOLDER/secret,ttl=0s", "ttl is \"0s\"; allowed: "),
        ("sign-method=HS256,priv-key=FOLDER/secret,ttl=8761h", "ttl is \"8761h\"; allowed: "),
    ] {
        let found = with_files(options).expect_err(options);
        assert!(found.starts_with(error), "{options}: {found}");
    }
}
