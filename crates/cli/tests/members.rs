//! Members that join, are replaced, and are removed, by the commands that an operator uses.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Folder, PATIENCE, Running, Said, run};

/// A cluster of three, and more ports for members that join.
struct Lab(Folder);

impl Lab {
    fn new() -> Lab {
        Lab(Folder::with_cluster())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(words).env("BOWLINE_ENDPOINTS", self.0.endpoints());
        command
    }

    fn ask(&self, words: &[&str]) -> Said {
        run(&mut self.command(words), b"")
    }

    fn done(&self, words: &[&str]) -> String {
        let said = self.ask(words);
        assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
        said.text().to_owned()
    }

    fn refuses(&self, words: &[&str], code: i32, why: &str) {
        let said = self.ask(words);
        assert!(said.code == Some(code) && said.err.contains(why), "{words:?}: {said:?}");
    }

    /// The addresses of the joining member `number` for clients and for members.
    fn addresses(&self, number: u16) -> (String, String) {
        let first = self.0.ports.first() + 10 + 2 * number;
        (format!("127.0.0.1:{first}"), format!("127.0.0.1:{}", first + 1))
    }

    fn join(&self, number: u16, more: &[&str]) -> Running {
        let ((client, peer), endpoints) = (self.addresses(number), self.0.endpoints());
        let folder = self.0.path().join(format!("joined-{number}"));
        // Either of them is enough.
        let flag = if number == 2 { "--listen-peer" } else { "--peer" };
        let mut command = self.command(&["join", &endpoints, flag, &peer, "--listen-client", &client]);
        command.arg("--data-dir").arg(folder).args(["--name", &format!("j{number}"), "--stop-at-eof"]).args(more);
        Running::start(&mut command)
    }

    /// The members by name, with their state; those without a name by their id.
    fn states(&self) -> Vec<(String, String)> {
        let listed = self.ask(&["member", "list", "--json"]);
        let Ok(list) = serde_json::from_slice::<Value>(&listed.out) else { return Vec::new() };
        let text = |member: &Value, key: &str| member[key].as_str().expect("a text").to_owned();
        let all = list["members"].as_array().expect("a list").iter();
        let mut all: Vec<_> = all.map(|member| (text(member, "name"), text(member, "state"))).collect();
        all.sort();
        all
    }

    fn waits_for(&self, what: &str, holds: impl Fn(&[(String, String)]) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let states = self.states();
            if holds(&states) {
                return;
            }
            assert!(Instant::now() < until, "{what}: {states:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn id(&self, name: &str) -> String {
        let list: Value = serde_json::from_slice(&self.ask(&["member", "list", "--json"]).out).expect("it is JSON");
        let all = list["members"].as_array().expect("a list");
        let member = all.iter().find(|member| member["name"] == name).expect("it is listed");
        member["id"].as_str().expect("a text").to_owned()
    }
}

fn serves(state: &str) -> bool {
    matches!(state, "leader" | "follower")
}

#[test]
fn a_machine_joins_takes_the_place_of_a_dead_member_and_is_removed() {
    let lab = Lab::new();
    lab.done(&["put", "k", "v"]);
    let mut first = lab.join(1, &[]);
    first.waits_for("it votes", |_, err| err.contains("caught up: this member votes from now on"));
    lab.waits_for("four serve", |states| states.iter().filter(|(_, state)| serves(state)).count() == 4);
    assert_eq!(lab.done(&["get", "k", "--endpoints", &lab.addresses(1).0]), "v\n");

    // The same command starts it again.
    first.ends_input();
    assert_eq!(first.wait().code(), Some(0), "{}", first.err());
    let mut first = lab.join(1, &[]);
    lab.waits_for("four serve again", |states| states.iter().filter(|(_, state)| serves(state)).count() == 4);

    // The supervisor must not start the dead member again.
    assert_eq!(lab.0.bowline(&["down"]).status.code(), Some(0));
    assert_eq!(lab.0.bowline(&["up", "--detach"]).status.code(), Some(0));
    lab.waits_for("four serve once more", |states| states.iter().filter(|(_, state)| serves(state)).count() == 4);
    let second = lab.join(2, &["--replace", "member-3"]);
    second.waits_for("it has replaced the other", |_, err| err.contains("removed the member that this one replaces"));
    let named = |states: &[(String, String)], name: &str| states.iter().any(|(known, _)| known == name);
    lab.waits_for("it is there instead", |states| named(states, "j2") && !named(states, "member-3"));

    assert_eq!(lab.done(&["move-leader", "j2"]), format!("member {} leads\n", lab.id("j2")));
    lab.waits_for("it leads", |states| states.contains(&("j2".to_owned(), "leader".to_owned())));
    let id = lab.id("j1");
    assert_eq!(lab.done(&["member", "remove", "j1"]), format!("removed member {id}\n"));
    assert_eq!(first.wait().code(), Some(1));
    assert!(first.err().contains("this member was removed from the cluster"), "{}", first.err());
    lab.refuses(&["member", "remove", &id], 2, "allowed: an id or a name of");
    assert_eq!(lab.done(&["get", "k"]), "v\n");
}

#[test]
fn a_member_is_added_started_and_promoted_step_by_step() {
    let lab = Lab::new();
    let (_, peer) = lab.addresses(1);
    let added: Value =
        serde_json::from_slice(&lab.ask(&["member", "add", &peer, "--learner", "--json"]).out).expect("JSON");
    let id = added["added"].as_str().expect("an id").to_owned();
    lab.waits_for("it is listed", |states| states.contains(&(String::new(), "not started".to_owned())));
    lab.refuses(&["member", "add", &peer], 1, "Peer URLs already exists");
    lab.refuses(&["member", "promote", &id], 1, "in sync with leader");
    lab.refuses(&["member", "promote", "member-1"], 1, "can only promote a learner member");
    lab.refuses(&["member", "add", "0.0.0.0:1"], 2, "PEER_URL is \"0.0.0.0:1\"; allowed: ");
    let _learner = lab.join(1, &[]);
    lab.waits_for("it learns", |states| states.contains(&("j1".to_owned(), "learner".to_owned())));
    assert_eq!(lab.done(&["member", "promote", "j1"]), format!("promoted member {id}\n"));
    lab.waits_for("it votes", |states| states.iter().any(|(name, state)| name == "j1" && serves(state)));
    let moved = format!("http://127.0.0.1:{}", lab.0.ports.first() + 19);
    assert_eq!(lab.done(&["member", "update", "j1", &moved]), format!("updated member {id}\n"));
    assert!(lab.done(&["member", "list"]).contains(&moved["http://".len()..]));
}

#[test]
fn what_can_not_join_says_why_and_changes_nothing() {
    let lab = Lab::new();
    let (client, peer) = lab.addresses(1);
    let endpoints = lab.0.endpoints();
    let folder = lab.0.path().join("joined").display().to_string();
    let flags = ["--peer", &peer, "--data-dir", &folder];
    let join = |more: &[&str]| lab.ask(&[&["join", &endpoints], &flags[..], more].concat());
    let taken = endpoints.split(',').next().expect("there are three");
    let said = join(&["--listen-client", taken]);
    assert!(said.code == Some(1) && said.err.contains("can't listen on"), "{said:?}");
    let said = join(&["--listen-client", &client, "--replace", "nobody"]);
    assert!(said.code == Some(2) && said.err.contains("MEMBER is \"nobody\""), "{said:?}");
    let said = join(&["--listen-client", &client, "--heartbeat", "soon"]);
    assert!(said.code == Some(2) && said.err.contains("--heartbeat is \"soon\""), "{said:?}");
    assert_eq!(lab.states().len(), 3, "nothing was added");
    // The folder is that of a member of another cluster.
    let (file, of_another) = (lab.0.path().join("backup"), lab.0.path().join("of-another").display().to_string());
    let file = file.display().to_string();
    lab.done(&["snapshot", "save", &file]);
    let founder = ["--name", "a", "--initial-cluster", "a=http://127.0.0.1:1", "--data-dir", &of_another];
    lab.done(&[&["snapshot", "restore", &file], &founder[..]].concat());
    let known = ["--peer", &peer, "--listen-client", &client, "--replace", "member-3", "--data-dir", &of_another];
    let said = lab.ask(&[&["join", &endpoints], &known[..]].concat());
    assert!(said.code == Some(1) && said.err.contains("has the data of a member of cluster"), "{said:?}");
    assert_eq!(lab.states().len(), 3, "nothing was added or removed");
    // A member of this address has started, and its data is elsewhere.
    let of_first = lab.0.number("/members/0/peer_port").to_string();
    let (other, unused) = (format!("127.0.0.1:{of_first}"), format!("127.0.0.1:{}", lab.0.ports.first() + 18));
    let said = lab.ask(&[
        "join",
        &endpoints,
        "--peer",
        &other,
        "--data-dir",
        &folder,
        "--listen-client",
        &client,
        "--listen-peer",
        &unused,
    ]);
    assert!(said.code == Some(1) && said.err.contains("has started before, but its data is not here"), "{said:?}");
}
