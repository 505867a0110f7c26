//! A load generator for any server of the etcd v3 API: it sends requests, measures how long the answers take, and
//! reports it. `bowline bench` is its command line.
//!
//! ```text
//!  Plan ──▶ Bench ──▶ clients ──▶ Recorder ──▶ Run ──▶ Report: text, JSON, a page
//! ```
//!
//! [`plan`] has all options with their bounds. [`Bench`] connects, fills the keys, measures as often as it is told, and
//! removes the keys. [`report`] has the results, and the comparison of two servers. [`echo`] is a server that does
//! nothing: what it takes is the cost of gRPC and of this program.
//!
//! **Closed loop.** Each client sends its next request when the last one is answered, so a slow server gets fewer
//! requests. A request's latency counts from when it is sent.
//!
//! **Open loop** ([`plan::Settings::rate`]). Requests are due at fixed times, whether or not earlier ones are answered.
//! A request's latency counts from when it was due, also if it was sent later, because all clients waited. So a pause of
//! the server counts for all requests that were due meanwhile ("coordinated omission" would leave them out).
//!
//! A request that fails is counted, and not sent again. Latencies are those of requests that succeed.

mod bench;
mod chart;
mod compare;
pub mod echo;
mod keys;
mod measure;
mod page;
mod phase;
pub mod plan;
pub mod report;
mod text;
mod watchers;
mod worker;

pub use bench::{Bench, BenchError, Now, Stage};
