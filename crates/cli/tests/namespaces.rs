//! Members in network namespaces of their own, whose cables are pulled. Skipped where that is not allowed.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Running, Said, run};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Three namespaces behind one bridge, a member in each. Taken down whatever becomes of the test.
struct Lab {
    /// Tells it from the labs of other tests.
    name: String,
    /// The first three numbers of all addresses.
    net: String,
    members: Vec<Child>,
}

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    output.is_ok_and(|output| output.status.success())
}

impl Lab {
    /// `None` where the machine does not allow it.
    fn build() -> Option<Lab> {
        let number = std::process::id() % 200;
        let lab = Lab { name: format!("bl{number}"), net: format!("10.213.{number}"), members: Vec::new() };
        let Lab { name, net, .. } = &lab;
        let mut well = ip(&format!("link add {name} type bridge"))
            && ip(&format!("addr add {net}.254/24 dev {name}"))
            && ip(&format!("link set {name} up"));
        for id in 1..=3 {
            well = well
                && ip(&format!("netns add {name}-{id}"))
                && ip(&format!("link add {name}v{id} type veth peer name eth0 netns {name}-{id}"))
                && ip(&format!("link set {name}v{id} master {name} up"))
                && ip(&format!("-n {name}-{id} addr add {net}.{id}/24 dev eth0"))
                && ip(&format!("-n {name}-{id} link set eth0 up"))
                && ip(&format!("-n {name}-{id} link set lo up"));
        }
        well.then_some(lab)
    }

    fn start(&mut self, folder: &Path) {
        let net = &self.net;
        let cluster: Vec<String> = (1..=3).map(|id| format!("{id}=http://{net}.{id}:2380")).collect();
        for id in 1..=3 {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &format!("{}-{id}", self.name), env!("CARGO_BIN_EXE_bowline"), "serve"]);
            command.args(["--id", &id.to_string(), "--initial-cluster", &cluster.join(",")]);
            command.args(["--listen-client", "0.0.0.0:2379"]);
            command.arg("--stop-at-eof").arg("--data-dir").arg(folder.join(id.to_string()));
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            self.members.push(command.spawn().expect("it starts"));
        }
    }

    fn endpoint(&self, id: u64) -> String {
        format!("{}.{id}:2379", self.net)
    }

    fn endpoints(&self) -> String {
        (1..=3).map(|id| self.endpoint(id)).collect::<Vec<_>>().join(",")
    }

    fn cable(&self, id: u64, state: &str) {
        assert!(ip(&format!("link set {}v{id} {state}", self.name)), "member {id}'s cable is not {state}");
    }

    fn ask(&self, arguments: &[&str], endpoints: &str) -> Said {
        run(Command::new(env!("CARGO_BIN_EXE_bowline")).args(arguments).args(["--endpoints", endpoints]), b"")
    }

    /// Asks from within a member's namespace.
    fn ask_inside(&self, id: u64, arguments: &[&str]) -> Said {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{id}", self.name), env!("CARGO_BIN_EXE_bowline")]);
        run(command.args(arguments).args(["--endpoints", "127.0.0.1:2379"]), b"")
    }

    /// Who leads, once somebody does.
    fn leader(&self) -> u64 {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = self.ask(&["status", "-o", "json"], &self.endpoints());
            let status: Value = serde_json::from_slice(&said.out).expect("it is JSON");
            let members = status["members"].as_array().expect("a list");
            if let Some(leader) = members.iter().find(|member| member["role"] == "leader") {
                return leader["member"].as_u64().expect("a number");
            }
            assert!(Instant::now() < until, "nobody leads: {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Its standard input ends: it stops by itself; and if not, it is killed.
            drop(member.stdin.take());
        }
        for id in 1..=3 {
            ip(&format!("link del {}v{id}", self.name));
        }
        for member in &mut self.members {
            let until = Instant::now() + PATIENCE;
            while member.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = member.kill();
            let _ = member.wait();
        }
        for id in 1..=3 {
            ip(&format!("netns del {}-{id}", self.name));
        }
        ip(&format!("link del {}", self.name));
    }
}

#[test]
fn a_leader_whose_cable_is_pulled_is_replaced_and_acknowledges_nothing() {
    let Some(mut lab) = Lab::build() else {
        eprintln!("skipped: network namespaces can't be made here (needs root and `ip`)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    lab.start(folder.path());
    let old = lab.leader();
    assert_eq!(lab.ask(&["put", "k", "before"], &lab.endpoints()).code, Some(0));

    // A watch at the leader, which will hear nothing any more, not even that its connection is lost.
    let first = (0..3).map(|place| lab.endpoint((old - 1 + place) % 3 + 1)).collect::<Vec<_>>().join(",");
    let mut watch = Command::new(env!("CARGO_BIN_EXE_bowline"));
    let watch = Running::start(watch.args(["watch", "k", "--rev", "2", "--endpoints", &first]));
    watch.waits_for("it prints the first event", |out, _| out.starts_with("PUT\nk\nbefore\n"));

    lab.cable(old, "down");
    let others: Vec<String> = (1..=3).filter(|id| *id != old).map(|id| lab.endpoint(id)).collect();
    let pulled_at = Instant::now();
    while lab.ask(&["put", "k", "after"], &others.join(",")).code != Some(0) {
        assert!(pulled_at.elapsed() < PATIENCE, "no write on the other side");
    }
    let said = lab.ask_inside(old, &["put", "k", "lost", "--timeout", "2"]);
    assert_eq!(said.code, Some(1), "it is alone, and must not acknowledge: {said:?}");
    let said = lab.ask_inside(old, &["get", "k", "--timeout", "2"]);
    assert_eq!((said.code, said.text()), (Some(1), ""), "it is alone, and must not answer: {said:?}");

    watch.waits_for("it has resumed at another member", |out, _| out.contains("\nafter\n"));
    assert!(watch.err().starts_with("the connection was lost: "), "{}", watch.err());

    lab.cable(old, "up");
    let until = Instant::now() + PATIENCE;
    loop {
        let said = lab.ask(&["hashkv"], &lab.endpoints());
        if said.code == Some(0) {
            break;
        }
        assert!(Instant::now() < until, "members differ: {said:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    for id in 1..=3 {
        let said = lab.ask(&["get", "k"], &lab.endpoint(id));
        assert!(["after\n", "lost\n"].contains(&said.text()), "member {id}: {said:?}");
    }
}
