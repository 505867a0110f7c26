//! The JSON gateway (G5 to G10).

use std::time::Duration;

use bowline_api::etcdserverpb as pb;
use pb::lease_client::LeaseClient;

use crate::line::{Line, line};
use crate::site::{Site, bytes};
use crate::web::{Socket, Stream, ask, good, post, value};

const NO_SOCKETS: &str = "its web sockets are those of another library, which closes them in its own way";

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Fresh, g05_every_method_has_its_path),
        line!(Shared, g05_only_post_is_allowed),
        line!(Shared, g05_older_paths_are_known),
        line!(Shared, g06_values_are_read_and_written_as_by_etcd),
        line!(Shared, g07_errors_have_their_status_and_three_keys),
        line!(Shared, g07_what_is_no_request_is_refused_with_the_name_of_the_field),
        line!(Shared, g08_a_watch_goes_on_after_its_request),
        line!(Shared, g08_a_body_that_stays_open_brings_more_requests)
            .not_on_etcd("it reads the whole body before it answers"),
        line!(Shared, g08_leases_elections_and_backups_are_streams),
        line!(Shared, g08_streams_go_over_web_sockets),
        line!(Shared, g08_a_bad_request_ends_a_web_socket_with_an_error).not_on_etcd(NO_SOCKETS),
        line!(Shared, g09_every_page_may_use_the_server),
        line!(Fresh, g09_only_the_pages_of_the_setting_may)
            .with(&[("cors", "http://a.example:80,http://b.example:8080")]),
        line!(Fresh, g09_a_token_comes_in_a_header),
        line!(Fresh, g10_only_the_hosts_of_the_setting_are_served)
            .with(&[("host_whitelist", "good.example,127.0.0.1")]),
    ]
}

fn base64(text: &str) -> String {
    use std::fmt::Write as _;
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = if place <= group.len() { LETTERS[(bits >> (18 - 6 * place) & 63) as usize] } else { b'=' };
            write!(out, "{}", char::from(letter)).expect("a string takes all");
        }
    }
    out
}

/// A body that names a key of this line.
fn key(site: &Site, name: &str) -> String {
    format!(r#"{{"key":"{}"}}"#, base64(&site.key(name)))
}

fn put(site: &Site, name: &str, value: &str) -> String {
    format!(r#"{{"key":"{}","value":"{}"}}"#, base64(&site.key(name)), base64(value))
}

/// What is refused, and so exists.
const REFUSED: [(&str, u16); 10] = [
    ("/v3/cluster/member/add", 400),
    ("/v3/cluster/member/remove", 404),
    ("/v3/cluster/member/update", 400),
    ("/v3/cluster/member/promote", 404),
    ("/v3/maintenance/transfer-leadership", 400),
    ("/v3/auth/enable", 400),
    ("/v3/auth/authenticate", 400),
    ("/v3/lease/revoke", 404),
    ("/v3/election/proclaim", 500),
    ("/v3/election/resign", 500),
];

async fn g05_every_method_has_its_path(site: Site) {
    let url = site.url();
    let leased = good(url, "/v3/lease/grant", r#"{"TTL":"600","ID":77}"#).await;
    assert_eq!((value(&leased, "ID"), value(&leased, "TTL")), ("77", "600"));
    let calls = [
        ("/v3/kv/put", r#"{"key":"YQ==","value":"Yg==","lease":77}"#),
        ("/v3/kv/range", r#"{"key":"YQ=="}"#),
        ("/v3/kv/txn", r#"{"success":[{"request_range":{"key":"YQ=="}}]}"#),
        ("/v3/kv/deleterange", r#"{"key":"YQ=="}"#),
        ("/v3/kv/compaction", r#"{"revision":1}"#),
        ("/v3/lease/timetolive", r#"{"ID":77,"keys":true}"#),
        ("/v3/kv/lease/timetolive", r#"{"ID":77}"#),
        ("/v3/lease/leases", "{}"),
        ("/v3/kv/lease/leases", ""),
        ("/v3/lease/keepalive", r#"{"ID":77}"#),
        ("/v3/kv/lease/revoke", r#"{"ID":77}"#),
        ("/v3/cluster/member/list", "{}"),
        ("/v3/maintenance/alarm", "{}"),
        ("/v3/maintenance/status", "{}"),
        ("/v3/maintenance/defragment", "{}"),
        ("/v3/maintenance/snapshot", "{}"),
        ("/v3/auth/user/add", r#"{"name":"root","password":"p"}"#),
        ("/v3/auth/user/changepw", r#"{"name":"root","password":"q"}"#),
        ("/v3/auth/user/get", r#"{"name":"root"}"#),
        ("/v3/auth/user/list", "{}"),
        ("/v3/auth/role/add", r#"{"name":"r"}"#),
        ("/v3/auth/role/grant", r#"{"name":"r","perm":{"permType":"READ","key":"YQ=="}}"#),
        ("/v3/auth/role/get", r#"{"role":"r"}"#),
        ("/v3/auth/role/list", "{}"),
        ("/v3/auth/role/revoke", r#"{"role":"r","key":"YQ=="}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"r"}"#),
        ("/v3/auth/user/revoke", r#"{"name":"root","role":"r"}"#),
        ("/v3/auth/role/delete", r#"{"role":"r"}"#),
        ("/v3/auth/user/delete", r#"{"name":"root"}"#),
        ("/v3/auth/disable", "{}"),
        ("/v3/lock/lock", r#"{"name":"bA=="}"#),
        ("/v3/lock/unlock", r#"{"key":"bA=="}"#),
        ("/v3/election/campaign", r#"{"name":"ZQ==","value":"dg=="}"#),
        ("/v3/election/leader", r#"{"name":"ZQ=="}"#),
    ];
    for (path, body) in calls {
        good(url, path, body).await;
    }
    for (path, status) in REFUSED {
        let reply = post(url, path, "{}").await;
        // An older one has other statuses for some codes.
        assert!((reply.status == status || site.is_3_4()) && reply.body.contains("\"code\":"), "{path}: {reply:?}");
    }
    let hash = post(url, "/v3/maintenance/hash", "{}").await;
    assert_eq!(hash.status, if site.is_etcd() { 200 } else { 501 }, "X7: {hash:?}");
    if !site.is_3_4() {
        // They came later.
        for path in ["/v3/maintenance/hashkv", "/v3/auth/status"] {
            good(url, path, "{}").await;
        }
        assert_eq!(post(url, "/v3/maintenance/downgrade", "{}").await.status, 400);
    }
}

async fn g05_only_post_is_allowed(site: Site) {
    for method in ["GET", "PUT", "DELETE", "HEAD", "PATCH"] {
        let reply = ask(site.url(), method, "/v3/kv/range", &[], "").await;
        assert_eq!(reply.status, 405, "{method}: {reply:?}");
        if !site.is_etcd() {
            assert_eq!(reply.header("allow"), Some("post"), "{reply:?}");
        }
    }
    for path in ["/v3/kv/none", "/v3/", "/v3/kv/range/more", "/v3beta/none"] {
        assert_eq!(post(site.url(), path, "{}").await.status, 404, "{path}");
    }
}

async fn g05_older_paths_are_known(site: Site) {
    good(site.url(), "/v3beta/kv/put", &put(&site, "k", "v")).await;
    let range = good(site.url(), "/v3beta/kv/range", &key(&site, "k")).await;
    assert_eq!(value(&range, "value"), base64("v"));
}

async fn g06_values_are_read_and_written_as_by_etcd(site: Site) {
    let url = site.url();
    let lease = LeaseClient::new(site.channel()).lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 0 }).await;
    let lease = lease.expect("granted").into_inner().id;
    let first = good(url, "/v3/kv/put", &put(&site, "k", "\u{ff}?>")).await;
    // The header has its fields as strings, and what is zero is not there.
    assert!(first.starts_with("{\"header\":{\"cluster_id\":\"") && !first.contains("prev_kv"), "{first}");
    let status = site.status().await.header.expect("a header");
    assert_eq!(value(&first, "cluster_id"), status.cluster_id.to_string());
    assert_eq!(value(&first, "raft_term"), status.raft_term.to_string());
    let encoded = base64(&site.key("k"));
    for lease in [format!("\"{lease}\""), lease.to_string()] {
        let text = format!(r#"{{"key":"{encoded}","ignore_value":true,"lease":{lease},"prev_kv":true}}"#);
        let camel = text.replace("ignore_value", "ignoreValue").replace("prev_kv", "prevKv");
        for text in [text, camel] {
            let prev = good(url, "/v3/kv/put", &text).await;
            assert_eq!(value(&prev, "value"), base64("\u{ff}?>"));
        }
    }
    for order in ["\"DESCEND\"", "2"] {
        let text = format!(r#"{{"unknown":[{{}}],"key":"{encoded}","sort_order":{order},"limit":"1"}}"#);
        let range = good(url, "/v3/kv/range", &text).await;
        assert_eq!((value(&range, "version"), value(&range, "lease")), ("5", lease.to_string().as_str()));
        assert_eq!((value(&range, "count"), value(&range, "key")), ("1", encoded.as_str()));
        assert!(!range.contains("more") && !range.contains(' '), "{range}");
    }
    let text = format!(r#"{{"compare":[{{"target":"VALUE","key":"{encoded}","value":"","result":"GREATER"}}]}}"#);
    let txn = good(url, "/v3/kv/txn", &text).await;
    assert_eq!(value(&txn, "succeeded"), "true");
    assert!(site.kv().range(crate::requests::get(&site.key("k"))).await.is_ok());
}

/// Each code is a status of HTTP.
async fn g07_errors_have_their_status_and_three_keys(site: Site) {
    let key = base64(&site.key("k"));
    let cases = [
        ("/v3/kv/range", "{}".to_owned(), 400, 3, "etcdserver: key is not provided"),
        (
            "/v3/kv/range",
            format!(r#"{{"key":"{key}","revision":9999999}}"#),
            400,
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        ("/v3/kv/put", format!(r#"{{"key":"{key}","lease":4711}}"#), 404, 5, "etcdserver: requested lease not found"),
        ("/v3/auth/authenticate", r#"{"name":"a"}"#.to_owned(), 400, 9, "etcdserver: authentication is not enabled"),
        (
            "/v3/lock/lock",
            format!(r#"{{"name":"{key}","lease":4711}}"#),
            500,
            2,
            "etcdserver: requested lease not found",
        ),
    ];
    for (path, body, status, code, text) in cases {
        let reply = post(site.url(), path, &body).await;
        let status = if site.is_3_4() && code == 9 { 412 } else { status };
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(reply.body.contains(&format!("\"code\":{code}")) && reply.body.contains(text), "{reply:?}");
        if !site.is_etcd() {
            assert_eq!(reply.body, format!(r#"{{"error":"{text}","code":{code},"message":"{text}"}}"#));
        }
    }
    // 2 MiB, and more than may be sent.
    let large = format!(r#"{{"key":"{key}","value":"{}"}}"#, "A".repeat(4 << 20));
    let reply = post(site.url(), "/v3/kv/put", &large).await;
    assert!(reply.status == 429 || site.is_etcd(), "{reply:?}");
    assert!(reply.body.contains("received message larger than max"), "{reply:?}");
}

async fn g07_what_is_no_request_is_refused_with_the_name_of_the_field(site: Site) {
    let cases = [
        ("{", ""),
        ("[]", ""),
        ("\"k\"", ""),
        (r#"{"key":"YQ==""#, ""),
        (r#"{"key":7}"#, "key"),
        (r#"{"key":"a*"}"#, "key"),
        (r#"{"limit":true}"#, "limit"),
        (r#"{"limit":"1x"}"#, "limit"),
        (r#"{"limit":99999999999999999999}"#, "limit"),
        (r#"{"sort_order":"UP"}"#, "sort_order"),
        (r#"{"serializable":"yes"}"#, "serializable"),
    ];
    for (body, field) in cases {
        let reply = post(site.url(), "/v3/kv/range", body).await;
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
        assert!(reply.body.contains("\"code\":3"), "{body}: {reply:?}");
        assert!(site.is_etcd() || reply.body.contains(&format!("{field}: ")), "{body}: {reply:?}");
    }
    let deep = format!("{}{}", r#"{"success":[{"request_txn":"#.repeat(60_000), "}]}".repeat(60_000));
    assert!(post(site.url(), "/v3/kv/txn", &deep).await.status >= 400);
    good(site.url(), "/v3/kv/range", &key(&site, "k")).await;
}

fn create(site: &Site, name: &str, more: &str) -> String {
    format!(r#"{{"create_request":{{"key":"{}"{more}}}}}"#, base64(&site.key(name)))
}

async fn g08_a_watch_goes_on_after_its_request(site: Site) {
    let body = create(&site, "k", r#","prev_kv":true"#);
    let mut stream = Stream::open(site.url(), "POST", "/v3/watch", &[], Some(&body)).await;
    assert_eq!(stream.status(), 200);
    let created = stream.line().await.expect("a line");
    assert!(created.starts_with(r#"{"result":{"header":{"#) && value(&created, "created") == "true", "{created}");
    for number in 0..3 {
        site.put("k", &format!("v{number}")).await;
        let event = stream.line().await.expect("a line");
        assert_eq!(value(&event, "value"), base64(&format!("v{number}")), "{event}");
    }
    site.delete("k").await;
    assert_eq!(value(&stream.line().await.expect("a line"), "type"), "DELETE");
}

async fn g08_a_body_that_stays_open_brings_more_requests(site: Site) {
    let mut stream = Stream::open(site.url(), "POST", "/v3/watch", &[], None).await;
    let (first, second) = (create(&site, "a", ""), create(&site, "b", r#","watch_id":"7""#));
    // Two requests in three pieces, and none at a boundary.
    let both = format!("{first}\n{second}");
    let (one, rest) = both.split_at(10);
    let (two, three) = rest.split_at(first.len());
    for piece in [one, two, three] {
        stream.send(piece).await;
    }
    stream.read_head().await;
    for _ in 0..2 {
        assert_eq!(value(&stream.line().await.expect("a line"), "created"), "true");
    }
    site.put("b", "1").await;
    assert_eq!(value(&stream.line().await.expect("a line"), "watch_id"), "7");
    stream.send(r#"{"cancel_request":{"watch_id":7}}"#).await;
    assert_eq!(value(&stream.line().await.expect("a line"), "canceled"), "true");
    site.put("b", "2").await;
    site.put("a", "3").await;
    assert_eq!(value(&stream.line().await.expect("a line"), "value"), base64("3"));
    // What can't be read ends the stream with an error.
    stream.send(r#"{"create_request":7}"#).await;
    let error = stream.line().await.expect("a line");
    assert!(error.starts_with(r#"{"error":{"grpc_code":3,"http_code":400,"message":""#), "{error}");
    assert!(error.contains("create_request: "), "{error}");
    assert_eq!(stream.line().await, None);
}

async fn g08_leases_elections_and_backups_are_streams(site: Site) {
    let url = site.url();
    let lease = LeaseClient::new(site.channel()).lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 0 }).await;
    let lease = lease.expect("granted").into_inner().id;
    let body = format!(r#"{{"ID":{lease}}}{{"ID":"{lease}"}} {{"ID":4711}}"#);
    let mut stream = Stream::open(url, "POST", "/v3/lease/keepalive", &[], Some(&body)).await;
    for ttl in ["600", "600", ""] {
        let line = stream.line().await.expect("a line");
        assert!(line.starts_with("{\"result\":{\"header\":"), "{line}");
        assert!(if ttl.is_empty() { !line.contains("TTL") } else { value(&line, "TTL") == ttl }, "{line}");
    }
    // No more requests come, so no more answers do.
    assert_eq!(stream.line().await, None);

    let name = base64(&site.key("e"));
    let campaign = format!(r#"{{"name":"{name}","value":"{}","lease":{lease}}}"#, base64("v"));
    let elected = good(url, "/v3/election/campaign", &campaign).await;
    let leader = format!("{{{}", elected.split_once("\"leader\":{").expect("a key").1.trim_end_matches('}'));
    let body = format!(r#"{{"name":"{name}"}}"#);
    let mut stream = Stream::open(url, "POST", "/v3/election/observe", &[], Some(&body)).await;
    assert_eq!(value(&stream.line().await.expect("a line"), "value"), base64("v"));
    let proclaim = format!(r#"{{"leader":{leader}}},"value":"{}"}}"#, base64("w"));
    good(url, "/v3/election/proclaim", &proclaim).await;
    assert_eq!(value(&stream.line().await.expect("a line"), "value"), base64("w"));

    let mut stream = Stream::open(url, "POST", "/v3/maintenance/snapshot", &[], Some("{}")).await;
    let mut lines = 0;
    while let Some(line) = stream.line().await {
        assert!(line.starts_with("{\"result\":{"), "{line}");
        lines += 1;
    }
    assert!(lines > 1, "the last one is the checksum");
}

async fn g08_streams_go_over_web_sockets(site: Site) {
    let mut socket = Socket::open(site.url(), "/v3/watch", &[]).await.expect("upgraded");
    for name in ["a", "b"] {
        socket.send(&create(&site, name, "")).await;
        let created = socket.text().await.expect("a message");
        assert!(created.starts_with(r#"{"result":{"#) && value(&created, "created") == "true", "{created}");
    }
    for number in 0..3 {
        site.put("b", &number.to_string()).await;
        assert_eq!(value(&socket.text().await.expect("a message"), "value"), base64(&number.to_string()));
    }
    if !site.is_etcd() {
        // What can't be upgraded.
        for path in ["/v3/kv/range", "/v3/none"] {
            let refused = Socket::open(site.url(), path, &[]).await.map(|_| ()).expect_err("no stream");
            assert!(refused == 405 || refused == 404, "{path}: {refused}");
        }
        let mut socket = Socket::open(site.url(), "/v3/lease/keepalive", &[]).await.expect("upgraded");
        for _ in 0..2 {
            socket.send(r#"{"ID":4711}"#).await;
            assert_eq!(value(&socket.text().await.expect("a message"), "ID"), "4711");
        }
    }
}

async fn g08_a_bad_request_ends_a_web_socket_with_an_error(site: Site) {
    for bad in ["7", "{", r#"{"create_request":{"key":"*"}}"#] {
        let mut socket = Socket::open(site.url(), "/v3/watch", &[]).await.expect("upgraded");
        socket.send(bad).await;
        let error = socket.text().await.expect("a message");
        assert!(error.starts_with(r#"{"error":{"grpc_code":3,"http_code":400,"#), "{error}");
        assert_eq!(socket.text().await, None);
    }
    // A frame that is larger than a request may be.
    let mut socket = Socket::open(site.url(), "/v3/watch", &[]).await.expect("upgraded");
    socket.raw(&[0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).await;
    assert_eq!(socket.text().await, None);
}

async fn g09_every_page_may_use_the_server(site: Site) {
    let headers = [("Origin", "http://page.example")];
    for (method, path) in [("POST", "/v3/kv/range"), ("OPTIONS", "/v3/kv/range"), ("GET", "/health"), ("OPTIONS", "/")]
    {
        let reply = ask(site.url(), method, path, &headers, &key(&site, "k")).await;
        assert_eq!(reply.status, 200, "{method} {path}: {reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-methods"), Some("post, get, options, put, delete"));
        assert_eq!(reply.header("access-control-allow-headers"), Some("accept, content-type, authorization"));
    }
    let reply = post(site.url(), "/v3/kv/range", "{}").await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (400, Some("*")));
}

async fn g09_only_the_pages_of_the_setting_may(site: Site) {
    let origin = "http://b.example:8080";
    let reply = ask(site.url(), "POST", "/v3/kv/range", &[("Origin", origin)], &key(&site, "k")).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(origin)));
    // A program is no page.
    let reply = ask(site.url(), "POST", "/v3/kv/range", &[], &key(&site, "k")).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None));
    let other = [("Origin", "http://c.example")];
    let reply = ask(site.url(), "POST", "/v3/kv/put", &other, &put(&site, "k", "v")).await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
    if !site.is_etcd() {
        assert_eq!(reply.status, 403);
        assert_eq!(site.get("k").await, None, "it was not done");
        assert_eq!(Socket::open(site.url(), "/v3/watch", &other).await.map(|_| ()), Err(403));
        assert!(Socket::open(site.url(), "/v3/watch", &[("Origin", origin)]).await.is_ok());
    }
}

async fn g09_a_token_comes_in_a_header(site: Site) {
    let url = site.url();
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"secret"}"#),
        ("/v3/auth/role/add", r#"{"name":"root"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        good(url, path, body).await;
    }
    let login = good(url, "/v3/auth/authenticate", r#"{"name":"root","password":"secret"}"#).await;
    let token = value(&login, "token");
    let range = key(&site, "k");
    let reply = post(url, "/v3/kv/range", &range).await;
    assert!(reply.status == 400 && reply.body.contains("etcdserver: user name is empty"), "{reply:?}");
    for name in ["Authorization", "Grpc-Metadata-Authorization", "Grpc-Metadata-Token"] {
        let reply = ask(url, "POST", "/v3/kv/range", &[(name, token)], &range).await;
        assert_eq!(reply.status, 200, "{name}: {reply:?}");
        let reply = ask(url, "POST", "/v3/kv/range", &[(name, "none.1")], &range).await;
        assert!(reply.status == 401 && reply.body.contains("etcdserver: invalid auth token"), "{name}: {reply:?}");
    }
    let authorization = [("Authorization", token)];
    let body = create(&site, "k", "");
    let mut stream = Stream::open(url, "POST", "/v3/watch", &authorization, Some(&body)).await;
    assert_eq!(value(&stream.line().await.expect("a line"), "created"), "true");
    let pair = format!("Bearer, {token}");
    let in_socket = [authorization, [("Sec-WebSocket-Protocol", pair.as_str())]];
    // An older one reads neither of them.
    for headers in in_socket.into_iter().filter(|_| !site.is_3_4()) {
        let mut socket = Socket::open(url, "/v3/watch", &headers).await.expect("upgraded");
        assert!(headers[0].0 == "Authorization" || socket.head().contains("sec-websocket-protocol: bearer\r\n"));
        socket.send(&body).await;
        let created = socket.text().await.expect("a message");
        assert!(!created.contains("canceled"), "{created}");
    }
    if !site.is_etcd() {
        let reply = post(url, "/v3/lease/keepalive", r#"{"ID":1}"#).await;
        let expected = r#"{"error":{"grpc_code":3,"http_code":400,"message":"etcdserver: user name is empty""#;
        assert!(reply.status == 400 && reply.body.starts_with(expected), "{reply:?}");
        // No other header says who somebody is.
        for name in ["Grpc-Metadata-Username", "Grpc-Metadata-X-Common-Name", "X-Forwarded-User", "Token", "Username"] {
            let reply = ask(url, "POST", "/v3/kv/range", &[(name, "root")], &range).await;
            assert!(reply.body.contains("etcdserver: user name is empty"), "{name}: {reply:?}");
        }
    }
    tokio::time::timeout(
        Duration::from_secs(15),
        site.try_range(pb::RangeRequest { key: bytes("k"), ..Default::default() }),
    )
    .await
    .expect("in time")
    .expect_err("without a token");
}

async fn g10_only_the_hosts_of_the_setting_are_served(site: Site) {
    let body = key(&site, "k");
    for (host, status) in [
        ("good.example", 200),
        ("good.example:2379", 200),
        ("GOOD.example", if site.is_etcd() { 421 } else { 200 }),
        ("127.0.0.1:77", 200),
        ("bad.example", 421),
        ("good.example.bad.example", 421),
        ("localhost", 421),
    ] {
        for (method, path) in [("POST", "/v3/kv/range"), ("GET", "/health"), ("OPTIONS", "/v3/kv/range")] {
            let reply = ask(site.url(), method, path, &[("Host", host)], &body).await;
            assert_eq!(reply.status, status, "{host} {method} {path}: {reply:?}");
        }
    }
    // gRPC is not for browsers.
    site.put("k", "v").await;
}
