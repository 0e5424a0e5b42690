//! The cost formulas of environments against counts: sizes of the arrays, and the
//! multiply-adds of the recurrence carried out product by product.

use dnet::check::Program;
use dnet::interp::arbitrary::Random;
use dnet::ir::{Boundary, Lattice};
use dnet::params::{initialise, perturb};
use dnet::pass::abacus::{Background, Network};
use dnet::pass::cost::Environment;
use dnet::pass::link::Realisation;
use dnet::pass::link::environment::{Chain, blocks};
use dnet::pass::link::realisation::Matrix;
use dnet::pass::link::segment::{Ports, Segment, SiteBlock};
use dnet::pipeline;

/// Networks of all kinds of recurrences, deep and shallow, with skips. Not `lru`: its
/// real input and output weights count as complex ones, as its recurrence is.
const NETWORKS: [&str; 5] = [
    "network n() { let phi = patch(spins, 1) |> dense(2) as e
       let h = gate(phi) * s4d(phi, 2, bidirectional: true)
       log_psi = mean(h) |> log_cosh_head(1) }",
    "network n() { let phi = patch(spins, 2) |> dense(4) as e
       var h = phi
       repeat 2 { h += gate(phi) * dense(s4(dense(h, 4) as before, 3, bidirectional: true), 4) as behind }
       log_psi = mean(h) |> log_cosh_head(2) }",
    "network n() { let phi = patch(spins, 1) |> dense(2) as e
       let a = exponential(phi, 2)
       let b = s4d(gate(phi) * dense(a, 2) as before_b, 3)
       let c = from_the_right(dense(b, 2) + gate(phi) * dense(a, 2) as before_c)
       log_psi = mean(gate(phi) * c + b) |> log_cosh_head(3) }",
    "network n() { let phi = patch(spins, 1) |> dense(2) as e
       var h = phi
       repeat 3 { h = gate(phi) * dense(exponential(h, 3), 2) + h }
       log_psi = log_cosh_head(mean(h), 1) + channel_sum(mean(h * phi)) }",
    "network n() { let phi = patch(spins, 1) |> dense(4) as e
       var h = phi
       h += gate(phi) * dense(s4(h, 2), 4)
       h += gate(phi) * dense(s4d(h, 1), 4)
       log_psi = mean(dense(exponential(h, 1), 4)) |> log_cosh_head(1) }",
];

fn program(network: &str) -> Program {
    let text = format!(
        "use std::nn::{{dense, mean, silu, log_cosh_head, channel_sum}}
         use std::mixers::{{s4, s4d, exponential}}
         fn gate(x) = silu(dense(x, dim(x)))
         mixer from_the_right(x): state_space {{
           param decay: real[2, dim(x)] = 0.9 * random_uniform
           param weight: real[2, dim(x)] = random_normal
           return scan(x, decay: decay, input: weight, output: weight, leftward: true)
         }}
         {network}"
    );
    Program::parse("counted.dnet", &text)
}

/// Products that count themselves.
#[derive(Default)]
struct Counter {
    products: usize,
}

impl Counter {
    /// `a b`, counting products of numbers that are not zero.
    fn times(&mut self, a: &Matrix, b: &Matrix) -> Matrix {
        let rows: Vec<usize> = (0..b.rows).map(|k| nonzero(row(b, k))).collect();
        for r in 0..a.rows {
            let used = row(a, r).iter().zip(&rows).filter(|(x, _)| **x != 0.0);
            self.products += used.map(|(_, n)| n).sum::<usize>();
        }
        a.times(b)
    }
    /// As `times` where one factor is a transition of `per` products per element of
    /// the other one, `x`: diagonal plus rank one is not multiplied out.
    fn moved(&mut self, a: &Matrix, b: &Matrix, x: &Matrix, per: usize) -> Matrix {
        self.products += nonzero(&x.data) * per;
        a.times(b)
    }
}

fn row(m: &Matrix, r: usize) -> &[f64] {
    &m.data[r * m.columns..(r + 1) * m.columns]
}

fn nonzero(x: &[f64]) -> usize {
    x.iter().filter(|x| **x != 0.0).count()
}

fn part(m: &Matrix, first: usize, columns: usize) -> Matrix {
    let data = (0..m.rows).flat_map(|r| row(m, r)[first..first + columns].to_vec());
    Matrix {
        rows: m.rows,
        columns,
        data: data.collect(),
    }
}

fn add(to: &mut Matrix, first: usize, x: &Matrix) {
    for r in 0..x.rows {
        for c in 0..x.columns {
            *to.at(r, first + c) += x.data[r * x.columns + c];
        }
    }
}

fn clear(m: &mut Matrix, first: usize, columns: usize) {
    for r in 0..m.rows {
        for c in first..first + columns {
            *m.at(r, c) = 0.0;
        }
    }
}

/// One mixer and its products per element for `L x`.
struct Mixer {
    real: Realisation,
    per: usize,
}

/// Everything left of a bond and one site more, in the order of the recurrence.
struct Walk<'a> {
    mixers: &'a [Mixer],
    ports: &'a Ports,
    ring: bool,
    counter: Counter,
}

impl Walk<'_> {
    /// `z` with the left-moving states of mixers `0..upto` replaced by those behind the new site.
    fn substituted(&mut self, z: &Matrix, v: &[Matrix], upto: usize) -> Matrix {
        let mut out = z.clone();
        for (&gam, &states) in self.ports.gam.iter().zip(&self.ports.leftward).take(upto) {
            clear(&mut out, gam, states);
        }
        for (k, v) in v.iter().enumerate().take(upto) {
            let (gam, states) = (self.ports.gam[k], self.ports.leftward[k]);
            let e = part(z, gam, states);
            if nonzero(&e.data) == 0 {
                continue;
            }
            let left = &self.mixers[k].real.left;
            let moved = self
                .counter
                .moved(&e, &left.transition, &e, self.mixers[k].per);
            add(&mut out, gam, &moved);
            let input = self.counter.times(&e, &left.input);
            let arrived = self.counter.times(&input, v);
            add(&mut out, 0, &arrived);
        }
        out
    }

    fn affine(&mut self, c: &dnet::pass::abacus::SiteCoefficients, outputs: &[Matrix]) -> Matrix {
        let mut v = Matrix::zeros(c.source.len(), self.ports.columns);
        for (r, s) in c.source.iter().enumerate() {
            *v.at(r, 0) = *s;
        }
        for (&k, a) in &c.vertices {
            let a = Matrix {
                rows: c.source.len(),
                columns: outputs[k].rows,
                data: a.clone(),
            };
            let read = self.counter.times(&a, &outputs[k]);
            add(&mut v, 0, &read);
        }
        v
    }

    fn extend(&mut self, segment: &Segment, block: &SiteBlock) -> Segment {
        let (mut v, mut y): (Vec<Matrix>, Vec<Matrix>) = (vec![], vec![]);
        let mut next = Segment {
            right: vec![],
            left: segment.left.clone(),
            features: vec![],
        };
        for (m, Mixer { real, per }) in self.mixers.iter().enumerate() {
            let source = self.affine(&block.mixers[m], &y);
            let bond = self.substituted(&segment.right[m], &v, m);
            let mut f = self
                .counter
                .moved(&real.right.transition, &bond, &bond, *per);
            let entered = self.counter.times(&real.right.input, &source);
            add(&mut f, 0, &entered);
            let mut out = self.counter.times(&real.direct, &source);
            let read = self.counter.times(&real.right.output, &f);
            add(&mut out, 0, &read);
            // A constant of the mixer.
            let arriving = real.left.output.times(&real.left.transition);
            add(&mut out, self.ports.gam[m], &arriving);
            next.right.push(f);
            y.push(out);
            v.push(source);
        }
        if self.ring {
            next.left = (0..v.len())
                .map(|m| self.substituted(&segment.left[m], &v, m + 1))
                .collect();
        }
        for (z, c) in segment.features.iter().zip(&block.pools) {
            let mut w = self.substituted(z, &v, v.len());
            let pooled = self.affine(c, &y);
            add(&mut w, 0, &pooled);
            next.features.push(w);
        }
        next
    }
}

/// The mixer read from right to left.
fn mirrored(real: &Realisation) -> Realisation {
    let mut direct = real.direct.clone();
    let at_site = |d: &dnet::pass::link::realisation::Direction| d.output.times(&d.input);
    for (x, (r, l)) in direct.data.iter_mut().zip(
        at_site(&real.right)
            .data
            .iter()
            .zip(&at_site(&real.left).data),
    ) {
        // What cancels leaves rounding errors, which would be counted.
        *x += r - l;
        if x.abs() < 1e-12 {
            *x = 0.0;
        }
    }
    Realisation {
        direct,
        right: real.left.clone(),
        left: real.right.clone(),
    }
}

fn flipped(s: Segment) -> Segment {
    Segment {
        right: s.left,
        left: s.right,
        features: s.features,
    }
}

/// Random numbers where a coefficient is not zero by structure.
fn dense(block: &mut SiteBlock, random: &mut Random) {
    for c in block.mixers.iter_mut().chain(&mut block.pools) {
        let numbers = c.source.iter_mut().chain(c.vertices.values_mut().flatten());
        numbers.for_each(|x| *x = 0.3 * random.unit());
    }
}

fn close(a: &[Matrix], b: &[Matrix], what: &str) {
    for (a, b) in a.iter().zip(b) {
        for (x, y) in a.data.iter().zip(&b.data) {
            assert!((x - y).abs() < 1e-11 * x.abs().max(1.0), "{what}: {x} {y}");
        }
    }
}

#[test]
fn formulas_are_counts() {
    for (n, network) in NETWORKS.iter().enumerate() {
        for boundary in [Boundary::Periodic, Boundary::Open] {
            let what = format!("network {n}, {boundary:?}");
            let program = program(network);
            let info = program
                .only_network()
                .check()
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let lowered = pipeline::graph(&info);
            let graph = pipeline::amplitude(&lowered);
            let lattice = Lattice::chain(16, boundary);
            let mut params = initialise(&info, &lowered, lattice, 3).expect("fits");
            perturb(&mut params, 0.2, 3);
            let net = Network::new(&graph, lattice, params.tensors).expect("a normal form");
            let background = Background::new(&net, &[1; 16]).expect("evaluates");
            let chain = Chain::new(&background).expect("recurrences");
            let mut random = Random::new(n as u64);
            let mut sites = blocks(&background);
            sites.iter_mut().for_each(|b| dense(b, &mut random));
            let sites: Vec<&SiteBlock> = sites.iter().collect();
            let formula = Environment::new(&graph, &net.form, boundary).expect("environments");

            // Products per element of a transition: diagonal, dense, or plus rank one.
            let per = |m: usize| match net.graph.op(net.form.mixers[m].output) {
                dnet::ir::Op::Scan(s) => {
                    assert!(!s.dense);
                    (if s.complex { 2 } else { 1 }) * if s.low_rank { 3 } else { 1 }
                }
                op => panic!("{op:?}"),
            };
            for mirror in [false, true] {
                let mixers: Vec<Mixer> = chain
                    .mixers
                    .iter()
                    .enumerate()
                    .map(|(m, real)| Mixer {
                        real: if mirror { mirrored(real) } else { real.clone() },
                        per: per(m),
                    })
                    .collect();
                let own = &chain.ports;
                let ports = if mirror {
                    Ports {
                        phi: own.gam.clone(),
                        gam: own.phi.clone(),
                        rightward: own.leftward.clone(),
                        leftward: own.rightward.clone(),
                        columns: own.columns,
                    }
                } else {
                    own.clone()
                };
                let (mut before, mut after) = if mirror {
                    let all = chain.suffixes(&sites);
                    (flipped(all[5].clone()), flipped(all[4].clone()))
                } else {
                    let all = chain.prefixes(&sites);
                    (all[4].clone(), all[5].clone())
                };
                let ring = boundary == Boundary::Periodic;
                if !ring {
                    // Nothing enters at the end of an open chain.
                    for s in [&mut before, &mut after] {
                        for z in s.right.iter_mut().chain(&mut s.features) {
                            for (&phi, &states) in ports.phi.iter().zip(&ports.rightward) {
                                clear(z, phi, states);
                            }
                        }
                    }
                }
                let mut walk = Walk {
                    mixers: &mixers,
                    ports: &ports,
                    ring,
                    counter: Counter::default(),
                };
                // Prefixes end, and suffixes begin, with site 4.
                let found = walk.extend(&before, sites[4]);
                close(&found.right, &after.right, &what);
                close(&found.features, &after.features, &what);
                let mut numbers: usize = found
                    .right
                    .iter()
                    .chain(&found.features)
                    .map(|z| nonzero(&z.data))
                    .sum();
                if ring {
                    close(&found.left, &after.left, &what);
                    numbers += found.left.iter().map(|z| nonzero(&z.data)).sum::<usize>();
                }
                let (extend, kept) = if mirror {
                    (formula.extend_right_part, formula.right_part)
                } else {
                    (formula.extend_left_part, formula.left_part)
                };
                let what = format!("{what}, mirror {mirror}");
                assert_eq!(numbers, kept, "numbers of {what}");
                assert_eq!(walk.counter.products, extend, "products of {what}");
            }
        }
    }
}
