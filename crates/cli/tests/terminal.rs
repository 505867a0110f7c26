//! The shell on a terminal, as somebody types.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use support::Member;

/// How long the terminal may take to show something.
const PATIENCE: Duration = Duration::from_secs(30);

/// A shell, and the other end of its terminal.
struct Terminal {
    shell: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown and not waited for yet.
    shown: String,
}

impl Terminal {
    fn open(member: &Member) -> Terminal {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&keyboard).and_then(|()| unlockpt(&keyboard)).expect("it may be used");
        let name = ptsname(&keyboard, Vec::new()).expect("it has a name");
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let side = || File::options().read(true).write(true).open(path).expect("it can be opened");
        let mut command = member.command(&["shell"]);
        command.env("TERM", "xterm").env("BOWLINE_HISTORY", "/dev/null");
        let shell = command.stdin(side()).stdout(side()).stderr(side()).spawn().expect("it starts");
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
        let mut terminal = Terminal { shell, keyboard, screen, shown: String::new() };
        terminal.wait_for("bowline> ");
        terminal
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("somebody reads");
    }

    /// Waits until this is shown, and forgets what was shown before it.
    fn wait_for(&mut self, text: &str) {
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

    fn ends(mut self) {
        let until = Instant::now() + PATIENCE;
        while self.shell.try_wait().expect("it can be waited for").is_none() {
            assert!(Instant::now() < until, "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended needs none.
        let _ = self.shell.kill().and_then(|()| self.shell.wait().map(drop));
    }
}

#[test]
fn an_open_quote_goes_on_in_the_next_line() {
    let member = &Member::start();
    member.ask(&["put", "typed/victim", "alive"]);
    let mut terminal = Terminal::open(member);
    terminal.types("put typed/note \"first\r");
    terminal.wait_for("... ");
    terminal.types("del typed/victim\r");
    terminal.wait_for("... ");
    terminal.types("last\"\r");
    terminal.wait_for("OK  revision ");
    terminal.wait_for("bowline> ");
    // Ctrl-C gives up what was typed, and Ctrl-D within quotes ends the shell; neither does any of it.
    terminal.types("put typed/none 'first\r");
    terminal.wait_for("... ");
    terminal.types("\u{3}");
    terminal.wait_for("bowline> ");
    terminal.types("get typed/victim\r");
    terminal.wait_for("alive");
    terminal.wait_for("bowline> ");
    terminal.types("put typed/none 'first\r");
    terminal.wait_for("... ");
    terminal.types("\u{4}");
    terminal.wait_for("unclosed quote");
    terminal.ends();
    member.says(&["get", "typed/note"], "first\ndel typed/victim\nlast\n");
    member.says(&["get", "typed/", "--prefix", "--keys-only"], "typed/note\ntyped/victim\n");
}

#[test]
fn tab_completes_keys_that_are_no_text() {
    let member = &Member::start();
    member.ask_with(&["put", "--hex", &hex(b"tab/\xff\x01 odd")], b"found");
    let mut terminal = Terminal::open(member);
    terminal.types("get \"tab/\t");
    terminal.wait_for(r#""tab/\xff\x01 odd""#);
    terminal.types("\r");
    terminal.wait_for("found");
    terminal.wait_for("bowline> ");
    terminal.types("get \"tab/\\xf\t");
    terminal.wait_for(r#""tab/\xff\x01 odd""#);
    terminal.types("\r");
    terminal.wait_for("found");
    terminal.wait_for("bowline> ");
    terminal.types("get --hex 7461622ff\t");
    terminal.wait_for("7461622fff01206f6464");
    terminal.types("\r");
    terminal.wait_for("666f756e64");
    terminal.wait_for("bowline> ");
    // A terminal gets no bytes that would confuse it, and what it shows is unambiguous.
    terminal.types("get tab/ --prefix --keys-only\r");
    terminal.wait_for(r#""tab/\xff\x01 odd""#);
    terminal.wait_for("bowline> ");
    terminal.types("exit\r");
    terminal.ends();
}

#[test]
fn ctrl_c_ends_a_watch_but_not_the_shell() {
    let member = &Member::start();
    member.ask(&["put", "watched/k", "first"]);
    let mut terminal = Terminal::open(member);
    terminal.types("wat\t");
    terminal.wait_for("watch");
    terminal.types(" watched/\t");
    terminal.wait_for("watched/k");
    terminal.types(" --rev 2\r");
    terminal.wait_for("PUT");
    terminal.wait_for("first");
    member.ask(&["put", "watched/k", "second"]);
    terminal.wait_for("second");
    // The terminal would send it, if the shell were its foreground job.
    kill_process(Pid::from_child(&terminal.shell), Signal::INT).expect("it runs");
    terminal.wait_for("bowline> ");
    terminal.types("get watched/k\r");
    terminal.wait_for("second");
    terminal.wait_for("bowline> ");
    terminal.types("exit\r");
    terminal.ends();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
