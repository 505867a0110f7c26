//! Replaces an invalid `:authority` in a block of headers (RFC 7541).
//!
//! It needs no table of earlier headers. Encoders name `:authority` by its place in the static table, or in full, and
//! a field that is in the dynamic table has been replaced before.

use axum::http::uri::Authority;

use super::huffman;

/// The name in full, and in the Huffman code, which has one form for each text.
const NAME: [&[u8]; 2] = [b":authority", &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f]];

/// The place of `:authority` in the static table. The value there is empty (RFC 7541, appendix A).
const PLACE: usize = 1;

/// A valid host. Others are made of its letters.
const HOST: &[u8] = b"localhost";

/// Returns the block with a valid `:authority`. Returns `None` if the block needs no change, or is malformed before
/// that field. What follows the field is not looked at: a request with a second one is refused in any case.
///
/// The size of a field decides what leaves the dynamic table (RFC 7541, 4.1), so a value is replaced by one of the same
/// length. An empty value has no such replacement: it becomes `localhost` where its field does not enter the table, and
/// stays empty where it does.
pub(super) fn mend(block: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields { block, at: 0 };
    loop {
        let begin = fields.at;
        let (mut mended, length) = match *block.get(begin)? {
            // Indexed.
            0x80.. => match fields.number(7)? {
                PLACE => ([&block[..begin], &[PLACE as u8]].concat(), HOST.len()),
                _ => continue,
            },
            // The dynamic table gets another size.
            0x20..0x40 => {
                fields.number(5)?;
                continue;
            }
            // A literal; from 0x40 on it enters the dynamic table.
            first => {
                let enters = first >= 0x40;
                let is_authority = match fields.number(if enters { 6 } else { 4 })? {
                    0 => fields.text()?.spells_name(),
                    place => place == PLACE,
                };
                let value_begins = fields.at;
                let value = fields.text()?;
                if !is_authority {
                    continue;
                }
                let length = value.replacement(enters)?;
                (block[..value_begins].to_vec(), length)
            }
        };
        put_host(&mut mended, length);
        mended.extend_from_slice(&block[fields.at..]);
        return Some(mended);
    }
}

/// Writes a valid host of so many bytes, not compressed.
fn put_host(block: &mut Vec<u8>, length: usize) {
    // A number behind the first bit of a byte (RFC 7541, 5.1).
    if length < 0x7f {
        block.push(length as u8);
    } else {
        block.push(0x7f);
        let mut rest = length - 0x7f;
        while rest >= 0x80 {
            block.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
    }
    block.extend(HOST.iter().cycle().take(length));
}

/// Reads a block from its begin to its end.
struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// A number in the last bits of a byte and in the bytes after it (RFC 7541, 5.1), of at most five bytes.
    fn number(&mut self, bits: u32) -> Option<usize> {
        let most = (1 << bits) - 1;
        let mut number = usize::from(*self.block.get(self.at)?) & most;
        self.at += 1;
        if number < most {
            return Some(number);
        }
        for shift in [0, 7, 14, 21] {
            let byte = *self.block.get(self.at)?;
            self.at += 1;
            number += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A text (RFC 7541, 5.2).
    fn text(&mut self) -> Option<Text<'a>> {
        let huffman = *self.block.get(self.at)? >= 0x80;
        let length = self.number(7)?;
        let bytes = self.block.get(self.at..)?.get(..length)?;
        self.at += length;
        Some(Text { huffman, bytes })
    }
}

/// A text as it is in a block.
struct Text<'a> {
    /// Whether it is in the Huffman code.
    huffman: bool,
    bytes: &'a [u8],
}

impl Text<'_> {
    fn spells_name(&self) -> bool {
        self.bytes == NAME[usize::from(self.huffman)]
    }

    /// The length of the host that must replace this authority, if one must. A value that HTTP does not allow in any
    /// header stays as it is: etcd refuses it, too.
    fn replacement(&self, enters_table: bool) -> Option<usize> {
        let decoded;
        let value = match self.huffman {
            true => {
                decoded = huffman::decode(self.bytes)?;
                &decoded
            }
            false => self.bytes,
        };
        if value.is_empty() {
            return (!enters_table).then_some(HOST.len());
        }
        let is_allowed = value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control());
        (is_allowed && Authority::try_from(value).is_err()).then_some(value.len())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, Request};
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::huffman::tests::encode;
    use super::*;

    /// Values that etcd's clients send, and that are no host.
    const BAD: [&str; 6] = [
        "#initially=[127.0.0.1:2379]",
        "#initially=[http://a:2379;http://b:2379]",
        "http://127.0.0.1:2379",
        "a:1,b:2",
        "%2Frun%2Fa.sock",
        "/",
    ];

    /// A text of less than 127 bytes, with the Huffman code or without.
    fn text(text: &str, huffman: bool) -> Vec<u8> {
        let bytes = if huffman { encode(text.as_bytes()) } else { text.as_bytes().to_vec() };
        [&[bytes.len() as u8 | if huffman { 0x80 } else { 0 }], &bytes[..]].concat()
    }

    fn literal(first: u8, name: Option<bool>, value: &str, huffman: bool) -> Vec<u8> {
        match name {
            None => [&[first | 1], &text(value, huffman)[..]].concat(),
            Some(name) => [&[first], &text(":authority", name)[..], &text(value, huffman)].concat(),
        }
    }

    /// Every form of a field with this authority.
    fn forms(value: &str) -> impl Iterator<Item = Vec<u8>> {
        let forms = [0x40, 0x00, 0x10].into_iter().flat_map(|first| {
            let names = [None, Some(false), Some(true)].into_iter();
            names.flat_map(move |name| [false, true].map(|huffman| (first, name, huffman)))
        });
        forms.map(move |(first, name, huffman)| literal(first, name, value, huffman))
    }

    /// The block around a field: a change of the table's size, an indexed field, and literals before and after it.
    fn block(field: &[u8]) -> Vec<u8> {
        let path = [&[0x44], &text("/etcdserverpb.KV/Put", true)[..]].concat();
        let agent = [&[0x0f, 0x2b], &text("grpc-go/1.26.0", false)[..], &[0xbe]].concat();
        [&[0x3f, 0xe1, 0x1f, 0x83][..], &path, field, &agent].concat()
    }

    #[test]
    fn an_authority_that_is_no_host_becomes_one_of_the_same_length() {
        for bad in BAD {
            let host: String = "localhost".chars().cycle().take(bad.len()).collect();
            assert!(Authority::try_from(host.as_str()).is_ok() && Authority::try_from(bad).is_err());
            for (field, expected) in forms(bad).zip(forms(&host)) {
                // What comes out is never compressed.
                let name_ends = expected.len() - text(&host, true).len();
                let raw = if expected.ends_with(&text(&host, false)) {
                    expected
                } else {
                    [&expected[..name_ends], &text(&host, false)].concat()
                };
                assert_eq!(mend(&block(&field)), Some(block(&raw)), "{bad}: {field:x?}");
            }
        }
    }

    #[test]
    fn lengths_that_need_more_bytes_are_written_as_they_are_read() {
        for length in [1, 9, 126, 127, 128, 254, 255, 256, 16_383, 16_384, 20_000] {
            let mut field = vec![0x41];
            put_host(&mut field, length);
            let mut fields = Fields { block: &field, at: 1 };
            let read = fields.text().expect("it is whole");
            assert_eq!((read.bytes.len(), read.huffman, fields.at), (length, false, field.len()));
            assert_eq!(mend(&field), None);
            let mut bad = field.clone();
            *bad.last_mut().expect("it is not empty") = b'#';
            assert_eq!(mend(&bad), Some(field));
        }
    }

    #[test]
    fn a_block_that_needs_no_change_stays() {
        for good in ["localhost:2379", "a", "[::1]:2379", "user@a", "10.0.0.1"] {
            assert!(forms(good).all(|field| mend(&block(&field)).is_none()), "{good}");
        }
        assert_eq!(mend(&[]), None);
        assert_eq!(mend(&block(&[])), None);
        // Other fields may have any value.
        assert_eq!(mend(&block(&literal(0x40, Some(false), "#", false)[..1])), None);
        assert_eq!(mend(&[&[0x42], &text("#", false)[..]].concat()), None);
    }

    #[test]
    fn an_empty_authority_becomes_localhost_unless_it_enters_the_table() {
        let localhost = literal(0, None, "localhost", false);
        assert_eq!(mend(&block(&[0x81])), Some(block(&localhost)));
        assert_eq!(mend(&literal(0x10, None, "", false)), Some(literal(0x10, None, "localhost", false)));
        assert_eq!(mend(&literal(0x00, Some(true), "", true)), Some(literal(0x00, Some(true), "localhost", false)));
        assert_eq!(mend(&literal(0x40, None, "", false)), None);
        // A field of the dynamic table.
        assert_eq!(mend(&block(&[0xc0])), None);
    }

    #[test]
    fn a_malformed_block_stays() {
        let field = literal(0x40, None, BAD[0], true);
        let (bad, good) = (block(&field), block(&literal(0x40, None, "localhostlocalhostlocalhost", false)));
        let begin = bad.windows(field.len()).position(|part| part == field).expect("it is there");
        for end in 0..bad.len() {
            let mended = mend(&bad[..end]);
            if end < begin + field.len() {
                assert_eq!(mended, None, "{end}");
            } else {
                assert!(mended.is_some_and(|mended| good.starts_with(&mended)), "{end}");
            }
        }
        // Numbers that never end, before the field and in it; a bad code; a value that no header may have.
        assert_eq!(mend(&[&[0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f], &field[..]].concat()), None);
        assert_eq!(mend(&[0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]), None);
        assert_eq!(mend(&[0x41, 0x83, 0xff, 0xff, 0xff]), None);
        assert_eq!(mend(&literal(0x40, None, "a\nb", false)), None);
    }

    #[test]
    fn only_the_first_authority_is_replaced() {
        let (bad, good) = (literal(0x40, None, "#", false), literal(0x40, None, "l", false));
        assert_eq!(mend(&bad.repeat(2)), Some([&good[..], &bad].concat()));
        assert_eq!(mend(&[&good[..], &bad].concat()), None);
    }

    /// The block of headers of the first request on a connection.
    async fn first_block(connection: &mut DuplexStream) -> Vec<u8> {
        connection.read_exact(&mut [0; 24]).await.expect("a preface");
        loop {
            let mut head = [0; 9];
            connection.read_exact(&mut head).await.expect("a frame");
            let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            connection.read_exact(&mut body).await.expect("a frame");
            if head[3] == 1 {
                return body;
            }
        }
    }

    #[tokio::test]
    async fn the_headers_of_a_real_client_are_read() {
        let (client, mut server) = tokio::io::duplex(1 << 20);
        let (mut client, connection) = h2::client::handshake(client).await.expect("it only sends");
        let all: Vec<u8> = (0x20..=u8::MAX).filter(|byte| *byte != 0x7f).collect();
        let value = HeaderValue::from_bytes(&all).expect("a value of all bytes that it may have");
        let request = Request::post("http://localhost:2379/etcdserverpb.KV/Put").header("x", value).body(());
        let _answer = client.send_request(request.expect("a good request"), true).expect("taken");
        let connection = tokio::spawn(connection);
        let block = first_block(&mut server).await;
        let holds = |text: &[u8]| block.windows(text.len()).any(|part| part == text);
        assert!(holds(&encode(&all)) && holds(&encode(b"localhost:2379")), "{block:x?}");
        assert_eq!(mend(&block), None);
        // The same block, with another authority of that length.
        let bad = block.windows(10).position(|part| part == encode(b"localhost:2379")).expect("it is there");
        let with = |field: &[u8]| [&block[..bad - 1], field, &block[bad + 10..]].concat();
        assert_eq!(mend(&with(&text("#ocalhost,2379", true))), Some(with(&text("localhostlocal", false))));
        connection.abort();
    }
}
