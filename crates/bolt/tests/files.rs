//! Files that are written and read again; files of others; damaged and hostile files.

use std::collections::BTreeMap;
use std::io::Cursor;

use bowline_bolt::{Bolt, BoltError, Bucket, MAX_KEY_BYTES, Writer};
use proptest::prelude::*;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;
type Buckets = BTreeMap<Vec<u8>, Pairs>;

fn write(buckets: &Buckets, page_bytes: usize) -> Vec<u8> {
    let mut writer = Writer::new(Cursor::new(Vec::new()), page_bytes).expect("a good size");
    for (name, pairs) in buckets {
        writer.bucket(name).expect("it follows");
        for (key, value) in pairs {
            writer.put(key, value).expect("it follows");
        }
    }
    writer.finish().expect("memory takes it").into_inner()
}

fn pairs<S: bowline_bolt::Source>(bolt: &Bolt<S>, bucket: &Bucket) -> Result<Pairs, BoltError> {
    let (mut found, mut cursor) = (Pairs::new(), bolt.cursor(bucket));
    while let Some(entry) = cursor.next()? {
        if let Some(value) = entry.value {
            found.insert(entry.key.to_vec(), value.to_vec());
        }
    }
    Ok(found)
}

fn read(bytes: &[u8]) -> Result<Buckets, BoltError> {
    let bolt = Bolt::open(bytes)?;
    let (mut found, mut cursor) = (Buckets::new(), bolt.cursor(&bolt.root()));
    while let Some(entry) = cursor.next()? {
        if let Some(bucket) = &entry.bucket {
            found.insert(entry.key.to_vec(), pairs(&bolt, bucket)?);
        }
    }
    Ok(found)
}

fn example() -> Buckets {
    example_of(400)
}

fn example_of(count: u32) -> Buckets {
    let pair = |number: u32| (number.to_be_bytes().to_vec(), format!("value {number}").repeat(3).into_bytes());
    let many = (0..count).map(pair).collect();
    let long = [(b"long".to_vec(), vec![7; 3_000]), (b"short".to_vec(), vec![])].into();
    [(b"empty".to_vec(), Pairs::new()), (b"long".to_vec(), long), (b"many".to_vec(), many)].into()
}

#[test]
fn what_is_written_is_read_with_pages_of_any_size() {
    for page_bytes in [512, 1_024, 4_096, 16_384, 65_536] {
        let bytes = write(&example(), page_bytes);
        assert_eq!(bytes.len() % page_bytes, 0);
        assert_eq!(read(&bytes).expect("it is whole"), example(), "{page_bytes}");
    }
    assert_eq!(read(&write(&Buckets::new(), 4_096)).expect("it is whole"), Buckets::new());
    assert_eq!(write(&example(), 4_096), write(&example(), 4_096), "the same input gives the same file");
}

#[test]
fn what_is_not_sorted_or_too_long_is_refused() {
    let mut writer = Writer::new(Cursor::new(Vec::new()), 512).expect("a good size");
    let mut refused = |key: &[u8], bucket: bool| {
        let outcome = if bucket { writer.bucket(key) } else { writer.put(key, b"v") };
        outcome.map_err(|error| error.to_string())
    };
    assert_eq!(refused(b"k", false), Err("a pair needs a bucket".to_owned()));
    assert_eq!(refused(b"b", true), Ok(()));
    assert_eq!(refused(b"k", false), Ok(()));
    let order = Err("a key does not follow the one before it".to_owned());
    assert_eq!(
        [refused(b"k", false), refused(b"a", false), refused(b"b", true)],
        [order.clone(), order.clone(), order]
    );
    assert_eq!(refused(b"c", true), Ok(()));
    assert_eq!(refused(b"", false), Err("a key has 0 bytes; allowed: 1 to 32768".to_owned()));
    assert!(refused(&vec![1; MAX_KEY_BYTES + 1], false).is_err());
    for bytes in [0, 100, 256, 768, 1 << 17] {
        assert!(Writer::new(Cursor::new(Vec::new()), bytes).is_err(), "pages of {bytes}");
    }
}

/// Sets the number in a meta page, and its checksum.
fn patch_meta(file: &mut [u8], page: usize, at: usize, number: u64) {
    let meta = &mut file[page * 512 + 16..page * 512 + 80];
    meta[at..at + 8].copy_from_slice(&number.to_le_bytes());
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let sum = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325, hash);
    meta[56..].copy_from_slice(&sum.to_le_bytes());
}

const ROOT: usize = 16;
const PAGES: usize = 40;
const TRANSACTION: usize = 48;

#[test]
fn the_newer_valid_meta_page_counts() {
    let mut file = write(&example(), 512);
    // The older one has a root that is no page of a tree.
    patch_meta(&mut file, 0, ROOT, 2);
    assert_eq!(read(&file).expect("the newer one is good"), example());
    file[512 + 20] ^= 1;
    let error = read(&file).expect_err("the older one is bad").to_string();
    assert_eq!(error, "page 2: an element refers to it, but its kind is 0x10");

    let mut file = write(&example(), 512);
    file[20] ^= 1;
    assert_eq!(read(&file).expect("the second one is found without the first"), example());
    file[512 + 20] ^= 1;
    assert_eq!(read(&file).expect_err("both are bad").to_string(), "page 0: its checksum is wrong");

    let mut file = write(&example(), 512);
    patch_meta(&mut file, 0, TRANSACTION, 9);
    patch_meta(&mut file, 1, ROOT, 2);
    assert_eq!(read(&file).expect("the first one is the newer"), example());
}

#[test]
fn a_file_that_is_cut_off_is_refused() {
    let file = write(&example(), 512);
    for length in [0, 10, 80, 512, 600, file.len() - 1] {
        assert!(read(&file[..length]).is_err(), "{length} bytes");
    }
    let mut file = file;
    for number in [u64::MAX, 1 << 60] {
        for page in [0, 1] {
            patch_meta(&mut file, page, PAGES, number);
        }
        assert!(read(&file).is_err(), "{number} pages");
    }
}

/// A page of a tree: its elements with flags or the page below, key and value.
fn page(id: u64, is_leaf: bool, elements: &[(u64, &[u8], &[u8])]) -> Vec<u8> {
    let mut out = id.to_le_bytes().to_vec();
    out.extend_from_slice(&(if is_leaf { 2_u16 } else { 1 }).to_le_bytes());
    out.extend_from_slice(&u16::try_from(elements.len()).expect("few").to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let mut offset = elements.len() * 16;
    let number = |number: usize| u32::try_from(number).expect("small").to_le_bytes();
    for (first, key, value) in elements {
        if is_leaf {
            out.extend_from_slice(&number(usize::try_from(*first).expect("small")));
            out.extend_from_slice(&[number(offset), number(key.len()), number(value.len())].concat());
        } else {
            out.extend_from_slice(&[number(offset), number(key.len())].concat());
            out.extend_from_slice(&first.to_le_bytes());
        }
        offset = offset - 16 + key.len() + value.len();
    }
    for (_, key, value) in elements {
        out.extend_from_slice(&[*key, *value].concat());
    }
    out
}

/// A file of pages from number 3 on, the first of which is the root.
fn file_of(pages: &[Vec<u8>]) -> Vec<u8> {
    let mut file = write(&Buckets::new(), 512);
    file.truncate(3 * 512);
    for page in pages {
        file.extend_from_slice(page);
        file.resize(file.len().next_multiple_of(512), 0);
    }
    for meta in [0, 1] {
        patch_meta(&mut file, meta, ROOT, 3);
        let pages = file.len() as u64 / 512;
        patch_meta(&mut file, meta, PAGES, pages);
    }
    file
}

#[test]
fn buckets_may_be_inline_and_inside_others() {
    let inner = [&[0; 16][..], &page(0, true, &[(0, b"k", b"v")])].concat();
    let outer = [&[0; 16][..], &page(0, true, &[(1, b"inner", &inner), (0, b"pair", b"p")])].concat();
    let file = file_of(&[page(3, true, &[(1, b"outer", &outer)])]);
    let bolt = Bolt::open(&file).expect("it is whole");
    let outer = bolt.bucket(b"outer").expect("it is whole").expect("it is there");
    let mut cursor = bolt.cursor(&outer);
    let entry = cursor.next().expect("it is whole").expect("an entry");
    assert_eq!((entry.key, entry.value), (&b"inner"[..], None));
    let inner = entry.bucket.expect("it is a bucket");
    let entry = cursor.next().expect("it is whole").expect("another");
    assert_eq!((entry.key, entry.value, entry.bucket.is_none()), (&b"pair"[..], Some(&b"p"[..]), true));
    assert_eq!(pairs(&bolt, &inner).expect("it is whole"), [(b"k".to_vec(), b"v".to_vec())].into());
    assert!(bolt.bucket(b"pair").expect("it is whole").is_none());
}

#[test]
fn a_tree_that_goes_astray_is_refused_with_the_page_and_the_reason() {
    let mut overflowing = page(3, true, &[(0, b"k", b"v")]);
    overflowing[12] = 9;
    let mut short = page(3, true, &[(0, b"k", b"v")]);
    short[16 + 12] = 0xff;
    short[16 + 13] = 0xff;
    let mut far = page(3, true, &[(0, b"k", b"v")]);
    far[16 + 4..16 + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut crowded = page(3, true, &[(0, b"k", b"v")]);
    crowded[10..12].copy_from_slice(&u16::MAX.to_le_bytes());
    let ring: Vec<Vec<u8>> = vec![page(3, false, &[(4, b"a", b"")]), page(4, false, &[(3, b"a", b"")])];
    let cases: Vec<(Vec<Vec<u8>>, &str)> = vec![
        (vec![page(3, false, &[(9, b"a", b"")])], "page 9: an element refers to it, but the file has the pages 2 to 4"),
        (vec![page(3, false, &[(2, b"a", b"")])], "page 2: an element refers to it, but its kind is 0x10"),
        (vec![page(7, true, &[])], "page 3: it has the number 7"),
        (ring, "page 4: its tree has more than 32 levels"),
        (vec![page(3, false, &[])], "page 3: it is empty"),
        (vec![page(3, false, &[(4, b"a", b"")]), page(4, true, &[])], "page 4: it is empty"),
        (vec![overflowing], "page 3: 9 pages are said to follow it"),
        (vec![short], "page 3: the value of element 0 is not inside it"),
        (vec![far], "page 3: the key of element 0 is not inside it"),
        (vec![crowded], "page 3: it has no room for 65535 elements"),
        (
            vec![page(3, true, &[(0, b"b", b""), (0, b"a", b"")])],
            "page 3: the key of element 1 does not follow the one before it",
        ),
        (
            // The same page twice.
            vec![page(3, false, &[(4, b"a", b""), (4, b"b", b"")]), page(4, true, &[(0, b"b", b"")])],
            "page 3: the key of element 1 does not follow the one before it",
        ),
        (
            vec![page(3, false, &[(4, b"b", b"")]), page(4, true, &[(0, b"a", b"")])],
            "page 4: the key of element 0 does not follow the one before it",
        ),
        (vec![page(3, true, &[(1, b"b", b"short")])], "page 3: the bucket of element 0 is too short"),
        (vec![page(3, true, &[(1, b"b", &[0; 20])])], "page 3: a bucket inside it has no page"),
    ];
    for (pages, expected) in cases {
        assert_eq!(read(&file_of(&pages)).expect_err(expected).to_string(), expected);
    }
}

#[test]
fn a_flipped_bit_is_an_error_or_other_content_but_no_panic() {
    let example = example_of(40);
    let file = write(&example, 512);
    let (mut errors, mut others) = (0, 0);
    for bit in 0..file.len() * 8 {
        let mut flipped = file.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match read(&flipped) {
            Err(_) => errors += 1,
            Ok(found) if found != example => others += 1,
            // The other meta page counts, or nobody uses the bit.
            Ok(_) => {}
        }
    }
    assert!(errors > 1_000 && others > 1_000, "{errors} errors, {others} other contents");
}

proptest! {
    #[test]
    fn any_buckets_are_read_as_they_were_written(
        buckets in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..40),
            prop::collection::btree_map(
                prop::collection::vec(any::<u8>(), 1..200),
                prop::collection::vec(any::<u8>(), 0..900),
                0..60,
            ),
            0..12,
        ),
        size in 0..4_usize,
    ) {
        let file = write(&buckets, 512 << size);
        prop_assert_eq!(read(&file).expect("it is whole"), buckets);
    }

    #[test]
    fn garbage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..4_096), at: u16) {
        bowline_bolt::fuzz_read(&bytes);
        let mut file = write(&example(), 512);
        let at = usize::from(at) % file.len();
        let end = (at + bytes.len()).min(file.len());
        bytes.truncate(end - at);
        file[at..end].copy_from_slice(&bytes);
        bowline_bolt::fuzz_read(&file);
    }
}
