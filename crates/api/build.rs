//! Generates the wire types from `proto/`, with a compiler of protocol buffers that is a Rust library: no
//! system tool is needed.

const FILES: [&str; 9] = [
    "mvcc.proto",
    "perm.proto",
    "kv.proto",
    "watch.proto",
    "lease.proto",
    "cluster.proto",
    "maintenance.proto",
    "auth.proto",
    "health.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    // Keys and values stay slices of the buffer that they arrived in.
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
