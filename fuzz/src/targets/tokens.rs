//! What a client gives as its token: a simple one, or a JSON web token, and the claims of one that is signed.

use bowline_server::fuzz_tokens;

pub(crate) fn run(data: &[u8]) {
    fuzz_tokens(data);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // The signed examples of RFC 8037 (appendix A.4) and RFC 7515 (appendix A.1.1).
    let ed_dsa = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWb\
                  hijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let hs256 = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
                 cGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let claims = r#"{"exp":1700000000,"nbf":0,"revision":3,"username":"ann"}"#;
    let odd = r#"{"exp":"1700000000","revision":-3.5e2,"username":null}"#;
    ["aaaaaaaaaaaaaaaa.7", ed_dsa, hs256, claims, odd].map(|seed| seed.as_bytes().to_vec()).to_vec()
}
