//! Reads the lines of the shell and of transactions. Quotes are parsed before line breaks: text in quotes may contain
//! line breaks, and no part of it is ever taken for a line.

use std::ffi::OsString;
use std::io::{BufRead, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, bail};

use super::words::{self, Within};
use crate::out::{self, remark};

/// Longest line in bytes, including line breaks in quotes. A server does not accept as much.
const MAX_LINE: usize = 16 << 20;

/// What is read next, for the prompt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    /// A command.
    Command,
    /// A line of a part of a transaction; the first line of a part has a title.
    Part(&'a str),
    /// The rest of a line with an open quote.
    Rest,
}

/// A source of lines.
pub(super) trait Source {
    /// Whether errors name the numbers of its lines.
    const NUMBERED: bool;

    /// One or more lines, with their line breaks (the very last one may have none); `None` at the end.
    fn read(&mut self, wanted: Wanted<'_>) -> anyhow::Result<Option<Vec<u8>>>;
}

/// A line, without its final line break.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    number: Option<u64>,
}

impl Line {
    /// A line that was given on the command line.
    pub(super) fn of(text: &OsString) -> Line {
        Line { text: text.as_bytes().to_vec(), number: None }
    }

    /// Adds the line's number to an error, if lines have numbers.
    pub(super) fn locate<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        match self.number {
            Some(number) => result.with_context(|| format!("line {number}")),
            None => result,
        }
    }
}

/// Lines from a source.
pub(super) struct Lines<S> {
    pub(super) source: S,
    /// Bytes that were read but not used yet.
    rest: Vec<u8>,
    /// The number of the next line, from 1.
    number: u64,
    /// Whether the end was reached.
    ended: bool,
    /// Whether the next bytes are in the middle of a line that was too long.
    lost: bool,
}

impl<S: Source> Lines<S> {
    pub(super) fn of(source: S) -> Lines<S> {
        Lines { source, rest: Vec::new(), number: 1, ended: false, lost: false }
    }

    /// The next line that is not a comment; `None` at the end, and after a line that was too long.
    ///
    /// # Errors
    /// It can't be read, is longer than 16 MiB, or ends within quotes.
    pub(super) fn next(&mut self, wanted: Wanted<'_>) -> anyhow::Result<Option<Line>> {
        loop {
            match self.any(wanted)? {
                Some(line) if line.text.trim_ascii_start().starts_with(b"#") => {}
                line => return Ok(line),
            }
        }
    }

    /// Whether the end was reached after the last line.
    pub(super) fn have_ended(&self) -> bool {
        self.ended
    }

    fn any(&mut self, wanted: Wanted<'_>) -> anyhow::Result<Option<Line>> {
        let (mut at, mut scan) = (0, Scan::default());
        loop {
            while let Some(byte) = self.rest.get(at) {
                at += 1;
                if scan.ends_with(*byte) {
                    return Ok(Some(self.take(at)));
                }
            }
            if self.lost {
                return Ok(None);
            }
            if at > MAX_LINE {
                self.lost = true;
                self.rest.clear();
                bail!("line {} is longer than {MAX_LINE} bytes; is a quote open?", self.number);
            }
            match self.source.read(if at == 0 { wanted } else { Wanted::Rest }) {
                Ok(Some(more)) => {
                    self.ended = false;
                    self.rest.extend(more);
                }
                Ok(None) => {
                    self.ended = true;
                    return self.at_the_end(at, &scan);
                }
                Err(error) => {
                    self.rest.clear();
                    return Err(error);
                }
            }
        }
    }

    fn at_the_end(&mut self, at: usize, scan: &Scan) -> anyhow::Result<Option<Line>> {
        if at == 0 {
            return Ok(None);
        }
        let line = self.take(at);
        if scan.within == Within::Nothing {
            return Ok(Some(line));
        }
        let open = anyhow::anyhow!("unclosed quote: {}", words::shortened(&line.text));
        line.locate(Err(open))
    }

    fn take(&mut self, length: usize) -> Line {
        let mut text: Vec<u8> = self.rest.drain(..length).collect();
        let number = S::NUMBERED.then_some(self.number);
        self.number += text.iter().filter(|byte| **byte == b'\n').count() as u64;
        text.pop_if(|byte| *byte == b'\n');
        Line { text, number }
    }
}

/// The state of parsing a line.
#[derive(Default)]
struct Scan {
    within: Within,
    /// Whether anything but whitespace was read.
    begun: bool,
    /// Whether the line is a comment, in which quotes mean nothing.
    remark: bool,
}

impl Scan {
    /// Whether the line ends with this byte.
    fn ends_with(&mut self, byte: u8) -> bool {
        if byte == b'\n' && (self.remark || self.within == Within::Nothing) {
            return true;
        }
        self.remark |= byte == b'#' && !self.begun;
        self.begun |= !byte.is_ascii_whitespace();
        if !self.remark {
            self.within = self.within.after(byte);
        }
        false
    }
}

/// Standard input.
pub(super) struct Stdin {
    /// Whether to print prompts to standard error.
    pub(super) prompts: bool,
}

impl Stdin {
    /// Prints prompts if `interactive`, or on a terminal.
    pub(super) fn new(interactive: bool) -> Stdin {
        Stdin { prompts: interactive || std::io::stdin().is_terminal() }
    }
}

impl Source for Stdin {
    const NUMBERED: bool = true;

    fn read(&mut self, wanted: Wanted<'_>) -> anyhow::Result<Option<Vec<u8>>> {
        match wanted {
            Wanted::Part(title) if self.prompts && !title.is_empty() => remark!("{title}"),
            Wanted::Rest if self.prompts => out::whisper(CONTINUED),
            _ => {}
        }
        let mut line = Vec::new();
        let most = MAX_LINE as u64 + 1;
        let read =
            std::io::stdin().lock().take(most).read_until(b'\n', &mut line).context("can't read standard input")?;
        Ok((read > 0).then_some(line))
    }
}

/// The prompt for the rest of a line.
pub(super) const CONTINUED: &str = "... ";

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one portion per read.
    struct Portions(Vec<&'static [u8]>);

    impl Source for Portions {
        const NUMBERED: bool = true;

        fn read(&mut self, _: Wanted<'_>) -> anyhow::Result<Option<Vec<u8>>> {
            Ok((!self.0.is_empty()).then(|| self.0.remove(0).to_vec()))
        }
    }

    /// A line's number and its text, or what is wrong.
    type Read = Result<(Option<u64>, Vec<u8>), String>;

    fn all(portions: &[&'static [u8]]) -> Vec<Read> {
        let mut lines = Lines::of(Portions(portions.to_vec()));
        let next = || match lines.next(Wanted::Command) {
            Ok(line) => line.map(|line| Ok((line.number, line.text))),
            Err(error) => Some(Err(format!("{error:#}"))),
        };
        std::iter::from_fn(next).take(20).collect()
    }

    #[test]
    fn quotes_are_understood_before_lines_are() {
        let line = |number, text: &[u8]| Ok((Some(number), text.to_vec()));
        assert_eq!(all(&[]), []);
        assert_eq!(all(&[b"a\n\nb"]), [line(1, b"a"), line(2, b""), line(3, b"b")]);
        assert_eq!(all(&[b"a 'b\n", b"c\n", b"' d\n", b"e\n"]), [line(1, b"a 'b\nc\n' d"), line(4, b"e")]);
        assert_eq!(
            all(&[b"\"a\\\"\n\" b\nc \"\\\\\"\nd\n"]),
            [line(1, b"\"a\\\"\n\" b"), line(3, b"c \"\\\\\""), line(4, b"d")]
        );
        assert_eq!(all(&[b"# it's\n  # \"\na # it's\n", b"'\n"]), [line(3, b"a # it's\n'")]);
        assert_eq!(all(&[b"a\r\nb\xff\r\n"]), [line(1, b"a\r"), line(2, b"b\xff\r")]);
        let open = Err("line 2: unclosed quote: \"b \\\"c\\nd\"".to_owned());
        assert_eq!(all(&[b"a\n", b"b \"c\n", b"d\n"]), [line(1, b"a"), open]);
    }

    #[test]
    fn nothing_is_read_of_a_line_that_is_too_long() {
        let long: &'static [u8] = vec![b'x'; MAX_LINE + 1].leak();
        let read = all(&[b"a\n", long, b"\ndel k\n"]);
        let error = format!("line 2 is longer than {MAX_LINE} bytes; is a quote open?");
        assert_eq!(read, [Ok((Some(1), b"a".to_vec())), Err(error)]);
    }
}
