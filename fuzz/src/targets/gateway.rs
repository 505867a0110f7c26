//! What a client sends as JSON, in pieces, to each method.

use bowline_server::fuzz_gateway;

pub(crate) fn run(data: &[u8]) {
    fuzz_gateway(data);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let bodies = [
        r#"{"key":"YQ==","range_end":"Yg==","limit":"7","sort_order":"DESCEND","sortTarget":4,"keys_only":true}"#,
        r#"{"compare":[{"result":"EQUAL","target":"VALUE","key":"YQ==","value":"Yg=="}],"success":[{"request_put":{}}]}"#,
        r#"{"failure":[{"request_txn":{"success":[{"request_delete_range":{"key":"YQ==","prev_kv":true}}]}}]}"#,
        r#" {"create_request":{"filters":["NOPUT",1],"watch_id":-1}} {"cancel_request":{}}{"progress_request":null}"#,
        r#"{"ID":"9223372036854775807","TTL":-1}{"unknown":[{"\"}":"\\u00e9"}]}"#,
        r#"{"name":"r","perm":{"permType":"READWRITE"},"options":{"no_password":true},"peerURLs":["http://a:1"]}"#,
    ];
    let seed = |(method, body): (u8, &&str)| [&[method, 5], body.as_bytes()].concat();
    (0..48).step_by(5).flat_map(|method| bodies.iter().map(move |body| seed((method, body)))).collect()
}
