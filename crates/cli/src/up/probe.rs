//! Asks a member for its state over plain HTTP.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use super::topology::{Member, Topology};

/// Time limit of an answer.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Whether a member serves reads of the latest state.
pub(super) fn is_ready(member: &Member) -> bool {
    fetch(member, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The member that says that it leads.
pub(super) fn leader(topology: &Topology) -> Option<u64> {
    let leads = |member: &&Member| {
        fetch(member, "/metrics").is_some_and(|answer| answer.contains("\netcd_server_is_leader 1\n"))
    };
    topology.members.iter().find(leads).map(|member| member.id)
}

fn fetch(member: &Member, path: &str) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, member.client_port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer).ok()?;
    String::from_utf8(answer).ok()
}
