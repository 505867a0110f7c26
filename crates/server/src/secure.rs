//! TLS at the ports of a member: the handshakes of those who connect, and clear words for whoever speaks something else.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bowline_tls::issue::{DAY, Order, Role, Span, now, self_signed};
use bowline_tls::{FirstBytes, Keeper, SPEAKS_TLS, Settings, Stream, TlsError, Use, date, first_bytes, hang_up, words};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::complaints::Complaints;
use crate::config::ServerConfig;
use crate::files;

/// Time limit of a handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the files are read again.
const REFRESH: Duration = Duration::from_secs(1);

/// From how many days before its end a certificate is complained of.
const WARN_DAYS: i64 = 14;

/// For how many days a certificate is valid that is made at the start, as in etcd.
const MADE_FOR: u32 = 365;

/// The TLS of a member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    pub(crate) clients: Option<Arc<Keeper>>,
    pub(crate) members: Option<Arc<Keeper>>,
}

impl Tls {
    /// Reads the files, and makes those that are made at the start.
    pub(crate) fn load(config: &ServerConfig) -> Result<Tls, TlsError> {
        let load = |settings: &Option<Settings>, purpose: Use| {
            let Some(settings) = settings else { return Ok(None) };
            if settings.auto {
                make(settings, config)?;
            }
            Ok(Some(Arc::new(Keeper::load(settings.clone(), purpose)?)))
        };
        Ok(Tls { clients: load(&config.client_tls, Use::Clients)?, members: load(&config.peer_tls, Use::Members)? })
    }

    /// Keeps it like the files from now on.
    pub(crate) fn follow(&self) {
        for (keeper, whose) in [(&self.clients, "clients"), (&self.members, "members")] {
            if let Some(keeper) = keeper {
                tokio::spawn(follow(Arc::clone(keeper), whose));
            }
        }
    }
}

/// Checks the files of a configuration, before anything else is done.
///
/// # Errors
/// One of them can't be used.
pub fn check_tls(config: &ServerConfig) -> Result<(), TlsError> {
    for (settings, purpose) in [(&config.client_tls, Use::Clients), (&config.peer_tls, Use::Members)] {
        if let Some(settings) = settings.as_ref().filter(|settings| !settings.auto) {
            Keeper::load(settings.clone(), purpose)?;
        }
    }
    Ok(())
}

/// Makes a certificate that signs itself, unless there is one that is valid for a while.
fn make(settings: &Settings, config: &ServerConfig) -> Result<(), TlsError> {
    let soon = now() + WARN_DAYS * DAY;
    if Keeper::load(settings.clone(), Use::Clients).is_ok_and(|keeper| keeper.facts().not_after > soon) {
        return Ok(());
    }
    let urls = config.listen_client.iter().chain([&config.advertise_client, &config.advertise_peer]);
    let mut hosts: Vec<String> = urls.map(|url| url.host().trim_matches(['[', ']']).to_owned()).collect();
    hosts.extend(["localhost", "127.0.0.1"].map(str::to_owned));
    hosts.sort_unstable();
    hosts.dedup();
    let order = Order { name: &config.name, hosts: &hosts, role: Role::Member, span: Span::days(MADE_FOR) };
    let folder = settings.cert.parent().unwrap_or(Path::new("."));
    let failed =
        |why: io::Error| TlsError { file: folder.display().to_string(), what: format!("can't be made: {why}") };
    files::create_private_folder(folder).map_err(failed)?;
    self_signed(&order)?.write(&settings.cert, &settings.key)?;
    info!(file = %settings.cert.display(), "made a certificate, which nobody can check");
    Ok(())
}

async fn follow(keeper: Arc<Keeper>, whose: &'static str) {
    let complaints = Complaints::default();
    loop {
        let left = keeper.facts().not_after - now();
        if left < WARN_DAYS * DAY {
            let text = format!("the certificate for {whose} expires on {}: renew it", date(keeper.facts().not_after));
            complaints.say_each(DAY_LONG, &text, |_| warn!("{text}"));
        }
        tokio::time::sleep(REFRESH).await;
        let reading = Arc::clone(&keeper);
        // A task that panicked has changed nothing.
        let Ok(read) = tokio::task::spawn_blocking(move || reading.refresh()).await else { continue };
        match read {
            Ok(false) => {}
            Ok(true) => {
                complaints.clear();
                let facts = keeper.facts();
                info!(
                    certificate = facts.owner(),
                    serial = facts.serial,
                    expires = date(facts.not_after),
                    "the TLS files for {whose} have changed: new connections use them"
                );
            }
            Err(error) => {
                let text =
                    format!("the TLS files for {whose} can't be used; what was used before stays in use: {error}");
                complaints.say(&text, |_| warn!("{text}"));
            }
        }
    }
}

const DAY_LONG: Duration = Duration::from_secs(86_400);

/// A port's lines for the log. Copies share them.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    /// Who comes here: "client" or "member".
    other: &'static str,
    complaints: Arc<Complaints>,
}

impl Door {
    pub(crate) fn new(other: &'static str) -> Door {
        Door { other, complaints: Arc::default() }
    }

    /// Says why a connection was closed.
    pub(crate) fn complain(&self, address: SocketAddr, why: &str) {
        self.complaints.say(why, |more| warn!(%address, more, "closed a connection of a {}: {why}", self.other));
    }

    /// Says that somebody speaks TLS at a port without.
    pub(crate) fn complain_of_tls(&self, address: SocketAddr) {
        self.complain(address, &format!("the {} speaks TLS, but this port speaks plain text", self.other));
    }
}

/// The handshakes that are under way at a port. If there are too many, the oldest one ends: those who are honest need
/// only milliseconds.
#[derive(Debug)]
pub(crate) struct Handshakes {
    most: usize,
    open: VecDeque<oneshot::Sender<()>>,
}

impl Handshakes {
    pub(crate) fn new(most: usize) -> Handshakes {
        Handshakes { most, open: VecDeque::new() }
    }

    /// One more begins. The sender of what is returned is dropped if it must end.
    pub(crate) fn begin(&mut self) -> oneshot::Receiver<()> {
        if self.open.len() >= self.most {
            self.open.retain(|open| !open.is_closed());
        }
        if self.open.len() >= self.most {
            self.open.pop_front();
        }
        let (end, ended) = oneshot::channel();
        self.open.push_back(end);
        ended
    }
}

/// A handshake that is to be done.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) ended: oneshot::Receiver<()>,
    pub(crate) door: Door,
    /// What a stranger without TLS is told.
    pub(crate) answer: fn(FirstBytes) -> Vec<u8>,
}

impl Handshake {
    /// Does it. If it fails, tells the other end and the log why, and closes the connection.
    pub(crate) async fn run(self, stream: TcpStream, address: SocketAddr) -> Option<Stream> {
        let Handshake { keeper, ended, door, answer } = self;
        let secured = async {
            let first = first_bytes(&stream).await.unwrap_or(FirstBytes::Nothing);
            if first == FirstBytes::Tls {
                return match bowline_tls::accept(&keeper.acceptor(), stream, door.other).await {
                    Ok(stream) => Some(stream),
                    Err((error, stream)) => {
                        // Whoever goes away is not worth logging.
                        if !is_gone(&error) {
                            door.complain(address, &words(&error, door.other));
                        }
                        hang_up(stream, Vec::new()).await;
                        None
                    }
                };
            }
            if first != FirstBytes::Nothing {
                door.complain(address, &format!("the {} speaks plain text, but this port speaks TLS", door.other));
                hang_up(stream, answer(first)).await;
            }
            None
        };
        let secured = tokio::select! {
            secured = timeout(PATIENCE, secured) => secured,
            _ = ended => {
                door.complain(address, "too many others are in their handshakes, and this was the oldest one");
                return None;
            }
        };
        match secured {
            Ok(stream) => stream,
            Err(_) => {
                let why = format!("the {} did not finish the handshake within {} s", door.other, PATIENCE.as_secs());
                door.complain(address, &why);
                None
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    kinds.contains(&error.kind())
}

/// What a client without TLS is told: in HTTP/1 a page, in HTTP/2 the end of the connection with its reason.
pub(crate) fn answer_client(first: FirstBytes) -> Vec<u8> {
    match first {
        FirstBytes::Http1 => format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{SPEAKS_TLS}\n",
            SPEAKS_TLS.len() + 1
        )
        .into_bytes(),
        FirstBytes::Http2 => {
            // SETTINGS without any, then GOAWAY (RFC 9113, 6.5 and 6.8): no stream was served, INADEQUATE_SECURITY.
            let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
            frames.extend_from_slice(&(SPEAKS_TLS.len() as u32 + 8).to_be_bytes()[1..]);
            frames.extend_from_slice(&[7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc]);
            frames.extend_from_slice(SPEAKS_TLS.as_bytes());
            frames
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_handshake_makes_room_for_a_new_one() {
        let mut handshakes = Handshakes::new(2);
        let (mut first, mut second) = (handshakes.begin(), handshakes.begin());
        assert!(first.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        let mut third = handshakes.begin();
        assert!(first.try_recv() == Err(oneshot::error::TryRecvError::Closed), "it was the oldest");
        drop(second.try_recv());
        drop(second);
        let mut fourth = handshakes.begin();
        for open in [&mut third, &mut fourth] {
            assert!(open.try_recv() == Err(oneshot::error::TryRecvError::Empty), "one was done");
        }
    }
}
