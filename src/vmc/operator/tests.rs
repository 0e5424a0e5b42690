//! Operators against dense matrices built from Kronecker products.

use super::*;
use crate::check::operator::Pauli::{self, X, Y, Z};

/// Dense matrices, row major; bit j (from the least) set: spin j is down.
struct Dense {
    dim: usize,
    entries: Vec<Complex64>,
}

impl Dense {
    fn zero(n: usize) -> Dense {
        Dense {
            dim: 1 << n,
            entries: vec![Complex64::new(0.0, 0.0); 1 << (2 * n)],
        }
    }

    /// Adds c times the matrix product of single-site Kronecker products.
    fn add(&mut self, n: usize, c: f64, factors: &[(usize, Pauli)]) {
        let one = Complex64::new(1.0, 0.0);
        let mut product: Vec<Complex64> = vec![Complex64::new(0.0, 0.0); self.dim * self.dim];
        for k in 0..self.dim {
            product[k * self.dim + k] = one * c;
        }
        for &(site, pauli) in factors {
            let i = Complex64::new(0.0, 1.0);
            let zero = Complex64::new(0.0, 0.0);
            let matrix = match pauli {
                X => [[zero, one], [one, zero]],
                Y => [[zero, -i], [i, zero]],
                Z => [[one, zero], [zero, -one]],
            };
            let mut next = vec![zero; self.dim * self.dim];
            for row in 0..self.dim {
                for mid in 0..self.dim {
                    for column in [mid, mid ^ (1 << site)] {
                        let element = matrix[mid >> site & 1][column >> site & 1];
                        next[row * self.dim + column] += product[row * self.dim + mid] * element;
                    }
                }
            }
            product = next;
        }
        assert!(factors.iter().all(|f| f.0 < n));
        for (a, b) in self.entries.iter_mut().zip(product) {
            *a += b;
        }
    }
}

fn spins_of(bits: usize, n: usize) -> Vec<i8> {
    (0..n)
        .map(|j| if bits >> j & 1 == 0 { 1 } else { -1 })
        .collect()
}

fn assert_equal(operator: &Operator, dense: &Dense) {
    let n = operator.lattice().sites();
    for row in 0..dense.dim {
        let spins = spins_of(row, n);
        let mut entries = vec![Complex64::new(0.0, 0.0); dense.dim];
        entries[row].re = operator.diagonal(&spins);
        operator.connected(&spins, &mut |flips, element| {
            let column = flips.iter().fold(row, |bits, &f| bits ^ 1 << f);
            assert_eq!(entries[column], Complex64::new(0.0, 0.0), "each s' once");
            assert!(element.norm() > 0.0);
            entries[column] = element;
        });
        for (column, entry) in entries.iter().enumerate() {
            let difference = entry - dense.entries[row * dense.dim + column];
            assert!(difference.norm() < 1e-12, "<{row:b}|H|{column:b}>");
        }
    }
}

#[test]
fn every_string_equals_its_kronecker_product() {
    let n = 4;
    let lattice = Lattice::chain(n, Boundary::Periodic);
    let all: [&[(usize, Pauli)]; 9] = [
        &[(0, X)],
        &[(1, Y)],
        &[(2, Z)],
        &[(0, Y), (1, Y)],
        &[(0, X), (2, Y), (3, Z)],
        &[(0, Y), (1, Y), (2, Y), (3, X)],
        &[(3, Z), (0, Z), (1, Z)],
        // repeated sites, where the product stays Hermitian
        &[(2, X), (1, Z), (2, Y), (1, X)],
        &[(1, Y), (0, Z), (1, Y)],
    ];
    let mut sum = Dense::zero(n);
    let mut whole = OperatorBuilder::new(lattice);
    for (k, factors) in all.iter().enumerate() {
        let c = 0.3 + k as f64;
        let mut dense = Dense::zero(n);
        dense.add(n, c, factors);
        sum.add(n, c, factors);
        let mut builder = OperatorBuilder::new(lattice);
        builder.string(Complex64::new(c, 0.0), factors).unwrap();
        whole.string(Complex64::new(c, 0.0), factors).unwrap();
        assert_equal(&builder.build().unwrap(), &dense);
    }
    for i in 0..n {
        sum.add(n, -0.7, &[(i, Z), ((i + 1) % n, Z)]);
        sum.add(n, 0.2, &[(i, Z), ((i + 2) % n, Z)]);
    }
    whole.pair_coupling([1, 0], -0.7);
    whole.pair_coupling([2, 0], 0.2);
    let whole = whole.build().unwrap();
    assert_equal(&whole, &sum);
    assert!(!whole.is_real());
    let trace: Complex64 = (0..sum.dim).map(|k| sum.entries[k * sum.dim + k]).sum();
    assert!((whole.infinite_temperature_energy() - trace.re / sum.dim as f64).abs() < 1e-12);
    // flip differences of the diagonal
    for bits in 0..16 {
        let spins = spins_of(bits, n);
        for flips in [vec![0], vec![1, 3], vec![0, 1, 2, 3], vec![2, 0, 1]] {
            let mut flipped = spins.clone();
            flips.iter().for_each(|&f| flipped[f] = -flipped[f]);
            let expected = whole.diagonal(&flipped) - whole.diagonal(&spins);
            assert!((whole.diagonal_difference(&spins, &flips) - expected).abs() < 1e-12);
        }
    }
}

#[test]
fn exchange_connects_antiparallel_spins_only() {
    let mut builder = OperatorBuilder::new(Lattice::chain(6, Boundary::Periodic));
    for i in 0..6 {
        for pauli in [X, Y, Z] {
            builder
                .string(
                    Complex64::new(0.25, 0.0),
                    &[(i, pauli), ((i + 1) % 6, pauli)],
                )
                .unwrap();
        }
    }
    let heisenberg = builder.build().unwrap();
    assert!(
        heisenberg.conserves_magnetisation()
            && heisenberg.commutes_with_inversion()
            && heisenberg.is_real()
    );
    let mut count = 0;
    heisenberg.connected(&[1, 1, -1, -1, 1, 1], &mut |flips, element| {
        assert_eq!(element, Complex64::new(0.5, 0.0));
        assert!(flips == [1, 2] || flips == [3, 4]);
        count += 1;
    });
    assert_eq!(count, 2);
    let shapes = heisenberg.cluster_shapes();
    assert_eq!(
        shapes,
        [ClusterShape {
            offsets: vec![[0, 0], [1, 0]],
            extent: [2, 1],
            count: 6
        }]
    );
}

#[test]
fn complex_coefficients_are_refused_unless_they_cancel() {
    let lattice = Lattice::chain(3, Boundary::Open);
    let mut builder = OperatorBuilder::new(lattice);
    builder
        .string(Complex64::new(1.0, 0.0), &[(0, X), (0, Z)])
        .unwrap();
    let mut both = builder.clone();
    let error = builder.build().unwrap_err();
    assert_eq!(
        error,
        OperatorError::NotHermitian {
            string: "Y(0)".into(),
            re: 0.0,
            im: -1.0
        }
    );
    both.string(Complex64::new(1.0, 0.0), &[(0, Z), (0, X)])
        .unwrap();
    assert_eq!(both.build().unwrap().string_count(), 0);
    let mut nan = OperatorBuilder::new(lattice);
    nan.string(Complex64::new(f64::NAN, 0.0), &[(1, X)])
        .unwrap();
    assert!(matches!(nan.build(), Err(OperatorError::NotFinite { .. })));
    let error = OperatorBuilder::new(lattice)
        .string(Complex64::new(1.0, 0.0), &[(3, X)])
        .unwrap_err();
    assert_eq!(error, OperatorError::NoSuchSite { site: 3, sites: 3 });
}

#[test]
fn conservation_laws() {
    let lattice = Lattice::chain(4, Boundary::Open);
    let with = |strings: &[(f64, &[(usize, Pauli)])]| {
        let mut builder = OperatorBuilder::new(lattice);
        for (c, factors) in strings {
            builder.string(Complex64::new(*c, 0.0), factors).unwrap();
        }
        builder.build().unwrap()
    };
    let field = with(&[
        (1.0, &[(0, Z)]),
        (1.0, &[(0, X), (1, X)]),
        (1.0, &[(0, Y), (1, Y)]),
    ]);
    assert!(field.conserves_magnetisation() && !field.commutes_with_inversion());
    let pairing = with(&[(1.0, &[(0, X), (1, X)])]);
    assert!(!pairing.conserves_magnetisation() && pairing.commutes_with_inversion());
    let current = with(&[(1.0, &[(0, X), (1, Y)]), (-1.0, &[(0, Y), (1, X)])]);
    assert!(current.conserves_magnetisation() && !current.is_real());
    let shapes = with(&[(1.0, &[(0, X), (3, X)]), (1.0, &[(2, X)])]).cluster_shapes();
    assert_eq!(shapes[1].extent, [4, 1]);
}

/// Linear memory and time: what a quadratic list could not do in a test.
#[test]
fn long_range_coupling_of_a_hundred_thousand_spins() {
    let n: i64 = 100_000;
    let mut builder = OperatorBuilder::new(Lattice::chain(n as usize, Boundary::Periodic));
    let mut uniform = 0.0;
    for d in 1..=n / 2 {
        let j = (d as f64).powf(-1.5) * if 2 * d == n { 0.5 } else { 1.0 };
        builder.pair_coupling([d, 0], j);
        uniform += j * n as f64;
    }
    for i in 0..n as usize {
        builder
            .string(Complex64::new(-1.0, 0.0), &[(i, X)])
            .unwrap();
    }
    let operator = builder.build().unwrap();
    assert!(operator.pairs().unwrap().momentum_space());
    assert_eq!(operator.string_count(), (n * (n - 1) / 2 + n) as usize);
    let up = vec![1i8; n as usize];
    assert!((operator.diagonal(&up) - uniform).abs() < 1e-9 * uniform);
    let field = operator.pairs().unwrap().field(&up, 17);
    assert!((operator.diagonal_difference(&up, &[17]) + 2.0 * field).abs() < 1e-9);
}
