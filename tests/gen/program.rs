//! Random valid networks as source text: what a user could have written.
//!
//! Every program passes the checker, on the lattice kind it names, with linear
//! mixers of every class between local nonlinearities. Deterministic in the
//! seed.
#![allow(dead_code)] // each test crate uses a part of it

use dnet::interp::arbitrary::Random;
use std::collections::BTreeSet;
use std::fmt::Write;

/// How large and how various the programs are.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Layers: 1..=max_depth.
    pub max_depth: usize,
    /// Spins per token and axis: 1..=max_token.
    pub max_token: usize,
    /// Widths of stencils: 1..=max_kernel.
    pub max_kernel: usize,
    /// A quarter of the programs live on a square lattice.
    pub squares: bool,
    /// Mixers in momentum space, which need a ring.
    pub rings_only: bool,
    /// Mixers follow each other without a gate, and none of them is a stencil.
    pub rows: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_depth: 6,
            max_token: 4,
            max_kernel: 6,
            squares: true,
            rings_only: true,
            rows: false,
        }
    }
}

/// A program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its source.
    pub text: String,
    /// The name of its only network.
    pub network: &'static str,
    /// Whether it lives on a square lattice.
    pub square: bool,
    /// Spins per token, per axis (the second is 1 on a chain): every extent of a
    /// lattice for it must be a multiple.
    pub token: [usize; 2],
    /// Whether an open boundary is possible.
    pub open_possible: bool,
}

/// The program of a seed.
pub fn program(seed: u64) -> Program {
    with_options(seed, Options::default())
}

/// The program of a seed, within limits.
pub fn with_options(seed: u64, options: Options) -> Program {
    let mut random = Random::new(seed);
    let square = options.squares && random.below(4) == 0;
    let mut side = || 1 + random.below(options.max_token.min(if square { 2 } else { 4 }));
    let token = if square {
        [side(), side()]
    } else {
        [side(), 1]
    };
    // Two channels would make a norm over them a sign, blind to most flips.
    let dim = 2 * (2 + random.below(2));
    let writer = Writer {
        random,
        options,
        square,
        token,
        dim,
        imports: BTreeSet::new(),
        body: String::new(),
        indent: 1,
        earlier: Vec::new(),
        stencils: false,
        reversed: false,
        ring: false,
    };
    writer.write()
}

/// A program under construction. `phi` names the local stream, `h` the linear
/// one (local until the first mixer), both `[dim]` per token.
struct Writer {
    random: Random,
    options: Options,
    square: bool,
    token: [usize; 2],
    dim: usize,
    imports: BTreeSet<(&'static str, &'static str)>,
    body: String,
    indent: usize,
    /// Names of earlier values of the linear stream.
    earlier: Vec<String>,
    /// The program declares `stencil_at`.
    stencils: bool,
    /// The program declares `from_the_right`.
    reversed: bool,
    /// Some mixer needs a ring.
    ring: bool,
}

impl Writer {
    fn write(mut self) -> Program {
        let token = if self.square {
            format!("({}, {})", self.token[0], self.token[1])
        } else {
            self.token[0].to_string()
        };
        let dense = self.nn("dense");
        self.line(&format!(
            "let tokens = patch(spins, {token}) |> {dense}(dim) as embedding"
        ));
        self.line("var phi = tokens");
        let start = if self.random.coin() {
            "tokens".to_owned()
        } else {
            self.nonlinear("phi")
        };
        self.line(&format!("var h = {start}"));
        let depth = 1 + self.random.below(self.options.max_depth);
        for layer in 0..depth {
            self.layer(layer);
        }
        if self.random.below(3) == 0 {
            let last = self.mixed("h");
            self.line(&format!("h = {last}"));
        }
        self.readout();
        self.finish(depth)
    }

    fn line(&mut self, text: &str) {
        let _ = writeln!(self.body, "{}{text}", "  ".repeat(self.indent));
    }

    fn nn(&mut self, name: &'static str) -> &'static str {
        self.imports.insert(("nn", name));
        name
    }

    fn mixer(&mut self, name: &'static str) -> &'static str {
        self.imports.insert(("mixers", name));
        name
    }

    /// A layer, written out, repeated, or repeated with shared weights.
    fn layer(&mut self, layer: usize) {
        let header = match self.random.below(6) {
            0 => "repeat 2 {",
            1 => "repeat 2 shared {",
            _ => "",
        };
        if header.is_empty() {
            self.block(layer, true);
            return;
        }
        self.line(header);
        self.indent += 1;
        self.block(layer, false);
        self.indent -= 1;
        self.line("}");
    }

    /// One layer; `keep`: the linear stream before it may be skipped to later.
    fn block(&mut self, layer: usize, keep: bool) {
        let c = format!("c_{layer}");
        let local = self.local("phi");
        self.line(&format!("let {c} = {local}"));
        let source = self.source(&c);
        let mixed = self.mixed(&source);
        let m = format!("m_{layer}");
        if self.options.rows {
            self.row(&m, &mixed);
        } else {
            self.line(&format!("let {m} = {mixed}"));
        }
        let vertex = self.vertex(&m, &c);
        if keep && self.random.coin() {
            let name = format!("h_{layer}");
            self.line(&format!("let {name} = h"));
            self.earlier.push(name);
        }
        let update = ["h +=", "h =", "h +="][self.random.below(3)];
        self.line(&format!("{update} {vertex}"));
        let update = ["phi +=", "phi ="][self.random.below(2)];
        self.line(&format!("{update} {c}"));
    }

    /// A bounded nonlinear function of a local value, in place.
    fn nonlinear(&mut self, x: &str) -> String {
        match self.random.below(6) {
            0 => format!("{}({x})", self.nn("silu")),
            1 => format!("{}({x})", self.nn("gelu")),
            2 => format!("{}({x})", self.nn("sigmoid")),
            3 => format!("sin({x})"),
            4 => format!("re({}({x}, dim) * 1i)", self.nn("complex_dense")),
            _ => format!("tanh({x})"),
        }
    }

    /// Neighbours of a value, contracted with a kernel: local stays local,
    /// linear stays linear.
    fn stencil(&mut self, x: &str) -> String {
        let widest = self.options.max_kernel;
        let narrow = if self.square { widest.min(3) } else { widest };
        let width = 1 + self.random.below(narrow);
        match (self.random.below(3), self.square) {
            (0, false) => format!("{}({x}, {width})", self.nn("dwconv")),
            (0, true) => format!("{}({x}, {width})", self.nn("dwconv2d")),
            (1, false) => format!("{}({x}, dim, {width})", self.nn("conv")),
            (1, true) => format!("{}({x}, dim, {width})", self.nn("conv2d")),
            _ => {
                self.stencils = true;
                let mut bounds = String::new();
                for _ in 0..if self.square { 2 } else { 1 } {
                    let lo = self.random.between(-2, 1);
                    let hi = lo + self.random.below(width.min(3)) as i64;
                    let _ = write!(bounds, ", {lo}, {hi}");
                }
                format!("stencil_at({x}{bounds})")
            }
        }
    }

    /// A local nonlinearity with a window.
    fn local(&mut self, x: &str) -> String {
        let x = match self.random.below(4) {
            0 => format!("{}({x})", self.nn("layernorm")),
            1 => format!("{}({x})", self.nn("rmsnorm")),
            _ => x.to_owned(),
        };
        let x = match self.random.below(4) {
            0 => format!("{}({x}, dim)", self.nn("dense")),
            _ => self.stencil(&x),
        };
        self.nonlinear(&x)
    }

    /// What a mixer acts on: the linear stream, with sums and skips.
    fn source(&mut self, c: &str) -> String {
        let mut terms = vec![match self.random.below(4) {
            0 => "h".to_owned(),
            1 => format!("{}(h, dim, bias: false)", self.nn("dense")),
            _ => format!("{}(h)", self.nn("actnorm")),
        }];
        if self.random.coin() {
            terms.push(c.to_owned());
        }
        if !self.earlier.is_empty() && self.random.coin() {
            let skip = self.random.pick(&self.earlier);
            terms.push(format!("0.5 * {skip}"));
        }
        terms.join(" + ")
    }

    /// A mixer's result on a value `[dim]`.
    fn mixed(&mut self, x: &str) -> String {
        let count = 1 + self.random.below(3);
        let both = self.random.coin();
        let heads = 1 + self.random.below(2);
        if self.square {
            let kinds = if self.options.rows { 4 } else { 5 };
            return match self.random.below(kinds) {
                0 => format!("{}({x}, {count})", self.mixer("power_law2d")),
                1 => format!("{}({x})", self.mixer("toeplitz")),
                2 => format!("{}({x})", self.mixer("all_pairs")),
                3 => format!("{}({x}, {heads})", self.mixer("positional_attention")),
                _ => format!("{}({x}, {count})", self.mixer("stencil2d")),
            };
        }
        let kind = match self.options.rows {
            true => [0, 1, 2, 3, 4, 5, 6, 7, 8, 12][self.random.below(10)],
            false => self.random.below(13),
        };
        match kind {
            0 => format!("{}({x}, {count}, bidirectional: {both})", self.mixer("s4")),
            1 => format!("{}({x}, {count}, bidirectional: {both})", self.mixer("s4d")),
            2 => format!("{}({x}, {count}, bidirectional: {both})", self.mixer("lru")),
            3 => format!("{}({x}, {count})", self.mixer("exponential")),
            4 => format!("{}({x}, {count})", self.mixer("power_law")),
            5 if self.options.rings_only => {
                self.ring = true;
                format!("{}({x}, {count})", self.mixer("fourier"))
            }
            6 => format!("{}({x})", self.mixer("toeplitz")),
            7 => format!("{}({x})", self.mixer("all_pairs")),
            8 => format!("{}({x}, {heads})", self.mixer("positional_attention")),
            9 => {
                let by = self.random.between(-2, 2);
                format!("{}({x}, {by})", self.mixer("translate"))
            }
            10 => format!("{}({x}, {count})", self.mixer("stencil")),
            11 => format!("{}({x})", self.mixer("laplacian")),
            _ => {
                self.reversed = true;
                format!("from_the_right({x})")
            }
        }
    }

    /// Mixers one behind the other, with constant factors in between.
    fn row(&mut self, name: &str, first: &str) {
        self.line(&format!("var {name} = {first}"));
        for k in 0..self.random.below(3) {
            let x = match self.random.below(5) {
                0 => format!("{}({name}, dim, bias: false)", self.nn("dense")),
                1 => format!("{}({name})", self.nn("actnorm")),
                2 => {
                    let factor = format!("factor_{k}_{name}");
                    self.line(&format!(
                        "param {factor}: real[dim] per site of phi = random_normal"
                    ));
                    format!("{factor} * {name}")
                }
                _ => name.to_owned(),
            };
            let mixed = self.mixed(&x);
            let update = ["=", "=", "+="][self.random.below(3)];
            self.line(&format!("{name} {update} {mixed}"));
        }
    }

    /// What the local stream makes of a mixer's result.
    fn vertex(&mut self, m: &str, c: &str) -> String {
        let kind = match self.options.rows {
            true => [0, 1, 3, 4, 5, 6][self.random.below(6)],
            false => self.random.below(7),
        };
        match kind {
            0 => m.to_owned(),
            1 => format!("{}({m}, dim, bias: false)", self.nn("dense")),
            2 => self.stencil(m),
            3 => {
                let dense = self.nn("dense");
                format!("reshape(tanh({dense}({c}, dim * dim)), [dim, dim]) @ {m}")
            }
            4 => format!("{c} * {m}"),
            _ => {
                let gate = self.local("phi");
                format!("{gate} * {m}")
            }
        }
    }

    fn readout(&mut self) {
        let mean = self.nn("mean");
        let mut features = format!("{mean}(h)");
        if self.random.coin() {
            features = format!("{features} + {mean}(phi)");
        }
        self.line(&format!("let features = {features}"));
        let mut readout = match self.random.below(3) {
            0 => format!("{}(tanh(features))", self.nn("channel_sum")),
            1 => format!("{}(features, 2)", self.nn("complex_log_cosh_head")),
            _ => format!("{}(features, 2)", self.nn("log_cosh_head")),
        };
        match self.random.below(5) {
            0 if self.square => {
                readout = format!("{readout} + {}(spins)", self.nn("marshall_phase2d"))
            }
            0 => readout = format!("{readout} + {}(spins)", self.nn("marshall_phase")),
            1 => readout = format!("{readout} + {}(phi)", self.nn("local_phase")),
            _ => {}
        }
        self.line(&format!("log_psi = {readout}"));
    }

    fn finish(self, depth: usize) -> Program {
        let mut text = format!("// {depth} layers\n");
        for module in ["nn", "mixers"] {
            let names: Vec<&str> = self
                .imports
                .iter()
                .filter(|(m, _)| *m == module)
                .map(|(_, n)| *n)
                .collect();
            if !names.is_empty() {
                let _ = writeln!(text, "use std::{module}::{{{}}}", names.join(","));
            }
        }
        if self.stencils {
            let (arguments, width, window) = if self.square {
                (
                    "lo: int, hi: int, lo_y: int, hi_y: int",
                    "(hi - lo + 1) * (hi_y - lo_y + 1)",
                    "(lo, lo_y), (hi, hi_y)",
                )
            } else {
                ("lo: int, hi: int", "hi - lo + 1", "lo, hi")
            };
            let _ = write!(
                text,
                "/// A learned kernel at the offsets lo..=hi.\n\
                 fn stencil_at(x, {arguments}) {{\n  \
                 param kernel: real[{width}, dim(x)] = random_normal\n  \
                 return einsum(\"rd,rd->d\", window(x, {window}), kernel)\n}}\n"
            );
        }
        if self.reversed {
            text += "mixer from_the_right(x): state_space {\n  \
                     param decay: real[2, dim(x)] = 0.9 * random_uniform\n  \
                     param weight: real[2, dim(x)] = random_normal // of each memory\n  \
                     return scan(x, decay: decay, input: weight, output: weight, leftward: true)\n}\n";
        }
        let lattice = if self.square { "square" } else { "chain" };
        let _ = write!(
            text,
            "network generated(dim: nat in 2..=8 = {}) on {lattice} {{\n{}}}\n",
            self.dim, self.body
        );
        Program {
            text,
            network: "generated",
            square: self.square,
            token: self.token,
            open_possible: !self.ring,
        }
    }
}
