use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(text: &str) -> Result<Envelope, MessageError> {
    Envelope::parse(text.as_bytes())
}

fn message(rest: &str) -> String {
    format!(r#"{{"src":"0001","dst":"0002","leader":"FFFF",{rest}}}"#)
}

fn error(text: &str) -> String {
    let error = parse(text).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn the_messages_of_the_protocol_page_are_read() {
    let get = parse(&message(r#""type":"get","MID":"m1","key":"k""#)).unwrap();
    assert_eq!(get.src, "0001".parse().unwrap());
    assert_eq!(get.dst, "0002".parse().unwrap());
    assert_eq!(get.leader, LanId::BROADCAST);
    assert!(!get.spelled_dest);
    let content = |rest: &str| parse(&message(rest)).unwrap().content;
    let mid = || "m".to_owned();
    assert_eq!(
        content(r#""type":"put","MID":"m","key":"k","value":"v""#),
        Content::Put { mid: mid(), key: "k".to_owned(), value: "v".to_owned() }
    );
    assert_eq!(content(r#""type":"ok","MID":"m","value":"""#), Content::Ok { mid: mid(), value: Some(String::new()) });
    let ok = Content::Ok { mid: mid(), value: None };
    assert_eq!(content(r#""type":"ok","MID":"m""#), ok);
    assert_eq!(content(r#""type":"ok","MID":"m","value":null"#), ok);
    assert_eq!(content(r#""type":"redirect","MID":"m""#), Content::Redirect { mid: mid() });
    let fail = Content::Fail { mid: mid(), error: None };
    assert_eq!(content(r#""type":"fail","MID":"m""#), fail);
    assert_eq!(content(r#""type":"fail","MID":"m","error":7"#), fail);
    assert_eq!(content(r#""type":"hello""#), Content::Hello);
}

#[test]
fn messages_of_the_replicas_own_keep_their_fields() {
    let envelope = parse(&message(r#""type":"vote","MID":5,"key":[1],"term":3,"value":{"a":null}"#)).unwrap();
    let Content::Other { kind, fields } = &envelope.content else {
        panic!("{envelope:?}");
    };
    assert_eq!(kind, "vote");
    let expected = json!({"MID": 5, "key": [1], "term": 3, "value": {"a": null}});
    assert_eq!(serde_json::Value::Object(fields.to_map()), expected);
    assert_eq!(Envelope::parse(&envelope.encode()), Ok(envelope));
}

/// A fuzzer's find: a fraction that was read carelessly came out a little smaller each time that it was passed on.
#[test]
fn numbers_are_passed_on_as_they_are() {
    let long = format!("3{}0", "3".repeat(47));
    let envelope = parse(&message(&format!(r#""type":"vote","term":[{long},0.1,1e-300]"#))).unwrap();
    assert_eq!(Envelope::parse(&envelope.encode()), Ok(envelope));
}

#[test]
fn both_spellings_of_the_destination_are_read_and_kept() {
    let dest = parse(r#"{"src":"0001","dest":"000a","leader":"FFFF","type":"hello"}"#).unwrap();
    assert!(dest.spelled_dest);
    let line = String::from_utf8(dest.encode()).unwrap();
    assert_eq!(line, "{\"src\":\"0001\",\"dest\":\"000a\",\"leader\":\"FFFF\",\"type\":\"hello\"}\n");
    let both = parse(&message(r#""dest":"0002","type":"hello""#)).unwrap();
    assert!(!both.spelled_dest);
    assert_eq!(
        error(&message(r#""dest":"0003","type":"hello""#)),
        "the fields `dst` (0002) and `dest` (0003) differ; only one of them is needed"
    );
}

#[test]
fn white_space_and_unknown_fields_do_not_matter() {
    let plain = parse(&message(r#""type":"get","MID":"m","key":"k""#)).unwrap();
    let text = message(r#""type":"get","MID":"m","key":"k","colour":{"deep":[1]}"#);
    for padded in [format!("{text}\n"), format!("{text}\r\n"), format!(" \t\n{text} \n\n")] {
        assert_eq!(parse(&padded).unwrap(), plain);
    }
}

#[test]
fn errors_name_the_field_the_value_and_what_is_allowed() {
    assert_eq!(
        error(r#"{"dst":"0002","leader":"FFFF","type":"hello"}"#),
        "the field `src` is missing; it must be a string of four hexadecimal digits"
    );
    assert_eq!(
        error(r#"{"src":"0001","leader":"FFFF","type":"hello"}"#),
        "the field `dst` is missing; it must be a string of four hexadecimal digits"
    );
    assert_eq!(
        error(r#"{"src":1,"dst":"0002","leader":"FFFF","type":"hello"}"#),
        "the field `src` is 1; it must be a string of four hexadecimal digits"
    );
    assert_eq!(
        error(r#"{"src":"0001","dst":"0002","leader":"nobody","type":"hello"}"#),
        "the field `leader` is \"nobody\"; it must be a string of four hexadecimal digits"
    );
    assert_eq!(error(&message(r#""type":true"#)), "the field `type` is true; it must be a string of 1 to 256 bytes");
    assert_eq!(error(&message(r#""type":"""#)), "the field `type` is \"\"; it must be a string of 1 to 256 bytes");
    assert_eq!(
        error(&message(r#""type":"get","key":"k""#)),
        "the field `MID` is missing; it must be a string of at most 1024 bytes"
    );
    assert_eq!(
        error(&message(r#""type":"get","MID":{"a":1},"key":"k""#)),
        "the field `MID` is an object; it must be a string of at most 1024 bytes"
    );
    assert_eq!(
        error(&message(r#""type":"put","MID":"m","key":"k","value":3.5"#)),
        "the field `value` is 3.5; it must be a string"
    );
    assert_eq!(
        error(&message(r#""type":"put","MID":"m","value":"v""#)),
        "the field `key` is missing; it must be a string"
    );
    let long = "ä".repeat(400);
    let shown = format!("\"{}…\"", "ä".repeat(60));
    assert_eq!(
        error(&message(&format!(r#""type":"{long}""#))),
        format!("the field `type` is {shown}; it must be a string of 1 to 256 bytes")
    );
}

#[test]
fn anything_but_one_object_is_refused() {
    for text in ["", "  \n", "null", "[]", r#"["0001","0002"]"#, "\"text\"", "7", "{", "{}{}", r#"{"src":"0001""#, "}"]
    {
        let error = parse(text).unwrap_err();
        assert!(matches!(error, MessageError::NotAnObject { .. }), "{text}: {error}");
    }
    let twice = error(&message(r#""src":"0009","type":"hello""#));
    assert!(twice.contains("duplicate field `src`"), "{twice}");
    assert!(Envelope::parse(b"{\"src\":\"\xff\xfe\"}").is_err());
    assert!(parse(&message(r#""type":"\ud800""#)).is_err());
}

#[test]
fn sizes_are_bounded() {
    let text = message(r#""type":"hello""#);
    let fits = format!("{text}{}", " ".repeat(MAX_MESSAGE_BYTES - text.len()));
    assert!(parse(&fits).is_ok());
    let error = parse(&format!("{fits} ")).unwrap_err();
    assert!(error.is_too_long());
    assert_eq!(error.to_string(), "the message has 65508 bytes; at most 65507 are allowed");
    let with_mid = |length: usize| parse(&message(&format!(r#""type":"redirect","MID":"{}""#, "m".repeat(length))));
    assert!(with_mid(MAX_MID_BYTES).is_ok());
    assert!(with_mid(MAX_MID_BYTES + 1).is_err());
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = |levels: usize| {
            let value = open.repeat(levels) + "1" + &close.repeat(levels);
            message(&format!(r#""type":"x","deep":{value}"#))
        };
        assert!(parse(&deep(100)).is_ok());
        let deepest = deep(10_000);
        assert!(deepest.len() < MAX_MESSAGE_BYTES || open.len() > 1);
        assert!(parse(&deepest).is_err());
        assert!(parse(&deep(9_000)).is_err());
        // What is skipped needs no stack: such a message is forwarded as it is.
        assert!(Envelope::peek(deep(9_000).as_bytes()).is_ok());
        let torn = &deepest.as_bytes()[..deepest.len() / 2];
        assert!(Envelope::peek(torn).is_err());
    }
}

#[test]
fn a_peek_sees_what_routing_needs() {
    let text = message(r#""type":"append","MID":"m\u0041","term":5,"key":9"#);
    let header = Envelope::peek(text.as_bytes()).unwrap();
    assert_eq!(header.src, "0001".parse().unwrap());
    assert_eq!(header.dst, "0002".parse().unwrap());
    assert!(matches!(header.kind, Cow::Borrowed("append")));
    assert_eq!(header.mid.as_deref(), Some("mA"));
    let nameless = message(r#""type":"append","MID":9"#);
    assert_eq!(Envelope::peek(nameless.as_bytes()).unwrap().mid, None);
}

#[test]
fn the_line_is_ascii_and_ends_with_a_newline() {
    let envelope = Envelope {
        src: LanId::from_value(1),
        dst: LanId::from_value(2),
        leader: LanId::BROADCAST,
        content: Content::Put { mid: "ü".to_owned(), key: "a\"b\\\n\u{0}".to_owned(), value: "🦀".to_owned() },
        spelled_dest: false,
    };
    let line = String::from_utf8(envelope.encode()).unwrap();
    assert_eq!(
        line,
        concat!(
            r#"{"src":"0001","dst":"0002","leader":"FFFF","type":"put","MID":"\u00fc","#,
            r#""key":"a\"b\\\n\u0000","value":"\ud83e\udd80"}"#,
            "\n"
        )
    );
}

#[test]
fn fields_of_its_own_cannot_fake_the_envelope() {
    let mut fields = Map::new();
    fields.insert("src".to_owned(), json!("0009"));
    fields.insert("term".to_owned(), json!(1));
    let envelope = Envelope {
        src: LanId::from_value(1),
        dst: LanId::from_value(2),
        leader: LanId::BROADCAST,
        content: Content::Other { kind: "vote".to_owned(), fields: fields.into() },
        spelled_dest: false,
    };
    let read = Envelope::parse(&envelope.encode()).unwrap();
    assert_eq!(read.src, LanId::from_value(1));
    let Content::Other { fields, .. } = read.content else {
        panic!();
    };
    assert_eq!(serde_json::Value::Object(fields.to_map()), json!({"term": 1}));
}

fn any_content() -> impl Strategy<Value = Content> {
    let mid = any::<String>().prop_filter("a MID is bounded", |mid| mid.len() <= MAX_MID_BYTES);
    let maybe = proptest::option::of(any::<String>());
    let kind = any::<String>().prop_filter("a kind of its own", |kind| {
        (1..=MAX_KIND_BYTES).contains(&kind.len())
            && !["get", "put", "ok", "redirect", "fail", "hello"].contains(&kind.as_str())
    });
    let fields = proptest::collection::btree_map(any::<String>(), any::<String>(), 0..5);
    prop_oneof![
        (mid.clone(), any::<String>()).prop_map(|(mid, key)| Content::Get { mid, key }),
        (mid.clone(), any::<String>(), any::<String>()).prop_map(|(mid, key, value)| Content::Put { mid, key, value }),
        (mid.clone(), maybe.clone()).prop_map(|(mid, value)| Content::Ok { mid, value }),
        mid.clone().prop_map(|mid| Content::Redirect { mid }),
        (mid, maybe).prop_map(|(mid, error)| Content::Fail { mid, error }),
        Just(Content::Hello),
        (kind, fields).prop_map(|(kind, fields)| Content::Other {
            kind,
            fields: fields.into_iter().map(|(name, value)| (name, value.into())).collect::<Map<_, _>>().into(),
        }),
    ]
}

proptest! {
    #[test]
    fn every_message_survives_the_wire(
        ids in any::<(u16, u16, u16)>(),
        content in any_content(),
        spelled_dest in any::<bool>(),
    ) {
        let envelope = Envelope {
            src: LanId::from_value(ids.0),
            dst: LanId::from_value(ids.1),
            leader: LanId::from_value(ids.2),
            content,
            spelled_dest,
        };
        let line = envelope.encode();
        prop_assert!(line.is_ascii() && line.ends_with(b"\n"));
        prop_assert!(!line[..line.len() - 1].contains(&b'\n'));
        let header = Envelope::peek(&line).unwrap();
        prop_assert_eq!(&*header.kind, envelope.content.kind());
        prop_assert_eq!(header.dst, envelope.dst);
        prop_assert_eq!(Envelope::parse(&line).unwrap(), envelope);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Envelope::parse(&bytes);
        let _ = Envelope::peek(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(
        content in any_content(),
        cut in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let envelope = Envelope {
            src: LanId::from_value(1),
            dst: LanId::from_value(2),
            leader: LanId::BROADCAST,
            content,
            spelled_dest: false,
        };
        let mut line = envelope.encode();
        prop_assert!(Envelope::parse(&line[..cut.index(line.len() - 1)]).is_err());
        let place = place.index(line.len());
        line[place] = byte;
        if let Err(error) = Envelope::parse(&line) {
            prop_assert!(error.to_string().len() < 1_500);
        }
        let _ = Envelope::peek(&line);
    }
}
