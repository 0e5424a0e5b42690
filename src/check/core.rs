//! The elaborated program: what checking a network yields.
//!
//! Functions are inlined, hyperparameters are numbers, `repeat` is unrolled.
//! What is left is a list of [`Value`]s in order of computation, each with its
//! [`Type`], its [`Kind`] (docs/abacus.md Sec. 1) and the text it came from. `N`
//! stays symbolic: only [`Dim::Sites`] and [`Place`]s mention it.

use crate::syntax::ast::{FileId, LatticeKind, Span};
use std::collections::BTreeMap;

/// Index of a [`Value`] in [`NetworkInfo::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Index of a [`ParamInfo`] in [`NetworkInfo::params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub u32);

/// Spins per site of a value's lattice, per axis (`[t, 1]` on a chain).
/// `[1, 1]` is the lattice of spins; `patch` coarsens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub [usize; 2]);

impl Token {
    /// The lattice of spins itself.
    pub const SPIN: Token = Token([1, 1]);
    /// Spins per token.
    pub fn volume(self) -> usize {
        self.0[0] * self.0[1]
    }
}

/// A length: static, or proportional to the number of spins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// Known at compile time.
    Static(usize),
    /// `scale * N / per` where `N` counts spins.
    Sites {
        /// Numerator.
        scale: usize,
        /// Denominator.
        per: usize,
    },
}

/// The index set a value carries besides its shape. Independent of whether
/// the value depends on the configuration, which is its [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// None: one value.
    Whole,
    /// One per site of the lattice with these tokens.
    Site(Token),
    /// One per displacement between two sites: on a ring of T tokens the T
    /// residues, on an open chain the 2T-1 differences.
    Displacement(Token),
    /// One per momentum of a ring of tokens.
    Momentum(Token),
    /// One per ordered pair (target, source) of sites.
    Pair(Token),
}

/// Scalar type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// Real.
    Real,
    /// Complex.
    Complex,
}

/// The type of a value: index set, shape per index, scalar type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// Index set.
    pub place: Place,
    /// Axes, slowest first.
    pub shape: Vec<Dim>,
    /// Scalar type.
    pub dtype: DType,
}

/// The spins a per-site value depends on: for the token at `i` (per axis) those
/// in `[t i + lo, t i + hi]`, in units of spins, `t` the value's own token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// First spin per axis, relative to the token's first spin.
    pub lo: [i64; 2],
    /// Last spin per axis, relative to the token's first spin.
    pub hi: [i64; 2],
}

impl Window {
    /// The smallest box containing both.
    pub fn hull(self, o: Window) -> Window {
        let f = |a: [i64; 2], b: [i64; 2], g: fn(i64, i64) -> i64| [g(a[0], b[0]), g(a[1], b[1])];
        Window {
            lo: f(self.lo, o.lo, i64::min),
            hi: f(self.hi, o.hi, i64::max),
        }
    }
    /// The window after gathering tokens at offsets `lo..=hi`.
    pub fn widen(self, token: Token, lo: [i64; 2], hi: [i64; 2]) -> Window {
        let t = [token.0[0] as i64, token.0[1] as i64];
        Window {
            lo: [self.lo[0] + t[0] * lo[0], self.lo[1] + t[1] * lo[1]],
            hi: [self.hi[0] + t[0] * hi[0], self.hi[1] + t[1] * hi[1]],
        }
    }
    /// The window of the coarse token whose parts are `ratio` fine tokens per axis.
    pub fn patch(self, fine: Token, ratio: [usize; 2]) -> Window {
        self.widen(fine, [0, 0], [ratio[0] as i64 - 1, ratio[1] as i64 - 1])
    }
    /// The interval of whole tokens along `axis` that covers the window.
    pub fn tokens(self, token: Token, axis: usize) -> (i64, i64) {
        let t = token.0[axis] as i64;
        (self.lo[axis].div_euclid(t), self.hi[axis].div_euclid(t))
    }
    /// Offsets (in tokens, relative to the flipped spin's token) of the tokens
    /// that can change when the spin at position `inside` of its token flips.
    pub fn support(self, token: Token, axis: usize, inside: usize) -> (i64, i64) {
        // token i sees spin s = t*0 + inside iff t i + lo <= s <= t i + hi
        let (t, s) = (token.0[axis] as i64, inside as i64);
        (
            -(self.hi[axis] - s).div_euclid(t),
            (s - self.lo[axis]).div_euclid(t),
        )
    }
}

/// How a value depends on the configuration (docs/abacus.md Sec. 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not at all.
    Const,
    /// Per site, through a bounded window.
    Local(Window),
    /// Per site, on everything, affinely in what mixers delivered, with local
    /// coefficients. The value named is where it became so.
    Linear {
        /// The mixer that made it linear.
        since: ValueId,
    },
    /// One per configuration: sums over sites of local and linear values, and
    /// any function of such sums.
    Pooled,
    /// Anything else; legal only in a `full network`.
    Global {
        /// The operation that made it global.
        since: ValueId,
    },
}

/// Elementwise functions of one argument. Complex arguments are allowed where
/// noted; all others are real only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unary {
    /// `-x` (complex allowed)
    Neg,
    /// e^x (complex allowed)
    Exp,
    /// Natural logarithm (complex allowed, principal branch)
    Log,
    /// log(1 + x)
    Log1p,
    /// Square root
    Sqrt,
    /// Sine
    Sin,
    /// Cosine
    Cos,
    /// Hyperbolic tangent (complex allowed)
    Tanh,
    /// log cosh (complex allowed; stable for large |Re|)
    LogCosh,
    /// |x| (real result; complex allowed)
    Abs,
    /// -1, 0 or 1
    Sign,
    /// Error function
    Erf,
    /// Largest integer not above
    Floor,
    /// Real part (complex allowed)
    Re,
    /// Imaginary part (complex allowed)
    Im,
    /// Complex conjugate (complex allowed)
    Conj,
}

/// Elementwise functions of two arguments, with NumPy broadcasting of shapes
/// and of `Whole` into any other place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// `a ^ b`, a > 0 unless b is a static integer (then lowered to products); real
    Pow,
    /// Larger of two; real
    Max,
    /// Smaller of two; real
    Min,
    /// arg(b + i a); real
    Atan2,
    /// a - b floor(a / b); real
    Mod,
}

/// A generalised contraction `"ab,bc->ac"` of one or two operands: axes are
/// single letters, repeated letters are summed unless in the output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Einsum {
    /// Letters of each operand.
    pub inputs: Vec<Vec<char>>,
    /// Letters of the result.
    pub output: Vec<char>,
}

/// What a value is. Operands are in [`Value::args`].
#[derive(Clone, Debug, PartialEq)]
pub enum CoreOp {
    /// A number; no operands.
    Number(f64),
    /// An imaginary number; no operands.
    Imaginary(f64),
    /// A parameter; no operands.
    Param(ParamId),
    /// The configuration: `Site(SPIN)`, shape `[]`, values +1 and -1.
    Spins,
    /// Token coordinate along an axis, per site: 0, 1, ...
    SiteIndex {
        /// Lattice axis.
        axis: usize,
        /// Whose lattice.
        token: Token,
    },
    /// Signed displacement (target minus source, in tokens) along an axis; on a
    /// ring the representative in (-T/2, T/2].
    Displacement {
        /// Lattice axis.
        axis: usize,
        /// Whose lattice.
        token: Token,
    },
    /// Momentum 2 pi q / T along an axis, in (-pi, pi]; needs a ring.
    Momentum {
        /// Lattice axis.
        axis: usize,
        /// Whose lattice.
        token: Token,
    },
    /// Coordinate along an axis of the target (`false`) or source (`true`) of a pair.
    PairIndex {
        /// Lattice axis.
        axis: usize,
        /// Of the source instead of the target.
        source: bool,
        /// Whose lattice.
        token: Token,
    },
    /// Number of tokens.
    SiteCount(Token),
    /// Extent of the token lattice along an axis.
    Extent {
        /// Lattice axis.
        axis: usize,
        /// Whose lattice.
        token: Token,
    },
    /// Elementwise.
    Unary(Unary),
    /// Elementwise with broadcasting.
    Binary(Binary),
    /// Contraction.
    Einsum(Einsum),
    /// Same elements, new shape (the value's own).
    Reshape,
    /// Part of one axis.
    Slice {
        /// Axis of the shape.
        axis: usize,
        /// First element.
        start: usize,
        /// Elements.
        len: usize,
    },
    /// Operands joined along an axis.
    Concat {
        /// Axis of the shape.
        axis: usize,
    },
    /// Per site the operand at offsets lo..=hi per axis, as new leading axis
    /// (one axis of product length, the second lattice axis fastest); outside
    /// an open lattice: zero. No operand is modified by the boundary otherwise.
    Window {
        /// First offset per lattice axis, in tokens.
        lo: [i64; 2],
        /// Last offset.
        hi: [i64; 2],
    },
    /// Joins `ratio` tokens into one, as a new leading axis (second lattice
    /// axis fastest).
    Patch {
        /// Fine tokens per coarse token and axis.
        ratio: [usize; 2],
    },
    /// Sum over sites.
    Sum,
    /// All sites as a new leading axis (length [`Dim::Sites`]).
    Gather,
    /// Linear recurrence along the chain; see [`ScanShape`]. Operands: x, decay
    /// (or dense transition), [p, q], input, output, (skip).
    Scan(ScanShape),
    /// `y_i = sum_j kernel(i - j) x_j` per channel; operands: x, kernel on
    /// `Displacement` (broadcast over channels).
    Convolve,
    /// `y = IFFT(symbol(k) FFT x)` per channel on a ring; operands: x, symbol on
    /// `Momentum`. For real x the real part is taken.
    Modes,
    /// `y_i = sum_j kernel(i, j) x_j` per channel; operands: x, kernel on `Pair`.
    Mix,
    /// Sum of a `Pair` value over sources: per site.
    RowSum,
}

/// What operands and directions a [`CoreOp::Scan`] has. Per channel `c` of x,
/// with states n: `h_i = A h_{i-1} + input_n x_i`, `y_i = sum_n output_n h_{i,n}`,
/// `A = diag(decay) - p q^T` (no conjugation) or the dense `transition[n, m]`.
/// On a ring the recurrence is exactly periodic. Shapes: decay, p, q, input,
/// output `[states, channels..]`, transition `[states, states, channels..]`,
/// skip `[channels..]` (`y += skip * x`). With `mirror`, the reflected response
/// (same operands, i -> -i) is added; the skip is not doubled. If any operand
/// but x is complex and x is real, the real part of the result is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScanShape {
    /// Dense transition matrix instead of `decay`.
    pub dense: bool,
    /// Operands p, q present.
    pub low_rank: bool,
    /// Operand skip present.
    pub skip: bool,
    /// Add the mirrored response.
    pub mirror: bool,
    /// Run to the left instead of to the right.
    pub leftward: bool,
}

/// One step of the elaborated program.
#[derive(Clone, Debug)]
pub struct Value {
    /// What it computes.
    pub op: CoreOp,
    /// From which values.
    pub args: Vec<ValueId>,
    /// Its type.
    pub ty: Type,
    /// Its dependence on the configuration.
    pub kind: Kind,
    /// The expression it came from (innermost, possibly in the stdlib).
    pub span: Span,
    /// Calls it was inlined through, outermost first: (callee, call site).
    pub via: Vec<(String, Span)>,
    /// The scope-qualified name of the `let`/`var` it was bound to, if any
    /// (`block_0/gate`).
    pub name: Option<String>,
    /// The declared mixer it belongs to: (name, instance number).
    pub mixer: Option<(String, u32)>,
}

/// Initial values of one parameter, elementwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// A number.
    Number(f64),
    /// An independent standard normal draw per element.
    Normal,
    /// An independent uniform draw in [0, 1) per element.
    Uniform,
    /// The element's index along an axis.
    Axis(usize),
    /// The product of these lengths, known once the number of sites is.
    Length(Vec<Dim>),
    /// HiPPO-LegS quantity of `states` states, indexed by axis 0 (docs/abacus.md Sec. 8).
    Hippo(Hippo, usize),
    /// Mean over random configurations and sites of a site value, per element
    /// (shapes agree).
    DataMean(ValueId),
    /// Standard deviation, likewise (at least 1e-6).
    DataStd(ValueId),
    /// Elementwise.
    Unary(Unary, Box<Init>),
    /// Elementwise.
    Binary(Binary, Box<Init>, Box<Init>),
}

/// HiPPO-LegS in the eigenbasis of its normal part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hippo {
    /// Real parts of the eigenvalues (all -1/2).
    LambdaRe,
    /// Imaginary parts, ascending.
    LambdaIm,
    /// Low-rank vector.
    PRe,
    /// Low-rank vector.
    PIm,
    /// Input vector.
    BRe,
    /// Input vector.
    BIm,
}

/// A declared parameter.
#[derive(Clone, Debug)]
pub struct ParamInfo {
    /// Path, the key in saved files: `block_0/s4/log_step`. A complex
    /// parameter is stored as `path.re` and `path.im`.
    pub path: String,
    /// Its type; the place is `Whole`, or what `per` says.
    pub ty: Type,
    /// Initialiser; for complex parameters of the real and imaginary parts.
    pub init: [Init; 2],
    /// The initialiser as written.
    pub init_text: String,
    /// The declaration.
    pub span: Span,
}

/// A mixer in use.
#[derive(Clone, Debug)]
pub struct MixerUse {
    /// Name of the mixer item.
    pub name: String,
    /// Declared class.
    pub class: crate::syntax::ast::MixerClass,
    /// The value it was applied to, and its result.
    pub input: ValueId,
    /// Its result.
    pub output: ValueId,
    /// The call.
    pub span: Span,
}

/// A checked network at given hyperparameters. Later stages demand it.
#[derive(Clone, Debug)]
pub struct NetworkInfo {
    /// The network's name.
    pub name: String,
    /// The file it was written in.
    pub file: FileId,
    /// `full network`.
    pub full: bool,
    /// Its lattice.
    pub lattice: LatticeKind,
    /// Hyperparameters in force, in declaration order of the file.
    pub hyper: BTreeMap<String, Static>,
    /// Every value, operands before users.
    pub values: Vec<Value>,
    /// Every parameter, in order of declaration.
    pub params: Vec<ParamInfo>,
    /// Every mixer in use.
    pub mixers: Vec<MixerUse>,
    /// What the network's own statements bind (`let`, `var`, `=`, `+=`), in order
    /// of execution, under the scope-qualified name (`block_0/gate`).
    pub bindings: Vec<(String, ValueId)>,
    /// The readout: `Whole`, shape `[]`.
    pub log_psi: ValueId,
}

impl NetworkInfo {
    /// The value with this id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }
}

/// The value of a hyperparameter or constant.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged, expecting = "expected a number, `true` or `false`")]
pub enum Static {
    /// Integer (nat, int).
    Int(i64),
    /// Real.
    Real(f64),
    /// Truth value.
    Bool(bool),
}
