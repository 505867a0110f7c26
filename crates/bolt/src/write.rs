//! Writes a bbolt file, bottom-up, from sorted input.

use std::io::{self, Seek, SeekFrom, Write};

use crate::page::{BRANCH, BUCKET, ELEMENT, FREE_LIST, HEADER, Header, IS_BUCKET, LEAF, METAS, Meta};

/// Longest key or bucket name, in bytes, as in bbolt.
pub const MAX_KEY_BYTES: usize = 32_768;
/// Longest value, in bytes. It fits into the memory of a reader: see [`MAX_RUN_BYTES`](crate::MAX_RUN_BYTES).
const MAX_VALUE_BYTES: usize = 64 << 20;
/// Smallest page, in bytes.
pub const MIN_PAGE_BYTES: usize = 512;
/// Largest page, in bytes.
pub const MAX_PAGE_BYTES: usize = 64 << 10;

/// The page of the free list, which is empty.
const FREE_LIST_PAGE: u64 = METAS;

/// Writes a file. Buckets come in the order of their names, and the pairs of each bucket in the order of their keys.
///
/// Memory is bounded by a page for each level of two trees, and by the biggest value.
pub struct Writer<W> {
    pages: Pages<W>,
    /// The tree of buckets.
    root: Tree,
    /// The bucket that is being written.
    open: Option<(Vec<u8>, Tree)>,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a file at the beginning of `out`, with pages of this many bytes.
    ///
    /// # Errors
    /// `out` fails, or the page size is not a power of two from [`MIN_PAGE_BYTES`] to [`MAX_PAGE_BYTES`].
    pub fn new(mut out: W, page_bytes: usize) -> io::Result<Writer<W>> {
        if !page_bytes.is_power_of_two() || !(MIN_PAGE_BYTES..=MAX_PAGE_BYTES).contains(&page_bytes) {
            return Err(refused(format!(
                "a page has {page_bytes} bytes; allowed: a power of two from {MIN_PAGE_BYTES} to {MAX_PAGE_BYTES}"
            )));
        }
        // The meta pages are known at the end.
        let metas = usize::try_from(METAS).expect("there are two");
        let mut start = vec![0; page_bytes * (metas + 1)];
        let free_list = Header { id: FREE_LIST_PAGE, flags: FREE_LIST, count: 0, overflow: 0 }.encode();
        start[page_bytes * metas..][..HEADER].copy_from_slice(&free_list);
        out.write_all(&start)?;
        let pages = Pages { out, page_bytes, next: FREE_LIST_PAGE + 1 };
        Ok(Writer { pages, root: Tree::default(), open: None })
    }

    /// Begins the next bucket.
    ///
    /// # Errors
    /// `out` fails, or the name is empty, too long, or not after the one before it.
    pub fn bucket(&mut self, name: &[u8]) -> io::Result<()> {
        self.end_bucket()?;
        self.root.check(name)?;
        self.open = Some((name.to_vec(), Tree::default()));
        Ok(())
    }

    /// Adds a pair to the bucket.
    ///
    /// # Errors
    /// `out` fails; there is no bucket; the key is empty, too long, or not after the one before it; or the value is too
    /// long.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let (_, tree) = self.open.as_mut().ok_or_else(|| refused("a pair needs a bucket".to_owned()))?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(refused(format!("a value has {} bytes; allowed: {MAX_VALUE_BYTES}", value.len())));
        }
        tree.check(key)?;
        tree.push(&mut self.pages, 0, Element::leaf(0, key, value), key, value)
    }

    /// Ends the file, and returns what it was written to. The caller makes it durable.
    ///
    /// # Errors
    /// `out` fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_bucket()?;
        let root = match self.root.finish(&mut self.pages)? {
            Some(root) => root,
            None => self.pages.add(LEAF, &Node::default())?,
        };
        let Pages { mut out, page_bytes, next } = self.pages;
        let page_size = u32::try_from(page_bytes).expect("a page is small");
        for id in 0..METAS {
            let meta = Meta { page_size, root, free_list: FREE_LIST_PAGE, pages: next, transaction: id };
            out.seek(SeekFrom::Start(id * u64::from(page_size)))?;
            out.write_all(&meta.encode(id))?;
        }
        out.flush()?;
        Ok(out)
    }

    fn end_bucket(&mut self) -> io::Result<()> {
        let Some((name, tree)) = self.open.take() else { return Ok(()) };
        let mut value = Vec::with_capacity(BUCKET + HEADER);
        match tree.finish(&mut self.pages)? {
            Some(root) => {
                value.extend_from_slice(&root.to_le_bytes());
                value.resize(BUCKET, 0);
            }
            None => {
                // An empty bucket is inline: the root 0, and an empty leaf.
                value.resize(BUCKET, 0);
                value.extend_from_slice(&Header { id: 0, flags: LEAF, count: 0, overflow: 0 }.encode());
            }
        }
        self.root.push(&mut self.pages, 0, Element::leaf(IS_BUCKET, &name, &value), &name, &value)
    }
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// The pages so far.
struct Pages<W> {
    out: W,
    page_bytes: usize,
    /// Number of the next page.
    next: u64,
}

impl<W: Write> Pages<W> {
    /// Writes a node, and returns the number of its page.
    fn add(&mut self, kind: u16, node: &Node) -> io::Result<u64> {
        let pages = node.size().div_ceil(self.page_bytes);
        let overflow = u32::try_from(pages - 1).expect("a value is at most 64 MiB");
        let count = u16::try_from(node.elements.len()).expect("a page has room for a few thousand elements");
        let id = self.next;
        let mut page = Vec::with_capacity(pages * self.page_bytes);
        page.extend_from_slice(&Header { id, flags: kind, count, overflow }.encode());
        // The offset of a key counts from its element.
        let mut offset = node.elements.len() * ELEMENT;
        for element in &node.elements {
            let at = u32::try_from(offset).expect("a value is at most 64 MiB");
            page.extend_from_slice(&element.encode(kind, at));
            offset = offset - ELEMENT + element.key + element.value;
        }
        page.extend_from_slice(&node.data);
        page.resize(pages * self.page_bytes, 0);
        self.out.write_all(&page)?;
        self.next += pages as u64;
        Ok(id)
    }
}

/// A tree that is being built. Only the last node of each level is in memory, leaves first.
#[derive(Default)]
struct Tree {
    levels: Vec<Node>,
    last: Option<Vec<u8>>,
}

impl Tree {
    /// Whether a key may be added.
    fn check(&mut self, key: &[u8]) -> io::Result<()> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(refused(format!("a key has {} bytes; allowed: 1 to {MAX_KEY_BYTES}", key.len())));
        }
        if self.last.as_deref().is_some_and(|last| last >= key) {
            return Err(refused("a key does not follow the one before it".to_owned()));
        }
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        Ok(())
    }

    /// Adds an element at a level. If its node is full, writes that first.
    fn push<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        level: usize,
        element: Element,
        key: &[u8],
        value: &[u8],
    ) -> io::Result<()> {
        if level == self.levels.len() {
            self.levels.push(Node::default());
        }
        let node = &self.levels[level];
        if !node.elements.is_empty() && node.size() + ELEMENT + key.len() + value.len() > pages.page_bytes {
            self.write(pages, level)?;
        }
        let node = &mut self.levels[level];
        node.elements.push(element);
        node.data.extend_from_slice(key);
        node.data.extend_from_slice(value);
        Ok(())
    }

    /// Writes the node of a level, and adds it to the level above.
    fn write<W: Write>(&mut self, pages: &mut Pages<W>, level: usize) -> io::Result<()> {
        let node = std::mem::take(&mut self.levels[level]);
        let page = pages.add(kind_of(level), &node)?;
        let key = node.first_key();
        self.push(pages, level + 1, Element { flags: 0, page, key: key.len(), value: 0 }, key, &[])
    }

    /// Writes the rest. Returns the root; `None` if nothing was added.
    fn finish<W: Write>(mut self, pages: &mut Pages<W>) -> io::Result<Option<u64>> {
        let mut level = 0;
        while level + 1 < self.levels.len() {
            self.write(pages, level)?;
            level += 1;
        }
        self.levels.last().map(|root| pages.add(kind_of(level), root)).transpose()
    }
}

fn kind_of(level: usize) -> u16 {
    if level == 0 { LEAF } else { BRANCH }
}

/// A node that is being filled.
#[derive(Default)]
struct Node {
    elements: Vec<Element>,
    /// Keys and values, one after the other.
    data: Vec<u8>,
}

impl Node {
    fn size(&self) -> usize {
        HEADER + self.elements.len() * ELEMENT + self.data.len()
    }

    fn first_key(&self) -> &[u8] {
        &self.data[..self.elements.first().map_or(0, |first| first.key)]
    }
}

/// An element of a node.
struct Element {
    flags: u32,
    /// The page below, in a branch.
    page: u64,
    /// Length of its key.
    key: usize,
    /// Length of its value.
    value: usize,
}

impl Element {
    fn leaf(flags: u32, key: &[u8], value: &[u8]) -> Element {
        Element { flags, page: 0, key: key.len(), value: value.len() }
    }

    fn encode(&self, kind: u16, at: u32) -> [u8; ELEMENT] {
        let length = |bytes: usize| u32::try_from(bytes).expect("keys and values are short").to_le_bytes();
        let mut out = [0; ELEMENT];
        if kind == LEAF {
            out[..4].copy_from_slice(&self.flags.to_le_bytes());
            out[4..8].copy_from_slice(&at.to_le_bytes());
            out[8..12].copy_from_slice(&length(self.key));
            out[12..].copy_from_slice(&length(self.value));
        } else {
            out[..4].copy_from_slice(&at.to_le_bytes());
            out[4..8].copy_from_slice(&length(self.key));
            out[8..].copy_from_slice(&self.page.to_le_bytes());
        }
        out
    }
}
