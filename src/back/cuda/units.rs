//! Everything a network runs on a device, as the compiler gets it: by translation unit.

use super::chains::{self, ChainSource};
use super::code::{CudaError, Source};
use super::emit::{Kernel, Options};
use super::environment::{self, NoSweep, SweepSource};
use super::flips::{self, FlipError, FlipSource};
use super::network::NetworkSource;
use super::{LIBRARY, linear, sums, translation_unit, typewriter};
use crate::ir::{Graph, Lattice};
use crate::pass::flips::Family;
use crate::run::network::Precision;

/// A translation unit: one kernel, or a few that are compiled together.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Its name: that of its kernel, if it has one.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// Working precision.
    pub precision: Precision,
    /// Libraries written by hand that its text follows, after the device library.
    pub libraries: Vec<&'static str>,
    /// The rest.
    pub text: String,
    /// Its kernels, as the host launches them.
    pub kernels: Vec<Kernel>,
}

impl Unit {
    /// The text the compiler gets.
    pub fn translation_unit(&self) -> String {
        let parts = self.libraries.iter().copied();
        let parts = parts.chain([self.text.as_str()]);
        translation_unit(self.precision, parts.filter(|p| !p.is_empty()))
    }
}

/// The names of units, and what each of them does.
pub const UNITS: [(&str, &str); 9] = [
    ("log_psi", "log psi of configurations"),
    (
        "gradient_sites",
        "derivatives of log psi by what mixers and pools leave",
    ),
    (
        "gradient_parameters",
        "derivatives of log psi by parameters",
    ),
    ("chains", "Markov chains, by full evaluations"),
    (
        "flip_changes",
        "pooled features and their change by every single flip",
    ),
    ("flip_readout", "log psi from pooled features"),
    ("typewriter", "the typewriter, by the flip program"),
    ("flips", "features of every changed configuration"),
    (
        "sums",
        "local energies: changes, sums of ratios, statistics",
    ),
];

/// The unit of stochastic reconfiguration, which every network shares.
pub const LINEAR: (&str, &str) = ("linear", "stochastic reconfiguration, in f64");

/// The units of the exact sweep, which depend on parameters in force: not every network
/// has them.
pub const SWEEP: [(&str, &str); 2] = [
    ("sweep", "the exact sweep, by environments"),
    (
        "sweep_at_cut",
        "its last proposals on a ring, by full evaluations",
    ),
];

/// Which unit a name means: its own, or that of one of its kernels.
pub fn unit_of(name: &str) -> Option<&'static str> {
    let shared = [
        (flips::KERNELS.as_slice(), "flips"),
        (sums::NAMES.as_slice(), "sums"),
        (linear::NAMES.as_slice(), LINEAR.0),
    ];
    let own = UNITS.iter().chain(&SWEEP).chain([&LINEAR]).map(|u| u.0);
    own.into_iter().find(|&u| u == name).or_else(|| {
        let of = shared.iter().find(|(kernels, _)| kernels.contains(&name));
        of.map(|&(_, unit)| unit)
    })
}

/// The units of a network on a lattice: all of them, or the one of this name. Those of
/// single flips are missing where the network has no flip program, for the reason that
/// comes with them.
///
/// # Errors
/// See [`CudaError`].
pub fn units(
    graph: &Graph,
    lattice: Lattice,
    options: &Options,
    only: Option<&str>,
) -> Result<(Vec<Unit>, Option<FlipError>), CudaError> {
    let wanted = |names: &[&str]| only.is_none_or(|only| names.contains(&only));
    let mut all = Vec::new();
    let mut add = |name: &str, libraries: &[&'static str], text: &str, kernels: Vec<Kernel>| {
        let known = UNITS.iter().chain([&LINEAR]).find(|u| u.0 == name);
        let Some(&(name, what)) = known else { return };
        if wanted(&[name]) {
            all.push(Unit {
                name,
                what,
                precision: match name == LINEAR.0 || name == "sums" {
                    true => Precision::F64,
                    false => options.precision,
                },
                libraries: libraries.to_vec(),
                text: text.to_owned(),
                kernels,
            });
        }
    };
    let own = |s: &Source| vec![s.kernel.clone()];
    if wanted(&["log_psi", "gradient_sites", "gradient_parameters"]) {
        let source = NetworkSource::new(graph, lattice, options)?;
        for s in source.sources() {
            add(&s.kernel.name, &[], &s.kernel.text, own(s));
        }
    }
    if wanted(&["chains"]) {
        let full = Source::new("log_psi", graph.clone(), lattice, &[], &[], options)?;
        let chains = ChainSource::new(&full, options)?.kernel;
        let text = chains.text.clone();
        add("chains", &[chains::LIBRARY], &text, vec![chains]);
    }
    let mut missing = None;
    if wanted(&["flip_changes", "flip_readout", "typewriter", "flips"]) {
        match FlipSource::new(graph, lattice, &[Family::single()], options) {
            Ok(source) => {
                for s in source.parts() {
                    add(&s.kernel.name, &[], &s.kernel.text, own(s));
                }
                let by_hand = flips::KERNELS.map(Kernel::by_hand).to_vec();
                add("flips", &[flips::LIBRARY], "", by_hand);
                let (kernel, _) = typewriter::source(&source, options)?;
                let text = kernel.text.clone();
                add("typewriter", &typewriter::LIBRARIES, &text, vec![kernel]);
            }
            Err(e) => missing = Some(e),
        }
    }
    add("sums", &[sums::LIBRARY], "", sums::kernels());
    add(LINEAR.0, &[linear::KERNELS], "", linear::kernels());
    Ok((all, missing))
}

/// The units of the exact sweep of a network with parameters on a lattice; the second one
/// is missing where no proposal needs it.
///
/// # Errors
/// See [`NoSweep`].
pub fn sweep(
    graph: &Graph,
    lattice: Lattice,
    theta: &[f64],
    options: &Options,
) -> Result<Vec<Unit>, NoSweep> {
    let full = Source::new("log_psi", graph.clone(), lattice, &[], &[], options)?;
    let source = SweepSource::new(&full, theta, options)?;
    let unit = |((name, what), kernel): (&(&'static str, &'static str), Kernel)| Unit {
        name,
        what,
        precision: options.precision,
        libraries: environment::LIBRARIES.to_vec(),
        text: kernel.text.clone(),
        kernels: vec![kernel],
    };
    let kernels = [Some(source.kernel), source.at_cut];
    let known = SWEEP.iter().zip(kernels);
    Ok(known.filter_map(|(u, k)| Some(unit((u, k?)))).collect())
}

/// The text of units one after the other: the device library once, libraries that
/// several of them share before the first.
pub fn listing(units: &[Unit]) -> String {
    let rule = |what: &str| format!("\n// {}\n// {what}\n\n", "-".repeat(76));
    let mut seen: Vec<&str> = Vec::new();
    let mut text = String::from("// `real` is the working precision of each unit.\n\n");
    text.push_str(LIBRARY);
    for u in units {
        let real = match u.precision {
            Precision::F32 => "float",
            Precision::F64 => "double",
        };
        text.push_str(&rule(&format!("{}: {} (real = {real})", u.name, u.what)));
        for library in &u.libraries {
            if !seen.contains(library) {
                seen.push(library);
                text.push_str(library);
                text.push('\n');
            }
        }
        text.push_str(&u.text);
    }
    text
}
