//! Tab completion of commands, their flags, and keys, users and roles of the server.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bowline_api::etcdserverpb::RangeRequest;
use bowline_kv::store::prefix_end;
use bytes::Bytes;
use rustyline::Context;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;

use super::shell::{self, Session};
use super::{notation, words};

/// Maximum number of keys that are offered.
const MAX_KEYS: i64 = 100;

/// Time limit of the server's answer, because the user waits for it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Names that the server knows.
#[derive(Clone, Copy, Debug)]
enum Names {
    Users,
    Roles,
}

/// Completes lines of the shell.
pub(super) struct Helper {
    session: Rc<RefCell<Session>>,
}

impl Helper {
    pub(super) fn new(session: Rc<RefCell<Session>>) -> Helper {
        Helper { session }
    }

    /// Keys that begin with `start`, as one member has them; none if it does not answer in time.
    fn keys(&self, start: &[u8]) -> Vec<Bytes> {
        let Ok(mut session) = self.session.try_borrow_mut() else { return Vec::new() };
        let Session { runtime, client, .. } = &mut *session;
        let (key, range_end) = match start {
            b"" => (Bytes::from_static(&[0]), Bytes::from_static(&[0])),
            start => (Bytes::copy_from_slice(start), prefix_end(start)),
        };
        let request = RangeRequest {
            key,
            range_end,
            limit: MAX_KEYS,
            keys_only: true,
            serializable: true,
            ..RangeRequest::default()
        };
        let found = runtime.block_on(async { tokio::time::timeout(PATIENCE, client.range(request)).await });
        let Ok(Ok(found)) = found else { return Vec::new() };
        found.kvs.into_iter().map(|kv| kv.key).collect()
    }

    /// The same in hexadecimal; the last digit typed may be half a byte.
    fn keys_in_hex(&self, typed: &[u8]) -> Vec<String> {
        let Ok(start) = notation::from_hex(&typed[..typed.len() / 2 * 2]) else { return Vec::new() };
        self.keys(&start).iter().map(|key| notation::to_hex(key)).collect()
    }

    /// The users, or the roles; none if the server does not answer in time, or does not tell them to this user.
    fn names(&self, what: Names) -> Vec<String> {
        let Ok(mut session) = self.session.try_borrow_mut() else { return Vec::new() };
        let Session { runtime, client, .. } = &mut *session;
        let found = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, async {
                match what {
                    Names::Users => client.user_list().await,
                    Names::Roles => client.role_list().await,
                }
            })
            .await
        });
        let names = found.ok().and_then(Result::ok).unwrap_or_default();
        names.iter().map(|name| words::as_word(name.as_bytes())).collect()
    }

    /// The words that may follow `words`, in the commands for users and roles.
    fn of_users_and_roles(&self, words: &[&str]) -> Vec<String> {
        match words {
            ["user", "get" | "delete" | "passwd" | "grant-role" | "revoke-role"] => self.names(Names::Users),
            ["user", "grant-role" | "revoke-role", _] => self.names(Names::Roles),
            ["role", "get" | "delete" | "grant-permission" | "revoke-permission"] => self.names(Names::Roles),
            ["role", "grant-permission", _] => ["read", "write", "readwrite"].map(str::to_owned).to_vec(),
            _ => Vec::new(),
        }
    }

    /// Where the word being typed begins, and its possible completions.
    fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let (start, word) = words::last(line.as_bytes());
        let all: Vec<&str> = line[..start].split_whitespace().collect();
        let mut before = all.iter().copied();
        let starting =
            |names: Vec<String>| names.into_iter().filter(|name| name.as_bytes().starts_with(&word)).collect();
        let candidates = match before.next() {
            None => starting(shell::commands()),
            Some("help") => starting(shell::commands()),
            Some("mode") => starting(["plain", "table", "json", "raw"].map(str::to_owned).to_vec()),
            Some(command) if word.starts_with(b"-") => starting(shell::flags(command, before.next())),
            Some("get" | "put" | "del" | "watch") if before.any(|word| word == "--hex") => {
                starting(self.keys_in_hex(&word))
            }
            Some("get" | "put" | "del" | "watch") => self.keys(&word).iter().map(|key| words::as_word(key)).collect(),
            Some("role") if matches!(all[1..], ["grant-permission", _, _] | ["revoke-permission", _]) => {
                self.keys(&word).iter().map(|key| words::as_word(key)).collect()
            }
            Some(group) if all.len() == 1 => starting(shell::subcommands(group)),
            Some(_) => starting(self.of_users_and_roles(&all)),
        };
        (start, candidates)
    }
}

impl Completer for Helper {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, candidates) = self.candidates(&line[..at]);
        Ok((start, candidates.into_iter().map(|text| Pair { display: text.clone(), replacement: text }).collect()))
    }
}

impl Hinter for Helper {
    type Hint = String;
}

impl Highlighter for Helper {}

impl Validator for Helper {}

impl rustyline::Helper for Helper {}
