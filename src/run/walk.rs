//! Markov chains that a back end moves by itself.
//!
//! Random numbers are those of [`crate::rng`]: a chain's number, the sweep under
//! way and a purpose name a sequence, of which every proposal takes, in order, the
//! kind of move (if there are several), its sites, and the uniform number of the
//! decision. Whoever follows this comes to the same configurations, up to rounding
//! of log psi.

/// Whole sweeps of many chains.
#[derive(Clone, Copy, Debug)]
pub struct Walk<'a> {
    /// Seed of all chains.
    pub seed: u64,
    /// Number of the first chain.
    pub first: u32,
    /// Sweeps every chain has made before.
    pub step: u64,
    /// Sweeps to make.
    pub sweeps: usize,
    /// What a sweep proposes.
    pub proposals: Proposals<'a>,
    /// Accepts with probability `r / (1 + r)`, `r = |psi(s')/psi(s)|^2`, instead of
    /// `min(1, r)`.
    pub heat_bath: bool,
    /// All spins are proposed to be flipped after every so many sweeps; 0: never.
    pub inversion_every: u64,
    /// A uniform configuration is proposed after every so many sweeps; 0: never.
    pub uniform_every: u64,
    /// Fixed sum of all spins.
    pub magnetization: Option<i64>,
}

/// What a sweep proposes.
#[derive(Clone, Copy, Debug)]
pub enum Proposals<'a> {
    /// The flip of every site in order; in reverse in odd sweeps.
    Sequential,
    /// Blocks of sites, even ones first, a random site of each, as often as a block
    /// has sites; see [`crate::run::WaveFunction::typewriter`].
    Typewriter {
        /// Sites per block.
        width: usize,
        /// Whether bounds may decide.
        screened: bool,
    },
    /// Random moves.
    Random {
        /// Kinds of moves, each picked with equal probability.
        kinds: &'a [Kind<'a>],
        /// Proposals of one sweep.
        count: usize,
    },
}

/// A kind of random move.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// One spin.
    Single,
    /// Two spins.
    Pair,
    /// Two spins exchanged; equal ones stay.
    Exchange,
    /// Two spins of one of these pairs of sites exchanged.
    ExchangePairs(&'a [[usize; 2]]),
    /// All spins of one of these sets of sites.
    Clusters(&'a [Vec<usize>]),
}

/// Outcomes of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Moves of sweeps proposed.
    pub proposed: u64,
    /// Those made.
    pub accepted: u64,
    /// Those whose ratio was NaN.
    pub not_a_number: u64,
    /// Inversions proposed.
    pub inversions: u64,
    /// Inversions made.
    pub inverted: u64,
    /// Uniform configurations proposed.
    pub uniform_proposed: u64,
    /// Uniform configurations taken.
    pub uniform_accepted: u64,
    /// Sequential sweeps made by environments.
    pub by_environments: u64,
}

impl Tally {
    /// Adds the counts of other chains.
    pub fn merge(&mut self, other: &Tally) {
        self.proposed += other.proposed;
        self.accepted += other.accepted;
        self.not_a_number += other.not_a_number;
        self.inversions += other.inversions;
        self.inverted += other.inverted;
        self.uniform_proposed += other.uniform_proposed;
        self.uniform_accepted += other.uniform_accepted;
        self.by_environments += other.by_environments;
    }
}

/// What a typewriter did besides.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Screened {
    /// Decisions a bound made.
    pub screened: u64,
    /// Decisions that needed a new background.
    pub corrections: u64,
    /// Largest error of a ratio from an old one.
    pub worst_error: f64,
    /// Largest error over the bound it was promised.
    pub worst_error_over_bound: f64,
}

impl Screened {
    /// Adds what other chains did.
    pub fn merge(&mut self, other: &Screened) {
        self.screened += other.screened;
        self.corrections += other.corrections;
        self.worst_error = self.worst_error.max(other.worst_error);
        self.worst_error_over_bound =
            (self.worst_error_over_bound).max(other.worst_error_over_bound);
    }
}
