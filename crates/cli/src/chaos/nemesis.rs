//! Carries out the faults of the plan, and heals them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bowline_client::Client;
use bowline_emulator::Random;

use super::disk::{SmallDisk, flip_bits};
use super::large;
use super::members::Members;
use super::network::Network;
use super::plan::{Cut, Fault, Strike, Way, Whom};
use super::watcher::Watcher;
use super::workload::Record;
use crate::live::Live;

/// Time limit for a healed cluster to serve.
const RECOVERY: Duration = Duration::from_secs(30);

/// Time limit of large writes while other faults may last.
const LARGE_PATIENCE: Duration = Duration::from_secs(20);

/// Time limit of large writes while nothing is wrong.
const QUIET_PATIENCE: Duration = Duration::from_secs(60);

/// Time limit of a leadership transfer.
const MOVE_PATIENCE: Duration = Duration::from_secs(2);

/// Size of the small disk: room for the log's segments, those in reserve, snapshots, and a state with large values and
/// their history.
const SMALL_DISK: u64 = 768 << 20;

/// Interval between checks whether the cluster serves again.
const LOOK: Duration = Duration::from_millis(20);

/// A write gap that begins this long after a leader's death still counts as its consequence.
const AFTERMATH: Duration = Duration::from_secs(3);

pub(super) struct Nemesis<'a> {
    pub(super) members: Members,
    network: Network,
    watcher: Watcher,
    record: Arc<Record>,
    live: &'a Live,
    verbose: bool,
    random: Random,
    /// The disk of the last member.
    small_disk: Option<SmallDisk>,
    /// Whether the power of the members can be lost.
    loses_power: bool,
    /// Whether the small disk was filled since the last healing.
    is_full: bool,
    /// How often that member stopped because of a full disk.
    pub(super) stopped_when_full: u64,
    /// Members with damaged logs, and the index that they must have again to be whole; `None` until they are restarted.
    damaged: BTreeMap<usize, Option<u64>>,
    /// The member whose data was deleted, until another one has its place.
    wiped: Option<usize>,
    /// Which of the two checkpoints of a segment may be damaged, 0 or 1: always the same one.
    checkpoint: u64,
    /// For each leader that was killed while nothing else was wrong, the period to search for write gaps.
    leader_deaths: Vec<(Duration, Duration)>,
    /// Number of strikes with several faults.
    pub(super) combined: u64,
    pub(super) slowest_recovery: Duration,
    /// Whether the cluster was whole and served before this strike.
    was_well: bool,
}

/// Gives the last member a small disk, if the system allows it.
pub(super) fn small_disk(folder: &Path, count: u64, live: &Live) -> Option<SmallDisk> {
    match SmallDisk::mount(&folder.join(format!("member-{count}")), SMALL_DISK) {
        Ok(disk) => Some(disk),
        Err(error) => {
            live.say(&format!("no disk will be full: can't mount a small one ({error:#})"));
            None
        }
    }
}

impl<'a> Nemesis<'a> {
    pub(super) fn new(
        members: Members,
        network: Network,
        watcher: Watcher,
        record: Arc<Record>,
        small_disk: Option<SmallDisk>,
        seed: u64,
        (live, verbose): (&'a Live, bool),
    ) -> Nemesis<'a> {
        Nemesis {
            loses_power: members.can_lose_power(),
            members,
            network,
            watcher,
            record,
            live,
            verbose,
            random: Random::stream(seed, 2),
            small_disk,
            is_full: false,
            stopped_when_full: 0,
            damaged: BTreeMap::new(),
            wiped: None,
            checkpoint: seed % 2,
            leader_deaths: Vec::new(),
            combined: 0,
            slowest_recovery: Duration::ZERO,
            was_well: true,
        }
    }

    /// Large values pass through a member while nothing else is wrong.
    pub(super) async fn write_large(&mut self, draw: u64) {
        let endpoint = self.members.endpoints().swap_remove(self.find(Whom::Follower(draw)));
        if large::write(&endpoint, QUIET_PATIENCE).await >= large::AT_LEAST {
            self.record.count_fault("large values");
        }
    }

    /// Carries out a strike and heals it.
    pub(super) async fn strike(&mut self, strike: &Strike) -> anyhow::Result<()> {
        let at = self.record.now();
        let mut done = Vec::new();
        for fault in &strike.faults {
            if let Some((kind, what)) = self.begin(*fault).await? {
                self.record.count_fault(kind);
                done.push((kind, what));
            }
        }
        if self.verbose {
            let what: Vec<&str> = done.iter().map(|(_, what)| what.as_str()).collect();
            self.live.say(&format!("{:>9.3} s  {}", at.as_secs_f64(), what.join(" + ")));
        }
        self.combined += u64::from(done.len() > 1);
        tokio::time::sleep(strike.hold).await;
        self.check()?;
        self.heal()?;
        let healed = Instant::now();
        if let Some(place) = self.wiped {
            self.replace(place).await?;
        }
        if strike.hurry {
            tokio::time::sleep(strike.calm).await;
        } else {
            self.wait_until_it_serves().await?;
            self.slowest_recovery = self.slowest_recovery.max(healed.elapsed());
            tokio::time::sleep(strike.calm).await;
        }
        if self.was_well && matches!(done[..], [("kill leader", _)]) && !strike.hurry {
            self.leader_deaths.push((at, self.record.now().min(at + AFTERMATH)));
        }
        self.was_well = !strike.hurry;
        Ok(())
    }

    /// Begins a fault. Returns its name and a description; `None` if it could not be done.
    async fn begin(&mut self, fault: Fault) -> anyhow::Result<Option<(&'static str, String)>> {
        let count = self.members.all.len();
        let kind = fault.kind();
        let what = match fault {
            Fault::Kill(whom) => {
                let place = self.find(whom);
                self.members.all[place].kill().then(|| format!("{kind} {}", place + 1))
            }
            Fault::Stop(whom) => {
                let place = self.find(whom);
                self.members.all[place].stop().then(|| format!("{kind} {}", place + 1))
            }
            Fault::KillAll => {
                let killed = self.members.all.iter_mut().map(|member| u64::from(member.kill())).sum::<u64>();
                (killed > 0).then(|| kind.to_owned())
            }
            Fault::PowerLoss { whom, draw } => {
                let place = self.find(whom);
                return self.lose_power(&[place], kind, draw);
            }
            Fault::PowerLossOfAll { draw } => return self.lose_power(&(0..count).collect::<Vec<_>>(), kind, draw),
            Fault::Pause(whom) => {
                let place = self.find(whom);
                self.members.all[place].pause().then(|| format!("{kind} {}", place + 1))
            }
            Fault::Damage { whom, bits, draw } => return self.damage(self.find(whom), bits, draw),
            Fault::Isolate { whom, way, cut } => {
                let place = self.find(whom);
                let (into, out) = (way != Way::Out, way != Way::In);
                self.cut(cut, |from, to| (from == place && out) || (to == place && into));
                Some(format!("{kind} of {} ({way:?}, {cut:?})", place + 1))
            }
            Fault::Split { draw, cut } => {
                let sides = 1 + draw % ((1 << count) - 2);
                self.cut(cut, |from, to| (sides >> from) & 1 != (sides >> to) & 1);
                Some(format!("{kind} {sides:0count$b} ({cut:?})"))
            }
            Fault::CutPair { draw, cut } => {
                let one = (draw % count as u64) as usize;
                let other = (one + 1 + (draw >> 32) as usize % (count - 1)) % count;
                self.cut(cut, |from, to| (from, to) == (one, other) || (from, to) == (other, one));
                Some(format!("{kind} {} and {} ({cut:?})", one + 1, other + 1))
            }
            Fault::Slow { whom, millis } => {
                let place = self.find(whom);
                let delay = Duration::from_millis(millis);
                self.network.change(|from, to| from == place || to == place, |link| link.delay = delay);
                Some(format!("{kind} of {}, {millis} ms", place + 1))
            }
            Fault::Corrupt { whom } => {
                let place = self.find(whom);
                self.network.change(|from, _| from == place, |link| link.corrupts = true);
                Some(format!("{kind} of {}", place + 1))
            }
            Fault::FillDisk => match &self.small_disk {
                Some(disk) => {
                    disk.fill()?;
                    self.is_full = true;
                    Some(format!("{kind} of {count}"))
                }
                None => None,
            },
            Fault::Replace(whom) => return self.wipe(self.find(whom), kind),
            Fault::ReplaceMoved(draw) => {
                let former = self.find(Whom::Leader);
                let Some(moved) = self.move_leader(draw).await else { return Ok(None) };
                let done = self.wipe(former, kind)?;
                return Ok(done.map(|(done, what)| (done, format!("{moved}, {what}"))));
            }
            Fault::Large(whom) => {
                let endpoint = self.members.endpoints().swap_remove(self.find(whom));
                let written = large::write(&endpoint, LARGE_PATIENCE).await;
                (written >= large::AT_LEAST).then(|| format!("{kind}, {} MiB by {endpoint}", written >> 20))
            }
            Fault::MoveLeader(draw) => self.move_leader(draw).await,
        };
        Ok(what.map(|what| (kind, what)))
    }

    fn check(&mut self) -> anyhow::Result<()> {
        let full = self.is_full.then(|| self.members.all.len() - 1);
        for words in self.members.check(full)? {
            self.stopped_when_full += 1;
            if self.verbose {
                self.live
                    .say(&format!("             a full disk stopped member {}:\n  {words}", self.members.all.len()));
            }
        }
        Ok(())
    }

    fn cut(&self, cut: Cut, which: impl Fn(usize, usize) -> bool) {
        self.network.change(|from, to| from != to && which(from, to), |link| link.cut = Some(cut));
    }

    fn find(&self, whom: Whom) -> usize {
        let count = self.members.all.len();
        let leader = self.watcher.leader();
        match whom {
            Whom::Leader => leader.unwrap_or(0),
            Whom::Follower(draw) => {
                let leader = leader.unwrap_or(0);
                (leader + 1 + (draw % (count as u64 - 1).max(1)) as usize) % count
            }
        }
    }

    /// Damages the log of a member if the damaged members stay a minority; else only kills the member.
    fn damage(&mut self, place: usize, bits: u64, draw: u64) -> anyhow::Result<Option<(&'static str, String)>> {
        let count = self.members.all.len();
        self.forget_repaired();
        let damaged = self.damaged.keys().chain(&self.wiped);
        let others = damaged.filter(|damaged| **damaged != place).count();
        if !self.members.all[place].kill() {
            return Ok(None);
        }
        if others + 1 > (count - 1) / 2 {
            return Ok(Some(("kill", format!("kill {}", place + 1))));
        }
        self.members.all[place].settle()?;
        let mut random = Random::stream(draw, self.random.next_u64());
        let places = flip_bits(&self.members.all[place].folder, bits, self.checkpoint, &mut random)?;
        self.damaged.insert(place, None);
        Ok(Some(("damaged log", format!("damaged log of {}: {places}", place + 1))))
    }

    /// Kills members, and loses what they have not synced. Returns what was done, if one of them was running.
    fn lose_power(
        &mut self,
        places: &[usize],
        kind: &'static str,
        draw: u64,
    ) -> anyhow::Result<Option<(&'static str, String)>> {
        if !self.loses_power {
            return Ok(None);
        }
        let killed = places.iter().filter(|place| self.members.all[**place].kill()).count();
        if killed == 0 {
            return Ok(None);
        }
        let mut random = Random::stream(draw, self.random.next_u64());
        // What comes back may need room.
        let full = self.small_disk.as_ref().filter(|_| self.is_full);
        full.inspect(|disk| disk.clear());
        let mut lost = Vec::new();
        for place in places {
            let what = self.members.all[*place].lose_power(&mut random)?;
            lost.extend(what.map(|what| format!("{} ({what})", place + 1)));
        }
        full.map_or(Ok(()), SmallDisk::fill)?;
        Ok(Some((kind, format!("{kind}: {}", lost.join(", ")))))
    }

    /// Kills a member, and deletes its data if those of all others are whole. Returns what was done: `kind`, or a kill.
    fn wipe(&mut self, place: usize, kind: &'static str) -> anyhow::Result<Option<(&'static str, String)>> {
        self.forget_repaired();
        if !self.members.all[place].kill() {
            return Ok(None);
        }
        if !self.damaged.is_empty() || self.wiped.is_some() {
            return Ok(Some(("kill", format!("kill {}", place + 1))));
        }
        self.members.wipe(place)?;
        self.wiped = Some(place);
        Ok(Some((kind, format!("deleted the data of {}", place + 1))))
    }

    /// Puts a new member into the place of the one whose data was deleted, and waits until it votes.
    async fn replace(&mut self, place: usize) -> anyhow::Result<()> {
        let (endpoints, peer_url) = (self.members.endpoints(), self.members.all[place].peer_url.clone());
        let others: Vec<String> =
            endpoints.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, url)| url.clone()).collect();
        let until = Instant::now() + RECOVERY;
        let mut client = Client::new(&others, MOVE_PATIENCE)?;
        let id = loop {
            let changed = exchange(&mut client, self.members.all[place].id, &peer_url).await;
            self.check()?;
            match changed {
                Ok(id) => break id,
                Err(error) if Instant::now() >= until => {
                    return Err(error).context(format!("member {} can't be replaced", place + 1));
                }
                // Some of the others may have no leader yet.
                Err(_) => tokio::time::sleep(LOOK * 5).await,
            }
        };
        self.network.assign(id, place);
        self.members.replace(place, id);
        self.wiped = None;
        self.members.start(place)?;
        let own = Client::new(&endpoints[place..=place], MOVE_PATIENCE)?;
        let until = Instant::now() + RECOVERY;
        loop {
            let status = own.status().await.pop().and_then(|(_, status)| status.ok());
            if status.is_some_and(|status| status.leader != 0 && !status.is_learner) {
                return Ok(());
            }
            self.check()?;
            if Instant::now() >= until {
                anyhow::bail!("the new member {} does not vote after {} s", place + 1, RECOVERY.as_secs());
            }
            tokio::time::sleep(LOOK * 5).await;
        }
    }

    /// A damaged member is whole when it has applied everything that was committed when it was restarted.
    fn forget_repaired(&mut self) {
        let seen = self.watcher.all();
        let committed = seen.iter().flatten().map(|seen| seen.committed).max().unwrap_or(0);
        let members = &self.members.all;
        self.damaged.retain(|place, needed| {
            if !members[*place].is_running() {
                return true;
            }
            match needed {
                None => {
                    *needed = Some(committed);
                    true
                }
                Some(needed) => seen[*place].is_none_or(|seen| seen.applied < *needed),
            }
        });
    }

    async fn move_leader(&self, draw: u64) -> Option<String> {
        let count = self.members.all.len();
        let leader = self.watcher.leader()?;
        let target = (leader + 1 + (draw % (count as u64 - 1).max(1)) as usize) % count;
        let endpoint = format!("127.0.0.1:{}", self.members.all[leader].client_port);
        let mut client = Client::new(&[endpoint], MOVE_PATIENCE).ok()?;
        client.move_leader(self.members.all[target].id).await.ok()?;
        Some(format!("leader moved from {} to {}", leader + 1, target + 1))
    }

    /// The longest time without a write after each leader that was killed while nothing else was wrong.
    pub(super) fn leader_gaps(&self) -> Vec<Duration> {
        self.leader_deaths.iter().map(|(from, until)| self.record.gap(*from, *until)).collect()
    }

    /// Heals everything.
    pub(super) fn heal(&mut self) -> anyhow::Result<()> {
        self.network.heal();
        if let Some(disk) = &self.small_disk {
            disk.clear();
        }
        self.check()?;
        self.is_full = false;
        for place in 0..self.members.all.len() {
            self.members.all[place].go_on();
            if self.wiped != Some(place) {
                self.members.start(place)?;
            }
        }
        Ok(())
    }

    /// Waits until a write is acknowledged.
    pub(super) async fn wait_until_it_serves(&mut self) -> anyhow::Result<()> {
        let (from, until) = (self.record.now(), Instant::now() + RECOVERY);
        while self.record.tally().last_write <= from {
            tokio::time::sleep(LOOK).await;
            self.check()?;
            self.forget_repaired();
            if Instant::now() >= until {
                let (seconds, seen) = (RECOVERY.as_secs(), self.watcher.all());
                anyhow::bail!(
                    "no write succeeded for {seconds} s, though all members run and reach each other: {seen:?}"
                );
            }
        }
        Ok(())
    }

    /// Waits until all members have the same state. Returns its revision and checksum.
    pub(super) async fn wait_until_equal(&mut self) -> anyhow::Result<(i64, u32)> {
        let endpoints = self.members.endpoints();
        let client = Client::new(&endpoints, RECOVERY)?;
        let until = Instant::now() + RECOVERY;
        loop {
            self.check()?;
            let told = client.hash_kv(0).await;
            let hashes: Vec<_> = told.iter().filter_map(|(_, hash)| hash.as_ref().ok()).collect();
            let same = |at: &[&bowline_api::etcdserverpb::HashKvResponse]| {
                (at[0].hash_revision, at[0].compact_revision) == (at[1].hash_revision, at[1].compact_revision)
            };
            if hashes.len() == endpoints.len() && hashes.windows(2).all(same) {
                let hash = hashes.first().context("there is no member")?;
                if hashes.iter().any(|other| other.hash != hash.hash) {
                    anyhow::bail!("members differ at the same revision: {told:?}");
                }
                return Ok((hash.hash_revision, hash.hash));
            }
            if Instant::now() >= until {
                anyhow::bail!("members are still not equal after {} s: {told:?}", RECOVERY.as_secs());
            }
            tokio::time::sleep(LOOK * 5).await;
        }
    }
}

/// Removes a member and adds another one at the same address, unless that was done before. Returns the id of the new
/// one.
async fn exchange(client: &mut Client, old: u64, peer_url: &str) -> anyhow::Result<u64> {
    let members = client.member_list(true).await?.members;
    if members.iter().any(|member| member.id == old) {
        client.member_remove(old).await?;
    }
    let known = members.iter().find(|member| member.id != old && member.peer_ur_ls.iter().any(|url| url == peer_url));
    match known {
        Some(member) => Ok(member.id),
        None => {
            let added = client.member_add(&[peer_url.to_owned()], false).await?;
            added.member.map(|member| member.id).context("the member is missing in the answer")
        }
    }
}
