//! What happened while sampling.

/// Counts over all chains of one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Local moves proposed (exchanges of equal spins included).
    pub proposed: u64,
    /// Local moves accepted.
    pub accepted: u64,
    /// Global inversions proposed.
    pub inversions: u64,
    /// Global inversions accepted.
    pub inverted: u64,
    /// Uniform proposals.
    pub uniform_proposed: u64,
    /// Uniform proposals accepted.
    pub uniform_accepted: u64,
    /// Typewriter decisions made from a bound alone, after at least one
    /// accepted flip.
    pub screened: u64,
    /// Typewriter decisions that needed the exact ratio and a rebuild.
    pub corrections: u64,
    /// Largest observed `|Re(exact - frozen log ratio)|` at a correction.
    pub worst_error: f64,
    /// Largest observed error divided by the bound it was promised.
    pub worst_error_over_bound: f64,
    /// Log ratios that were NaN; such moves are refused.
    pub not_a_number: u64,
    /// Sweeps for which the network offered no exact sequential sweep, so that
    /// each flip was evaluated on its own.
    pub sweeps_without_environments: u64,
}

impl Report {
    /// Accepted local moves per proposed one; NaN where none was proposed.
    pub fn acceptance(&self) -> f64 {
        self.accepted as f64 / self.proposed as f64
    }

    /// Fraction of decisions after an accepted flip that a bound decided.
    pub fn screened_fraction(&self) -> f64 {
        self.screened as f64 / (self.screened + self.corrections) as f64
    }

    /// Adds the counts of another chain or call.
    pub fn merge(&mut self, other: &Report) {
        self.proposed += other.proposed;
        self.accepted += other.accepted;
        self.inversions += other.inversions;
        self.inverted += other.inverted;
        self.uniform_proposed += other.uniform_proposed;
        self.uniform_accepted += other.uniform_accepted;
        self.screened += other.screened;
        self.corrections += other.corrections;
        self.worst_error = self.worst_error.max(other.worst_error);
        self.worst_error_over_bound = self
            .worst_error_over_bound
            .max(other.worst_error_over_bound);
        self.not_a_number += other.not_a_number;
        self.sweeps_without_environments += other.sweeps_without_environments;
    }
}
