//! The abstract syntax tree of a `.dnet` file.
//!
//! The tree says what was written, nothing more: names are unresolved, no
//! shape is known. Every node that a diagnostic may point at carries a
//! [`Span`]. Comments are kept beside the tree ([`Module::comments`]) so that
//! the formatter loses nothing.

use std::fmt;
use std::sync::Arc;

/// A source file: its display name and its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// Path or pseudo-path (`<std>/nn.dnet`, `<string>`), for messages only.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.name)
    }
}

/// Index of a [`Source`] in the program's [`SourceMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// All files of a program, in load order.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    /// The files; a [`FileId`] is an index into this list.
    pub files: Vec<Arc<Source>>,
}

impl SourceMap {
    /// Registers a file and returns its id.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> FileId {
        self.files.push(Arc::new(Source {
            name: name.into(),
            text: text.into(),
        }));
        FileId(self.files.len() as u32 - 1)
    }

    /// The text a span covers.
    pub fn text(&self, span: Span) -> &str {
        &self.files[span.file.0 as usize].text[span.start as usize..span.end as usize]
    }
}

/// A half-open byte range of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The file.
    pub file: FileId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The smallest span covering both (of the same file).
    pub fn to(self, other: Span) -> Span {
        Span {
            file: self.file,
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}

/// An identifier with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ident {
    /// The name.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

/// A parsed file.
#[derive(Clone, Debug)]
pub struct Module {
    /// The file this module was parsed from.
    pub file: FileId,
    /// `//!` lines, without the marker.
    pub docs: Vec<String>,
    /// Items in source order.
    pub items: Vec<Item>,
    /// Every comment (`//`, `///`, `//!`), in source order.
    pub comments: Vec<Comment>,
}

/// A comment kept for the formatter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Text including the marker, without the line end.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A top-level item.
#[derive(Clone, Debug)]
pub struct Item {
    /// `///` lines before the item, without the marker.
    pub docs: Vec<String>,
    /// What it is.
    pub kind: ItemKind,
    /// The whole item.
    pub span: Span,
}

/// The kinds of items.
#[derive(Clone, Debug)]
pub enum ItemKind {
    /// `use std::nn::{dense, silu as swish}`
    Use(Use),
    /// `const pi2 = 2 * pi`
    Const(ConstItem),
    /// `fn f(x, out: nat) = expr` or `{ ... return expr }`
    Fn(FnItem),
    /// `mixer s4(x, states: nat) : state_space { ... }`
    Mixer(MixerItem),
    /// `network n(...) on chain { ... }`
    Network(NetworkItem),
    /// `operator h(...) on chain { ... }`
    Operator(OperatorItem),
}

/// `use path::{names}`. An empty `names` imports the last path segment itself
/// (a module, used as `nn::dense`).
#[derive(Clone, Debug)]
pub struct Use {
    /// Path segments, e.g. `std`, `nn`. `self` paths are relative files.
    pub path: Vec<Ident>,
    /// Imported names with optional new names.
    pub names: Vec<(Ident, Option<Ident>)>,
}

/// `const name = expr`
#[derive(Clone, Debug)]
pub struct ConstItem {
    /// Its name.
    pub name: Ident,
    /// Its value: a static expression.
    pub value: Expr,
}

/// A function; inlined at every call.
#[derive(Clone, Debug)]
pub struct FnItem {
    /// Its name.
    pub name: Ident,
    /// Value and static arguments in order.
    pub params: Vec<FnParam>,
    /// `: norm` marks a configuration-dependent normalisation (for E0304),
    /// `: init` an initialiser usable only after `param ... =`.
    pub role: Option<Ident>,
    /// Its body.
    pub body: Body,
}

/// A mixer: a function, linear in its first argument, of a declared class.
#[derive(Clone, Debug)]
pub struct MixerItem {
    /// Its name.
    pub name: Ident,
    /// Value and static arguments in order; the first is the mixed value.
    pub params: Vec<FnParam>,
    /// The declared class.
    pub class: (MixerClass, Span),
    /// Its body.
    pub body: Body,
}

/// The four classes of mixers (docs/abacus.md Sec. 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MixerClass {
    /// Finite support.
    Stencil,
    /// A linear recurrence to the right and/or to the left.
    StateSpace,
    /// Any translation-invariant kernel.
    Toeplitz,
    /// Any matrix between sites.
    Dense,
}

/// A body: one expression, or statements ending in `return`.
#[derive(Clone, Debug)]
pub enum Body {
    /// `= expr`
    Expr(Expr),
    /// `{ stmts }`
    Block(Block),
}

/// Statements between braces.
#[derive(Clone, Debug)]
pub struct Block {
    /// In order.
    pub stmts: Vec<Stmt>,
    /// Including the braces.
    pub span: Span,
}

/// One argument of a function, mixer, network or operator.
#[derive(Clone, Debug)]
pub struct FnParam {
    /// Its name.
    pub name: Ident,
    /// Static type; `None` for a tensor (or site index in operators).
    pub ty: Option<(StaticType, Span)>,
    /// `in lo..=hi`: inclusive allowed range, for numbers.
    pub range: Option<(Expr, Expr)>,
    /// `= expr`
    pub default: Option<Expr>,
}

/// Types of hyperparameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StaticType {
    /// Non-negative integer.
    Nat,
    /// Signed integer.
    Int,
    /// Real number.
    Real,
    /// Truth value.
    Bool,
}

/// A lattice kind in the type of a network or operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LatticeKind {
    /// One dimension (the default).
    Chain,
    /// Two dimensions.
    Square,
}

/// `network` or `full network`.
#[derive(Clone, Debug)]
pub struct NetworkItem {
    /// Its name.
    pub name: Ident,
    /// `full` lifts the locality and linearity conditions.
    pub full: Option<Span>,
    /// Hyperparameters.
    pub params: Vec<FnParam>,
    /// Its lattice.
    pub lattice: LatticeKind,
    /// Its body; assigns `log_psi`.
    pub body: Block,
}

/// A statement.
#[derive(Clone, Debug)]
pub struct Stmt {
    /// What it is.
    pub kind: StmtKind,
    /// The whole statement.
    pub span: Span,
}

/// The kinds of statements.
#[derive(Clone, Debug)]
pub enum StmtKind {
    /// `let x = e`, `let (a, b) = e`, `let x: linear real[4] = e`
    Let {
        /// The names bound.
        pattern: Vec<Ident>,
        /// Whether parentheses were written.
        tuple: bool,
        /// What the author claims about it.
        annotation: Option<Annotation>,
        /// What it is bound to.
        value: Expr,
    },
    /// `var x = e`
    Var {
        /// Its name.
        name: Ident,
        /// What the author claims about it.
        annotation: Option<Annotation>,
        /// What it is bound to.
        value: Expr,
    },
    /// `x = e`; also the readout `log_psi = e`.
    Assign {
        /// Its name.
        name: Ident,
        /// What it is bound to.
        value: Expr,
    },
    /// `x += e`
    AddAssign {
        /// Its name.
        name: Ident,
        /// What it is bound to.
        value: Expr,
    },
    /// `param name: real[2, dim] per site of x = init`
    Param(ParamStmt),
    /// `repeat depth { .. }`, `repeat l in 0..depth as block { .. }`,
    /// `repeat depth shared { .. }` (one set of parameters).
    Repeat {
        /// The turn's number, if named.
        var: Option<Ident>,
        /// First turn; 0 if absent.
        from: Option<Expr>,
        /// One past the last turn.
        to: Expr,
        /// Scope name instead of `block`.
        label: Option<Ident>,
        /// One set of parameters for all turns.
        shared: bool,
        /// What is repeated.
        body: Block,
    },
    /// `if cond { .. } else { .. }` with a static condition.
    If {
        /// The condition.
        cond: Expr,
        /// If it holds.
        then: Block,
        /// If it does not.
        otherwise: Option<Block>,
    },
    /// `return e`, `return (a, b)`
    Return(Expr),
}

/// A declared parameter.
#[derive(Clone, Debug)]
pub struct ParamStmt {
    /// Its name, the last segment of its path.
    pub name: Ident,
    /// `real` or `complex`.
    pub complex: bool,
    /// Per-site shape.
    pub shape: Vec<Expr>,
    /// What it is indexed by besides its shape.
    pub per: ParamPer,
    /// Initialiser; defaults to zeros.
    pub init: Option<Expr>,
}

/// The index set of a parameter.
#[derive(Clone, Debug)]
pub enum ParamPer {
    /// One for the whole network.
    Whole,
    /// `per site of x`
    Site(Expr),
    /// `per displacement of x`
    Displacement(Expr),
    /// `per momentum of x`
    Momentum(Expr),
    /// `per pair of x`
    Pair(Expr),
}

/// Optional, checked annotation of a value.
#[derive(Clone, Debug)]
pub struct Annotation {
    /// `const`, `local[lo, hi]` (in tokens), `linear`, `pooled`, `global`
    pub kind: Option<KindAnnotation>,
    /// `real[...]` or `complex[...]`
    pub ty: Option<(bool, Vec<Expr>)>,
    /// The whole annotation.
    pub span: Span,
}

/// The kind in an [`Annotation`].
#[derive(Clone, Debug)]
pub enum KindAnnotation {
    /// Independent of the configuration.
    Const,
    /// Depends on the given interval of tokens per axis (or on any, if empty).
    Local(Vec<(Expr, Expr)>),
    /// Through mixers, linearly.
    Linear,
    /// One per configuration.
    Pooled,
    /// Anything.
    Global,
}

/// An expression.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of expressions.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// `3` (kept as written in [`Span`]; must fit in u64)
    Nat(u64),
    /// `0.5`, `1e-6`
    Real(f64),
    /// `2i`, `0.5i`
    Imaginary(f64),
    /// `true`, `false`
    Bool(bool),
    /// `"hd,de->he"`
    Str(String),
    /// `x`, `nn::dense`
    Path(Vec<Ident>),
    /// `f(a, b, key: c) as label`
    Call(Box<Call>),
    /// `x |> f(a) as label`: the left side becomes the first argument.
    Pipe(Box<Expr>, Box<Call>),
    /// `-x`, `not x`
    Unary(UnaryOp, Box<Expr>),
    /// `a + b` ...
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `(a, b)`: two or more.
    Tuple(Vec<Expr>),
    /// `[a, b]`: shapes.
    List(Vec<Expr>),
    /// `if c { a } else { b }`, c static.
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `sum(r in a..b: e)`: a sum of numbers, b exclusive; in operators.
    Sum(Box<SumLoop>),
    /// `(a)`: kept for the formatter.
    Paren(Box<Expr>),
}

/// `sum(var in from..to: term)`.
#[derive(Clone, Debug)]
pub struct SumLoop {
    /// The summation variable.
    pub var: Ident,
    /// First value.
    pub from: Expr,
    /// One past the last value.
    pub to: Expr,
    /// What is summed.
    pub term: Expr,
}

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function's path.
    pub function: Vec<Ident>,
    /// Arguments; a name for `key: value`.
    pub args: Vec<(Option<Ident>, Expr)>,
    /// Whether parentheses were written (a pipe target may omit them).
    pub parens: bool,
    /// `as label`: the scope name of the parameters inside.
    pub label: Option<Ident>,
    /// Function path to closing parenthesis or label.
    pub span: Span,
}

/// Prefix operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `-`
    Neg,
    /// `not`
    Not,
}

/// Infix operators, loosest first: `or`, `and`, comparisons, `+ -`, `* / % @`, `^`
/// (right-associative, binds tighter than prefix `-`). `|>` is the loosest of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/` (always real)
    Div,
    /// `%` on integers
    Rem,
    /// `@`: contracts the last axis of the left with the first of the right.
    MatMul,
    /// `^`
    Pow,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `and`
    And,
    /// `or`
    Or,
}

/// A Hamiltonian or any observable: a sum of Pauli strings.
#[derive(Clone, Debug)]
pub struct OperatorItem {
    /// Its name.
    pub name: Ident,
    /// Couplings.
    pub params: Vec<FnParam>,
    /// Its lattice.
    pub lattice: LatticeKind,
    /// Terms.
    pub body: Vec<OpStmt>,
    /// The braces and what is between.
    pub body_span: Span,
}

/// A statement of an operator.
#[derive(Clone, Debug)]
pub struct OpStmt {
    /// What it is.
    pub kind: OpStmtKind,
    /// The whole statement.
    pub span: Span,
}

/// The kinds of statements in an operator.
#[derive(Clone, Debug)]
pub enum OpStmtKind {
    /// `let K = ...`: a number.
    Let {
        /// Its name.
        name: Ident,
        /// What it is bound to.
        value: Expr,
    },
    /// `term e`: added once.
    Term(Expr),
    /// `for i: e`, `for i in 1..N-1: e`, `for i < j: e`, `for (i, j) in bonds(1): e`,
    /// each with an optional `where cond`.
    For {
        /// What the loop runs over.
        domain: ForDomain,
        /// The condition.
        cond: Option<Expr>,
        /// What is added per turn.
        term: Expr,
    },
    /// `if periodic { ... } else { ... }`
    If {
        /// The condition.
        cond: Expr,
        /// If it holds.
        then: Vec<OpStmt>,
        /// If it does not.
        otherwise: Vec<OpStmt>,
    },
}

/// What an operator's loop runs over. Terms that refer to a site outside an
/// open lattice are dropped; on a ring sites are taken modulo N.
#[derive(Clone, Debug)]
pub enum ForDomain {
    /// `i`: every site.
    Sites(Ident),
    /// `i in lo..hi` (chain; `hi` exclusive).
    Range(Ident, Expr, Expr),
    /// `i < j`: every unordered pair.
    Pairs(Ident, Ident),
    /// `(i, j) in bonds(k)`: pairs at the k-th shortest lattice distance.
    Bonds(Ident, Ident, Expr),
}
