//! A visit: each mutant is handed to each layer, the pieces of a layer's work to as many threads as
//! there are.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use bowline_sim::museum::{
    Finding, Layer, Looks, Mutant, NOT_IN_THE_CORE, Schedules, Search, Stories, Worlds, is_core,
};

use super::MuseumCommand;
use super::report::{Exhibit, Hall, Timed, header, row};
use crate::exit::Verdict;
use crate::live::Live;
use crate::out::{self, Unprinted, tell};
use crate::sim::explore::silence_panics;
use crate::sim::seed_thread::on_its_own;

/// Where the golden scripts are, from this crate: the museum is built from a source tree, and needs it.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../raft/tests/scripts");

pub(crate) fn mutant_named(name: &str) -> anyhow::Result<Mutant> {
    match Mutant::named(name) {
        Some(mutant) => Ok(mutant),
        None => {
            let names: Vec<_> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
            bail!("--mutant {name}: no such mutant; allowed: {}", names.join(", "))
        }
    }
}

impl MuseumCommand {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        if self.absent {
            for absent in NOT_IN_THE_CORE {
                tell!("{:>3}  {:<44} {}", absent.number, absent.name, absent.why)?;
            }
            return Ok(Verdict::Passed);
        }
        let layers = self.layers()?;
        let mutants: Vec<Mutant> = match (&self.mutant[..], self.core) {
            ([], true) => Mutant::ALL.iter().copied().filter(|mutant| is_core(*mutant)).collect(),
            ([], false) => Mutant::ALL.to_vec(),
            (names, _) => names.iter().map(|name| mutant_named(name)).collect::<Result<_, _>>()?,
        };
        silence_panics();
        let hall = self.visit(&mutants, &layers)?;
        match self.json {
            true => tell!("{}", hall.json())?,
            false => out::print(hall.text())?,
        }
        Ok(Verdict::of(match self.require {
            Some(percent) => hall.quiet() && hall.share_of_core("worlds") * 100.0 >= percent as f64,
            None => hall.quiet() && hall.killed() == mutants.len(),
        }))
    }

    fn layers(&self) -> anyhow::Result<Vec<Box<dyn Layer>>> {
        let all: [Box<dyn Layer>; 4] = [
            Box::new(stories().context("the stories of the core can't be read")?),
            Box::new(Schedules { seeds: 0..self.seeds }),
            Box::new(Search { states: self.states }),
            Box::new(Worlds { seeds: self.from..self.from + self.seeds }),
        ];
        let names: Vec<&str> = all.iter().map(|layer| layer.name()).collect();
        if let Some(unknown) = self.layer.iter().find(|name| !names.contains(&name.as_str())) {
            bail!("--layer {unknown}: no such layer; allowed: {}", names.join(", "));
        }
        let wanted = |name: &str| self.layer.is_empty() || self.layer.iter().any(|it| it == name);
        Ok(all.into_iter().filter(|layer| wanted(layer.name())).collect())
    }

    /// Each mutant in the order of the catalogue, then the core as it is.
    fn visit(&self, mutants: &[Mutant], layers: &[Box<dyn Layer>]) -> Result<Hall, Unprinted> {
        let began = Instant::now();
        let live = Live::new((mutants.len() + usize::from(self.control > 0)) as u64, self.json);
        live.title("mutants");
        let look = |done: usize, mutant: Option<Mutant>, times: u64| {
            let findings = layers.iter().map(|layer| {
                let started = Instant::now();
                let finding = self.look_for(&**layer, mutant, times, &|at| {
                    let name = mutant.map_or("control", Mutant::name);
                    live.step(done as u64, format!("{done}/{}, {name}: {} {at}", mutants.len(), layer.name()));
                });
                Timed { layer: layer.name(), unit: layer.unit(), finding, took: started.elapsed() }
            });
            Exhibit { mutant, findings: findings.collect() }
        };
        live.print(&header(layers))?;
        let show = |(done, mutant): (usize, &Mutant)| {
            let exhibit = look(done, Some(*mutant), 1);
            live.print(&row(*mutant, &exhibit)).map(|()| exhibit)
        };
        let exhibits = mutants.iter().enumerate().map(show).collect::<Result<_, _>>()?;
        let control = (self.control > 0).then(|| look(mutants.len(), None, self.control));
        live.end();
        Ok(Hall { exhibits, control, took: began.elapsed() })
    }

    /// What a layer has to say of a mutant: its pieces are looked at in order, several at once.
    fn look_for(&self, layer: &dyn Layer, mutant: Option<Mutant>, times: u64, watch: &(dyn Fn(u64) + Sync)) -> Finding {
        let pieces = layer.pieces(times);
        let available = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let jobs = self.jobs.unwrap_or(available).min(pieces);
        let (next, looks) = (AtomicU64::new(0), Mutex::new(Looks::default()));
        let carried = mutant.map_or("", Mutant::name);
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
                        let seed = if layer.name() == "worlds" { self.from + piece } else { piece };
                        let look = on_its_own(seed, &what, || layer.look_at(piece, mutant, times));
                        looks.lock().expect("no thread panics while it holds this").add(piece, look);
                    }
                });
            }
        });
        looks.into_inner().expect("no thread panicked").finding()
    }
}

fn stories() -> std::io::Result<Stories> {
    let mut scripts = Vec::new();
    for entry in fs::read_dir(Path::new(SCRIPTS))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        scripts.push((name, fs::read_to_string(path)?));
    }
    Ok(Stories::of(scripts))
}
