//! What it costs to give space back: a member is filled, its keys are overwritten, then most are deleted; its file
//! is written anew after each of the two, under a light load of puts.
//!
//! `cargo run --release -p bowline-server --example space [keys]`; half a million keys by default, each of them 256
//! bytes long. The folder is made where `TMPDIR` says.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_server::config::Layers;
use bowline_server::replica::Replica;
use bowline_server::{Listeners, Server, folder};
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;

type Failure = Box<dyn std::error::Error>;

/// Puts at once while the member is filled.
const WRITERS: usize = 64;

/// The light load: a put every so often.
const EVERY: Duration = Duration::from_millis(2);

fn main() -> Result<(), Failure> {
    let keys: usize = std::env::args().nth(1).map_or(Ok(500_000), |keys| keys.parse())?;
    let place = tempfile::tempdir()?;
    let data = place.path().join("member");
    let listeners = Listeners {
        client: vec![TcpListener::bind("127.0.0.1:0")?],
        peer: TcpListener::bind("127.0.0.1:0")?,
        metrics: Vec::new(),
    };
    let mut layers = Layers::new();
    layers.add_flag("id", "1".to_owned());
    layers.add_flag("initial_cluster", format!("1={}", listeners.peer.local_addr()?));
    layers.add_flag("data_dir", data.display().to_string());
    // Nothing happens by itself.
    layers.add_flag("shrink_bytes", (1_u64 << 50).to_string());
    let config = layers.check()?;
    let disk = folder::open(&config)?;
    let server = Server::start(&config, disk, listeners, |why| panic!("the member failed: {why}"))?;
    let url = format!("http://{}", server.client_address());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(measure(server.replica(), &url, &data, keys))?;
    drop(server.stop());
    Ok(())
}

async fn measure(replica: &Replica, url: &str, data: &Path, keys: usize) -> Result<(), Failure> {
    let channel = Channel::from_shared(url.to_owned())?.connect().await?;
    let mut client = KvClient::new(channel.clone());
    for round in 0..3 {
        let begun = Instant::now();
        fill(&client, keys, round).await?;
        println!("round {round}: {:.0} puts a second", keys as f64 / begun.elapsed().as_secs_f64());
    }
    let load = Load::start(KvClient::connect(url.to_owned()).await?);
    compact(replica, &mut client, &load, "compaction of what was overwritten").await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    load.tell("before the rewrite");
    rewrite(&channel, data, &load).await?;
    // A tenth stays. In parts, as a request has its bounds.
    for first in 100..999 {
        let (key, range_end) = (format!("k/{first}"), format!("k/{}", first + 1));
        let delete = pb::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false };
        client.delete_range(delete).await?;
    }
    load.tell("deletions");
    compact(replica, &mut client, &load, "compaction of what was deleted").await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    load.tell("before the rewrite");
    rewrite(&channel, data, &load).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    load.tell("after the rewrite");
    load.stop.store(true, Ordering::Relaxed);
    Ok(())
}

async fn fill(client: &KvClient<Channel>, keys: usize, round: usize) -> Result<(), Failure> {
    let writers = (0..WRITERS).map(|writer| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for number in (writer..keys).step_by(WRITERS) {
                // The first three digits are random enough to delete by.
                let key = format!("k/{:03}/{number:08}", number * 7_919 % 1_000);
                let value = format!("{round}/{number}/").repeat(64).into_bytes()[..224].to_vec();
                client.put(pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }).await?;
            }
            Ok::<(), tonic::Status>(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    Ok(())
}

/// Gives up the history, and waits until it is removed.
async fn compact(replica: &Replica, client: &mut KvClient<Channel>, load: &Load, what: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    let revision = replica.status().facts.revision;
    client.compact(pb::CompactionRequest { revision, physical: false }).await?;
    let mut status = replica.watch_status();
    status.wait_for(|status| status.facts.scrubbed_revision >= revision).await?;
    load.tell(&format!("{what} ({:.1} s)", begun.elapsed().as_secs_f64()));
    Ok(())
}

async fn rewrite(channel: &Channel, data: &Path, load: &Load) -> Result<(), Failure> {
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let file = || fs::metadata(data.join("state.redb")).map(|file| ((file.blocks() * 512) >> 20, file.len() >> 20));
    let (before, in_use) = (file()?, maintenance.status(pb::StatusRequest {}).await?.into_inner().db_size_in_use >> 20);
    let begun = Instant::now();
    maintenance.defragment(pb::DefragmentRequest {}).await?;
    let took = begun.elapsed().as_secs_f64();
    let after = file()?;
    println!(
        "the file took {} MiB (length {} MiB), {in_use} MiB in use; after {took:.2} s it takes {} MiB (length {} MiB)",
        before.0, before.1, after.0, after.1
    );
    load.tell("rewrite");
    Ok(())
}

/// Puts, one after the other, and how long each took since the last look.
struct Load {
    times: Arc<Mutex<Vec<Duration>>>,
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start(mut client: KvClient<Channel>) -> Load {
        let load = Load { times: Arc::default(), stop: Arc::default() };
        let (times, stop) = (Arc::clone(&load.times), Arc::clone(&load.stop));
        tokio::spawn(async move {
            for number in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let begun = Instant::now();
                let key = format!("light/{}", number % 1_000);
                let put = pb::PutRequest { key: key.into(), value: vec![7; 224].into(), ..Default::default() };
                client.put(put).await.expect("the member serves");
                times.lock().expect("nobody panics with it").push(begun.elapsed());
                tokio::time::sleep(EVERY).await;
            }
        });
        load
    }

    fn tell(&self, during: &str) {
        let mut times = std::mem::take(&mut *self.times.lock().expect("nobody panics with it"));
        times.sort();
        let at =
            |part: f64| times.get((times.len() as f64 * part) as usize).or(times.last()).copied().unwrap_or_default();
        let [half, most, nearly, all] = [0.5, 0.99, 0.999, 1.0].map(|part| at(part).as_secs_f64() * 1e3);
        let count = times.len();
        println!("{during}: {count} puts, ms: median {half:.1}, 99% {most:.1}, 99.9% {nearly:.1}, slowest {all:.1}");
    }
}
