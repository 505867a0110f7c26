//! What passes a client's connection, and what is replaced on the way.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fuzz::passed;
use super::*;

const END_STREAM: u8 = 1;

/// A value that is no host, and the host that replaces it.
const BAD: &str = "#initially=[127.0.0.1:2379]";
const GOOD: &str = "localhostlocalhostlocalhost";

fn frame(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], body].concat()
}

/// A block of headers with this authority, as a literal that enters the table.
fn block(authority: &str) -> Vec<u8> {
    [&[0x83, 0x86, 0x41, authority.len() as u8][..], authority.as_bytes(), &[0x84]].concat()
}

/// A connection: the preface, settings, data before and after these frames.
fn connection(frames: &[u8]) -> Vec<u8> {
    let data = frame(0, END_STREAM, b"a message");
    [PREFACE, &frame(4, 0, &[0; 6]), &data, frames, &data, &frame(8, 0, &[0; 4])].concat()
}

/// These frames become those, in pieces of any size.
#[track_caller]
fn becomes(frames: &[u8], expected: &[u8]) {
    let (sent, expected) = (connection(frames), connection(expected));
    for size in [1, 2, 3, 7, 9, 10, 64, 1_000, 16_393, sent.len()] {
        assert!(passed(sent.chunks(size)) == expected, "in pieces of {size}");
    }
}

#[test]
fn an_authority_that_is_no_host_is_replaced() {
    let flags = END_HEADERS | END_STREAM;
    becomes(&frame(HEADERS, flags, &block(BAD)), &frame(HEADERS, flags, &block(GOOD)));
    let two = [frame(HEADERS, flags, &block(BAD)), frame(HEADERS, flags, &[0x83, 0xbe])].concat();
    becomes(&two, &[frame(HEADERS, flags, &block(GOOD)), frame(HEADERS, flags, &[0x83, 0xbe])].concat());
}

#[test]
fn a_frame_gets_its_new_length_and_loses_its_padding_but_not_its_priority() {
    // In the Huffman code it is shorter than what replaces it.
    let coded = huffman::tests::encode(BAD.as_bytes());
    let coded = [&[0x83, 0x86, 0x41, coded.len() as u8 | 0x80][..], &coded, &[0x84]].concat();
    assert!(coded.len() < block(GOOD).len());
    let sent = [&[3][..], &[0, 0, 0, 0, 16], &coded, &[0; 3]].concat();
    let expected = [&[0, 0, 0, 0, 16], &block(GOOD)[..]].concat();
    becomes(
        &frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &sent),
        &frame(HEADERS, END_HEADERS | PRIORITY, &expected),
    );
}

#[test]
fn a_block_of_several_frames_is_replaced_as_one() {
    let (bad, flags) = (block(BAD), END_STREAM);
    let sent = [
        frame(HEADERS, flags, &bad[..7]),
        frame(CONTINUATION, 0, &[]),
        frame(CONTINUATION, 0, &bad[7..20]),
        frame(CONTINUATION, END_HEADERS, &bad[20..]),
    ];
    becomes(&sent.concat(), &frame(HEADERS, flags | END_HEADERS, &block(GOOD)));

    // What does not fit into one frame any more is continued in another one.
    let agent = [&[0x0f, 0x2b, 0x7f, 0x81, 0x7c], &[b'a'; 16_000][..]].concat();
    let coded = huffman::tests::encode(BAD.as_bytes());
    let bad = [&[0x41, coded.len() as u8 | 0x80][..], &coded, &agent].concat();
    let bad = [&vec![0x83; MAX_BODY - bad.len()], &bad[..]].concat();
    assert_eq!(bad.len(), MAX_BODY);
    let good =
        [&[0x83].repeat(MAX_BODY - (2 + coded.len() + agent.len())), &block(GOOD)[2..4 + GOOD.len()], &agent].concat();
    let expected = [frame(HEADERS, flags, &good[..MAX_BODY]), frame(CONTINUATION, END_HEADERS, &good[MAX_BODY..])];
    becomes(&frame(HEADERS, flags | END_HEADERS, &bad), &expected.concat());
}

#[test]
fn what_needs_no_change_and_what_is_malformed_pass_unchanged() {
    let long = [&block(BAD), &[0x83; MAX_BODY][..]].concat();
    let piece = frame(CONTINUATION, 0, &[0x83; MAX_BODY]);
    let tiny = frame(CONTINUATION, 0, &[]);
    let open = frame(HEADERS, 0, &block(BAD));
    let end = frame(CONTINUATION, END_HEADERS, &[]);
    for frames in [
        frame(HEADERS, END_HEADERS, &block("localhost:2379")),
        frame(HEADERS, END_HEADERS, &[0x83, 0x86, 0xbe]),
        // Of any other kind.
        frame(0, END_HEADERS, &block(BAD)),
        frame(CONTINUATION, END_HEADERS, &block(BAD)),
        // Too long: as a frame, as a block, and in frames.
        frame(HEADERS, END_HEADERS, &long),
        [&open[..], &piece.repeat(4), &end].concat(),
        [&open[..], &tiny.repeat(MAX_FRAMES), &end].concat(),
        // Without an end, or with another frame in between.
        open.clone(),
        [&open[..], &frame(0, 0, b"data"), &end].concat(),
        // Malformed: a block, padding and priority that are longer than the frame.
        frame(HEADERS, END_HEADERS, &block(BAD)[..20]),
        frame(HEADERS, END_HEADERS | PADDED, &[&[200], &block(BAD)[..]].concat()),
        frame(HEADERS, END_HEADERS | PADDED, &[]),
        frame(HEADERS, END_HEADERS | PRIORITY, &[0; 4]),
    ] {
        becomes(&frames, &frames);
    }
}

#[test]
fn what_is_not_http_2_passes_unchanged() {
    let headers = frame(HEADERS, END_HEADERS, &block(BAD));
    for begin in [&b"GET / HTTP/1.1\r\n\r\n"[..], &PREFACE[..23], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"] {
        let sent = [begin, &headers].concat();
        for size in [1, 5, 24, sent.len()] {
            assert!(passed(sent.chunks(size)) == sent, "{begin:?} in pieces of {size}");
        }
    }
}

#[test]
fn what_is_not_whole_passes_when_the_connection_ends() {
    let sent = connection(&frame(HEADERS, END_HEADERS, &block(BAD)));
    let data = frame(0, END_STREAM, b"a message");
    let begin = PREFACE.len() + HEAD + 6 + data.len();
    for end in 0..begin + HEAD + block(BAD).len() {
        assert!(passed([&sent[..end]]) == sent[..end], "{end}");
    }
}

#[test]
fn only_what_is_copied_or_changed_is_not_left_in_its_place() {
    let mut filter = Filter::default();
    let (sent, mut rest) = (connection(&frame(HEADERS, END_HEADERS, &block("a"))), Vec::new());
    assert_eq!((filter.pass(&sent, &mut rest), rest.capacity(), filter.held.capacity()), (sent.len(), 0, 0));
}

#[tokio::test]
async fn a_connection_is_read_with_buffers_of_any_size() {
    let headers = |authority: &str| frame(HEADERS, END_HEADERS, &block(authority));
    let (sent, expected) = (connection(&headers(BAD)), connection(&headers(GOOD)));
    for size in [1, 24, 100, 10_000] {
        let (mut client, server) = tokio::io::duplex(50);
        let sending = sent.clone();
        let client = tokio::spawn(async move {
            client.write_all(&sending).await.expect("sent");
            client.shutdown().await.expect("ended");
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("answered");
            answer
        });
        let mut server = Mended::new(server);
        let (mut received, mut buffer) = (Vec::new(), vec![0; size]);
        while let read @ 1.. = server.read(&mut buffer).await.expect("read") {
            received.extend_from_slice(&buffer[..read]);
        }
        assert!(received == expected, "with a buffer of {size}");
        server.write_all(BAD.as_bytes()).await.expect("sent");
        drop(server);
        assert_eq!(client.await.expect("it ends"), BAD.as_bytes());
    }
}

proptest! {
    #[test]
    fn any_bytes_become_the_same_in_any_pieces(
        data in proptest::collection::vec(any::<u8>(), 0..300),
        ends in proptest::collection::vec(0_usize..400, 0..20),
        headers in proptest::collection::vec((0_u8..2, 0_u8..64, 0_usize..80), 0..6),
    ) {
        // Frames around some of the bytes, so that not all is malformed at once.
        let mut sent = PREFACE.to_vec();
        for (kind, flags, length) in headers {
            let kind = if kind == 0 { HEADERS } else { CONTINUATION };
            let body = [&block(BAD), &data[..length.min(data.len())]].concat();
            sent.extend(frame(kind, flags, &body));
        }
        sent.extend(&data);
        let whole = passed([&sent[..]]);
        let mut ends: Vec<usize> = ends.into_iter().map(|end| end.min(sent.len())).chain([0, sent.len()]).collect();
        ends.sort_unstable();
        prop_assert_eq!(passed(ends.windows(2).map(|ends| &sent[ends[0]..ends[1]])), whole);
        fuzz_authority(&data);
    }
}
