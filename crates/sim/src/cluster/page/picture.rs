//! The recording as data for the page's script: JSON arrays of numbers and texts, escaped so that they are safe inside
//! a script element.

use serde_json::{Value, json};

use crate::cluster::clients::OperationSeen;
use crate::cluster::page::evidence::Named;
use crate::cluster::page::recording::{End, Recording, Seen, Sent, Way};

/// The data as JSON. Lanes are numbered: replicas first, then clients.
pub(super) fn data(recording: &Recording, named: &Named) -> String {
    let hosts = recording.base.len();
    let until = recording.until();
    let clients = recording.operations.iter().map(|op| op.client + 1).max().unwrap_or(0);
    let changes: Vec<Value> =
        recording.changes.iter().map(|change| json!([change.at, change.host, seen(&change.seen)])).collect();
    let value = json!({
        "since": recording.since,
        "until": until,
        "violated": recording.outcome.violation.as_ref().map(|violation| violation.at),
        "named": named.hosts,
        "hosts": hosts,
        "clients": clients,
        "groups": recording.groups,
        "base": recording.base.iter().map(seen).collect::<Vec<_>>(),
        "changes": changes,
        "messages": recording.messages.iter().map(|sent| message(sent, hosts)).collect::<Vec<_>>(),
        "operations": recording.operations.iter().map(|op| operation(op, named)).collect::<Vec<_>>(),
        "notes": recording.notes.iter().map(|line| json!([line.at, line.id.map(|id| id.0 - 1), line.text])).collect::<Vec<_>>(),
    });
    // HTML has no escapes inside a script element, so the text must not end the element or open another.
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn seen(seen: &Seen) -> Value {
    let flags = u8::from(seen.lease) | u8::from(seen.paused) << 1 | u8::from(seen.cut_from_clients) << 2;
    let (index, term) = seen.last;
    json!([
        seen.role as u8,
        seen.term,
        seen.voted_for.unwrap_or(0),
        seen.commit,
        index,
        term,
        flags,
        seen.run,
        seen.cut_to,
        seen.cut_from,
        seen.group,
        seen.gains_ppm,
    ])
}

fn message(sent: &Sent, hosts: usize) -> Value {
    let lane = |end: End| match end {
        End::Replica(host) => host,
        End::Client(client) => hosts + client,
    };
    let way = |way: Way| match way {
        Way::Usual => 0,
        Way::Late => 1,
        Way::Again => 2,
        Way::Mangled => 3,
    };
    let arrives: Vec<Value> = sent.arrives.iter().map(|(at, by)| json!([at, way(*by)])).collect();
    let flags = u8::from(sent.cut) | u8::from(sent.grants) << 1;
    json!([sent.at, lane(sent.from), lane(sent.to), sent.kind as u8, sent.text, flags, arrives])
}

fn operation(op: &OperationSeen, named: &Named) -> Value {
    let guilty = u8::from(named.operations.contains(&op.number));
    json!([op.number, op.client, op.what, u8::from(op.writes), op.call, op.ended, op.end, guilty])
}
