//! Clients of etcd whose `:authority` is no host: it is replaced before the HTTP/2 library sees it.
//!
//! Some clients send `#initially=[127.0.0.1:2379]` (Go's clientv3 3.5.0), or `http://127.0.0.1:2379` (etcdctl 3.4, for
//! `endpoint status`, `endpoint hashkv` and `defrag` with `--cluster`, or at an address with `http://`). etcd serves
//! them, but the library resets such requests. Nothing in this crate reads the authority of a request, nor the header
//! `host`, so the replacement has no other effect.

mod fuzz;
mod hpack;
mod huffman;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use fuzz::fuzz_authority;

/// What a client of HTTP/2 sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes before the body of each frame (RFC 9113, 4.1).
const HEAD: usize = 9;

/// Longest body of a frame, in bytes. The server announces no other (RFC 9113, 6.5.2).
const MAX_BODY: usize = 16_384;

/// Most frames, and bytes with their heads, of a block of headers. A longer one passes unchanged.
const MAX_FRAMES: usize = 64;
const MAX_BLOCK: usize = 64 << 10;

// Kinds and flags of frames (RFC 9113, 6.2 and 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Bytes of a priority, before the block of a frame with that flag.
const PRIORITY_BYTES: usize = 5;

/// A client's connection whose requests have a valid `:authority`. What is written passes unchanged.
///
/// It reads frames, so TLS must be removed before. What is not HTTP/2 passes unchanged, and so does what is malformed.
pub(crate) struct Mended<IO> {
    io: IO,
    filter: Filter,
    /// Read, but not yet taken.
    waiting: Bytes,
}

impl<IO> Mended<IO> {
    pub(crate) fn new(io: IO) -> Mended<IO> {
        Mended { io, filter: Filter::default(), waiting: Bytes::new() }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Mended<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let begin = buffer.filled().len();
        // To return nothing would say that the connection has ended, so go on while all is held back.
        while this.waiting.is_empty() && buffer.filled().len() == begin {
            ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
            let read = &buffer.filled()[begin..];
            if read.is_empty() {
                this.waiting = this.filter.end().into();
                break;
            }
            let mut rest = Vec::new();
            let unchanged = this.filter.pass(read, &mut rest);
            buffer.set_filled(begin + unchanged);
            this.waiting = rest.into();
        }
        let taken = this.waiting.split_to(this.waiting.len().min(buffer.remaining()));
        buffer.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Mended<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Finds the frames in what a client sends, in pieces of any size.
#[derive(Default)]
struct Filter {
    stage: Stage,
    /// Bytes that pass unseen: what is left of a frame.
    unseen: usize,
    /// The begin of a frame or of a block of headers: its end decides what becomes of it.
    held: Vec<u8>,
    /// How many bytes must be held before they are looked at again. More than there are, unless none are held.
    wanted: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// So many bytes of the preface have passed.
    Preface(usize),
    Frames,
    /// What comes is not HTTP/2.
    Other,
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::Preface(0)
    }
}

impl Filter {
    /// Returns how many of the first bytes pass as they are. What follows them, changed or not, is appended to `rest`.
    fn pass(&mut self, input: &[u8], rest: &mut Vec<u8>) -> usize {
        // Copying begins where something is held back or changed.
        let (mut at, mut unchanged, mut copying) = (0, 0, !self.held.is_empty());
        while at < input.len() {
            let next = &input[at..];
            if !self.held.is_empty() {
                let taken = next.len().min(self.wanted - self.held.len());
                self.held.extend_from_slice(&next[..taken]);
                at += taken;
                if self.held.len() == self.wanted {
                    self.look_again(rest);
                }
                continue;
            }
            let passing = match self.look(next) {
                Step::Pass(length) => {
                    let passing = length.min(next.len());
                    self.unseen = length - passing;
                    passing
                }
                Step::Hold(wanted) => {
                    (self.held, self.wanted) = (next.to_vec(), wanted);
                    break;
                }
                Step::Replace(length, frames) => {
                    rest.extend_from_slice(&frames);
                    at += length;
                    copying = true;
                    continue;
                }
            };
            match copying {
                true => rest.extend_from_slice(&next[..passing]),
                false => unchanged += passing,
            }
            at += passing;
        }
        unchanged
    }

    /// Looks at what is held, now that there is more of it.
    fn look_again(&mut self, rest: &mut Vec<u8>) {
        match frames(&self.held) {
            Step::Hold(wanted) => {
                self.wanted = wanted;
                return;
            }
            // What is held ends with a head or with a frame, so all of it passes.
            Step::Pass(length) => {
                self.unseen = length - self.held.len();
                rest.append(&mut self.held);
            }
            Step::Replace(_, frames) => rest.extend_from_slice(&frames),
        }
        self.held = Vec::new();
    }

    /// What is done with the next bytes.
    fn look(&mut self, next: &[u8]) -> Step {
        match self.stage {
            Stage::Other => Step::Pass(next.len()),
            Stage::Preface(seen) => {
                let length = next.len().min(PREFACE.len() - seen);
                self.stage = match next[..length] == PREFACE[seen..seen + length] {
                    true if seen + length == PREFACE.len() => Stage::Frames,
                    true => Stage::Preface(seen + length),
                    false => Stage::Other,
                };
                Step::Pass(length)
            }
            Stage::Frames if self.unseen > 0 => Step::Pass(self.unseen),
            Stage::Frames => frames(next),
        }
    }

    /// What is held when the connection ends.
    fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// What is done with the bytes from a frame's begin on.
enum Step {
    /// So many pass as they are, including some that may not be there yet.
    Pass(usize),
    /// They are held until there are so many.
    Hold(usize),
    /// So many are replaced by these frames.
    Replace(usize, Vec<u8>),
}

/// Decides about the first frame, or about all frames of a block of headers.
fn frames(bytes: &[u8]) -> Step {
    let Some(first) = Head::read(bytes) else { return Step::Hold(HEAD) };
    if first.kind != HEADERS {
        return Step::Pass(HEAD + first.length);
    }
    let (mut head, mut end) = (first, HEAD + first.length);
    for _ in 0..MAX_FRAMES {
        if head.length > MAX_BODY || end > MAX_BLOCK {
            return Step::Pass(end);
        }
        if bytes.len() < end {
            return Step::Hold(end);
        }
        if head.flags & END_HEADERS != 0 {
            return match mend(&bytes[..end]) {
                Some(frames) => Step::Replace(end, frames),
                None => Step::Pass(end),
            };
        }
        let Some(next) = Head::read(&bytes[end..]) else { return Step::Hold(end + HEAD) };
        (head, end) = (next, end + HEAD + next.length);
        if (next.kind, next.stream) != (CONTINUATION, first.stream) {
            return Step::Pass(end);
        }
    }
    Step::Pass(end)
}

/// Returns the frames with a valid authority. Returns `None` if they need no change, or are malformed.
fn mend(frames: &[u8]) -> Option<Vec<u8>> {
    let first = Head::read(frames)?;
    let (mut body, mut rest) = frames[HEAD..].split_at(first.length);
    if first.flags & PADDED != 0 {
        let (padding, padded) = body.split_first()?;
        body = padded.get(..padded.len().checked_sub(usize::from(*padding))?)?;
    }
    let priority = if first.flags & PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
    let (priority, block) = body.split_at_checked(priority)?;
    let mut block = Cow::Borrowed(block);
    while let Some(head) = Head::read(rest) {
        let (piece, next) = rest[HEAD..].split_at(head.length);
        block.to_mut().extend_from_slice(piece);
        rest = next;
    }
    Some(framed(first, priority, &hpack::mend(&block)?))
}

/// A block of headers as frames: those of the first one's stream and priority, without its padding.
fn framed(first: Head, priority: &[u8], block: &[u8]) -> Vec<u8> {
    let whole = [priority, block].concat();
    let mut frames = Vec::with_capacity(whole.len() + 2 * HEAD);
    let mut bodies = whole.chunks(MAX_BODY).peekable();
    let (mut kind, mut flags) = (HEADERS, first.flags & !(PADDED | END_HEADERS));
    while let Some(body) = bodies.next() {
        if bodies.peek().is_none() {
            flags |= END_HEADERS;
        }
        frames.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
        frames.extend_from_slice(&[kind, flags]);
        frames.extend_from_slice(&first.stream);
        frames.extend_from_slice(body);
        (kind, flags) = (CONTINUATION, 0);
    }
    frames
}

/// The head of a frame.
#[derive(Clone, Copy)]
struct Head {
    /// Bytes of the body.
    length: usize,
    kind: u8,
    flags: u8,
    /// With the reserved bit.
    stream: [u8; 4],
}

impl Head {
    /// Returns `None` if there are fewer bytes.
    fn read(bytes: &[u8]) -> Option<Head> {
        let [high, middle, low, kind, flags, stream @ ..] = *bytes.first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        Some(Head { length, kind, flags, stream })
    }
}
