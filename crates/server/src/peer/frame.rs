//! Frames: a length, a checksum, and a body.
//!
//! `length: u32 LE` (of the body), `crc: u32 LE` (CRC32C of the length and the body), body. After a damaged frame, the
//! start of the next one is unknown, so the stream is closed.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes before a frame's body.
pub const HEADER_BYTES: usize = 8;

/// Step in bytes by which a body's buffer grows, so that it follows the bytes received, not the announced length.
const STEP: usize = 256 << 10;

/// Why a frame can't be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed, or ended within a frame.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The frame is too long.
    #[error("the frame has {length} bytes; allowed: at most {limit}")]
    TooLong {
        /// Its announced length.
        length: u32,
        /// The longest allowed length on this connection, in bytes.
        limit: u32,
    },
    /// The frame is damaged.
    #[error("the frame is damaged: its checksum is {found:08x}, expected {expected:08x}")]
    Checksum {
        /// The checksum in the frame.
        expected: u32,
        /// The checksum of the received bytes.
        found: u32,
    },
}

/// Appends a frame, whose body `write` appends.
pub fn put_frame(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    write(out);
    let length = u32::try_from(out.len() - start - HEADER_BYTES).expect("bodies are bounded far below 4 GiB");
    let crc = checksum(length, &out[start + HEADER_BYTES..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the body of the next frame; `None` if the stream ends between two frames.
///
/// # Errors
/// The stream fails, or the frame is damaged or longer than `limit` bytes.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin), limit: u32) -> Result<Option<Bytes>, FrameError> {
    let mut header = [0; HEADER_BYTES];
    if stream.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[1..]).await?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let expected = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    let mut body = BytesMut::new();
    let mut rest = stream.take(u64::from(length));
    while body.len() < length as usize {
        body.reserve(STEP.min(length as usize - body.len()));
        if rest.read_buf(&mut body).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    let body = body.freeze();
    let found = checksum(length, &body);
    if found == expected { Ok(Some(body)) } else { Err(FrameError::Checksum { expected, found }) }
}

fn checksum(length: u32, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| out.extend_from_slice(body));
        out
    }

    #[tokio::test]
    async fn frames_are_read_back_one_after_the_other() {
        let mut bytes = frame(b"one");
        bytes.extend_from_slice(&frame(b""));
        bytes.extend_from_slice(&frame(&[7; 600_000]));
        let mut stream = &bytes[..];
        for expected in [&b"one"[..], b"", &[7; 600_000]] {
            let body = read_frame(&mut stream, 1 << 20).await.expect("it is whole").expect("it is there");
            assert_eq!(body, expected);
        }
        assert!(read_frame(&mut stream, 1 << 20).await.expect("a clean end").is_none());
    }

    #[tokio::test]
    async fn every_flipped_bit_is_noticed() {
        let good = frame(b"some body");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = read_frame(&mut &bad[..], 1 << 20).await;
            assert!(read.is_err(), "bit {bit} was flipped in silence");
        }
    }

    #[tokio::test]
    async fn a_long_frame_is_refused_before_its_body() {
        let header = [0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0];
        let error = read_frame(&mut &header[..], 4096).await.expect_err("it is too long");
        assert_eq!(error.to_string(), "the frame has 2147483647 bytes; allowed: at most 4096");
    }

    #[tokio::test]
    async fn a_frame_that_is_cut_off_is_an_error() {
        let whole = frame(b"body");
        for length in 1..whole.len() {
            let read = read_frame(&mut &whole[..length], 4096).await;
            assert!(matches!(read, Err(FrameError::Io(_))), "cut at {length}");
        }
    }
}
