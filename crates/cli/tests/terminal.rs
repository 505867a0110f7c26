//! The shell on a terminal, as somebody types.

mod support;

use rustix::process::Signal;
use support::Member;
use support::terminal::Terminal;

/// A shell that waits for a command.
fn shell(member: &Member) -> Terminal {
    let mut terminal = Terminal::open(member.command(&["shell"]).env("BOWLINE_HISTORY", "/dev/null"));
    terminal.wait_for("bowline> ");
    terminal
}

#[test]
fn an_open_quote_goes_on_in_the_next_line() {
    let member = &Member::start();
    member.ask(&["put", "typed/victim", "alive"]);
    let mut terminal = shell(member);
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
    assert_eq!(terminal.ends(), Some(2));
    member.says(&["get", "typed/note"], "first\ndel typed/victim\nlast\n");
    member.says(&["get", "typed/", "--prefix", "--keys-only"], "typed/note\ntyped/victim\n");
}

#[test]
fn tab_completes_keys_that_are_no_text() {
    let member = &Member::start();
    member.ask_with(&["put", "--hex", &hex(b"tab/\xff\x01 odd")], b"found");
    let mut terminal = shell(member);
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
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn ctrl_c_ends_a_watch_but_not_the_shell() {
    let member = &Member::start();
    member.ask(&["put", "watched/k", "first"]);
    let mut terminal = shell(member);
    terminal.types("wat\t");
    terminal.wait_for("watch");
    terminal.types(" watched/\t");
    terminal.wait_for("watched/k");
    terminal.types(" --rev 2\r");
    terminal.wait_for("PUT");
    terminal.wait_for("first");
    member.ask(&["put", "watched/k", "second"]);
    terminal.wait_for("second");
    terminal.signal(Signal::INT);
    terminal.wait_for("bowline> ");
    terminal.types("get watched/k\r");
    terminal.wait_for("second");
    terminal.wait_for("bowline> ");
    terminal.types("exit\r");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn ctrl_c_releases_a_lock_but_does_not_end_the_shell() {
    let member = &Member::start();
    let mut terminal = shell(member);
    for (command, shown) in [("loc\t l\r", "l/"), ("elect e v\r", "e/")] {
        terminal.types(command);
        terminal.wait_for(shown);
        terminal.wait_for("\n");
        terminal.signal(Signal::INT);
        terminal.wait_for("bowline> ");
        member.says(&["get", "", "--prefix", "--count-only"], "0\n");
    }
    member.ask(&["put", "e/1", "leads"]);
    terminal.types("elect e --lis\t\r");
    terminal.wait_for("leads");
    terminal.signal(Signal::INT);
    terminal.wait_for("bowline> ");
    terminal.types("exit\r");
    assert_eq!(terminal.ends(), Some(0));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
