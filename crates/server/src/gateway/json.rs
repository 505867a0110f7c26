//! JSON in, protobuf out, and back: the canonical mapping of protobuf, with the differences that etcd has.
//!
//! Names of fields are written as in the protocol files (`range_end`) and read in both forms (`rangeEnd` too), 64-bit
//! numbers are written as strings and read as both, bytes are base64, enums are names (numbers are read too), fields that
//! are zero are omitted, unknown fields are ignored. Unknown names of enums are refused.

use bowline_api::Message;
use bytes::Bytes;
use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use tonic::Status;

/// Encodes a message that is given as JSON. The nesting is bounded by `serde_json`: 128 levels.
///
/// # Errors
/// INVALID_ARGUMENT, with the name of the field, and what is wrong with it.
pub(super) fn to_message(descriptor: &MessageDescriptor, text: &[u8]) -> Result<Bytes, Status> {
    let wrong = |text: String| Status::invalid_argument(format!("bowline: the request is not valid: {text}"));
    let value: Value = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    check_names(descriptor, &value).map_err(wrong)?;
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_path_to_error::Deserializer::new(&value, &mut track);
    // What is unknown is ignored: unlike a name of an enum, a field may be one that newer servers know.
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor.clone(), reader, &options);
    Ok(message.map_err(|error| wrong(format!("{}: {error}", track.path())))?.encode_to_vec().into())
}

/// Checks that all names of enums are known, which the library ignores together with unknown fields.
fn check_names(descriptor: &MessageDescriptor, value: &Value) -> Result<(), String> {
    // What has a wrong type is noticed by the library.
    let Some(fields) = value.as_object() else { return Ok(()) };
    for (name, value) in fields {
        let field = descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name));
        let Some(kind) = field.map(|field| field.kind()) else { continue };
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            match (&kind, value) {
                (Kind::Enum(kind), Value::String(text)) if kind.get_value_by_name(text).is_none() => {
                    let allowed: Vec<String> = kind.values().map(|value| value.name().to_owned()).collect();
                    return Err(format!("{name}: it is {text:?}; allowed: {}", allowed.join(", ")));
                }
                (Kind::Message(inner), value) => check_names(inner, value).map_err(|why| format!("{name}.{why}"))?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Writes an encoded message as JSON, without spaces.
///
/// # Errors
/// INTERNAL if it is no such message.
pub(super) fn to_json(descriptor: &MessageDescriptor, message: Bytes) -> Result<String, Status> {
    let internal = |error: &dyn std::fmt::Display| Status::internal(format!("bowline: {error}"));
    let message = DynamicMessage::decode(descriptor.clone(), message).map_err(|error| internal(&error))?;
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::new(&mut text);
    message.serialize_with_options(&mut writer, &options).map_err(|error| internal(&error))?;
    String::from_utf8(text).map_err(|error| internal(&error))
}

#[cfg(test)]
mod tests {
    use bowline_api::etcdserverpb as pb;

    use super::*;
    use crate::gateway::paths::method;

    fn read(path: &str, text: &str) -> Result<Bytes, String> {
        let input = method(path).expect("there is one").descriptor.input();
        to_message(&input, text.as_bytes()).map_err(|status| {
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            status.message().to_owned()
        })
    }

    fn range(text: &str) -> pb::RangeRequest {
        let bytes = read("/v3/kv/range", text).unwrap_or_else(|error| panic!("{text}: {error}"));
        pb::RangeRequest::decode(bytes).expect("it is one")
    }

    #[test]
    fn names_numbers_bytes_and_enums_are_read_in_each_form() {
        let expected = pb::RangeRequest {
            key: "a?>".into(),
            range_end: "b".into(),
            limit: -7,
            sort_order: 1,
            keys_only: true,
            ..pb::RangeRequest::default()
        };
        for text in [
            r#"{"key":"YT8+","range_end":"Yg==","limit":"-7","sort_order":"ASCEND","keys_only":true}"#,
            r#"{"keysOnly":true,"sortOrder":1,"limit":-7,"rangeEnd":"Yg==","key":"YT8+"}"#,
            r#" {"key":"YT8+","range_end":"Yg==","limit":-7,"sort_order":"ASCEND","keys_only":true,"more":[{"a":1}]} "#,
            r#"{"key":"YT8+","range_end":"Yg==","limit":-7,"sort_order":"ASCEND","keys_only":true,"revision":null}"#,
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
        assert_eq!(range("{}"), pb::RangeRequest::default());
        assert_eq!(range(r#"{"limit":"9223372036854775807"}"#).limit, i64::MAX);
    }

    #[test]
    fn what_is_wrong_is_told_with_the_name_of_the_field() {
        let cases = [
            ("/v3/kv/range", r#"{"limit":true}"#, "limit: invalid type: boolean"),
            ("/v3/kv/range", r#"{"limit":"x"}"#, "limit: invalid digit"),
            ("/v3/kv/range", r#"{"limit":9223372036854775808}"#, "limit: "),
            ("/v3/kv/range", r#"{"key":7}"#, "key: invalid type: integer `7`"),
            ("/v3/kv/range", r#"{"key":"a*"}"#, "key: invalid base64"),
            ("/v3/kv/range", r#"{"sort_order":"UP"}"#, r#"sort_order: it is "UP"; allowed: NONE, ASCEND, DESCEND"#),
            ("/v3/kv/range", r#"{"key":"#, "EOF while parsing"),
            ("/v3/kv/range", "{'key':1}", "key must be a string at line 1 column 2"),
            ("/v3/kv/range", "[]", "invalid type: sequence"),
            ("/v3/kv/range", "7", "invalid type: integer"),
            ("/v3/kv/range", "", "EOF while parsing"),
            ("/v3/kv/txn", r#"{"compare":[{},{"target":"X"}]}"#, r#"compare.target: it is "X""#),
            ("/v3/kv/txn", r#"{"success":[{"request_put":{"key":[]}}]}"#, "success[0].request_put.key: invalid type"),
            ("/v3/kv/txn", r#"{"success":{}}"#, "success: invalid type: map"),
            ("/v3/watch", r#"{"create_request":{"filters":["NOPUT","NO"]}}"#, r#"create_request.filters: it is "NO""#),
        ];
        for (path, text, expected) in cases {
            let told = read(path, text).expect_err(text);
            let told = told.strip_prefix("bowline: the request is not valid: ").expect("it says that");
            assert!(told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        // On the stack of a thread of the server, and without optimisation.
        for (open, close) in [(r#"{"success":[{"request_txn":"#, "}]}"), ("[", "]"), (r#"{"x":"#, "}")] {
            for depth in [2, 40, 42, 100, 10_000] {
                let text = format!("{}{{}}{}", open.repeat(depth), close.repeat(depth));
                let read = read("/v3/kv/txn", &text);
                assert!(read.is_ok() || depth > 40 || open == "[", "{depth} of {open}: {read:?}");
                assert!(read.is_err() || depth < 128);
            }
        }
    }

    #[test]
    fn answers_are_written_as_etcd_writes_them() {
        let output = method("/v3/kv/range").expect("there is one").descriptor.output();
        let kv = bowline_api::mvccpb::KeyValue { key: "a?>".into(), create_revision: 1 << 60, ..Default::default() };
        let header = pb::ResponseHeader { cluster_id: u64::MAX, revision: 7, ..Default::default() };
        let range = pb::RangeResponse { header: Some(header), kvs: vec![kv], more: true, count: 0 };
        let text = to_json(&output, range.encode_to_vec().into()).expect("written");
        let expected = concat!(
            r#"{"header":{"cluster_id":"18446744073709551615","revision":"7"},"#,
            r#""kvs":[{"key":"YT8+","create_revision":"1152921504606846976"}],"more":true}"#
        );
        assert_eq!(text, expected);
        assert_eq!(to_json(&output, Bytes::new()).expect("written"), "{}");
        let output = method("/v3/maintenance/alarm").expect("there is one").descriptor.output();
        let alarms = vec![pb::AlarmMember { member_id: 1, alarm: 1 }, pb::AlarmMember { member_id: 0, alarm: 77 }];
        let alarms = pb::AlarmResponse { header: None, alarms }.encode_to_vec();
        let text = to_json(&output, alarms.into()).expect("written");
        assert_eq!(text, r#"{"alarms":[{"memberID":"1","alarm":"NOSPACE"},{"alarm":77}]}"#);
    }
}
