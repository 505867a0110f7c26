//! A terminal for a program, as somebody uses it.

// Not every test uses all of it.
#![allow(dead_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// How long the terminal may take to show something.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program, and the other end of its terminal, which has 80 columns and 24 rows.
pub(crate) struct Terminal {
    program: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown and not waited for yet.
    shown: String,
}

impl Terminal {
    /// Starts a program on a terminal of its own.
    pub(crate) fn open(command: &mut Command) -> Terminal {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("it may be used");
        let name = ptsname(&keyboard, Vec::new()).expect("it has a name");
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let side = || File::options().read(true).write(true).open(path).expect("it can be opened");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&keyboard, size).expect("it has a size");
        command.env("TERM", "xterm");
        let program = command.stdin(side()).stdout(side()).stderr(side()).spawn().expect("it starts");
        let keyboard = File::from(keyboard);
        let mut reader = keyboard.try_clone().expect("a second one");
        let (show, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if show.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { program, keyboard, screen, shown: String::new() }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("somebody reads");
    }

    /// Waits until this is shown, and forgets what was shown before it.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            let more = self.screen.recv_timeout(left).unwrap_or_else(|_| panic!("{text:?} is not in {:?}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&more));
        }
    }

    /// Whether this is shown by now. If so, it forgets what was shown up to it.
    pub(crate) fn shows(&mut self, text: &str) -> bool {
        let more = self.screen.try_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        self.shown.extend(more);
        let found = self.shown.find(text);
        if let Some(at) = found {
            self.shown.drain(..at + text.len());
        }
        found.is_some()
    }

    /// Sends a signal, which the terminal itself would send to its foreground job.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.program), signal).expect("it runs");
    }

    /// Waits until the program ends. Returns its exit code.
    pub(crate) fn ends(mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.program.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(Instant::now() < until, "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended needs none.
        let _ = self.program.kill().and_then(|()| self.program.wait().map(drop));
    }
}
