//! How fast commands are applied, and how fast a store starts again: a million keys by default.
//!
//! `cargo run --release -p bowline-kv --example apply [keys]`

use std::io::Write;
use std::time::Instant;

use bowline_kv::store::{
    Command, CompactionRequest, Engine, EngineError, MemoryEngine, PutRequest, RangeRequest, RedbEngine, Store,
};
use bowline_node::raft::Index;

/// A store's cache, in bytes.
const CACHE: usize = 256 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |keys| keys.parse())?;
    let folder = std::env::temp_dir().join(format!("bowline-kv-apply-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("kv.redb");
    println!("{keys} keys of 16 bytes, values of 256 bytes");
    let memory = run("memory", keys, MemoryEngine::default(), |store| Ok(store.engine().clone()))?;
    let redb = run("redb", keys, RedbEngine::open(&path, CACHE)?, |store| {
        drop(store);
        RedbEngine::open(&path, CACHE)
    })?;
    println!("both: the same checksum, {}", memory == redb);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// The key of a number: spread over the key space, as hashes of names would be.
fn put(number: u64, value: u8) -> Command {
    let key = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Command::Put(PutRequest { key: key.into(), value: vec![value; 256].into(), ..PutRequest::default() })
}

fn run<E: Engine>(
    name: &str,
    keys: u64,
    engine: E,
    reopen: impl FnOnce(Store<E>) -> Result<E, EngineError>,
) -> Result<u32, Box<dyn std::error::Error>> {
    let mut store = Store::open(engine)?;
    let mut index = 0;
    let mut apply = |store: &mut Store<E>, command: &Command| {
        index += 1;
        store.apply_command(Index(index), command)
    };
    let per_second = |count: u64, since: Instant| count as f64 / since.elapsed().as_secs_f64();

    let start = Instant::now();
    for number in 0..keys {
        apply(&mut store, &put(number, 1))?;
    }
    println!("{name}: {:.0} puts of new keys a second", per_second(keys, start));
    let start = Instant::now();
    for number in 0..keys {
        apply(&mut store, &put(number.wrapping_mul(7919) % keys, 2))?;
    }
    println!("{name}: {:.0} puts of old keys a second", per_second(keys, start));
    let start = Instant::now();
    let reads = keys.min(200_000);
    for number in 0..reads {
        let Command::Put(put) = put(number.wrapping_mul(7919) % keys, 0) else { unreachable!("it is a put") };
        let found = store.range(&RangeRequest { key: put.key, ..RangeRequest::default() })?;
        assert_eq!(found.count, 1);
    }
    println!("{name}: {:.0} gets a second", per_second(reads, start));
    let start = Instant::now();
    let revision = store.revision();
    apply(&mut store, &Command::Compact(CompactionRequest { revision, physical: false }))?;
    println!("{name}: {:.1} µs for a compaction", start.elapsed().as_secs_f64() * 1e6);
    let (start, mut longest) = (Instant::now(), 0.0_f64);
    loop {
        let step = Instant::now();
        let progress = store.scrub(1000)?;
        longest = longest.max(step.elapsed().as_secs_f64());
        if progress.done {
            break;
        }
    }
    println!("{name}: {:.2} s to remove, {:.1} ms the longest step", start.elapsed().as_secs_f64(), longest * 1e3);
    let start = Instant::now();
    store.checkpoint()?;
    println!("{name}: {:.1} ms for the checkpoint", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let hash = store.hash_kv(0)?.hash;
    println!("{name}: {:.2} s for the checksum {hash:08x}", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let bytes = store.dump()?.write_to(&mut std::io::sink())?;
    println!("{name}: {:.2} s for a snapshot of {} MiB", start.elapsed().as_secs_f64(), bytes >> 20);
    println!("{name}: {} MiB in the engine", store.status().db_size >> 20);
    let start = Instant::now();
    let engine = reopen(store)?;
    println!("{name}: {:.2} s to drop the store and open the engine again", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let again = Store::open(engine)?;
    println!("{name}: {:.2} s to start again with {} keys", start.elapsed().as_secs_f64(), again.len());
    assert_eq!(again.hash_kv(0)?.hash, hash);
    std::io::stdout().flush()?;
    Ok(hash)
}
