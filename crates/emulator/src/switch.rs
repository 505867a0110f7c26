//! The network's end of all replicas' sockets.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bowline_lan::LanId;
use bowline_lan::message::Envelope;
use bowline_lan::socket::framing::Lines;
use bowline_lan::socket::outbox::{Outbox, Sent};
use bowline_lan::socket::{BUFFER_BYTES, SYSTEM_BUFFER_BYTES, SocketError, SocketKind};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, recv, socket_with,
    sockopt,
};

/// How many messages are read from one local socket before the next socket's turn.
const TURN: u32 = 64;

/// The network's end of the sockets of all replicas, in any of the three forms. It never blocks.
#[derive(Debug)]
pub struct Switch {
    ids: Vec<LanId>,
    ends: Ends,
    counters: SwitchCounters,
}

#[derive(Debug)]
enum Ends {
    Udp {
        socket: UdpSocket,
        port: u16,
        /// The port of each replica, if known.
        ports: Vec<Option<u16>>,
    },
    Local {
        kind: SocketKind,
        ends: Vec<LocalEnd>,
        /// The replica whose turn it is, and how many messages are left in its turn.
        turn: (usize, u32),
    },
}

#[derive(Debug)]
struct LocalEnd {
    state: State,
    lines: Lines,
    outbox: Outbox,
}

#[derive(Debug)]
enum State {
    Listening(OwnedFd),
    Connected(OwnedFd),
    Closed,
}

/// The result of [`Switch::receive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming {
    /// The first `length` bytes of the buffer are a message from a replica.
    Message {
        /// The replica.
        from: usize,
        /// The length of the message.
        length: usize,
    },
    /// A replica closed its socket.
    Closed {
        /// The replica.
        from: usize,
    },
}

/// Messages that the switch could not pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwitchCounters {
    /// Datagrams from a port that belongs to no replica.
    pub foreign: u64,
    /// Lines and packets that were too long for a message.
    pub oversized: u64,
    /// Messages to a replica whose socket is not open yet, or closed.
    pub unconnected: u64,
    /// Messages that were lost because the replica did not read them or the system had no room.
    pub undelivered: u64,
    /// Datagrams from replicas that the system dropped because they arrived faster than they were
    /// read, as reported by the system.
    pub overrun: u64,
}

impl SwitchCounters {
    /// Whether messages were lost that the scenario did not intend to lose.
    #[must_use]
    pub fn is_notable(&self) -> bool {
        self.foreign + self.oversized + self.undelivered + self.overrun > 0
    }
}

impl fmt::Display for SwitchCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.foreign, "from a port that belongs to no known replica"),
            (self.oversized, "too long to be received"),
            (self.unconnected, "to a replica without a socket"),
            (self.undelivered, "to a replica that did not read them"),
            (self.overrun, "dropped by the system because they came too fast"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let told: Vec<String> = counts.map(|(count, what)| format!("{count} {what}")).collect();
        write!(f, "messages lost at the sockets: {}", if told.is_empty() { "none".to_owned() } else { told.join(", ") })
    }
}

impl Switch {
    /// One UDP socket for all replicas, on a free loopback port.
    ///
    /// # Errors
    ///
    /// The system can't provide such a socket.
    pub fn udp(ids: &[LanId]) -> Result<Switch, SocketError> {
        let open = || -> io::Result<(UdpSocket, u16)> {
            let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
            socket.set_nonblocking(true)?;
            let port = socket.local_addr()?.port();
            Ok((socket, port))
        };
        let (socket, port) = open().map_err(|source| SocketError::Udp { port: 0, source })?;
        widen(socket.as_fd());
        Ok(Switch::new(ids, Ends::Udp { socket, port, ports: vec![None; ids.len()] }))
    }

    /// A listening socket for each replica, at the file in `folder` that has its id as name.
    ///
    /// # Errors
    ///
    /// A file can't be created, its path is too long for a socket, or `kind` is not local.
    pub fn local(folder: &Path, ids: &[LanId], kind: SocketKind) -> Result<Switch, SocketError> {
        let end = |id: &LanId| {
            let path = folder.join(id.as_str());
            let listener = listener(&path, kind).map_err(|source| SocketError::File { path, source: source.into() })?;
            Ok(LocalEnd { state: State::Listening(listener), lines: Lines::default(), outbox: Outbox::new(kind) })
        };
        let ends = ids.iter().map(end).collect::<Result<Vec<LocalEnd>, _>>()?;
        let turn = (0, TURN);
        Ok(Switch::new(ids, Ends::Local { kind, ends, turn }))
    }

    fn new(ids: &[LanId], ends: Ends) -> Switch {
        Switch { ids: ids.to_vec(), ends, counters: SwitchCounters::default() }
    }

    /// The form of the sockets.
    pub fn kind(&self) -> SocketKind {
        match &self.ends {
            Ends::Udp { .. } => SocketKind::Udp,
            Ends::Local { kind, .. } => *kind,
        }
    }

    /// The port that replicas send to, on UDP.
    pub fn port(&self) -> Option<u16> {
        match &self.ends {
            Ends::Udp { port, .. } => Some(*port),
            Ends::Local { .. } => None,
        }
    }

    /// Whether the replica has connected; on UDP, whether it has sent a message.
    pub fn is_connected(&self, replica: usize) -> bool {
        match &self.ends {
            Ends::Udp { ports, .. } => ports[replica].is_some(),
            Ends::Local { ends, .. } => matches!(ends[replica].state, State::Connected(_)),
        }
    }

    /// The messages lost so far.
    pub fn counters(&self) -> SwitchCounters {
        let mut counters = self.counters;
        match &self.ends {
            Ends::Udp { port, .. } => counters.overrun = overrun(*port),
            Ends::Local { ends, .. } => {
                for end in ends {
                    counters.oversized += end.lines.discarded();
                    counters.undelivered += end.outbox.dropped();
                }
            }
        }
        counters
    }

    /// The sockets to wait for, each with the events to wait for.
    pub fn sockets(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let (udp, local) = match &self.ends {
            Ends::Udp { socket, .. } => (Some((socket.as_fd(), PollFlags::IN)), &[][..]),
            Ends::Local { ends, .. } => (None, &ends[..]),
        };
        let local = local.iter().filter_map(|end| match &end.state {
            State::Listening(socket) => Some((socket.as_fd(), PollFlags::IN)),
            State::Connected(socket) if end.outbox.is_empty() => Some((socket.as_fd(), PollFlags::IN)),
            State::Connected(socket) => Some((socket.as_fd(), PollFlags::IN | PollFlags::OUT)),
            State::Closed => None,
        });
        udp.into_iter().chain(local)
    }

    /// Sends a message to a replica. A message that can't be sent is counted.
    pub fn send(&mut self, to: usize, message: &[u8]) {
        match &mut self.ends {
            Ends::Udp { socket, ports, .. } => match ports[to] {
                Some(port) => {
                    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
                    if socket.send_to(message, address).is_err() {
                        self.counters.undelivered += 1;
                    }
                }
                None => self.counters.unconnected += 1,
            },
            Ends::Local { ends, .. } => {
                let end = &mut ends[to];
                match &end.state {
                    State::Connected(socket) => {
                        if end.outbox.send(socket.as_fd(), message) != Ok(Sent::Yes) {
                            // A closed socket is reported by `receive`.
                            self.counters.undelivered += 1;
                        }
                    }
                    _ => self.counters.unconnected += 1,
                }
            }
        }
    }

    /// Closes a replica's local socket. Nothing more is received from it.
    pub fn close(&mut self, replica: usize) {
        if let Ends::Local { ends, .. } = &mut self.ends {
            ends[replica].state = State::Closed;
        }
    }

    /// The next message or closed socket, or `None` if there is none now. Also accepts connections,
    /// and sends waiting messages as far as possible.
    ///
    /// `buffer` is enlarged as needed.
    pub fn receive(&mut self, buffer: &mut Vec<u8>) -> Option<Incoming> {
        buffer.resize(BUFFER_BYTES, 0);
        match &mut self.ends {
            Ends::Udp { socket, ports, .. } => receive_datagram(socket, ports, &self.ids, &mut self.counters, buffer),
            Ends::Local { kind, ends, turn } => {
                for _ in 0..=ends.len() {
                    let (from, left) = *turn;
                    if left > 0
                        && let Some(incoming) = ends[from].receive(from, *kind, &mut self.counters, buffer)
                    {
                        *turn = (from, left - 1);
                        return Some(incoming);
                    }
                    *turn = ((from + 1) % ends.len(), TURN);
                }
                None
            }
        }
    }
}

/// The next datagram of a replica. The first message from a port tells which replica uses the port.
fn receive_datagram(
    socket: &UdpSocket,
    ports: &mut [Option<u16>],
    ids: &[LanId],
    counters: &mut SwitchCounters,
    buffer: &mut [u8],
) -> Option<Incoming> {
    loop {
        let (length, from) = match socket.recv_from(buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return None,
        };
        let port = loopback_port(from)?;
        if let Some(from) = ports.iter().position(|known| *known == Some(port)) {
            return Some(Incoming::Message { from, length });
        }
        let src = Envelope::peek(&buffer[..length]).map(|header| header.src);
        let replica = src.ok().and_then(|src| ids.iter().position(|id| *id == src));
        match replica {
            Some(from) if ports[from].is_none() => {
                ports[from] = Some(port);
                return Some(Incoming::Message { from, length });
            }
            _ => counters.foreign += 1,
        }
    }
}

/// The port of a loopback address. No other address can reach the socket, as it is bound to loopback.
fn loopback_port(address: SocketAddr) -> Option<u16> {
    (address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST)).then_some(address.port())
}

impl LocalEnd {
    fn receive(
        &mut self,
        from: usize,
        kind: SocketKind,
        counters: &mut SwitchCounters,
        buffer: &mut [u8],
    ) -> Option<Incoming> {
        if let State::Listening(listener) = &self.state {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = accept_with(listener, flags).ok()?;
            widen(socket.as_fd());
            self.state = State::Connected(socket);
        }
        let State::Connected(socket) = &self.state else {
            return None;
        };
        if !self.outbox.is_empty() {
            // An error of the socket is noticed below.
            let _ = self.outbox.flush(socket.as_fd());
        }
        loop {
            if let Some(line) = self.lines.next_line() {
                let length = line.len();
                buffer[..length].copy_from_slice(line);
                return Some(Incoming::Message { from, length });
            }
            let flags = match kind {
                SocketKind::Stream => RecvFlags::DONTWAIT,
                _ => RecvFlags::DONTWAIT | RecvFlags::TRUNC,
            };
            match recv(socket, &mut *buffer, flags) {
                Ok((_, 0)) => break,
                Ok((_, length)) if kind == SocketKind::Stream => {
                    self.lines.push(&buffer[..length]);
                }
                Ok((_, length)) if length > buffer.len() => counters.oversized += 1,
                Ok((_, length)) => return Some(Incoming::Message { from, length }),
                // A reset is reported once, before the messages sent earlier and the end of the stream.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => break,
            }
        }
        self.state = State::Closed;
        Some(Incoming::Closed { from })
    }
}

fn listener(path: &PathBuf, kind: SocketKind) -> Result<OwnedFd, Errno> {
    let of_type = match kind {
        SocketKind::Udp => return Err(Errno::PROTOTYPE),
        SocketKind::Packets => SocketType::SEQPACKET,
        SocketKind::Stream => SocketType::STREAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, of_type, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 1)?;
    Ok(socket)
}

/// Asks for larger system buffers, which lose less in a burst. The sockets work without them.
fn widen(socket: BorrowedFd<'_>) {
    let _ = sockopt::set_socket_recv_buffer_size(socket, SYSTEM_BUFFER_BYTES);
    let _ = sockopt::set_socket_send_buffer_size(socket, SYSTEM_BUFFER_BYTES);
}

/// How many datagrams the system dropped at this port: the last column of its table.
fn overrun(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/net/udp").unwrap_or_default();
    let local = format!("0100007F:{port:04X}");
    let row = table.lines().find(|line| line.split_ascii_whitespace().nth(1) == Some(&local));
    row.and_then(|row| row.split_ascii_whitespace().last()?.parse().ok()).unwrap_or(0)
}
