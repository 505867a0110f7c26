//! What users write: keys and values that are no text, quotes and line breaks, values that are missing, tips.

mod support;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Stdio;

use support::Member;

/// A key of a test's own, and behind it what is no text.
fn odd(key: &str) -> OsString {
    OsString::from_vec([key.as_bytes(), b"\xff\x01"].concat())
}

fn words<'a>(words: &[&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(|word| OsStr::new(*word)).collect()
}

#[test]
fn a_line_break_in_quotes_is_no_new_command() {
    let member = &Member::start();
    member.ask(&["put", "quoted/victim", "alive"]);
    let said = member.shell(b"put quoted/note \"first\ndel quoted/victim\nlast\"\n");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    member.says(&["get", "quoted/victim"], "alive\n");
    member.says(&["get", "quoted/note"], "first\ndel quoted/victim\nlast\n");
    let said = member.shell(
        b"put quoted/note 'a \"\n\ndel quoted/victim\n'\nput quoted/next \"it's\"\n# it's a remark\nget quoted/next\n",
    );
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.text().ends_with("\nit's\n"), "{said:?}");
    member.says(&["get", "quoted/victim"], "alive\n");
    member.says(&["get", "quoted/note"], "a \"\n\ndel quoted/victim\n\n");
    // A backslash before the quote keeps it open; one before the backslash does not.
    let said =
        member.shell(b"put quoted/note \"a\\\"\ndel quoted/victim\n\"\nput quoted/next \"\\\\\"\nget quoted/next\n");
    assert!(said.code == Some(0) && said.text().ends_with("\n\\\n"), "{said:?}");
    member.says(&["get", "quoted/victim"], "alive\n");

    let txn =
        b"value(\"quoted/victim\") = \"alive\"\n\nput quoted/txn \"a\n\ndel quoted/victim\n\"\nget quoted/txn\n\n\n";
    let said = member.ask_with(&["txn"], txn);
    assert_eq!(
        (said.code, said.text()),
        (Some(0), "SUCCESS\n\nOK\n\nquoted/txn\na\n\ndel quoted/victim\n\n"),
        "{said:?}"
    );
    let said = member.shell(&[b"txn\n", &txn[..], b"get quoted/victim\n"].concat());
    assert!(said.code == Some(0) && said.text().ends_with("\nalive\n"), "{said:?}");
}

#[test]
fn a_quote_that_is_still_open_at_the_end_is_an_error_and_nothing_of_it_is_done() {
    let member = &Member::start();
    member.ask(&["put", "open/victim", "alive"]);
    for input in
        [&b"put open/1 1\nput open/2 \"first\ndel open/victim\n"[..], b"put open/1 1\nput open/2 'del open/victim"]
    {
        for shell in [&["shell"][..], &["shell", "--keep-going"]] {
            let said = member.ask_with(shell, input);
            assert_eq!(said.code, Some(2), "{said:?}");
            assert!(said.err.starts_with("error: line 2: unclosed quote: \"put open/2 "), "{said:?}");
        }
    }
    let said = member.ask_with(&["txn"], b"\nput open/2 'a\n\ndel open/victim\n");
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.starts_with("error: line 2: unclosed quote: \"put open/2 "), "{said:?}");
    member.says(&["get", "open/", "--prefix", "--keys-only"], "open/1\nopen/victim\n");
}

#[test]
fn a_pipe_stops_at_the_first_line_that_can_not_be_read() {
    let member = &Member::start();
    for (number, wrong) in
        ["fetch stop/1", "put stop/2", "get", "put \"\\q\" 1", "get \"\"", "put --hex k v", "put -x 1", "mode gold"]
            .into_iter()
            .enumerate()
    {
        let before = format!("put stop/before/{number} 'a\nb'\n# it's a remark\n");
        let said = member.shell(format!("{before}{wrong}\nput stop/after/{number} 1\n").as_bytes());
        assert_eq!(said.code, Some(2), "{wrong}: {said:?}");
        assert!(said.err.starts_with("error: line 4: "), "{wrong}: {said:?}");
        assert!(
            said.err.ends_with("\n  the lines after it were not run; --keep-going skips lines that can't be parsed\n"),
            "{wrong}: {said:?}"
        );
        assert!(
            member.has(&format!("stop/before/{number}")) && !member.has(&format!("stop/after/{number}")),
            "{wrong}"
        );

        let input = format!("{wrong}\nput stop/after/{number} 1\n");
        let said = member.ask_with(&["shell", "--keep-going"], input.as_bytes());
        assert_eq!(said.code, Some(2), "{wrong}: {said:?}");
        assert!(said.err.starts_with("error: line 1: ") && said.err.lines().count() == 1, "{wrong}: {said:?}");
        assert!(member.has(&format!("stop/after/{number}")), "{wrong}");
    }
    // One that fails is none that can't be read.
    let said = member.shell(b"get stop/nothing\nlease revoke 1\nput stop/last 1\n");
    assert!(said.code == Some(1) && said.err.starts_with("error: line 2: "), "{said:?}");
    assert!(member.has("stop/last"));
}

#[test]
fn a_transaction_that_can_not_be_read_names_its_line_and_does_nothing() {
    let member = &Member::start();
    let said = member.ask_with(&["txn"], b"ver(bad/k) = 0\n\nput bad/k 1\nput bad/k\n\n");
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.starts_with("error: line 4: \"put bad/k\" is not an operation; allowed: "), "{said:?}");
    let said = member.shell(b"txn\n\nput bad/k 1\nfetch bad/k\n\n\nput bad/after 1\n");
    assert!(said.code == Some(2) && said.err.starts_with("error: line 4: \"fetch bad/k\""), "{said:?}");
    assert!(!member.has("bad/k") && !member.has("bad/after"));
    let said =
        member.ask_with(&["shell", "--keep-going"], b"txn\nsize(bad/k) = 1\n\nput bad/k 1\n\n\nput bad/after 1\n");
    assert!(said.code == Some(2) && said.err.starts_with("error: line 2: "), "{said:?}");
    assert!(!member.has("bad/k") && member.has("bad/after"), "what comes after its lines is done");
    // Where it can't be known which lines belong to it, none of them is done.
    for input in [&b"txn --sometimes\n\nput bad/k 1\n\n\nput bad/later 1\n"[..], b"'txn' \"\\q\"\n\nput bad/k 1\n"] {
        let said = member.ask_with(&["shell", "--keep-going"], input);
        assert!(
            said.code == Some(2) && said.err.contains("the lines after it were not run, because they may belong"),
            "{said:?}"
        );
    }
    assert!(!member.has("bad/k") && !member.has("bad/later"));
    let said = member.ask_with(&["txn"], b"");
    assert!(said.code == Some(2) && said.err.contains("there is no transaction"), "{said:?}");
}

#[test]
fn keys_and_values_need_not_be_text() {
    let member = &Member::start();
    let (key, value) = (odd("bytes/"), OsString::from_vec(b"\xfe\n\xfd".to_vec()));
    let with = |before: &[&'static str], after: &[&'static str]| {
        let mut all = words(before);
        all.push(&key);
        all.extend(after.iter().map(|word| OsStr::new(*word)));
        member.ask(&all)
    };
    assert_eq!(member.ask(&[OsStr::new("put"), &key, &value]).code, Some(0));
    assert_eq!(with(&["get"], &["--raw"]).out, value.as_bytes());
    let plain = with(&["get", "--prefix"], &[]);
    assert_eq!(plain.out, [key.as_bytes(), b"\n", value.as_bytes(), b"\n"].concat(), "byte for byte in a pipe");
    let json = with(&["get"], &["-o", "json"]);
    assert!(json.text().contains(r#""key":"Ynl0ZXMv/wE=","key_encoding":"base64""#), "{json:?}");
    assert!(json.text().contains(r#""encoding":"base64""#) && json.text().contains(r#""value":"/gr9""#), "{json:?}");
    assert!(with(&["get"], &["-o", "table"]).text().contains("\"bytes/\\xff\\x01\"  \"\\xfe\\n\\xfd\""));

    // What is printed can be given back, in every command.
    let hex = "62797465732fff01";
    member.says(&["get", "--hex", "--prefix", "62797465732f"], &format!("{hex}\nfe0afd\n"));
    member.says(&["get", "--hex", r"\x62\x79\x74\x65\x73\x2f\xff\x01"], "fe0afd\n");
    member.says(&["get", "--base64", "Ynl0ZXMv/wE=", "--prefix"], "Ynl0ZXMv/wE=\n/gr9\n");
    member.says(&["get", "--hex", hex, "62797465732fff02", "--keys-only"], &format!("{hex}\n"));
    let json = member.json(&["get", "--hex", hex, "-o", "json"]);
    assert_eq!((&json["kvs"][0]["key"], &json["kvs"][0]["key_encoding"]), (&hex.into(), &"hex".into()));
    assert_eq!((&json["kvs"][0]["value"], &json["kvs"][0]["encoding"]), (&"fe0afd".into(), &"hex".into()));
    assert!(member.ask(&["get", "--hex", hex, "-o", "table"]).text().contains(&format!("\n{hex}  fe0afd  ")));
    assert_eq!(member.ask_with(&["put", "--hex", hex], b"raw").code, Some(0), "a value that is read is as it is");
    assert_eq!(with(&["get"], &[]).text(), "raw\n");
    assert!(member.ask(&["put", "--hex", hex, "00ff", "--prev-kv"]).text().ends_with(&format!("\n{hex}\n726177\n")));
    let said = member.ask(&["put", "--base64", "Ynl0ZXMv/wE=", "AP4=", "--prev-kv", "-o", "json"]);
    assert!(said.text().contains(r#""encoding":"base64""#) && said.text().contains(r#""value":"AP8=""#), "{said:?}");
    member.says(&["del", "--hex", hex, "--dry-run"], "1\n");
    member.says(&["del", "--hex", hex, "--prev-kv"], &format!("1\n{hex}\n00fe\n"));
    assert_eq!(with(&["put"], &["again"]).code, Some(0));
    assert_eq!(with(&["del"], &["--prev-kv"]).out, [b"1\n", key.as_bytes(), b"\nagain\n"].concat());

    for (arguments, allowed) in [
        (["get", "--hex", "foo"], "pairs of hexadecimal digits (as hexadecimal, this text is 666f6f)"),
        (["del", "--base64", "foo"], "padded base64"),
        (["get", "--hex", "--base64"], "cannot be used with"),
    ] {
        let said = member.ask(&arguments);
        assert!(said.code == Some(2) && said.err.contains(allowed), "{said:?}");
    }
}

#[test]
fn lines_and_transactions_take_bytes_that_are_no_text() {
    let member = &Member::start();
    let lines = b"put \"lines/\\xff\\x01\" \"\\xfe\\x00\"\nget --hex 6c696e65732fff01\nput lines/\xff\x02 \xfd\nmode table\nget lines/ --prefix\n";
    let said = member.shell(lines);
    assert_eq!(said.code, Some(0), "{said:?}");
    let shown: Vec<&str> = said.text().lines().filter(|line| !line.starts_with("OK")).collect();
    assert_eq!(shown[0], "fe00", "{said:?}");
    assert!(shown[2].starts_with(r#""lines/\xff\x01"  "\xfe\x00"  "#), "{said:?}");
    assert!(shown[3].starts_with(r#""lines/\xff\x02"  "\xfd""#), "{said:?}");

    let compares = [r#"value("lines/\xff\x01") = "\xfe\x00""#, r#"version('lines/none') = 0"#];
    let mut txn = words(&["txn", "--then", r#"put "lines/\xff\x01" "\xfb""#, "--then", "get --base64 bGluZXMv/wE="]);
    compares.iter().for_each(|compare| txn.extend([OsStr::new("--if"), OsStr::new(*compare)]));
    let said = member.ask(&txn);
    assert_eq!(
        (said.code, said.out.as_slice()),
        (Some(0), &b"SUCCESS\n\nOK\n\nlines/\xff\x01\n\xfb\n"[..]),
        "{said:?}"
    );
    let hex = ["txn", "--hex", "--if", "value(6c696e65732fff01) = fb", "--then", "del 6c696e65732fff01 --prev-kv"];
    member.says(&hex, "SUCCESS\n\n1\n6c696e65732fff01\nfb\n");
    let text = b"value(lines/\xff\x02) = \xfd\n\nput lines/\xff\x02 \"\\xfc\"\nget --hex 6c696e65732fff02\n";
    let said = member.ask_with(&["txn", "-o", "json"], text);
    assert!(said.code == Some(0) && said.text().contains(r#""value":"/A==""#), "{said:?}");
}

#[test]
fn keys_of_a_lease_can_be_told_apart_and_given_back() {
    let member = &Member::start();
    let id = member.json(&["lease", "grant", "600", "-o", "json"])["lease"].as_str().expect("an identity").to_owned();
    for key in [odd("leased/"), "leased/a b".into(), "leased/c".into()] {
        let put = [&words(&["put", "--lease", &id])[..], &[&*key, OsStr::new("v")]].concat();
        assert_eq!(member.ask(&put).code, Some(0));
    }
    let attached = |more: &[&'static str]| {
        let told = member.ask(&[&words(&["lease", "timetolive", &id, "--keys"])[..], &words(more)].concat());
        told.text().split_once("attached keys").expect("they are told").1.trim().to_owned()
    };
    assert_eq!(attached(&[]), r#"(["leased/a b" leased/c "leased/\xff\x01"])"#);
    assert_eq!(attached(&["--hex"]), "([6c65617365642f612062 6c65617365642f63 6c65617365642fff01])");
    let json = member.json(&["lease", "timetolive", &id, "--keys", "--hex", "-o", "json"]);
    assert_eq!(
        (&json["keys"][2]["key"], &json["keys"][2]["key_encoding"]),
        (&"6c65617365642fff01".into(), &"hex".into())
    );
}

#[test]
fn a_put_without_a_value_is_refused_and_changes_nothing() {
    let member = &Member::start();
    let id = member.json(&["lease", "grant", "600", "-o", "json"])["lease"].as_str().expect("an identity").to_owned();
    member.ask(&["put", "missing/k", "v"]);
    for more in [&[][..], &["--prev-kv"], &["--lease", &id], &["-o", "json"], &["--"]] {
        let put = [&["put", "missing/k"], more].concat();
        let mut command = member.command(&put);
        let output = command.stdin(Stdio::null()).output().expect("it starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{put:?}: {err}");
        assert!(output.stdout.is_empty() && err.contains("VALUE is missing, and standard input is empty"), "{err}");
        assert_eq!(member.ask_with(&put, b"").code, Some(2), "{put:?}");
    }
    member.says(&["get", "missing/k"], "v\n");
    let said = member.shell(b"put missing/k\n");
    assert!(said.code == Some(2) && said.err.contains("VALUE is missing"), "{said:?}");
    for txn in [&["txn", "--then", "put missing/k"][..], &["txn", "--else", "put missing/k --prev-kv"]] {
        let said = member.ask(txn);
        assert!(said.code == Some(2) && said.err.contains("VALUE is missing"), "{said:?}");
    }
    member.says(&["get", "missing/k"], "v\n");

    // An empty one must be asked for.
    for (number, (put, input)) in
        [(&["put", "missing/k", ""], &b""[..]), (&["put", "missing/k", "-"], b"")].into_iter().enumerate()
    {
        member.ask(&["put", "missing/k", &number.to_string()]);
        assert_eq!(member.ask_with(put, input).code, Some(0), "{put:?}");
        member.says(&["get", "missing/k"], "\n");
    }
    assert_eq!(member.ask_with(&["put", "missing/k", "-"], b"piped").code, Some(0));
    member.says(&["get", "missing/k"], "piped\n");
    assert_eq!(member.shell(b"put missing/k \"\"\n").code, Some(0));
    member.says(&["get", "missing/k"], "\n");
    assert_eq!(member.shell(b"put missing/k -\n").code, Some(0));
    member.says(&["get", "missing/k"], "-\n");
}

#[test]
fn a_tip_is_given_wherever_a_line_is_read() {
    let member = &Member::start();
    let tip = "tip: to pass '-x' as a value, use '-- -x'";
    let told = [
        member.ask(&["put", "-x", "1"]),
        member.shell(b"put -x 1\n"),
        member.ask(&["txn", "--then", "put -x 1"]),
        member.ask_with(&["txn"], b"\nput -x 1\n"),
        member.shell(b"txn --then 'put -x 1'\n"),
        member.shell(b"txn\n\nput -x 1\n"),
    ];
    for said in told {
        assert!(said.code == Some(2) && said.err.contains(tip), "{said:?}");
    }
    assert!(member.shell(b"gett k\n").err.contains("tip: a similar subcommand exists: 'get'"));
    assert!(member.shell(b"get k --prefiks\n").err.contains("tip: a similar argument exists: '--prefix'"));
    let said = member.ask(&["txn", "--then", "get k --prefiks"]);
    assert!(said.err.contains("tip: a similar argument exists: '--prefix'"), "{said:?}");
    // The names of what is missing are told, too.
    assert!(member.ask(&["txn", "--then", "get"]).err.contains("not provided: <KEY>"));
    assert_eq!(member.shell(b"put -- -x 1\nget -- -x\n").text().lines().last(), Some("1"), "it works");
}

#[test]
fn a_variable_that_is_no_text_is_not_taken_for_none() {
    let member = Member::start();
    let mut get = member.command(&["get", "k"]);
    let said = support::run(get.env("BOWLINE_ENDPOINTS", OsStr::from_bytes(b"127.0.0.1:1\xff")), b"");
    assert!(said.code == Some(2) && said.err.contains("BOWLINE_ENDPOINTS is \"127.0.0.1:1\\xFF\""), "{said:?}");
}
