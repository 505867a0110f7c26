//! The Huffman code of HPACK (RFC 7541, 5.2 and appendix B), decoded bit by bit: only rare texts are.

/// Bits of the code of each byte, and of the end of a string (RFC 7541, appendix B). The code is canonical: shorter
/// codes come first, and those of the same length are in the order of their symbols. So the lengths say everything.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The bits of the longest code.
const LONGEST: usize = 30;

/// The symbol that ends a string. RFC 7541, 5.2 forbids its whole code in one.
const END: u16 = 256;

/// How many codes have each length.
const COUNTS: [u32; LONGEST + 1] = counts();

/// All symbols, in the order of their codes.
const SYMBOLS: [u16; 257] = symbols();

const fn counts() -> [u32; LONGEST + 1] {
    let (mut counts, mut symbol) = ([0; LONGEST + 1], 0);
    while symbol < LENGTHS.len() {
        counts[LENGTHS[symbol] as usize] += 1;
        symbol += 1;
    }
    counts
}

const fn symbols() -> [u16; 257] {
    let (mut symbols, mut place, mut length) = ([0; 257], 0, 0);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                symbols[place] = symbol as u16;
                place += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
}

/// Decodes a string. Returns `None` if it is malformed. The result has at most 8/5 of the bytes of `coded`.
pub(super) fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(coded.len() * 8 / 5);
    // The bits that were read of a code, and how many. Of the codes of that length: the first, and its place in
    // SYMBOLS.
    let (mut code, mut length, mut first, mut place) = (0_u32, 0, 0_u32, 0);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |shift| u32::from(byte >> shift & 1))) {
        (code, length, first) = (code << 1 | bit, length + 1, first << 1);
        // At LONGEST bits, every code ends.
        let count = COUNTS[length];
        if code - first < count {
            let symbol = SYMBOLS[(place + code - first) as usize];
            decoded.push(u8::try_from(symbol).ok().filter(|_| symbol != END)?);
            (code, length, first, place) = (0, 0, 0, 0);
        } else {
            (first, place) = (first + count, place + count);
        }
    }
    // What is left of the last byte are the first bits of END: ones.
    (length < 8 && code == (1 << length) - 1).then_some(decoded)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Encodes a string.
    pub(crate) fn encode(text: &[u8]) -> Vec<u8> {
        let (mut codes, mut code, mut length) = ([0_u64; 257], 0, 0);
        for symbol in SYMBOLS.map(usize::from) {
            code <<= usize::from(LENGTHS[symbol]) - length;
            (codes[symbol], length) = (code, usize::from(LENGTHS[symbol]));
            code += 1;
        }
        let bit = |code: u64, length: u8| (0..length).rev().map(move |shift| code >> shift & 1 == 1);
        let mut bits: Vec<bool> =
            text.iter().map(|byte| usize::from(*byte)).flat_map(|s| bit(codes[s], LENGTHS[s])).collect();
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | u8::from(*bit))).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_decoded() {
        // Appendix C.4 and C.6, and symbols of each kind of length.
        let examples: [(&[u8], &str); 8] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f], "custom-key"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
            (&[0x64, 0x02], "302"),
            (&[0xae, 0xc3, 0x77, 0x1a, 0x4b], "private"),
            (
                &[
                    0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66,
                    0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
                ],
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (
                &[0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3],
                "https://www.example.com",
            ),
        ];
        for (coded, text) in examples {
            assert_eq!(decode(coded).as_deref(), Some(text.as_bytes()), "{text}");
            assert_eq!(encode(text.as_bytes()), coded, "{text}");
        }
    }

    #[test]
    fn every_byte_is_decoded() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
        assert_eq!(decode(&[]), Some(Vec::new()));
    }

    #[test]
    fn a_malformed_string_is_refused() {
        // Padding of a whole byte, padding that is not of ones, an incomplete code, and the end of a string.
        for bad in [&[0x64, 0x02, 0xff][..], &[0x64, 0x03, 0xf0], &[0x18], &[0xff, 0xff], &[0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(decode(bad), None, "{bad:x?}");
        }
    }
}
