//! Entry for a fuzzer: hostile bytes in place of a request's JSON.

use prost_reflect::DynamicMessage;

use super::json::{to_json, to_message};
use super::objects::Objects;
use super::paths;

/// The largest object, in bytes.
const MOST: usize = 4_096;

/// Reads JSON as the gateway does: the first byte is the method, the second how long the pieces are in which the rest
/// arrives. What is read must be a message that can be written and read again. This must never panic.
pub fn fuzz_gateway(data: &[u8]) {
    let [method, size, body @ ..] = data else { return };
    let count = paths::all().count();
    let method = paths::all().nth(usize::from(*method) % count).expect("it is below the count");
    let (input, mut objects) = (method.descriptor.input(), Objects::new(MOST));
    for piece in body.chunks(usize::from(*size).max(1)) {
        objects.push(piece);
        loop {
            match objects.next() {
                Ok(Some(text)) => {
                    assert!(text.len() <= MOST, "an object is bounded");
                    let Ok(message) = to_message(&input, &text) else { continue };
                    let known = DynamicMessage::decode(input.clone(), message.clone());
                    assert!(known.is_ok(), "what was encoded can be decoded");
                    let json = to_json(&input, message.clone()).expect("what was encoded can be written");
                    let again = to_message(&input, json.as_bytes()).expect("what was written can be read");
                    assert_eq!(again, message, "nothing is lost on the way");
                }
                Ok(None) => break,
                // The call ends.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_and_bad_requests_get_through() {
        let range = br#"{"key":"YQ==","limit":"7","sort_order":"ASCEND"}{"key":"*"} {"#;
        let txn = br#"{"compare":[{"target":"VALUE","value":""}],"success":[{"request_put":{"lease":-1}}]}"#;
        for method in 0..64 {
            for body in [&range[..], txn, b"{}", b"[", b"{\"\xff\":1}", b""] {
                fuzz_gateway(&[&[method, 7], body].concat());
            }
        }
    }

    #[test]
    fn damaged_requests_get_through() {
        let text = br#"{"compare":[{"target":"VALUE","value":"YQ=="}],"key":"YQ==","ID":"1","filters":[1,"NOPUT"]} {}"#;
        for method in 0..48 {
            for place in 0..text.len() {
                for byte in [b'"', b'{', b'}', b'[', b']', b'\\', b'-', b'9', 0xff] {
                    let mut damaged = [&[method, 200], &text[..]].concat();
                    damaged[place + 2] = byte;
                    fuzz_gateway(&damaged);
                }
            }
        }
    }
}
