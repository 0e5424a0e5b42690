//! Every sampler against the exact distribution of a network on 2^12 states:
//! observables within four standard errors at a million samples.
//!
//! The network's amplitudes are computed once, by the interpreter, and looked up
//! from then on, so that a million samples take seconds.

use dnet::check::{Program, core::Static};
use dnet::ir::{Boundary, Lattice, lower};
use dnet::params::{Params, initialise};
use dnet::run::reference::Reference;
use dnet::run::{Background, Spins, WaveFunction};
use dnet::vmc::rng::{ChainRng, Stream};
use dnet::vmc::sampler::*;
use num_complex::Complex64;
use std::sync::OnceLock;

pub const SITES: usize = 12;
const STATES: usize = 1 << SITES;
/// Chains and samples of each: a million samples.
const CHAINS: usize = 500;
const PER_CHAIN: usize = 2000;

/// A network looked up in a table of its amplitudes. Bit i of the index is set
/// where spin i is down.
pub struct Tabulated {
    lattice: Lattice,
    log_psi: Vec<Complex64>,
    /// Whether `sweep` is offered.
    pub sweeps: bool,
}

fn index(spins: &Spins) -> usize {
    let bit = |(i, &s): (usize, &i8)| usize::from(s < 0) << i;
    spins.iter().enumerate().map(bit).sum()
}

fn spins_of(index: usize) -> [i8; SITES] {
    std::array::from_fn(|i| 1 - 2 * (index >> i & 1) as i8)
}

fn mask(flips: &[usize]) -> usize {
    flips.iter().fold(0, |mask, i| mask ^ 1 << i)
}

/// A network of `examples/` with parameters of order one: its initial ones plus
/// normal numbers of standard deviation `spread`.
pub fn network(
    file: &str,
    defines: &[(&str, i64)],
    lattice: Lattice,
    spread: f64,
    seed: u64,
) -> (dnet::ir::Graph, Params) {
    let path = format!("{}/examples/{file}.dnet", env!("CARGO_MANIFEST_DIR"));
    let program = Program::load(std::path::Path::new(&path));
    let mut request = program.only_network();
    for &(name, value) in defines {
        request = request.with(name, Static::Int(value));
    }
    let info = request.check().unwrap();
    let lowered = lower(&info);
    let mut params = initialise(&info, &lowered, lattice, seed).unwrap();
    let mut rng = ChainRng::new(seed, 1, 0, Stream::Parameters);
    let theta: Vec<f64> = params
        .flat()
        .iter()
        .map(|x| x + spread * rng.normal())
        .collect();
    params.set_flat(&theta);
    (lowered.graph, params)
}

/// Entropies of the distributions, relative to the flat one: neither flat nor so
/// peaked that chains of local moves are stuck.
const ENTROPY: std::ops::Range<f64> = 0.7..0.98;

impl Tabulated {
    /// The network with the first of these spreads whose chains still move.
    fn new(file: &str, defines: &[(&str, i64)], spreads: &[f64], seed: u64) -> Tabulated {
        let make = |spread: &f64| Tabulated::at(file, defines, *spread, seed);
        let mut found = spreads.iter().map(make);
        found
            .find(|psi| psi.entropy() > ENTROPY.start)
            .expect("some spread leaves the chains free")
    }

    /// Of the distribution, relative to the flat one.
    fn entropy(&self) -> f64 {
        let p = self.probabilities(None);
        let entropy: f64 = p.iter().filter(|x| **x > 0.0).map(|x| -x * x.ln()).sum();
        entropy / (STATES as f64).ln()
    }

    fn at(file: &str, defines: &[(&str, i64)], spread: f64, seed: u64) -> Tabulated {
        let lattice = Lattice::chain(SITES, Boundary::Periodic);
        let (graph, params) = network(file, defines, lattice, spread, seed);
        let psi = Reference::new(graph, lattice, params).unwrap();
        let all: Vec<i8> = (0..STATES).flat_map(spins_of).collect();
        let mut log_psi = vec![Complex64::default(); STATES];
        psi.log_psi(&all, &mut log_psi);
        Tabulated {
            lattice,
            log_psi,
            sweeps: false,
        }
    }

    /// `|psi|^2`, normalised, of all states (of one magnetisation).
    fn probabilities(&self, magnetization: Option<i64>) -> Vec<f64> {
        let total = |k: usize| spins_of(k).iter().map(|&s| i64::from(s)).sum::<i64>();
        let inside = |k: usize| magnetization.is_none_or(|m| m == total(k));
        let top = self
            .log_psi
            .iter()
            .fold(f64::NEG_INFINITY, |t, z| t.max(z.re));
        let mut p: Vec<f64> = (0..STATES)
            .map(|k| {
                if inside(k) {
                    (2.0 * (self.log_psi[k].re - top)).exp()
                } else {
                    0.0
                }
            })
            .collect();
        let norm: f64 = p.iter().sum();
        p.iter_mut().for_each(|x| *x /= norm);
        p
    }
}

struct Looked<'a> {
    psi: &'a Tabulated,
    at: usize,
}

impl Background for Looked<'_> {
    fn log_psi(&self) -> Complex64 {
        self.psi.log_psi[self.at]
    }
    fn log_ratio(&mut self, flips: &[usize]) -> Complex64 {
        self.psi.log_psi[self.at ^ mask(flips)] - self.psi.log_psi[self.at]
    }
    fn accept(&mut self, flips: &[usize]) {
        self.at ^= mask(flips);
    }
}

impl WaveFunction for Tabulated {
    fn lattice(&self) -> Lattice {
        self.lattice
    }
    fn param_count(&self) -> usize {
        0
    }
    fn is_complex(&self) -> bool {
        true
    }
    fn set_params(&mut self, _: &[f64]) {}
    fn params(&self) -> &[f64] {
        &[]
    }
    fn log_psi(&self, batch: &Spins, out: &mut [Complex64]) {
        for (spins, out) in batch.chunks_exact(SITES).zip(out) {
            *out = self.log_psi[index(spins)];
        }
    }
    fn gradients(&self, _: &Spins, _: &(dyn Fn(usize, &[f64], &[f64]) + Sync)) {}
    fn background<'a>(&'a self, spins: &Spins) -> Box<dyn Background + 'a> {
        Box::new(Looked {
            psi: self,
            at: index(spins),
        })
    }
    fn sweep(
        &self,
        spins: &mut Spins,
        reverse: bool,
        decide: &mut dyn FnMut(usize, Complex64) -> bool,
    ) -> Option<()> {
        if !self.sweeps {
            return None;
        }
        let mut at = index(spins);
        for k in 0..SITES {
            let site = if reverse { SITES - 1 - k } else { k };
            if decide(site, self.log_psi[at ^ 1 << site] - self.log_psi[at]) {
                at ^= 1 << site;
                spins[site] = -spins[site];
            }
        }
        Some(())
    }
}

/// Observables of different parity, range and nonlinearity.
fn observables(s: &[i8; SITES]) -> [f64; 9] {
    let z = |i: usize| f64::from(s[i % SITES]);
    let mean = |f: &dyn Fn(usize) -> f64| (0..SITES).map(f).sum::<f64>() / SITES as f64;
    let m = mean(&z);
    [
        m,
        m * m,
        m.abs(),
        mean(&|i| z(i) * z(i + 1)),
        mean(&|i| z(i) * z(i + 5)),
        z(0),
        z(3) * z(9),
        z(1) * z(2) * z(6),
        f64::from(u8::from((4..8).all(|i| s[i] > 0))),
    ]
}

/// Draws a million samples and compares with the exact sums.
fn against_exact(
    psi: &Tabulated,
    options: SamplerOptions,
    bound: Option<&dyn ScreenBound>,
) -> Report {
    let table: Vec<[f64; 9]> = (0..STATES).map(|k| observables(&spins_of(k))).collect();
    let weights = psi.probabilities(options.magnetization);
    let what = format!("{:?} {:?}", options.method, options.acceptance);
    let mut sampler = Sampler::new(options, SITES).unwrap();
    let target = Target { psi, bound };
    sampler.advance(target, 500);
    let (samples, report) = sampler.sample(target, PER_CHAIN);
    assert_eq!(samples.len(), 1_000_000);
    let mut chains = vec![[0.0; 9]; CHAINS];
    for (k, sample) in samples.spins.chunks_exact(SITES).enumerate() {
        for (sum, x) in chains[k / PER_CHAIN].iter_mut().zip(table[index(sample)]) {
            *sum += x / PER_CHAIN as f64;
        }
    }
    for o in 0..9 {
        let exact: f64 = weights.iter().zip(&table).map(|(w, x)| w * x[o]).sum();
        let mean = chains.iter().map(|c| c[o]).sum::<f64>() / CHAINS as f64;
        let scatter: f64 = chains.iter().map(|c| (c[o] - mean).powi(2)).sum();
        let error = (scatter / (CHAINS * (CHAINS - 1)) as f64).sqrt();
        // a quantity that is conserved has no statistical error
        let deviation = (mean - exact).abs();
        assert!(
            deviation <= 4.0 * error + 1e-9,
            "{what}: observable {o} is {mean} ± {error}, exactly {exact}"
        );
        assert!(
            error < 0.02,
            "{what}: observable {o}: an error of {error} says nothing"
        );
    }
    report
}

/// Narrow enough for twelve sites.
const SMALL: &[(&str, i64)] = &[("dim", 4), ("states", 2), ("kernel", 2)];

/// The published network, smaller: gates, S4 mixers, tokens of two spins.
pub fn dysonnet() -> &'static Tabulated {
    static PSI: OnceLock<Tabulated> = OnceLock::new();
    PSI.get_or_init(|| Tabulated::new("dysonnet", SMALL, &[0.0], 2))
}

/// A complex one.
fn rbm() -> &'static Tabulated {
    static PSI: OnceLock<Tabulated> = OnceLock::new();
    PSI.get_or_init(|| Tabulated::new("rbm_complex", &[], &[0.3, 0.2, 0.1], 4))
}

fn options(method: Method, acceptance: Acceptance) -> SamplerOptions {
    SamplerOptions {
        method,
        acceptance,
        chains: CHAINS,
        seed: 23,
        ..SamplerOptions::default()
    }
}

fn metropolis(moves: Vec<Move>) -> Method {
    Method::Metropolis {
        moves,
        proposals: None,
    }
}

#[test]
fn the_table_is_no_trivial_distribution() {
    for psi in [dysonnet(), rbm()] {
        assert!(ENTROPY.contains(&psi.entropy()), "{}", psi.entropy());
    }
    assert!(rbm().log_psi.iter().any(|z| z.im.abs() > 0.1));
}

#[test]
fn full_sums_are_the_distribution() {
    for magnetization in [None, Some(0), Some(4)] {
        let psi = rbm();
        let samples = full_sum(psi, magnetization);
        let expected = psi.probabilities(magnetization);
        let mut seen = 0.0;
        for k in 0..samples.len() {
            let p = expected[index(samples.get(k))];
            assert!((samples.weight(k) - p).abs() < 1e-13);
            seen += p;
        }
        assert!((seen - 1.0).abs() < 1e-12);
    }
}

#[test]
fn single_flips() {
    let single = || metropolis(vec![Move::Single]);
    let report = against_exact(dysonnet(), options(single(), Acceptance::Metropolis), None);
    assert!((0.05..0.95).contains(&report.acceptance()), "{report:?}");
    against_exact(rbm(), options(single(), Acceptance::HeatBath), None);
}

#[test]
fn pairs_and_clusters() {
    let sets = vec![vec![0, 1, 2], vec![5, 9], vec![4]];
    let moves = vec![Move::Single, Move::Pair, Move::Clusters(sets)];
    against_exact(
        rbm(),
        options(metropolis(moves), Acceptance::Metropolis),
        None,
    );
}

#[test]
fn exchanges_and_inversion_at_fixed_magnetisation() {
    let pairs: Vec<[usize; 2]> = (0..SITES).map(|i| [i, (i + 1) % SITES]).collect();
    for (magnetization, moves, every) in [
        (0, vec![Move::ExchangePairs(pairs)], 3),
        (4, vec![Move::Exchange], 0),
    ] {
        let mut options = options(metropolis(moves), Acceptance::Metropolis);
        options.magnetization = Some(magnetization);
        options.inversion_every = every;
        options.uniform_every = every;
        let report = against_exact(rbm(), options, None);
        assert_eq!(report.inversions > 0, every > 0);
    }
}

#[test]
fn sequential_sweeps_from_environments_and_without() {
    let mut offering = Tabulated {
        lattice: dysonnet().lattice,
        log_psi: dysonnet().log_psi.clone(),
        sweeps: true,
    };
    for (sweeps, rule, every) in [
        (true, Acceptance::HeatBath, 0),
        (false, Acceptance::Metropolis, 2),
    ] {
        offering.sweeps = sweeps;
        let mut options = options(Method::Sweep, rule);
        options.inversion_every = every;
        options.uniform_every = every;
        let report = against_exact(&offering, options, None);
        assert_eq!(report.sweeps_without_environments == 0, sweeps);
        assert_eq!(report.uniform_accepted > 1000, every > 0, "{report:?}");
    }
}

#[test]
fn the_typewriter_with_empirical_bounds() {
    let method = Method::Typewriter {
        width: 3,
        screened: true,
    };
    let report = against_exact(dysonnet(), options(method, Acceptance::Metropolis), None);
    assert!(
        report.screened > 100_000 && report.corrections > 1000,
        "{report:?}"
    );
}

#[test]
fn uniform_proposals_find_what_local_moves_cannot() {
    // a state that holds a fiftieth of the weight, behind a moat
    let mut psi = Tabulated {
        lattice: rbm().lattice,
        log_psi: rbm().log_psi.clone(),
        sweeps: false,
    };
    let peak = 0b1001_1010_0101;
    let norm: f64 = psi.log_psi.iter().map(|z| (2.0 * z.re).exp()).sum();
    psi.log_psi[peak].re = 0.5 * (norm / 49.0).ln();
    for site in 0..SITES {
        psi.log_psi[peak ^ 1 << site].re = psi.log_psi[peak].re - 12.0;
    }
    let weight = psi.probabilities(None)[peak];
    assert!((0.01..0.03).contains(&weight));
    let run = |every| {
        let mut options = options(Method::Sweep, Acceptance::HeatBath);
        options.uniform_every = every;
        let mut sampler = Sampler::new(options, SITES).unwrap();
        sampler.advance(Target::new(&psi), 500);
        let (samples, _) = sampler.sample(Target::new(&psi), PER_CHAIN);
        let chains = samples.spins.chunks_exact(SITES * PER_CHAIN);
        let hits = |chain: &[i8]| {
            chain
                .chunks_exact(SITES)
                .filter(|s| index(s) == peak)
                .count()
        };
        let means: Vec<f64> = chains.map(|c| hits(c) as f64 / PER_CHAIN as f64).collect();
        let mean = means.iter().sum::<f64>() / CHAINS as f64;
        let scatter: f64 = means.iter().map(|m| (m - mean).powi(2)).sum();
        (mean, (scatter / (CHAINS * (CHAINS - 1)) as f64).sqrt())
    };
    // chains that begin there stay there: at most a few of five hundred
    let (unseen, _) = run(0);
    assert!(unseen < 0.25 * weight, "{unseen} of {weight}");
    let (seen, error) = run(1);
    assert!(error < 0.2 * weight, "an error of {error} says nothing");
    assert!(
        (seen - weight).abs() < 4.0 * error,
        "{seen} ± {error} of {weight}"
    );
}
