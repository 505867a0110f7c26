//! Records what a process changes in one folder and has not synced, so that a loss of power can be staged after it was
//! killed. The dynamic linker of glibc loads this library into a program that knows nothing of it (`LD_PRELOAD`), and the
//! program then finds these functions where it looks for those of libc.
//!
//! | variable | meaning |
//! |---|---|
//! | `BOWLINE_POWER_FOLDER` | the folder to record; without it, nothing is done |
//! | `BOWLINE_POWER_RECORD` | the folder of the record, which must not be inside of the other one |
//! | `BOWLINE_POWER_LIES` | if it is `1`, every sync says that it succeeded, and makes nothing durable |
//!
//! A change is noted before it is done, under one lock for both, so the record has the order of the changes. A sync runs
//! without the lock; when it has succeeded, the notes go that were there when it began. Calls on anything else pass through:
//! one look at a table by the number of the file descriptor.
//!
//! What can't be recorded is refused, with an error from which careful programs go on with plain writes: copies inside of
//! the system, writable mappings of files, links, changes of names across folders. What is not seen: system calls that do
//! not go through a function of libc, and C's buffered files (`fopen`). A member makes no such call on its files: what
//! it uses of `rustix` there only asks for free space, or reserves some in a file without a name.
//!
//! If the record can't be written, the process ends, and says why.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

mod calls;
mod descriptors;
mod real;
mod recorder;
