//! The emitted language: the part of CUDA C++ that kernels are made of.
//!
//! Every expression knows its type; the constructors refuse what would not
//! compile or would convert silently. Two loops know about threads: [`Stmt::Each`]
//! deals its iterations to the threads of the block, [`Stmt::Warps`] to its warps.

use super::names::{Comment, Name};
use std::ops::{Add, Div, Mul, Rem, Sub};

/// Types of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// 32-bit integer.
    Int,
    /// Truth value.
    Bool,
    /// A number in working precision.
    Real,
    /// A number in f64.
    Double,
    /// A complex number in working precision.
    Complex,
}

/// Operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// `a % b`
    Rem,
    /// `a < b`
    Less,
    /// `a == b`
    Equal,
    /// `a && b`
    And,
}

/// Expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// An integer.
    Int(i64),
    /// A number; the type is `Real` or `Double`.
    Number(f64, Type),
    /// A variable or a named constant.
    Var(Name, Type),
    /// `a op b`
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// A function of the device library or of this text.
    Call(Name, Vec<Expr>, Type),
    /// `pointer[index]`
    Load(Name, Box<Expr>, Type),
    /// `condition ? a : b`
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
    /// Conversion to a type.
    Cast(Type, Box<Expr>),
    /// `-a`
    Negative(Box<Expr>),
}

/// Statements.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// A line of comment.
    Comment(Comment),
    /// `const type name = value;`
    Let(Name, Expr),
    /// `type name = value;`
    Var(Name, Expr),
    /// `type name[length] = {};`
    Array(Name, Type, usize),
    /// So many sums, `Sums<length> name = {};`.
    Sums(Name, usize),
    /// `name = value;`
    Set(Name, Expr),
    /// `pointer[index] = value;`
    Store(Name, Expr, Expr),
    /// `call;`
    Do(Expr),
    /// `name` from 0 to the count, one after the other.
    For(Name, Expr, Vec<Stmt>),
    /// `name` from 0 to the count in steps.
    Chunks(Name, usize, usize, Vec<Stmt>),
    /// As `For` for few iterations, written out by the compiler.
    Unroll(Name, usize, Vec<Stmt>),
    /// `name` from 0 to the count, dealt to the threads of the block.
    Each(Name, Expr, Vec<Stmt>),
    /// `name` from 0 to the count, dealt to the warps of the block.
    Warps(Name, Expr, Vec<Stmt>),
    /// `name` from 0 to the count, dealt to the lanes of a warp.
    Lanes(Name, Expr, Vec<Stmt>),
    /// `if (condition) {..}`
    If(Expr, Vec<Stmt>),
    /// All threads of the block wait for each other.
    Barrier,
    /// `return value;`
    Return(Expr),
}

/// A device function.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// What it computes.
    pub comment: Comment,
    /// Its name.
    pub name: Name,
    /// Arguments.
    pub arguments: Vec<(Name, Type)>,
    /// Result.
    pub result: Type,
    /// Ends in [`Stmt::Return`].
    pub body: Vec<Stmt>,
}

/// What the threads of a block do between two barriers.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Its name.
    pub name: Name,
    /// Integers it takes besides the launch and the sample.
    pub arguments: Vec<Name>,
    /// Its code, without barriers.
    pub body: Vec<Stmt>,
    /// Blocks of constants whose offset is one of the arguments.
    pub blocks: Vec<(View, Name)>,
}

impl Phase {
    /// What every phase of a [`Stmt::Chunks`] takes first.
    pub const TAKEN: [&str; 2] = ["first", "count"];

    /// How many of its arguments these are.
    pub fn taken(&self) -> usize {
        let taken = Phase::TAKEN.map(Name::from);
        match self.arguments.starts_with(&taken) {
            true => taken.len(),
            false => 0,
        }
    }
}

/// One of the calls of a kernel, as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Whether all threads of the block wait for each other before.
    pub waits: bool,
    /// What is done.
    pub what: What,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Calls the phase of this number, with these arguments after those it is always
    /// given.
    Call(usize, Vec<Expr>),
    /// Takes so many things, at most so many at once.
    Take(usize, usize),
    /// Goes back to where things were taken, for the next ones.
    Again,
}

/// All steps of a module, one after the other.
pub const STEPS: &str = "steps";

/// A table of integers in device memory: a part of the array [`TABLES`].
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The name of where it begins.
    pub name: Name,
    /// Where it begins.
    pub start: usize,
    /// Its entries.
    pub values: Vec<i64>,
}

/// All tables of a module, one after the other.
pub const TABLES: &str = "tables";

/// A named integer with a remark.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// Its name.
    pub name: Name,
    /// Its value.
    pub value: i64,
    /// What it is.
    pub comment: Comment,
}

/// Where memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Shared memory of the block.
    Shared,
    /// The block's part of the workspace: so many doubles per block.
    Workspace(usize),
    /// Constants in working precision.
    Constants,
    /// Constants in f64.
    Constants64,
}

/// A pointer to elements of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The pointer.
    pub name: Name,
    /// What it points to.
    pub element: Type,
    /// Where.
    pub place: Place,
    /// First element: in doubles, or for constants in numbers of their kind.
    pub offset: usize,
    /// Elements.
    pub length: usize,
}

/// The code of one kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// Lines at the top.
    pub title: Vec<Comment>,
    /// The kernel's name.
    pub kernel: Name,
    /// Threads per block.
    pub threads: usize,
    /// Memory the kernel works on.
    pub memory: Vec<View>,
    /// Named integers.
    pub constants: Vec<Constant>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Functions.
    pub functions: Vec<Function>,
    /// Phases, called by the body.
    pub phases: Vec<Phase>,
    /// What is computed for one sample, where it is data.
    pub steps: Vec<Step>,
    /// What is computed for one sample, after the steps.
    pub body: Vec<Stmt>,
    /// How often.
    pub entry: Entry,
}

/// What a kernel does with its samples, which are dealt to blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Computes each once.
    Once,
    /// Nothing: a part of another kernel, the function `compute`.
    Part,
    /// Moves each as a Markov chain, computing it after every proposal.
    Chains {
        /// Spins per configuration.
        sites: usize,
        /// Results per configuration, Re log psi first.
        width: usize,
    },
}

impl Expr {
    /// Its type.
    pub fn ty(&self) -> Type {
        match self {
            Expr::Int(_) => Type::Int,
            Expr::Number(_, t) | Expr::Var(_, t) | Expr::Call(_, _, t) | Expr::Load(_, _, t) => *t,
            Expr::Cast(t, _) => *t,
            Expr::Binary(Operator::Less | Operator::Equal | Operator::And, ..) => Type::Bool,
            Expr::Binary(_, a, _) | Expr::Negative(a) => a.ty(),
            Expr::Select(_, a, _) => a.ty(),
        }
    }
    /// An integer.
    pub fn int(value: usize) -> Expr {
        Expr::Int(value as i64)
    }
    /// An integer variable.
    pub fn var(name: impl Into<Name>) -> Expr {
        Expr::Var(name.into(), Type::Int)
    }
    /// `function(arguments)`
    pub fn call(name: impl Into<Name>, arguments: Vec<Expr>, ty: Type) -> Expr {
        Expr::Call(name.into(), arguments, ty)
    }
    /// `pointer[index]`
    pub fn load(pointer: impl Into<Name>, index: Expr, ty: Type) -> Expr {
        debug_assert_eq!(index.ty(), Type::Int, "indices are integers");
        Expr::Load(pointer.into(), Box::new(index), ty)
    }
    /// Conversion, if the type differs.
    pub fn cast(self, ty: Type) -> Expr {
        if self.ty() == ty {
            self
        } else {
            Expr::Cast(ty, Box::new(self))
        }
    }
    /// `self < other`
    pub fn less(self, other: Expr) -> Expr {
        self.binary(Operator::Less, other)
    }
    /// `self == other`
    pub fn equal(self, other: Expr) -> Expr {
        self.binary(Operator::Equal, other)
    }
    /// `self && other`
    pub fn and(self, other: Expr) -> Expr {
        self.binary(Operator::And, other)
    }
    /// `self ? a : b`
    pub fn select(self, a: Expr, b: Expr) -> Expr {
        debug_assert_eq!(self.ty(), Type::Bool, "conditions are truth values");
        debug_assert_eq!(a.ty(), b.ty(), "one type");
        Expr::Select(Box::new(self), Box::new(a), Box::new(b))
    }
    fn binary(self, op: Operator, other: Expr) -> Expr {
        debug_assert_eq!(
            self.ty(),
            other.ty(),
            "no silent conversions: {self:?} {op:?} {other:?}"
        );
        Expr::Binary(op, Box::new(self), Box::new(other))
    }
}

impl Add for Expr {
    type Output = Expr;
    fn add(self, other: Expr) -> Expr {
        match (&self, &other) {
            (Expr::Int(a), Expr::Int(b)) => Expr::Int(a + b),
            (Expr::Int(0), _) => other,
            (_, Expr::Int(0)) => self,
            (_, Expr::Int(b)) if *b < 0 => self.binary(Operator::Sub, Expr::Int(-b)),
            _ => self.binary(Operator::Add, other),
        }
    }
}

impl Sub for Expr {
    type Output = Expr;
    fn sub(self, other: Expr) -> Expr {
        match (&self, &other) {
            (Expr::Int(a), Expr::Int(b)) => Expr::Int(a - b),
            (_, Expr::Int(0)) => self,
            _ => self.binary(Operator::Sub, other),
        }
    }
}

impl Mul for Expr {
    type Output = Expr;
    fn mul(self, other: Expr) -> Expr {
        match (&self, &other) {
            (Expr::Int(a), Expr::Int(b)) => Expr::Int(a * b),
            (Expr::Int(0), _) | (_, Expr::Int(0)) => Expr::Int(0),
            (Expr::Int(1), _) => other,
            (_, Expr::Int(1)) => self,
            _ => self.binary(Operator::Mul, other),
        }
    }
}

impl Div for Expr {
    type Output = Expr;
    fn div(self, other: Expr) -> Expr {
        match other {
            Expr::Int(1) => self,
            _ => self.binary(Operator::Div, other),
        }
    }
}

impl Rem for Expr {
    type Output = Expr;
    fn rem(self, other: Expr) -> Expr {
        match other {
            Expr::Int(1) => Expr::Int(0),
            _ => self.binary(Operator::Rem, other),
        }
    }
}

impl Phase {
    /// Whether its code uses a pointer, or an index of the thread: `thread`, `warp`,
    /// `lane`, and the counts `threads` and `warps`.
    pub fn uses(&self, name: &Name) -> bool {
        self.body.iter().any(|s| s.uses(name))
    }
}

/// What a loop dealt to threads needs.
fn dealt(s: &Stmt) -> &'static [&'static str] {
    match s {
        Stmt::Each(..) => &["thread", "threads"],
        Stmt::Warps(..) => &["warp", "warps"],
        Stmt::Lanes(..) => &["lane"],
        _ => &[],
    }
}

impl Stmt {
    fn uses(&self, pointer: &Name) -> bool {
        if dealt(self).iter().any(|&n| *pointer == n.into()) {
            return true;
        }
        let any = |body: &[Stmt]| body.iter().any(|s| s.uses(pointer));
        match self {
            Stmt::Comment(_) | Stmt::Array(..) | Stmt::Sums(..) | Stmt::Barrier => false,
            Stmt::Let(_, e) | Stmt::Var(_, e) | Stmt::Set(_, e) | Stmt::Do(e) | Stmt::Return(e) => {
                e.uses(pointer)
            }
            Stmt::Store(name, index, value) => {
                name == pointer || index.uses(pointer) || value.uses(pointer)
            }
            Stmt::For(_, e, body)
            | Stmt::Each(_, e, body)
            | Stmt::Warps(_, e, body)
            | Stmt::Lanes(_, e, body)
            | Stmt::If(e, body) => e.uses(pointer) || any(body),
            Stmt::Chunks(_, _, _, body) | Stmt::Unroll(_, _, body) => any(body),
        }
    }
}

impl Expr {
    fn uses(&self, pointer: &Name) -> bool {
        match self {
            Expr::Int(_) | Expr::Number(..) => false,
            Expr::Var(name, _) => name == pointer,
            Expr::Binary(_, a, b) => a.uses(pointer) || b.uses(pointer),
            Expr::Call(_, arguments, _) => arguments.iter().any(|a| a.uses(pointer)),
            Expr::Load(name, index, _) => name == pointer || index.uses(pointer),
            Expr::Select(c, a, b) => c.uses(pointer) || a.uses(pointer) || b.uses(pointer),
            Expr::Cast(_, a) | Expr::Negative(a) => a.uses(pointer),
        }
    }
}
