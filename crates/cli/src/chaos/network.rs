//! A proxy that carries all traffic between members.
//!
//! Members know only the proxy's addresses. A member that connects names itself in the handshake (see
//! `bowline_server::peer`), so the proxy knows both ends of each connection. (A new member that asks for the members
//! has no id yet: nothing disturbs that.) Each direction of a link can be cut,
//! slowed down, or made to corrupt bytes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bowline_emulator::Random;
use bowline_server::peer::{put_frame, read_frame, sender};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::plan::Cut;

/// Longest first frame, in bytes.
const MAX_HELLO: u32 = 4096;

/// Time limit for the first frame.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that are moved at a time, and how many such pieces may be in transit.
const PIECE: usize = 16 << 10;
const PIECES: usize = 64;

/// Probability that a corrupting link damages a piece.
const CORRUPTION: f64 = 0.02;

/// One direction between two members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) cut: Option<Cut>,
    pub(super) delay: Duration,
    pub(super) corrupts: bool,
}

/// All links, by sender and receiver, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Links(Vec<Vec<Link>>);

impl Links {
    fn all_well(members: usize) -> Links {
        Links(vec![vec![Link::default(); members]; members])
    }

    fn get(&self, from: usize, to: usize) -> Link {
        self.0[from][to]
    }
}

/// The network between the members.
pub(super) struct Network {
    members: usize,
    links: watch::Sender<Links>,
    places: Places,
}

/// The place of each member, by its id.
type Places = Arc<Mutex<BTreeMap<u64, usize>>>;

impl Network {
    /// Starts a network without faults. Others reach member `i` at `entries[i]`; it listens at `targets[i]`.
    pub(super) fn start(entries: Vec<std::net::TcpListener>, targets: &[u16], seed: u64) -> std::io::Result<Network> {
        let (links, view) = watch::channel(Links::all_well(targets.len()));
        let places: Places = Arc::new(Mutex::new((0..targets.len()).map(|place| (place as u64 + 1, place)).collect()));
        for (to, (entry, port)) in entries.into_iter().zip(targets).enumerate() {
            entry.set_nonblocking(true)?;
            let entry = TcpListener::from_std(entry)?;
            let target = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            let known = (view.clone(), Arc::clone(&places));
            tokio::spawn(accept(entry, to, target, known, Random::stream(seed, 100 + to as u64)));
        }
        Ok(Network { members: targets.len(), links, places })
    }

    /// Records that the member of this id has this place.
    pub(super) fn assign(&self, id: u64, place: usize) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(id, place);
    }

    /// Changes the links from `from` to `to` wherever `which` says so.
    pub(super) fn change(&self, which: impl Fn(usize, usize) -> bool, change: impl Fn(&mut Link)) {
        self.links.send_modify(|links| {
            for from in 0..self.members {
                for to in (0..self.members).filter(|to| which(from, *to)) {
                    change(&mut links.0[from][to]);
                }
            }
        });
    }

    pub(super) fn heal(&self) {
        self.change(|_, _| true, |link| *link = Link::default());
    }
}

async fn accept(
    entry: TcpListener,
    to: usize,
    target: SocketAddr,
    (view, places): (watch::Receiver<Links>, Places),
    mut random: Random,
) {
    loop {
        let Ok((stream, _)) = entry.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (view, places, seed) = (view.clone(), Arc::clone(&places), random.next_u64());
        tokio::spawn(async move {
            // An error only ends the connection, which the members handle.
            let _ = carry(stream, to, target, (view, &places), seed).await;
        });
    }
}

async fn carry(
    near: TcpStream,
    to: usize,
    target: SocketAddr,
    (view, places): (watch::Receiver<Links>, &Places),
    seed: u64,
) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    let mut near = near;
    let hello = tokio::time::timeout(PATIENCE, read_frame(&mut near, MAX_HELLO)).await;
    let hello = hello.map_err(std::io::Error::other)?.map_err(std::io::Error::other)?.unwrap_or_default();
    // The member that connects decides which link this is.
    let place = |id: u64| match id {
        0 => Some(to),
        id => places.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied(),
    };
    let from = sender(&hello).and_then(|id| place(id.0)).ok_or_else(|| std::io::Error::other("no member"))?;
    let refused = |view: &watch::Receiver<Links>| view.borrow().get(from, to).cut == Some(Cut::Refuse);
    if refused(&view) {
        return Ok(());
    }
    let mut far = TcpStream::connect(target).await?;
    far.set_nodelay(true)?;
    wait_while_cut(&mut view.clone(), from, to).await?;
    let mut frame = BytesMut::new();
    put_frame(&mut frame, |out| out.extend_from_slice(&hello));
    far.write_all(&frame).await?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let out = pump(near_read, far_write, (from, to), view.clone(), Random::stream(seed, 1));
    let back = pump(far_read, near_write, (to, from), view.clone(), Random::stream(seed, 2));
    let mut broken = view.clone();
    let breaks = async {
        let is_broken =
            |links: &Links| [links.get(from, to), links.get(to, from)].iter().any(|link| link.cut == Some(Cut::Refuse));
        // The sender lives as long as the run.
        let _ = broken.wait_for(is_broken).await;
    };
    tokio::select! {
        ended = out => ended,
        ended = back => ended,
        () = breaks => Ok(()),
    }
}

/// Waits while the link is stalled.
async fn wait_while_cut(view: &mut watch::Receiver<Links>, from: usize, to: usize) -> std::io::Result<()> {
    view.wait_for(|links| links.get(from, to).cut != Some(Cut::Stall)).await.map_err(std::io::Error::other)?;
    Ok(())
}

/// Moves bytes one way, as the link allows.
async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    (sender, receiver): (usize, usize),
    mut view: watch::Receiver<Links>,
    mut random: Random,
) -> std::io::Result<()> {
    let (pieces, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let reads = view.clone();
    let read = async move {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return Ok::<(), std::io::Error>(());
            }
            let link = reads.borrow().get(sender, receiver);
            let mut piece = buffer[..length].to_vec();
            if link.corrupts && random.chance(CORRUPTION) {
                let place = usize::try_from(random.below(length as u64)).unwrap_or(0);
                piece[place] ^= 1 << random.below(8);
            }
            if pieces.send((Instant::now() + link.delay, piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((at, piece)) = waiting.recv().await {
            tokio::time::sleep_until(at.into()).await;
            wait_while_cut(&mut view, sender, receiver).await?;
            to.write_all(&piece).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    tokio::try_join!(read, write).map(|_| ())
}
