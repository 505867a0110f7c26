//! Datagrams of the LAN: what anybody on it may send to a replica.

use bowline_lan::message::Envelope;
use bowline_lan::profile::Profile;
use bowline_lan::replica::LanReplica;
use bowline_lan::{LanId, wire};
use bowline_raft::Time;


pub(crate) fn run(data: &[u8]) {
    let ids: Vec<LanId> = ["0000", "0001", "0002"].map(|text| text.parse().expect("it is an id")).to_vec();
    let configure = |id| Profile::Frugal.config(id, 7);
    let mut replica = LanReplica::new(ids[0], &ids[1..], configure, Time(0)).expect("a good configuration");
    let (mut now, mut out) = (Time(0), Vec::new());
    // A line is a message.
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(envelope) = Envelope::parse(line) {
            let again = Envelope::parse(&envelope.encode());
            assert_eq!(again.as_ref(), Ok(&envelope), "what was read is written and read back the same");
        }
        if let Ok(header) = Envelope::peek(line)
            && let Ok(message) = wire::decode(&header.kind, line)
        {
            let (kind, fields) = wire::encode(&message);
            assert_eq!(wire::decode(kind, fields.as_json()).as_ref(), Ok(&message));
        }
        replica.receive(now, line, &mut out);
        if line.len() % 3 == 0 {
            now = replica.next_deadline().min(Time(now.0 + 10_000_000_000)).max(now);
            replica.wake(now, &mut out);
        }
        for envelope in out.drain(..) {
            assert!(Envelope::parse(&envelope.encode()).is_ok(), "what it says can be read");
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let head = |from: &str, kind: &str| format!(r#"{{"src":"{from}","dst":"0000","leader":"FFFF","type":"{kind}""#);
    let mut lines = vec![
        head("00A0", "get") + r#","MID":"m1","key":"k"}"#,
        head("00A0", "put") + r#","MID":"m2","key":"k","value":"v"}"#,
        head("0001", "hello") + "}",
    ];
    let ids = ["0000", "0001"].map(|text| text.parse::<LanId>().expect("it is an id"));
    // What a replica itself says, as the other one would hear it.
    let configure = |id| Profile::Frugal.config(id, 3);
    let mut other = LanReplica::new(ids[1], &ids[..1], configure, Time(0)).expect("a good configuration");
    let mut out = Vec::new();
    for _ in 0..4 {
        let now = other.next_deadline();
        other.wake(now, &mut out);
    }
    lines.extend(out.iter().map(|envelope| String::from_utf8_lossy(&envelope.encode()).trim_end().to_owned()));
    let whole = lines.join("\n");
    lines.into_iter().chain([whole]).map(String::into_bytes).collect()
}
