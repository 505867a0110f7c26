//! The frames and headers of a client, whose authority may be no host.

use bowline_server::fuzz_authority;

pub(crate) fn run(data: &[u8]) {
    fuzz_authority(data);
}

fn frame(kind: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], body].concat()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // Fields by the place of their name, by their name, compressed, and indexed.
    let raw = [&[0x83, 0x86, 0x41, 8][..], b"#a:1,b:2"].concat();
    let named = [&[0x83, 0x00, 10][..], b":authority", &[2], b"/a", &[0xbe]].concat();
    let compressed = [0x83, 0x10, 0x88, 0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f, 0x83, 0xff, 0xa3, 0x54, 0x81];
    let padded = [&[2, 0, 0, 0, 0, 16][..], &raw, &[0; 2]].concat();
    let data = frame(0, 1, b"a message");
    let pieces = [
        frame(1, 0x4, &raw),
        frame(1, 0x5, &named),
        frame(1, 0x4, &compressed),
        frame(1, 0x2c, &padded),
        [frame(1, 0, &raw[..5]), frame(9, 0, &[]), frame(9, 0x4, &raw[5..])].concat(),
    ];
    let whole = |piece: u8, frames: &[u8]| [&[piece], &data[..], frames, &data].concat();
    let mut seeds: Vec<Vec<u8>> = pieces.iter().map(|frames| whole(7, frames)).collect();
    seeds.push(whole(200, &pieces.concat()));
    seeds
}
