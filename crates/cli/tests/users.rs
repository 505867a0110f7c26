//! Users and roles on the command line. `BOWLINE_CHECKLIST_ETCD=1` runs the same tests at a real etcd, the one that is
//! called `etcd`.

#[path = "support/servers.rs"]
mod servers;
mod support;

use std::process::Command;

use serde_json::{Value, json};
use servers::{Place, Server, is_installed};
use support::terminal::Terminal;
use support::{Running, Said, run};

/// A cluster of one.
struct Site {
    server: Server,
    place: Place,
    is_etcd: bool,
}

impl Site {
    fn start() -> Site {
        let (place, is_etcd) = (Place::new(), std::env::var_os("BOWLINE_CHECKLIST_ETCD").is_some());
        let cluster = place.cluster(&["a"], 1);
        assert!(!is_etcd || is_installed("etcd"), "there is no etcd");
        let server = match is_etcd {
            true => place.start_etcd("a", "a", &cluster, 0),
            false => place.start("a", "a", &cluster, 0),
        };
        Site { server, place, is_etcd }
    }

    /// A cluster whose users are enabled: root, and alice, who may read and write what begins with `app/`. The password of
    /// each is in the file of the same name.
    fn locked() -> Site {
        let site = Site::start();
        for name in ["root", "alice"] {
            let file = site.file(name, &format!("{name}'s password\n"));
            site.does(&["user", "add", name, "--new-password-file", &file]);
        }
        site.does(&["user", "grant-role", "root", "root"]);
        site.does(&["role", "add", "app"]);
        site.does(&["role", "grant-permission", "app", "readwrite", "app/", "--prefix"]);
        site.does(&["user", "grant-role", "alice", "app"]);
        site.does(&["auth", "enable"]);
        site
    }

    /// Writes a file, and returns its path.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.place.path(name);
        std::fs::write(&path, text).expect("it can be written");
        path.display().to_string()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(words).env("BOWLINE_ENDPOINTS", &self.server.endpoint).env("BOWLINE_HISTORY", "/dev/null");
        command
    }

    fn ask_with(&self, words: &[&str], input: &str) -> Said {
        run(&mut self.command(words), input.as_bytes())
    }

    #[track_caller]
    fn does(&self, words: &[&str]) -> String {
        let said = self.ask_with(words, "");
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
        said.text().to_owned()
    }

    /// The same as a user of [`Site::locked`].
    fn ask_as(&self, user: &str, words: &[&str]) -> Said {
        let password = format!("{user}'s password");
        run(self.command(words).env("BOWLINE_USER", user).env("BOWLINE_PASSWORD", password), b"")
    }

    #[track_caller]
    fn does_as(&self, user: &str, words: &[&str]) -> String {
        let said = self.ask_as(user, words);
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
        said.text().to_owned()
    }

    #[track_caller]
    fn refuses(&self, said: &Said, code: i32, texts: &[&str]) {
        assert_eq!((said.code, said.text()), (Some(code), ""), "{said:?}");
        assert!(texts.iter().all(|text| said.err.contains(text)), "{texts:?}: {said:?}");
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.does(&[words, &["--json"]].concat())).expect("it is JSON")
    }
}

#[test]
fn users_and_roles_are_made_shown_and_deleted() {
    let site = Site::start();
    let enable = || site.ask_with(&["auth", "enable"], "");
    site.refuses(&enable(), 1, &["root user does not exist", "`bowline user add root`", "grant-role root root"]);
    assert_eq!(
        site.ask_with(&["user", "add", "root", "--interactive=false"], "secret\n").text(),
        "User root created\n"
    );
    site.refuses(&enable(), 1, &["root user does not have root role", "`bowline user grant-role root root`"]);
    assert_eq!(site.does(&["user", "grant-role", "root", "root"]), "Role root is granted to user root\n");
    assert_eq!(site.json(&["user", "add", "cert", "--no-password"]), json!({ "user": "cert", "change": "created" }));
    assert_eq!(site.does(&["user", "add", "bob:secret"]), "User bob created\n");
    assert_eq!(site.does(&["user", "list"]), "bob\ncert\nroot\n");
    assert_eq!(site.json(&["user", "list"]), json!({ "users": ["bob", "cert", "root"] }));
    site.refuses(&site.ask_with(&["user", "get", "nobody"], ""), 1, &["user name not found"]);

    assert_eq!(site.does(&["role", "add", "app"]), "Role app created\n");
    assert_eq!(site.does(&["role", "get", "app"]), "Role app has no permissions\n");
    for (access, keys) in [
        ("readwrite", &["app/", "--prefix"][..]),
        ("read", &["a", "c"]),
        ("write", &["k"]),
        ("read", &["z", "--from-key"]),
        ("read", &["", "--prefix"]),
    ] {
        let grant = [&["role", "grant-permission", "app", access], keys].concat();
        assert_eq!(site.does(&grant), "Role app updated\n");
    }
    let shown = "Role app\nACCESS     KEYS\nread       all keys\nread       range [a, c)\nreadwrite  prefix app/\n\
                 write      key k\nread       keys from z on\n";
    assert_eq!(site.does(&["role", "get", "app"]), shown);
    let app = json!({ "permType": "READWRITE", "key": "app/", "range_end": "app0", "keys": "prefix" });
    assert_eq!(site.json(&["role", "get", "app"])["perm"][2], app);
    assert_eq!(site.json(&["role", "get", "app", "--hex"])["perm"][2]["range_end"], "61707030");
    let revoked = site.does(&["role", "revoke-permission", "app", "a", "c"]);
    assert_eq!(revoked, "Permission of range [a, c) is revoked from role app\n");
    let again = site.ask_with(&["role", "revoke-permission", "app", "a", "c"], "");
    site.refuses(&again, 1, &["permission is not granted to the role"]);
    let empty = site.ask_with(&["role", "grant-permission", "app", "read", "c", "b"], "");
    site.refuses(&empty, 2, &["RANGE_END is \"b\", which is not after KEY, \"c\""]);

    site.does(&["user", "grant-role", "bob", "app"]);
    assert_eq!(site.does(&["user", "get", "bob"]), "User: bob\nRoles: app\n");
    assert_eq!(site.json(&["user", "get", "bob"])["roles"], json!(["app"]));
    assert!(site.does(&["user", "get", "bob", "--detail"]).contains("\nreadwrite  prefix app/\n"));
    assert_eq!(site.does(&["user", "revoke-role", "bob", "app"]), "Role app is revoked from user bob\n");
    assert_eq!(site.does(&["role", "delete", "app"]), "Role app deleted\n");
    assert_eq!(site.does(&["role", "list"]), "");
    assert_eq!(site.does(&["user", "delete", "bob"]), "User bob deleted\n");

    let status = site.ask_with(&["auth", "status", "--json"], "");
    if site.is_etcd {
        assert!(status.code == Some(0) || status.err.contains("is it an older version?"), "{status:?}");
    } else {
        let status: Value = serde_json::from_slice(&status.out).expect("it is JSON");
        assert!(status["enabled"] == false && status["authRevision"].as_u64() > Some(1), "{status}");
    }
    assert_eq!(enable().text(), "Authentication Enabled\n");
    let root = ["auth", "disable", "--user", "root:secret"];
    assert_eq!(site.does(&root), "Authentication Disabled\n");
}

#[test]
fn every_command_logs_in() {
    let site = Site::locked();
    let nobody = site.ask_with(&["get", "app/1"], "");
    site.refuses(&nobody, 2, &["user name is empty", "--user NAME, or BOWLINE_USER with BOWLINE_PASSWORD"]);
    site.does_as("alice", &["put", "app/1", "one"]);
    let denied = site.ask_as("alice", &["get", "", "--prefix"]);
    site.refuses(&denied, 1, &["to the user alice: permission denied", "`bowline user get NAME --detail`"]);
    let wrong = site.ask_with(&["get", "app/1", "--user", "alice:wrong"], "");
    site.refuses(&wrong, 2, &["does not let the user alice in", "--password-file"]);

    // Where the user and the password come from.
    let get = |variables: &[(&str, &str)], more: &[&str], input: &str| {
        let words = [&["get", "app/1"], more].concat();
        run(site.command(&words).envs(variables.iter().copied()), input.as_bytes())
    };
    let (password, file) = ("alice's password", site.place.path("alice").display().to_string());
    let both = format!("alice:{password}");
    for (variables, more, input) in [
        (&[("BOWLINE_USER", "alice"), ("BOWLINE_PASSWORD", password)][..], &[][..], ""),
        (&[("ETCDCTL_USER", "alice"), ("ETCDCTL_PASSWORD", password)], &[], ""),
        (&[("ETCDCTL_USER", &both)], &[], ""),
        (&[("BOWLINE_USER", "alice"), ("BOWLINE_PASSWORD", "wrong")], &["--password-file", &file], ""),
        (&[("BOWLINE_USER", "root"), ("BOWLINE_PASSWORD", password)], &["--user", "alice"], ""),
        (&[("BOWLINE_PASSWORD", "wrong")], &["--user", &both], ""),
        (&[], &["--user", "alice", "--password-file", "-"], "alice's password\nmore"),
    ] {
        let said = get(variables, more, input);
        assert_eq!((said.code, said.text()), (Some(0), "one\n"), "{variables:?} {more:?}: {said:?}");
    }
    for (more, text) in [
        (&["--user", "alice"][..], "the password of alice is missing: give --password-file FILE"),
        (&["--user", ":x"], "the name of the user is empty"),
        (&["--user", "alice:x", "--password-file", &file], "the password of alice is given twice"),
        (&["--password-file", &file], "--password-file is given without a user"),
        (&["--user", "alice", "--password-file", "/nowhere"], "--password-file is /nowhere"),
    ] {
        site.refuses(&get(&[], more, ""), 2, &[text]);
    }

    // Commands of each kind.
    let root = |words: &[&str]| site.does_as("root", words);
    assert!(root(&["lease", "grant", "60"]).contains("granted with TTL"));
    assert!(root(&["status"]).contains("leader") && root(&["member", "list"]).contains("leader"));
    assert!(root(&["top", "--once", "--json", "--interval", "100ms"]).contains("\"leader\""));
    assert!(root(&["hashkv", "--json"]).contains("hash"));
    assert!(root(&["txn", "--if", "version(app/1) = 1", "--then", "get app/1"]).contains("one"));
    root(&["bench", "put", "--requests", "20", "--warmup", "0s", "--keys", "10", "--json"]);
    root(&["snapshot", "save", &site.place.path("backup.db").display().to_string()]);
    assert_eq!(root(&["lock", "job", "--", "echo", "held"]), "held\n");
    let alice = ["--user", "alice", "--password-file", &file];
    let mut watch = Running::start(&mut site.command(&[&["watch", "app/", "--prefix"], &alice[..]].concat()));
    watch.waits_for("it watches", |out, _| {
        site.does_as("alice", &["put", "app/2", "two"]);
        out.contains("app/2")
    });
    watch.signal(rustix::process::Signal::INT);
    watch.wait();
}

#[test]
fn the_shell_manages_users() {
    let site = Site::locked();
    let lines = "role add more\nuser grant-role alice more\nuser get alice\nuser passwd root --new-password-file -\nnew\n\
                 user list\nauth disable\nmode json\nrole list\n";
    let file = site.place.path("root").display().to_string();
    let said = site.ask_with(&["shell", "--user", "root", "--password-file", &file], lines);
    let expected = "Role more created\nRole more is granted to user alice\nUser: alice\nRoles: app more\n\
                    Password updated\nalice\nroot\nAuthentication Disabled\n{\"roles\":[\"app\",\"more\"]}\n";
    assert_eq!((said.code, said.text()), (Some(0), expected), "{said:?}");
}

#[test]
fn a_terminal_asks_for_passwords_and_does_not_show_them() {
    let site = Site::locked();
    let mut terminal = Terminal::open(&mut site.command(&["user", "add", "carol", "--user", "root"]));
    terminal.wait_for("password of root: ");
    terminal.types("root's passwörX\u{7f}\u{7f}\u{7f}ord\r");
    terminal.wait_for("new password of carol: ");
    terminal.types("wrong\u{15}first\r");
    terminal.wait_for("again, the new password of carol: ");
    terminal.types("second\r");
    terminal.wait_for("the two passwords differ");
    assert!(!terminal.shows("first") && !terminal.shows("second"));
    assert_eq!(terminal.ends(), Some(1));

    let mut terminal =
        Terminal::open(&mut site.command(&["user", "passwd", "alice", "--user", "root:root's password"]));
    terminal.wait_for("new password of alice: ");
    terminal.types("new\r");
    terminal.wait_for("again, the new password of alice: ");
    terminal.types("new\r");
    terminal.wait_for("Password updated");
    assert_eq!(terminal.ends(), Some(0));
    site.does(&["put", "app/1", "v", "--user", "alice:new"]);

    let mut terminal = Terminal::open(&mut site.command(&["get", "app/1", "--user", "alice"]));
    terminal.wait_for("password of alice: ");
    terminal.types("ne\u{3}");
    terminal.wait_for("no password was given");
    assert_eq!(terminal.ends(), Some(1));
}

#[test]
fn tab_completes_users_and_roles() {
    let site = Site::locked();
    let mut terminal = Terminal::open(&mut site.command(&["shell", "--user", "root:root's password"]));
    terminal.wait_for("bowline> ");
    for (typed, completed) in [
        ("user grant-\t", "user grant-role"),
        ("user get al\t", "user get alice"),
        ("user revoke-role alice a\t", "user revoke-role alice app"),
        ("role grant-permission app readw\t", "role grant-permission app readwrite"),
        ("auth st\t", "auth status"),
        ("role get app --he\t", "role get app --hex"),
    ] {
        terminal.types(typed);
        terminal.wait_for(completed);
        terminal.types("\u{3}");
        terminal.wait_for("bowline> ");
    }
    terminal.types("\u{4}");
    assert_eq!(terminal.ends(), Some(0));
}
