//! Reads a bbolt file. Its bytes may be hostile: each number is checked before it is used.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::page::{
    BRANCH, BUCKET, ELEMENT, HEADER, Header, IS_BUCKET, LEAF, META_BYTES, METAS, Meta, u16_at, u32_at, u64_at,
};

/// Most pages between the root of a tree and a leaf, both included. A tree of this depth is far larger than any disk.
pub const MAX_DEPTH: usize = 32;
/// Most bytes of a page together with the following pages that belong to it: the memory that a cursor needs for it.
pub const MAX_RUN_BYTES: u64 = 128 << 20;

/// Sizes of pages that a file may have, in bytes: powers of two within these bounds.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 512..=16 << 20;

/// Why a file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    /// A page is invalid.
    #[error("page {page}: {reason}")]
    Invalid {
        /// Its number.
        page: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A page can't be read.
    #[error("page {page} can't be read: {why}")]
    Read {
        /// Its number.
        page: u64,
        /// The error.
        why: io::Error,
    },
}

fn invalid<T>(page: u64, reason: impl Into<String>) -> Result<T, BoltError> {
    Err(BoltError::Invalid { page, reason: reason.into() })
}

/// The bytes of a file.
pub trait Source {
    /// How many there are.
    ///
    /// # Errors
    /// The system refuses.
    fn size(&self) -> io::Result<u64>;

    /// Reads bytes at an offset.
    ///
    /// # Errors
    /// The bytes are not there, or the system refuses.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

impl Source for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        let found = rest.and_then(|rest| rest.get(..out.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }
}

impl Source for Vec<u8> {
    fn size(&self) -> io::Result<u64> {
        self.as_slice().size()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, out)
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, out)
    }
}

impl Source for File {
    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }
}

/// An open file.
#[derive(Debug)]
pub struct Bolt<S> {
    source: S,
    meta: Meta,
}

/// A bucket in a file: the one of all buckets ([`Bolt::root`]), one of those, or one inside another one.
#[derive(Clone, Debug)]
pub struct Bucket(Place);

#[derive(Clone, Debug)]
enum Place {
    /// The root of its tree.
    Tree(u64),
    /// The page that its only page is inside, and that page.
    Inline(u64, Vec<u8>),
}

/// An entry of a bucket.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Its key; the name, if it is a bucket.
    pub key: &'a [u8],
    /// The value; `None` if it is a bucket.
    pub value: Option<&'a [u8]>,
    /// The bucket; `None` if it is a pair.
    pub bucket: Option<Bucket>,
}

impl<S: Source> Bolt<S> {
    /// Opens a file. Checks its meta pages; the others are checked when they are read.
    ///
    /// # Errors
    /// It can't be read, has no valid meta page, or is cut off.
    pub fn open(source: S) -> Result<Bolt<S>, BoltError> {
        let size = source.size().map_err(|why| BoltError::Read { page: 0, why })?;
        let read = |page: u64, page_size: u32| -> Result<Meta, BoltError> {
            let mut bytes = [0; META_BYTES];
            let outcome = source.read_at(page * u64::from(page_size), &mut bytes);
            outcome.map_err(|why| BoltError::Read { page, why })?;
            let meta = Meta::decode(&bytes).or_else(|reason| invalid(page, reason))?;
            if !meta.page_size.is_power_of_two() || !PAGE_SIZES.contains(&meta.page_size) {
                return invalid(page, format!("its page size is {} bytes", meta.page_size));
            }
            match page == 0 || page_size == meta.page_size {
                true => Ok(meta),
                false => invalid(page, format!("its page size is {} bytes, but it is at {page_size}", meta.page_size)),
            }
        };
        let first = read(0, 0);
        let second = match &first {
            Ok(first) => read(1, first.page_size).ok(),
            // Only the first one says where the second one is.
            Err(_) => {
                let sizes = std::iter::successors(Some(*PAGE_SIZES.start()), |bytes| bytes.checked_mul(2));
                sizes.take_while(|bytes| PAGE_SIZES.contains(bytes)).find_map(|bytes| read(1, bytes).ok())
            }
        };
        let (page, meta) = match (first, second) {
            (Ok(first), Some(second)) if second.transaction > first.transaction => (1, second),
            (Ok(first), _) => (0, first),
            (Err(_), Some(second)) => (1, second),
            (Err(error), None) => return Err(error),
        };
        let needed = meta.pages.checked_mul(meta.page_size.into());
        if needed.is_none_or(|needed| needed > size) {
            return invalid(
                page,
                format!("the file has {size} bytes, but should have {} pages of {}", meta.pages, meta.page_size),
            );
        }
        Ok(Bolt { source, meta })
    }

    /// What it is read from.
    pub fn source(&self) -> &S {
        &self.source
    }

    /// Bytes of its pages. The file may be longer.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.meta.pages.saturating_mul(self.meta.page_size.into())
    }

    /// The bucket that contains all others.
    #[must_use]
    pub fn root(&self) -> Bucket {
        Bucket(Place::Tree(self.meta.root))
    }

    /// A bucket by its name; `None` if there is none.
    ///
    /// # Errors
    /// A page on the way is invalid or can't be read.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, BoltError> {
        let mut cursor = self.cursor(&self.root());
        while let Some(entry) = cursor.next()? {
            if entry.key == name && entry.bucket.is_some() {
                return Ok(entry.bucket);
            }
        }
        Ok(None)
    }

    /// Visits the entries of a bucket in the order of their keys.
    #[must_use]
    pub fn cursor(&self, bucket: &Bucket) -> Cursor<'_, S> {
        Cursor { bolt: self, begin: Some(bucket.clone()), stack: Vec::new(), last: None }
    }

    /// Reads a page, with those that belong to it.
    fn load(&self, id: u64, is_root: bool) -> Result<Page, BoltError> {
        if !(METAS..self.meta.pages).contains(&id) {
            return invalid(
                id,
                format!("an element refers to it, but the file has the pages 2 to {}", self.meta.pages),
            );
        }
        let page_size = u64::from(self.meta.page_size);
        let failed = |why| BoltError::Read { page: id, why };
        let mut run = vec![0; self.meta.page_size as usize];
        self.source.read_at(id * page_size, &mut run).map_err(failed)?;
        let header = Header::decode(run.first_chunk().expect("a page is longer than its header"));
        if header.id != id {
            return invalid(id, format!("it has the number {}", header.id));
        }
        if header.flags != BRANCH && header.flags != LEAF {
            return invalid(id, format!("an element refers to it, but its kind is {:#x}", header.flags));
        }
        let (overflow, bytes) = (u64::from(header.overflow), (u64::from(header.overflow) + 1) * page_size);
        if overflow >= self.meta.pages - id || bytes > MAX_RUN_BYTES {
            return invalid(id, format!("{overflow} pages are said to follow it"));
        }
        run.resize(usize::try_from(bytes).expect("it is at most 128 MiB"), 0);
        self.source.read_at((id + 1) * page_size, &mut run[self.meta.page_size as usize..]).map_err(failed)?;
        Page::new(id, run, is_root)
    }
}

/// A page that is being read.
#[derive(Debug)]
struct Page {
    id: u64,
    bytes: Vec<u8>,
    is_leaf: bool,
    /// Number of elements.
    count: usize,
    /// The next element.
    next: usize,
}

impl Page {
    fn new(id: u64, bytes: Vec<u8>, is_root: bool) -> Result<Page, BoltError> {
        if bytes.len() < HEADER {
            return invalid(id, "a bucket inside it has no page");
        }
        let (flags, count) = (u16_at(&bytes, 8), usize::from(u16_at(&bytes, 10)));
        let is_leaf = flags == LEAF;
        if HEADER + count * ELEMENT > bytes.len() {
            return invalid(id, format!("it has no room for {count} elements"));
        }
        // Otherwise many references to an empty page could take very long.
        if count == 0 && !(is_leaf && is_root) {
            return invalid(id, "it is empty");
        }
        Ok(Page { id, bytes, is_leaf, count, next: 0 })
    }

    /// The key of the element at an index, and what follows the key.
    fn key(&self, index: usize) -> Result<(&[u8], &[u8]), BoltError> {
        let at = HEADER + index * ELEMENT;
        let length = at + if self.is_leaf { 4 } else { 0 };
        let (offset, key) = (u32_at(&self.bytes, length) as usize, u32_at(&self.bytes, length + 4) as usize);
        let content = at.checked_add(offset).filter(|start| *start >= HEADER + self.count * ELEMENT);
        match content.and_then(|start| self.bytes.get(start..)).and_then(|rest| rest.split_at_checked(key)) {
            Some(([], _)) | None => invalid(self.id, format!("the key of element {index} is not inside it")),
            Some(found) => Ok(found),
        }
    }

    /// The page below the element of a branch.
    fn below(&self, index: usize) -> u64 {
        u64_at(&self.bytes, HEADER + index * ELEMENT + 8)
    }

    /// The flags, key and value of the element of a leaf.
    fn pair(&self, index: usize) -> Result<(u32, &[u8], &[u8]), BoltError> {
        let at = HEADER + index * ELEMENT;
        let (key, rest) = self.key(index)?;
        match rest.get(..u32_at(&self.bytes, at + 12) as usize) {
            Some(value) => Ok((u32_at(&self.bytes, at), key, value)),
            None => invalid(self.id, format!("the value of element {index} is not inside it")),
        }
    }
}

/// Visits the entries of a bucket in the order of their keys. After an error it has no more entries.
#[derive(Debug)]
pub struct Cursor<'a, S> {
    bolt: &'a Bolt<S>,
    /// The bucket, before the first step.
    begin: Option<Bucket>,
    /// The pages from the root to the present leaf.
    stack: Vec<Page>,
    /// The key of the last entry, or of the last branch that was entered, which its first key may equal.
    last: Option<(Vec<u8>, bool)>,
}

impl<S: Source> Cursor<'_, S> {
    /// The next entry; `None` after the last one.
    ///
    /// # Errors
    /// A page is invalid or can't be read.
    #[expect(clippy::should_implement_trait, reason = "an entry borrows from the cursor")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, BoltError> {
        match self.advance() {
            Ok(true) => self.entry().map(Some),
            Ok(false) => Ok(None),
            Err(error) => {
                self.stack.clear();
                Err(error)
            }
        }
    }

    /// Goes to the next element of a leaf. Returns whether there is one.
    fn advance(&mut self) -> Result<bool, BoltError> {
        match self.begin.take().map(|bucket| bucket.0) {
            Some(Place::Tree(root)) => self.stack.push(self.bolt.load(root, true)?),
            Some(Place::Inline(page, bytes)) => {
                let page = Page::new(page, bytes, true)?;
                if !page.is_leaf {
                    return invalid(page.id, "a bucket inside it has a page that is no leaf");
                }
                self.stack.push(page);
            }
            None => {}
        }
        loop {
            let Some(page) = self.stack.last_mut() else { return Ok(false) };
            if page.next == page.count {
                self.stack.pop();
                continue;
            }
            let index = page.next;
            page.next += 1;
            let (key, _) = page.key(index)?;
            // No page can be visited twice, because its keys would have to come again.
            let follows = match &self.last {
                None => true,
                Some((last, true)) => key >= last.as_slice(),
                Some((last, false)) => key > last.as_slice(),
            };
            if !follows {
                return invalid(page.id, format!("the key of element {index} does not follow the one before it"));
            }
            let (last, may_equal) = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(key);
            *may_equal = !page.is_leaf;
            if page.is_leaf {
                return Ok(true);
            }
            let (id, below) = (page.id, page.below(index));
            if self.stack.len() == MAX_DEPTH {
                return invalid(id, format!("its tree has more than {MAX_DEPTH} levels"));
            }
            let below = self.bolt.load(below, false)?;
            self.stack.push(below);
        }
    }

    /// The element that the cursor has gone to.
    fn entry(&self) -> Result<Entry<'_>, BoltError> {
        let page = self.stack.last().expect("it is at an element of a leaf");
        let (flags, key, value) = page.pair(page.next - 1)?;
        if flags & IS_BUCKET == 0 {
            return Ok(Entry { key, value: Some(value), bucket: None });
        }
        if value.len() < BUCKET {
            return invalid(page.id, format!("the bucket of element {} is too short", page.next - 1));
        }
        let place = match u64_at(value, 0) {
            0 => Place::Inline(page.id, value[BUCKET..].to_vec()),
            root => Place::Tree(root),
        };
        Ok(Entry { key, value: None, bucket: Some(Bucket(place)) })
    }
}
