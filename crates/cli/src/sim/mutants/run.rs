//! Runs each layer on each mutant; threads share the pieces of a layer's work.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use bowline_sim::mutation::{self, Budget, Finding, Layer, Looks, Mutant};

use super::MutantsCommand;
use super::report::{Results, Searched, Timed, header, row};
use crate::live::Live;
use crate::sim::seed_thread::on_its_own;

/// The folder of the golden scripts, in the sources that the program was built from.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../raft/tests/scripts");
/// With `--quick`, the divisor of each layer's budget in the first round.
const QUICK_PART: u64 = 20;

type Layers = Vec<Box<dyn Layer>>;

impl MutantsCommand {
    /// The chosen layers, with their budgets divided by `parts`.
    fn layers(&self, parts: u64) -> anyhow::Result<Layers> {
        let budget = Budget { seeds: self.seeds.div_ceil(parts), from: self.from, states: self.states.div_ceil(parts) };
        let mut layers = mutation::layers(scripts().with_context(|| format!("can't read {SCRIPTS}"))?, &budget);
        layers.retain(|layer| self.layer.is_empty() || self.layer.iter().any(|name| name == layer.name()));
        Ok(layers)
    }

    /// Looks for each mutant in the order of the catalogue, then runs the control run without one.
    pub(super) fn look_for_all(&self, mutants: &[&'static Mutant]) -> anyhow::Result<Results> {
        let began = Instant::now();
        let (small, layers) = (self.layers(QUICK_PART)?, self.layers(1)?);
        let rounds: Vec<&Layers> = if self.quick { vec![&small, &layers] } else { vec![&layers] };
        let live = Live::new((mutants.len() + usize::from(self.control > 0)) as u64, self.json);
        live.title("mutants");
        live.print(&header(&layers))?;
        let mut searched = Vec::new();
        for mutant in mutants {
            let result = self.look_everywhere(Some(mutant), &rounds, 1, &|layer, at| {
                let (done, all) = (searched.len(), mutants.len());
                live.step(done as u64, format!("{done}/{all}, {}: {layer} {at}", mutant.name));
            });
            live.print(&row(mutant, &result, &layers))?;
            searched.push(result);
        }
        let control = (self.control > 0).then(|| {
            self.look_everywhere(None, &rounds[..1], self.control, &|layer, at| {
                live.step(mutants.len() as u64, format!("control: {layer} {at}"));
            })
        });
        live.end();
        Ok(Results { searched, control, took: began.elapsed() })
    }

    /// Looks for a mutant with the layers of each round in turn; with `--quick`, until one notices it.
    fn look_everywhere(
        &self,
        mutant: Option<&'static Mutant>,
        rounds: &[&Layers],
        times: u64,
        watch: &(dyn Fn(&str, u64) + Sync),
    ) -> Searched {
        mutation::choose(mutant);
        let mut findings: Vec<Timed> = Vec::new();
        for layer in rounds.iter().copied().flatten() {
            let started = Instant::now();
            let finding = self.look_for(&**layer, times, &|at| watch(layer.name(), at));
            let noticed = finding.kill.is_some();
            let before = findings.extract_if(.., |timed| timed.layer == layer.name()).map(|timed| timed.took);
            let took = before.sum::<std::time::Duration>() + started.elapsed();
            findings.push(Timed { layer: layer.name(), unit: layer.unit(), finding, took });
            if self.quick && noticed && mutant.is_some() {
                break;
            }
        }
        mutation::choose(None);
        Searched { mutant, findings }
    }

    /// Looks for a mutant with one layer. Threads take its pieces in order.
    fn look_for(&self, layer: &dyn Layer, times: u64, watch: &(dyn Fn(u64) + Sync)) -> Finding {
        let pieces = layer.pieces(times);
        let available = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let jobs = self.jobs.unwrap_or(available).min(pieces);
        let (next, looks) = (AtomicU64::new(0), Mutex::new(Looks::default()));
        let carried = mutation::chosen().map_or("", |mutant| mutant.name);
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    loop {
                        let piece = next.fetch_add(1, Ordering::Relaxed);
                        let wanted = looks.lock().expect("no thread panics while it holds this").want(piece);
                        if piece >= pieces || !wanted {
                            return;
                        }
                        watch(piece);
                        let what = format!(" of {} {carried}", layer.name());
                        let seed = if layer.name() == "clusters" { self.from + piece } else { piece };
                        let look = on_its_own(seed, &what, || layer.look_at(piece, times));
                        looks.lock().expect("no thread panics while it holds this").add(piece, look);
                    }
                });
            }
        });
        looks.into_inner().expect("no thread panicked").finding()
    }
}

/// The golden scripts of the core, with their names.
fn scripts() -> std::io::Result<Vec<(String, String)>> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?))
    };
    fs::read_dir(SCRIPTS)?.map(read).collect()
}
