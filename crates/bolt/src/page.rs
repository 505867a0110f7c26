//! The layout of pages, which the reader and the writer share.

/// Bytes at the beginning of a page.
pub(crate) const HEADER: usize = 16;
/// Bytes of an element, without its key and value.
pub(crate) const ELEMENT: usize = 16;
/// Bytes of a bucket's value: the root of its tree, and a counter.
pub(crate) const BUCKET: usize = 16;
/// Bytes of a meta page that have a meaning.
pub(crate) const META_BYTES: usize = HEADER + 64;
/// Where the checksum of a meta page is. It covers the bytes from the end of the header to here.
pub(crate) const CHECKSUM_AT: usize = HEADER + 56;

/// Number of the pages that hold meta data.
pub(crate) const METAS: u64 = 2;

/// What a page is.
pub(crate) const BRANCH: u16 = 0x01;
pub(crate) const LEAF: u16 = 0x02;
pub(crate) const META: u16 = 0x04;
pub(crate) const FREE_LIST: u16 = 0x10;

/// The flag of an element whose value is a bucket.
pub(crate) const IS_BUCKET: u32 = 0x01;

/// The first bytes of the meta data, and the version of the format.
pub(crate) const MAGIC: u32 = 0xed0c_daed;
pub(crate) const VERSION: u32 = 2;

/// The beginning of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The page's number.
    pub(crate) id: u64,
    /// What it is.
    pub(crate) flags: u16,
    /// Number of elements.
    pub(crate) count: u16,
    /// Number of following pages that belong to it.
    pub(crate) overflow: u32,
}

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(&self.id.to_le_bytes());
        out[8..10].copy_from_slice(&self.flags.to_le_bytes());
        out[10..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..].copy_from_slice(&self.overflow.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Header {
        Header { id: u64_at(bytes, 0), flags: u16_at(bytes, 8), count: u16_at(bytes, 10), overflow: u32_at(bytes, 12) }
    }
}

/// The content of a meta page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) page_size: u32,
    /// The root of the tree of buckets.
    pub(crate) root: u64,
    pub(crate) free_list: u64,
    /// Number of pages in the file.
    pub(crate) pages: u64,
    pub(crate) transaction: u64,
}

impl Meta {
    /// The meta page with a number: its beginning, and then its content.
    pub(crate) fn encode(&self, id: u64) -> [u8; META_BYTES] {
        let mut out = [0; META_BYTES];
        out[..HEADER].copy_from_slice(&Header { id, flags: META, count: 0, overflow: 0 }.encode());
        let mut at = HEADER;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        for number in [MAGIC, VERSION, self.page_size, 0] {
            put(&number.to_le_bytes());
        }
        for number in [self.root, 0, self.free_list, self.pages, self.transaction] {
            put(&number.to_le_bytes());
        }
        let sum = fnv1a(&out[HEADER..CHECKSUM_AT]);
        out[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads what [`Meta::encode`] wrote, or says what is wrong.
    pub(crate) fn decode(bytes: &[u8; META_BYTES]) -> Result<Meta, String> {
        let (flags, magic) = (u16_at(bytes, 8), u32_at(bytes, HEADER));
        if flags & META == 0 || magic != MAGIC {
            return Err("it is no meta page of a bbolt file".to_owned());
        }
        if u64_at(bytes, CHECKSUM_AT) != fnv1a(&bytes[HEADER..CHECKSUM_AT]) {
            return Err("its checksum is wrong".to_owned());
        }
        let version = u32_at(bytes, HEADER + 4);
        if version != VERSION {
            return Err(format!("its format has version {version}; this program reads version {VERSION}"));
        }
        Ok(Meta {
            page_size: u32_at(bytes, HEADER + 8),
            root: u64_at(bytes, HEADER + 16),
            free_list: u64_at(bytes, HEADER + 32),
            pages: u64_at(bytes, HEADER + 40),
            transaction: u64_at(bytes, HEADER + 48),
        })
    }
}

/// The FNV-1a hash, 64 bits.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The number at an offset. The caller has checked that the bytes are there.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("the slice has two bytes"))
}

/// As [`u16_at`].
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the slice has four bytes"))
}

/// As [`u16_at`].
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the authors' list of test vectors.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_meta_page_is_read_again_and_a_changed_one_is_not() {
        let meta = Meta { page_size: 4096, root: 3, free_list: 2, pages: 9, transaction: 7 };
        let bytes = meta.encode(1);
        assert_eq!(Meta::decode(&bytes), Ok(meta));
        for bit in HEADER * 8..META_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Meta::decode(&flipped).is_err(), "bit {bit}");
        }
    }
}
