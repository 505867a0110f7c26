//! Reads and writes bbolt files, the format of etcd's database and of its snapshots.
//!
//! A [`Writer`] builds a file from sorted input, and a [`Bolt`] reads any valid file. Both need memory for a page of each
//! level of a tree, and for the biggest value, but never for the whole file. Neither has a clock, a thread or a random
//! source. The same input gives the same file, byte for byte.
//!
//! ```
//! use std::io::Cursor;
//! use bowline_bolt::{Bolt, Writer};
//!
//! let mut writer = Writer::new(Cursor::new(Vec::new()), 4096)?;
//! writer.bucket(b"colours")?;
//! writer.put(b"lime", b"green")?;
//! let file = writer.finish()?.into_inner();
//!
//! let bolt = Bolt::open(file)?;
//! let colours = bolt.bucket(b"colours")?.expect("it was written");
//! let mut cursor = bolt.cursor(&colours);
//! let entry = cursor.next()?.expect("it was written");
//! assert_eq!((entry.key, entry.value), (&b"lime"[..], Some(&b"green"[..])));
//! assert!(cursor.next()?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The format
//!
//! A file consists of pages of one size, numbered from 0. All numbers are little-endian. A page begins with 16 bytes: its
//! own number (8 bytes), what it is (2), how many elements it has (2), and how many of the following pages belong to it
//! (4). So a page that is too small for its content continues in the pages after it, which have no beginning of their own.
//!
//! Pages 0 and 1 are copies of the meta page, which are written in turn. Each holds the page size, the root of the tree of
//! buckets, the number of pages, a transaction number and a checksum (FNV-1a, 64 bits). The valid copy with the higher
//! transaction number counts. Other pages have no checksum.
//!
//! All other pages are the free list, or belong to B+ trees. An element of a leaf has flags, a key and a value; an element
//! of a branch has the first key of a page below it, and the number of that page. The value of a bucket is the root of its
//! tree and a counter. If that root is 0, the bucket is *inline*: its only page follows in the value.

mod fuzz;
mod page;
mod read;
mod write;

pub use fuzz::{fuzz_read, fuzz_seeds};
pub use read::{Bolt, BoltError, Bucket, Cursor, Entry, MAX_DEPTH, MAX_RUN_BYTES, Source};
pub use write::{MAX_KEY_BYTES, MAX_PAGE_BYTES, MIN_PAGE_BYTES, Writer};
