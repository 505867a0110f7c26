//! Entry for a fuzzer: hostile bytes in place of another member's.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, Bytes, BytesMut};

use bowline_member::fuzz_message;
use bowline_node::wire;

use super::{MAX_CONTROL_FRAME, MAX_FRAME, handshake, read_frame};

/// Decodes bytes as a connection does. The first byte chooses what they are (a handshake, requests, answers or
/// messages) and whether they include the frames or get correct ones. Everything decoded must be the same after
/// encoding and decoding again. This must neither panic nor take more memory than bytes were received.
pub fn fuzz_frames(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    if choice % 2 == 0 {
        let mut stream = data;
        let limit = if choice % 4 == 0 { MAX_FRAME } else { MAX_CONTROL_FRAME };
        // All bytes are there, so reading never waits.
        while let Some(Ok(Some(body))) = at_once(pin!(read_frame(&mut stream, limit))) {
            read(choice / 4, body);
        }
    } else {
        // In bodies of up to 256 bytes, or all in one.
        for body in data.chunks(if choice % 4 == 1 { data.len().max(1) } else { 256 }) {
            read(choice / 4, Bytes::copy_from_slice(body));
        }
    }
}

fn at_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn read(kind: u8, body: Bytes) {
    match kind % 4 {
        0 => handshake::fuzz(&body),
        1 => fuzz_message(&body),
        _ => {
            if let Ok(Some(message)) = wire::decode(body) {
                let mut out = BytesMut::new();
                wire::encode(&message, &mut out);
                assert_eq!(wire::decode(out.freeze()), Ok(Some(message)));
            }
        }
    }
}

/// A frame around a body, for a fuzzer's seeds.
#[must_use]
pub fn framed(body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    super::put_frame(&mut out, |out| out.put_slice(body));
    out.freeze()
}
