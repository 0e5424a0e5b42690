//! Counts as functions of the number of spins.

use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, Mul};

/// A sum of terms `c N^a (log2 N)^b` with nonnegative c; lower-order constants
/// inside logarithms are dropped (`log2(N/t)` counts as `log2 N`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Formula {
    terms: BTreeMap<(u32, u32), f64>,
}

impl Formula {
    /// Nothing.
    pub fn zero() -> Formula {
        Formula::default()
    }
    /// A number.
    pub fn constant(c: f64) -> Formula {
        Formula::term(c, 0, 0)
    }
    /// `c N^power (log2 N)^logs`.
    pub fn term(c: f64, power: u32, logs: u32) -> Formula {
        let mut terms = BTreeMap::new();
        if c != 0.0 {
            terms.insert((power, logs), c);
        }
        Formula { terms }
    }
    /// `c N`.
    pub fn linear(c: f64) -> Formula {
        Formula::term(c, 1, 0)
    }
    /// Its value for `n` spins.
    pub fn at(&self, n: f64) -> f64 {
        let log = n.max(1.0).log2();
        self.terms
            .iter()
            .map(|((a, b), c)| c * n.powi(*a as i32) * log.powi(*b as i32))
            .sum()
    }
    /// The fastest growing term's powers of N and log N; `(0, 0)` if zero.
    pub fn degree(&self) -> (u32, u32) {
        self.terms.keys().next_back().copied().unwrap_or((0, 0))
    }
    /// The growth class, `O(N log N)`.
    pub fn class(&self) -> String {
        let (a, b) = self.degree();
        let mut parts = vec![];
        match a {
            0 => {}
            1 => parts.push("N".to_owned()),
            a => parts.push(format!("N^{a}")),
        }
        match b {
            0 => {}
            1 => parts.push("log N".to_owned()),
            b => parts.push(format!("log^{b} N")),
        }
        format!(
            "O({})",
            if parts.is_empty() {
                "1".to_owned()
            } else {
                parts.join(" ")
            }
        )
    }
    /// Divided by N, for costs shared by N proposals.
    pub fn per_site(&self) -> Formula {
        let mut shared = Formula::zero();
        for (&(a, b), &c) in &self.terms {
            shared += match a {
                // A constant shared by N is dropped: it only shrinks.
                0 => Formula::zero(),
                a => Formula::term(c, a - 1, b),
            };
        }
        shared
    }
    /// Times a number.
    pub fn scaled(&self, c: f64) -> Formula {
        self * &Formula::constant(c)
    }
}

impl Add for Formula {
    type Output = Formula;
    fn add(mut self, o: Formula) -> Formula {
        self += o;
        self
    }
}

impl AddAssign for Formula {
    fn add_assign(&mut self, o: Formula) {
        for (k, c) in o.terms {
            *self.terms.entry(k).or_insert(0.0) += c;
        }
    }
}

impl Mul for &Formula {
    type Output = Formula;
    fn mul(self, o: &Formula) -> Formula {
        let mut product = Formula::zero();
        for (&(a, b), &c) in &self.terms {
            for (&(e, f), &d) in &o.terms {
                product += Formula::term(c * d, a + e, b + f);
            }
        }
        product
    }
}

impl std::iter::Sum for Formula {
    fn sum<I: Iterator<Item = Formula>>(all: I) -> Formula {
        all.fold(Formula::zero(), Add::add)
    }
}

impl std::fmt::Display for Formula {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        for (n, (&(a, b), &c)) in self.terms.iter().rev().enumerate() {
            if n > 0 {
                f.write_str(" + ")?;
            }
            f.write_str(&number(c))?;
            match a {
                0 => {}
                1 => f.write_str(" N")?,
                a => write!(f, " N^{a}")?,
            }
            match b {
                0 => {}
                1 => f.write_str(" log2(N)")?,
                b => write!(f, " log2(N)^{b}")?,
            }
        }
        Ok(())
    }
}

/// A count with three digits and a unit, as in `36.1 k`.
pub fn number(x: f64) -> String {
    let (scaled, unit) = match x.abs() {
        a if a >= 1e9 => (x / 1e9, " G"),
        a if a >= 1e6 => (x / 1e6, " M"),
        a if a >= 1e4 => (x / 1e3, " k"),
        _ => (x, ""),
    };
    let digits = match scaled.abs() {
        a if a >= 100.0 => 0,
        a if a >= 10.0 => 1,
        _ => 2,
    };
    let mut text = format!("{scaled:.digits$}");
    if text.contains('.') {
        text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text + unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_and_print() {
        let f = &(Formula::linear(2.0) + Formula::constant(3.0)) * &Formula::term(1.0, 1, 1);
        assert_eq!(f.to_string(), "2 N^2 log2(N) + 3 N log2(N)");
        assert_eq!(f.at(4.0), 2.0 * 16.0 * 2.0 + 3.0 * 4.0 * 2.0);
        assert_eq!(f.class(), "O(N^2 log N)");
        assert_eq!(f.per_site().to_string(), "2 N log2(N) + 3 log2(N)");
        assert_eq!(Formula::zero().to_string(), "0");
        assert_eq!(Formula::zero().class(), "O(1)");
        assert_eq!(Formula::constant(36_100.0).to_string(), "36.1 k");
        assert_eq!(number(1234.0), "1234");
        assert_eq!(number(100.0), "100");
        assert_eq!(number(2.5e6), "2.5 M");
    }
}
