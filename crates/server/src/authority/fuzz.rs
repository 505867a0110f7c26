//! Entry for a fuzzer: hostile bytes in place of a client's.

use super::{Filter, PREFACE};

/// Passes bytes on as a client's connection does. The first byte is the length of the pieces in which they arrive, and
/// the preface of HTTP/2 is put before the others. In any pieces they must become the same, and whatever was replaced
/// is valid: it stays the same if it is passed on again.
pub fn fuzz_authority(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else { return };
    let data = [PREFACE, data].concat();
    let whole = passed(data.chunks(data.len()));
    assert_eq!(passed(data.chunks(usize::from(*piece).max(1))), whole);
    assert_eq!(passed(whole.chunks(whole.len())), whole);
}

/// What becomes of a connection's bytes, which arrive in these pieces.
pub(super) fn passed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut filter, mut all) = (Filter::default(), Vec::new());
    for piece in pieces {
        let mut rest = Vec::new();
        let unchanged = filter.pass(piece, &mut rest);
        all.extend_from_slice(&piece[..unchanged]);
        all.append(&mut rest);
    }
    all.append(&mut filter.end());
    all
}
