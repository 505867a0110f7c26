//! Clients that put each key once, each through one member, which forwards it if it does not lead. A write that is done
//! twice shows in the key's version, also where no read could tell.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use bowline_api::etcdserverpb as pb;
use bowline_client::{Client, ClientError};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// Time between two writes of a client.
const PAUSE: Duration = Duration::from_millis(40);

/// Keys that are read at a time.
const PAGE: i64 = 1_000;

/// What is known of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It was acknowledged with this revision.
    Done(i64),
    /// It was refused: it must never be done.
    Refused,
    /// It may have been done.
    Unknown,
}

/// All writes, by their keys.
#[derive(Debug, Default)]
pub(super) struct Puts(Mutex<BTreeMap<String, Fate>>);

impl Puts {
    /// Starts a client for each member. They work until `stop` is set.
    pub(super) fn start(
        self: &Arc<Puts>,
        endpoints: &[String],
        stop: &Arc<AtomicBool>,
    ) -> anyhow::Result<Vec<tokio::task::JoinHandle<()>>> {
        let mut tasks = Vec::new();
        for (place, endpoint) in endpoints.iter().enumerate() {
            let mut client = Client::new(std::slice::from_ref(endpoint), PATIENCE)?;
            let (puts, stop) = (Arc::clone(self), Arc::clone(stop));
            tasks.push(tokio::spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(PAUSE).await;
                    number += 1;
                    let key = format!("once/{place}/{number}");
                    let fate = put(&mut client, &key).await;
                    puts.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, fate);
                }
            }));
        }
        Ok(tasks)
    }

    /// Reads all keys, and compares them with what clients were told.
    ///
    /// # Errors
    /// A key can't be read, or its write was lost, done twice, or done though it was refused.
    pub(super) async fn check(&self, endpoint: &str) -> anyhow::Result<()> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut client = Client::new(&[endpoint.to_owned()], PATIENCE)?;
        let mut key = b"once/".to_vec();
        loop {
            let page =
                pb::RangeRequest { key: key.into(), range_end: "once0".into(), limit: PAGE, ..Default::default() };
            let found = client.range(page).await.context("can't read the keys that were put once")?;
            for kv in &found.kvs {
                let name = String::from_utf8_lossy(&kv.key);
                let Some(fate) = left.remove(&*name) else { bail!("{name} is there, but was never put") };
                let (version, revision) = (kv.version, kv.mod_revision);
                if version != 1 || kv.create_revision != revision {
                    bail!(
                        "{name} was put once, but has version {version}, made at {} and {revision}",
                        kv.create_revision
                    );
                }
                if !matches!(fate, Fate::Unknown) && fate != Fate::Done(revision) {
                    bail!("{name} has revision {revision}, but its client was told {fate:?}");
                }
            }
            let Some(last) = found.kvs.last().filter(|_| found.more) else { break };
            key = [&last.key[..], &[0]].concat();
        }
        match left.iter().find(|(_, fate)| matches!(fate, Fate::Done(_))) {
            Some((key, fate)) => bail!("{key} is gone, but its client was told {fate:?}"),
            None => Ok(()),
        }
    }
}

async fn put(client: &mut Client, key: &str) -> Fate {
    let request = pb::PutRequest { key: key.to_owned().into(), value: "once".into(), ..pb::PutRequest::default() };
    match client.put_request(request).await {
        Ok(put) => Fate::Done(put.header.map_or(0, |header| header.revision)),
        Err(ClientError::Unknown { .. }) => Fate::Unknown,
        Err(_) => Fate::Refused,
    }
}
