//! The standard library against its formulas, written out as direct sums.
//!
//! Each program reads `log_psi = sum_ic probe_ic y_ic` with a free `probe`, so
//! one number tests every component of y. Parameters are of order one.

use dnet::check::Program;
use dnet::interp::{Tensor, evaluate};
use dnet::ir::{Boundary, Lattice, lower};
use num_complex::Complex64;
use std::collections::BTreeMap;
use std::f64::consts::PI;

const SITES: usize = 6;

/// Parameters by path and the value of the readout.
struct Run {
    params: BTreeMap<String, Vec<f64>>,
    log_psi: Complex64,
    spins: Vec<f64>,
}

impl Run {
    /// The parameter whose path ends in `name`.
    fn get(&self, name: &str) -> &[f64] {
        let mut found = self
            .params
            .iter()
            .filter(|(k, _)| *k == name || k.ends_with(&format!("/{name}")));
        let (_, data) = found
            .next()
            .unwrap_or_else(|| panic!("no parameter {name} in {:?}", self.params.keys()));
        assert!(found.next().is_none(), "{name} is ambiguous");
        data
    }

    fn expect(&self, want: impl Into<Complex64>) {
        let want = want.into();
        let error = (self.log_psi - want).norm();
        assert!(
            error <= 1e-12 * want.norm().max(1.0),
            "got {}, want {want}",
            self.log_psi
        );
    }
}

/// Numbers in (-1, 1) without pattern.
fn noise(seed: &mut u64) -> f64 {
    *seed = seed
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*seed >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn run(uses: &str, lets: &str, y: &str, shape: &str, boundary: Boundary) -> Run {
    let text = format!(
        "{uses}\nnetwork probe() {{\n let s = patch(spins, 1)\n {lets}\n param probe: real{shape} per site of s\n \
         log_psi = einsum(\"c->\", sum(probe * ({y})))\n}}"
    );
    evaluate_text(&text, Lattice::chain(SITES, boundary))
}

fn evaluate_text(text: &str, lattice: Lattice) -> Run {
    let program = Program::parse("probe.dnet", text);
    let info = program
        .only_network()
        .check()
        .unwrap_or_else(|e| panic!("{e}\n{text}"));
    let graph = lower(&info).graph;
    let mut seed = 7;
    let spins: Vec<i8> = (0..lattice.sites())
        .map(|_| if noise(&mut seed) > 0.0 { 1 } else { -1 })
        .collect();
    let context = dnet::interp::Context::new(lattice, &[], &spins).expect("a valid configuration");
    let params: Vec<Tensor> = graph
        .params
        .iter()
        .map(|p| {
            Tensor::from_fn(&context.shape(&p.ty).expect("a shape"), |_| {
                noise(&mut seed)
            })
        })
        .collect();
    let log_psi = evaluate(&graph, lattice, &params, &spins)
        .unwrap_or_else(|e| panic!("{e}\n{text}"))
        .log_psi();
    let named = graph
        .params
        .iter()
        .zip(params)
        .map(|(p, t)| (p.path.clone(), t.data))
        .collect();
    Run {
        params: named,
        log_psi,
        spins: spins.iter().map(|s| f64::from(*s)).collect(),
    }
}

/// A mixer on x_jc = s_j w_c against its kernel G_c(i, j).
fn mixer(
    call: &str,
    channels: usize,
    boundary: Boundary,
    kernel: impl Fn(&Run, usize, usize, usize) -> f64,
) {
    let name = call.split('(').next().expect("a call");
    let r = run(
        &format!("use std::mixers::{{{name}}}"),
        &format!("param w: real[{channels}]\n let x = s * w"),
        call,
        &format!("[{channels}]"),
        boundary,
    );
    let mut want = 0.0;
    for c in 0..channels {
        for i in 0..SITES {
            for j in 0..SITES {
                want += r.get("probe")[i * channels + c]
                    * kernel(&r, c, i, j)
                    * r.spins[j]
                    * r.get("w")[c];
            }
        }
    }
    r.expect(want);
}

/// min(n, T - n) of the displacement on a ring.
fn ring_distance(i: usize, j: usize) -> usize {
    let n = i.abs_diff(j);
    n.min(SITES - n)
}

#[test]
fn s4d_is_a_sum_of_damped_oscillations() {
    for (call, mirror) in [
        ("s4d(x, 2)", false),
        ("s4d(x, 2, bidirectional: true)", true),
    ] {
        mixer(call, 3, Boundary::Open, |r, c, i, j| {
            let response = |n: usize| -> f64 {
                (0..2)
                    .map(|t| {
                        let k = t * 3 + c;
                        let lambda =
                            Complex64::new(-r.get("log_decay")[k].exp(), r.get("frequency")[k]);
                        let decay = (lambda * r.get("log_step")[c].exp()).exp();
                        let output = Complex64::new(r.get("C.re")[k], r.get("C.im")[k]);
                        (output * (decay - 1.0) / lambda * decay.powu(n as u32)).re
                    })
                    .sum()
            };
            let right = if i >= j { response(i - j) } else { 0.0 };
            let left = if mirror && j >= i {
                response(j - i)
            } else {
                0.0
            };
            right + left + if i == j { r.get("D")[c] } else { 0.0 }
        });
    }
}

#[test]
fn exponential_is_a_yukawa_kernel() {
    let term = |r: &Run, t: usize, c: usize| {
        let decay = (-r.get("log_mass")[t * 3 + c].exp()).exp();
        (decay, r.get("amplitude")[t * 3 + c] * (1.0 - decay))
    };
    mixer("exponential(x, 2)", 3, Boundary::Open, |r, c, i, j| {
        (0..2)
            .map(|t| term(r, t, c))
            .map(|(decay, a)| a * decay.powi(i.abs_diff(j) as i32))
            .sum()
    });
    // On the ring every winding counts, in both directions.
    mixer("exponential(x, 2)", 3, Boundary::Periodic, |r, c, i, j| {
        let images = |decay: f64| -> f64 {
            (-400..=400)
                .map(|w: i32| decay.powi((i as i32 - j as i32 + w * SITES as i32).abs()))
                .sum()
        };
        (0..2)
            .map(|t| term(r, t, c))
            .map(|(decay, a)| a * images(decay))
            .sum()
    });
}

#[test]
fn power_law_decays_with_the_shorter_distance() {
    let kernel = |r: &Run, c: usize, n: usize| -> f64 {
        if n == 0 {
            return r.get("onsite")[c];
        }
        (0..2)
            .map(|t| {
                r.get("amplitude")[t * 3 + c]
                    * (n as f64).powf(-r.get("log_exponent")[t * 3 + c].exp())
            })
            .sum()
    };
    mixer("power_law(x, 2)", 3, Boundary::Open, |r, c, i, j| {
        kernel(r, c, i.abs_diff(j))
    });
    mixer("power_law(x, 2)", 3, Boundary::Periodic, |r, c, i, j| {
        kernel(r, c, ring_distance(i, j))
    });
}

#[test]
fn fourier_keeps_the_longest_wavelengths() {
    // With 4 bands on 6 sites every momentum 0, +-1, +-2, 3 is present.
    for bands in [2, 4] {
        mixer(
            &format!("fourier(x, {bands})"),
            2,
            Boundary::Periodic,
            |r, c, i, j| {
                let n = i as f64 - j as f64;
                let mut g = 0.0;
                for m in 0..bands {
                    let w = Complex64::new(
                        r.get("symbol.re")[c * bands + m],
                        r.get("symbol.im")[c * bands + m],
                    );
                    let wave = Complex64::from_polar(1.0, 2.0 * PI * m as f64 * n / SITES as f64);
                    // q = 0 and q = pi stand alone, the others come with their conjugates
                    g += if m == 0 || 2 * m == SITES {
                        w.re * wave.re
                    } else {
                        2.0 * (w * wave).re
                    };
                }
                g / SITES as f64
            },
        );
    }
}

#[test]
fn learned_kernels() {
    mixer("toeplitz(x)", 2, Boundary::Periodic, |r, c, i, j| {
        r.get("kernel")[(i + SITES - j) % SITES * 2 + c]
    });
    mixer("toeplitz(x)", 2, Boundary::Open, |r, c, i, j| {
        r.get("kernel")[(i + SITES - 1 - j) * 2 + c]
    });
    mixer("all_pairs(x)", 2, Boundary::Open, |r, c, i, j| {
        r.get("kernel")[(i * SITES + j) * 2 + c]
    });
}

#[test]
fn stencils() {
    let at =
        |i: usize, j: usize, offset: i64| (i as i64 + offset).rem_euclid(SITES as i64) == j as i64;
    mixer("translate(x, 2)", 2, Boundary::Periodic, |_, _, i, j| {
        f64::from(u8::from(at(i, j, 2)))
    });
    mixer("laplacian(x)", 2, Boundary::Open, |_, _, i, j| {
        match i.abs_diff(j) {
            0 => -2.0,
            1 => 1.0,
            _ => 0.0,
        }
    });
    for (width, lo) in [(1, 0), (3, -1), (4, -1), (5, -2)] {
        mixer(
            &format!("stencil(x, {width})"),
            2,
            Boundary::Periodic,
            |r, c, i, j| {
                (0..width)
                    .filter(|k| at(i, j, lo + *k as i64))
                    .map(|k| r.get("kernel")[k * 2 + c])
                    .sum()
            },
        );
    }
}

#[test]
fn positional_attention_averages_values_per_head() {
    let r = run(
        "use std::mixers::{positional_attention}",
        "param w: real[4]\n let x = s * w",
        "positional_attention(x, 2)",
        "[4]",
        Boundary::Open,
    );
    let mut want = 0.0;
    for i in 0..SITES {
        for c in 0..4 {
            let weight = |j: usize| r.get("logits")[(i * SITES + j) * 2 + c / 2].exp();
            let value = |j: usize| -> f64 {
                (0..4)
                    .map(|e| r.spins[j] * r.get("w")[e] * r.get("value")[e * 4 + c])
                    .sum()
            };
            let norm: f64 = (0..SITES).map(weight).sum();
            let y: f64 = (0..SITES).map(|j| weight(j) * value(j)).sum();
            want += r.get("probe")[i * 4 + c] * y / norm;
        }
    }
    r.expect(want);
}

#[test]
fn lru_runs_shared_modes() {
    let r = run(
        "use std::mixers::{lru}",
        "param w: real[2]\n let x = s * w",
        "lru(x, 3)",
        "[2]",
        Boundary::Open,
    );
    let complex = |name: &str, k: usize| {
        Complex64::new(
            r.get(&format!("{name}.re"))[k],
            r.get(&format!("{name}.im"))[k],
        )
    };
    let mut h = [Complex64::ZERO; 3];
    let mut want = 0.0;
    for i in 0..SITES {
        let x: Vec<f64> = (0..2).map(|c| r.spins[i] * r.get("w")[c]).collect();
        for (n, h) in h.iter_mut().enumerate() {
            let modulus = (-r.get("nu_log")[n].exp()).exp();
            let lambda = Complex64::from_polar(modulus, r.get("theta_log")[n].exp());
            let u: Complex64 = (0..2).map(|c| complex("B", c * 3 + n) * x[c]).sum();
            *h = lambda * *h + (1.0 - modulus * modulus).sqrt() * u;
        }
        for (c, x) in x.iter().enumerate() {
            let y: Complex64 = (0..3).map(|n| h[n] * complex("C", n * 2 + c)).sum();
            want += r.get("probe")[i * 2 + c] * (y.re + r.get("D")[c] * x);
        }
    }
    r.expect(want);
}

#[test]
fn graph_propagator_walks_along_bonds() {
    let r = run(
        "use std::mixers::{graph_propagator, at_zero}",
        "param w: real[2]\n let x = s * w\n let (i, j) = pair_index(x)",
        "graph_propagator(x, at_zero(abs(i - j) - 1), 2)",
        "[2]",
        Boundary::Open,
    );
    let walk = |v: &[f64]| -> Vec<f64> {
        (0..SITES)
            .map(|i| {
                let around: Vec<f64> = (0..SITES)
                    .filter(|j| i.abs_diff(*j) == 1)
                    .map(|j| v[j])
                    .collect();
                around.iter().sum::<f64>() / around.len() as f64
            })
            .collect()
    };
    let once = walk(&r.spins);
    let twice = walk(&once);
    let mut want = 0.0;
    for i in 0..SITES {
        for c in 0..2 {
            let k = &r.get("c")[c * 3..c * 3 + 3];
            let y = k[0] * r.spins[i] + k[1] * once[i] + k[2] * twice[i];
            want += r.get("probe")[i * 2 + c] * r.get("w")[c] * y;
        }
    }
    r.expect(want);
}

#[test]
fn norms_and_softmax() {
    let lets = "param w: real[3]\n param v: real[3]\n let x = s * w + v";
    let x = |r: &Run, i: usize| -> Vec<f64> {
        (0..3)
            .map(|c| r.spins[i] * r.get("w")[c] + r.get("v")[c])
            .collect()
    };
    let total = |r: &Run, y: &dyn Fn(&[f64], usize) -> f64| -> f64 {
        (0..SITES)
            .flat_map(|i| (0..3).map(move |c| (i, c)))
            .map(|(i, c)| r.get("probe")[i * 3 + c] * y(&x(r, i), c))
            .sum()
    };
    let mean = |x: &[f64]| x.iter().sum::<f64>() / 3.0;
    let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>() / 3.0;
    let r = run(
        "use std::nn::{layernorm}",
        lets,
        "layernorm(x)",
        "[3]",
        Boundary::Open,
    );
    r.expect(total(&r, &|x, c| {
        let m = mean(x);
        (x[c] - m) / (square(x) - m * m + 1e-6).sqrt() * r.get("scale")[c] + r.get("bias")[c]
    }));
    let r = run(
        "use std::nn::{rmsnorm}",
        lets,
        "rmsnorm(x)",
        "[3]",
        Boundary::Open,
    );
    r.expect(total(&r, &|x, c| {
        x[c] / (square(x) + 1e-6).sqrt() * r.get("scale")[c]
    }));
    let r = run(
        "use std::nn::{actnorm}",
        lets,
        "actnorm(x)",
        "[3]",
        Boundary::Open,
    );
    r.expect(total(&r, &|x, c| {
        x[c] * r.get("scale")[c] + r.get("bias")[c]
    }));
    // Shifted exponents: no overflow at 1000.
    let r = run(
        "use std::nn::{softmax}",
        lets,
        "softmax(1000 + 3 * x)",
        "[3]",
        Boundary::Open,
    );
    r.expect(total(&r, &|x, c| {
        (3.0 * x[c]).exp() / x.iter().map(|v| (3.0 * v).exp()).sum::<f64>()
    }));
}

#[test]
fn activations() {
    let lets = "param w: real[3]\n let x = 4 * s * w";
    let erf = dnet::interp::erf;
    let table: [(&str, &dyn Fn(f64) -> f64); 8] = [
        ("sigmoid", &|x| 1.0 / (1.0 + (-x).exp())),
        ("silu", &|x| x / (1.0 + (-x).exp())),
        ("gelu", &|x| x / 2.0 * (1.0 + erf(x / 2f64.sqrt()))),
        ("gelu_tanh", &|x| {
            x / 2.0 * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }),
        ("relu", &|x| x.max(0.0)),
        ("elu", &|x| if x > 0.0 { x } else { x.exp() - 1.0 }),
        ("softplus", &|x| x.exp().ln_1p()),
        ("softsign", &|x| x / (1.0 + x.abs())),
    ];
    for (name, f) in table {
        let r = run(
            &format!("use std::nn::{{{name}}}"),
            lets,
            &format!("{name}(x)"),
            "[3]",
            Boundary::Open,
        );
        let value = |i: usize, c: usize| f(4.0 * r.spins[i] * r.get("w")[c]);
        r.expect(
            (0..SITES * 3)
                .map(|k| r.get("probe")[k] * value(k / 3, k % 3))
                .sum::<f64>(),
        );
    }
}

#[test]
fn convolutions_are_cross_correlations() {
    let lets = "param w: real[2]\n let x = s * w";
    for (width, lo) in [(3usize, -1i64), (4, -1)] {
        let r = run(
            "use std::nn::{conv}",
            lets,
            &format!("conv(x, 3, {width})"),
            "[3]",
            Boundary::Open,
        );
        let mut want = 0.0;
        for i in 0..SITES {
            for e in 0..3 {
                let mut y = r.get("bias")[e];
                for k in 0..width {
                    let Some(s) = usize::try_from(i as i64 + lo + k as i64)
                        .ok()
                        .and_then(|j| r.spins.get(j))
                    else {
                        continue;
                    };
                    y += (0..2)
                        .map(|c| r.get("kernel")[(k * 2 + c) * 3 + e] * s * r.get("w")[c])
                        .sum::<f64>();
                }
                want += r.get("probe")[i * 3 + e] * y;
            }
        }
        r.expect(want);
    }
}

#[test]
fn attention_is_softmax_over_sites() {
    for (name, kernelised) in [("attention", false), ("linear_attention", true)] {
        let text = format!(
            "use std::nn::{{{name}}}\nfull network probe() {{\n let s = patch(spins, 1)\n param w: real[2]\n param probe: real[2] per site of s\n \
             log_psi = einsum(\"c->\", sum(probe * {name}(s * w, 2)))\n}}"
        );
        let r = evaluate_text(&text, Lattice::chain(SITES, Boundary::Periodic));
        let project = |what: &str, i: usize, c: usize| -> f64 {
            let x = |e: usize| r.spins[i] * r.get("w")[e];
            r.get(&format!("{what}/bias"))[c]
                + (0..2)
                    .map(|e| x(e) * r.get(&format!("{what}/kernel"))[e * 2 + c])
                    .sum::<f64>()
        };
        let feature = |x: f64| if x > 0.0 { 1.0 + x } else { x.exp() };
        let mut want = 0.0;
        for i in 0..SITES {
            // two heads of one channel each
            let y: Vec<f64> = (0..2)
                .map(|h| {
                    let weight = |j: usize| {
                        let (q, k) = (project("query", i, h), project("key", j, h));
                        if kernelised {
                            feature(q) * feature(k)
                        } else {
                            (q * k).exp()
                        }
                    };
                    let norm: f64 = (0..SITES).map(weight).sum();
                    (0..SITES)
                        .map(|j| weight(j) * project("value", j, h))
                        .sum::<f64>()
                        / norm
                })
                .collect();
            for c in 0..2 {
                let out = r.get("out/bias")[c]
                    + (0..2)
                        .map(|e| y[e] * r.get("out/kernel")[e * 2 + c])
                        .sum::<f64>();
                want += r.get("probe")[i * 2 + c] * out;
            }
        }
        r.expect(want);
    }
}

#[test]
fn phases() {
    let text = "use std::nn::{marshall_phase}\nnetwork n() {\n log_psi = marshall_phase(spins)\n}";
    let r = evaluate_text(text, Lattice::chain(SITES, Boundary::Open));
    let down = (0..SITES)
        .filter(|i| i % 2 == 1 && r.spins[*i] < 0.0)
        .count();
    r.expect(Complex64::new(0.0, PI * down as f64));
    let text = "use std::nn::{marshall_phase2d}\nnetwork n() on square {\n log_psi = marshall_phase2d(spins)\n}";
    let r = evaluate_text(
        text,
        Lattice {
            extent: [4, 3],
            boundary: Boundary::Open,
        },
    );
    let down = (0..12)
        .filter(|i| (i / 3 + i % 3) % 2 == 1 && r.spins[*i] < 0.0)
        .count();
    r.expect(Complex64::new(0.0, PI * down as f64));
}
