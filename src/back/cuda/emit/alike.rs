//! Pieces that differ only in numbers, as those of equal layers and heads do, become
//! one function of these numbers: less text, and less to compile. The others become
//! one function from barrier to barrier.
//!
//! A piece is compared without its numbers: where its operands are, and how far apart.
//! Those that all of a group have in common stay where they are, the others become
//! arguments; positions a fixed distance apart share one.

use super::super::ast::{Constant, Expr, Operator, Phase, Step, Stmt, Type, View};
use super::super::names::{Comment, Name};
use super::outline::{Part, Piece};
use super::rewrite::{self, Rewrite};
use super::steps::steps;
use std::cmp::Reverse;
use std::collections::HashMap;

/// Arguments a function takes at most: as many as are passed in registers.
const MOST: usize = 12;

/// Functions of several pieces at most, except in kernels of many pieces, whose calls are
/// data: with more calls in its text, the assembler gives every function all registers
/// that the kernel's bounds allow.
const FUNCTIONS: usize = 16;
const MANY: usize = 128;

/// What is known of a kernel's names.
pub(super) struct Names<'a> {
    /// Named positions: in which memory, and their value.
    pub(super) positions: HashMap<Name, (&'static str, i64)>,
    /// Blocks of constants.
    pub(super) blocks: &'a [View],
}

/// A number that may differ between pieces.
#[derive(Clone, PartialEq)]
struct Hole {
    kind: Kind,
    value: i64,
    /// As the piece has it.
    expr: Expr,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// A position in this memory.
    Position(&'static str),
    /// The offset of a block of constants that is otherwise like this one.
    Block(View),
    /// Any other.
    Number,
}

/// A piece with variables in place of its numbers.
#[derive(Default)]
struct Form {
    body: Vec<Stmt>,
    holes: Vec<Hole>,
}

/// How variables in place of numbers are called.
const HOLE: &str = "hole_";

/// Takes numbers out of a piece.
struct Emptied<'a> {
    names: &'a Names<'a>,
    /// Also those that are no positions.
    numbers: bool,
    holes: Vec<Hole>,
}

impl Emptied<'_> {
    fn hole(&mut self, kind: Kind, value: i64, expr: Expr) -> Name {
        self.holes.push(Hole { kind, value, expr });
        Name::numbered(HOLE, self.holes.len() - 1)
    }

    fn number(&mut self, value: i64) -> Expr {
        match self.numbers {
            true => Expr::var(self.hole(Kind::Number, value, Expr::Int(value))),
            false => Expr::Int(value),
        }
    }

    /// A named position, or one so many places from it.
    fn position(&self, e: &Expr) -> Option<(&'static str, i64)> {
        match e {
            Expr::Var(name, _) => self.names.positions.get(name).copied(),
            Expr::Binary(op, a, b) => match (op, &**b) {
                (Operator::Add, Expr::Int(k)) => self.position(a).map(|(of, at)| (of, at + k)),
                (Operator::Sub, Expr::Int(k)) => self.position(a).map(|(of, at)| (of, at - k)),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Rewrite for Emptied<'_> {
    fn expr(&mut self, e: &Expr) -> Option<Expr> {
        if let Some((of, value)) = self.position(e) {
            return Some(Expr::var(self.hole(Kind::Position(of), value, e.clone())));
        }
        let Expr::Binary(op, a, b) = e else {
            return None;
        };
        if !self.numbers {
            return None;
        }
        match (op, &**a, &**b) {
            (Operator::Add, Expr::Int(k), b) => {
                let first = self.number(*k);
                Some(first + rewrite::expr(b, self))
            }
            (Operator::Add, a, Expr::Int(k)) => Some(rewrite::expr(a, self) + self.number(*k)),
            (Operator::Sub, a, Expr::Int(k)) => Some(rewrite::expr(a, self) + self.number(-*k)),
            (Operator::Mul, a, Expr::Int(k)) => Some(rewrite::expr(a, self) * self.number(*k)),
            _ => None,
        }
    }

    fn index(&mut self, at: &Expr) -> Expr {
        match at {
            Expr::Int(k) => self.number(*k),
            _ => rewrite::expr(at, self),
        }
    }

    fn pointer(&mut self, name: &Name) -> Name {
        let Some(view) = self.names.blocks.iter().find(|v| v.name == *name) else {
            return name.clone();
        };
        let like = View {
            name: "".into(),
            offset: 0,
            ..view.clone()
        };
        let offset = Expr::var(name.clone());
        self.hole(Kind::Block(like), view.offset as i64, offset)
    }
}

/// Puts values back in place of variables.
struct Filled<'a>(&'a [Filling]);

enum Filling {
    Value(Expr),
    Pointer(Name),
}

impl Filled<'_> {
    fn find(&self, name: &Name) -> Option<&Filling> {
        let text = name.to_string();
        let number = text.strip_prefix(HOLE)?.parse::<usize>();
        number.ok().and_then(|k| self.0.get(k))
    }
}

impl Rewrite for Filled<'_> {
    fn expr(&mut self, e: &Expr) -> Option<Expr> {
        match e {
            Expr::Var(name, _) => match self.find(name) {
                Some(Filling::Value(value)) => Some(value.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    fn index(&mut self, at: &Expr) -> Expr {
        rewrite::expr(at, self)
    }

    fn pointer(&mut self, name: &Name) -> Name {
        match self.find(name) {
            Some(Filling::Pointer(name)) => name.clone(),
            _ => name.clone(),
        }
    }
}

impl Names<'_> {
    fn form(&self, piece: &Piece, numbers: bool) -> Form {
        let mut emptied = Emptied {
            names: self,
            numbers,
            holes: Vec::new(),
        };
        let body = rewrite::list(&piece.body, &mut emptied);
        let holes = emptied.holes;
        Form { body, holes }
    }
}

impl Form {
    /// What tells functions apart.
    fn key(&self, piece: &Piece) -> String {
        let code: Vec<&Stmt> = (self.body.iter())
            .filter(|s| !matches!(s, Stmt::Comment(_)))
            .collect();
        let kinds: Vec<&Kind> = self.holes.iter().map(|h| &h.kind).collect();
        format!("{:?} {kinds:?} {code:?}", piece.arguments)
    }
}

/// A function of the numbers in which pieces differ.
struct Shared {
    phase: Phase,
    /// By argument: the hole whose value it is.
    values: Vec<usize>,
}

/// The function of pieces that are alike, if it does not take too many arguments.
fn function(arguments: &[Name], forms: &[&Form]) -> Option<Shared> {
    let first = forms[0];
    let values = |k: usize| forms.iter().map(move |f| f.holes[k].value);
    let mut chosen: Vec<usize> = Vec::new();
    let mut blocks: Vec<(View, Name)> = Vec::new();
    let mut fillings = Vec::new();
    for (k, own) in first.holes.iter().enumerate() {
        let varies = values(k).any(|v| v != own.value);
        let distance = |c: usize| own.value - first.holes[c].value;
        let same = |c: usize| {
            let apart = match own.kind {
                Kind::Position(_) => distance(c),
                _ => 0,
            };
            first.holes[c].kind == own.kind && values(k).zip(values(c)).all(|(v, w)| v == w + apart)
        };
        if !varies {
            fillings.push(match (&own.kind, &own.expr) {
                (Kind::Block(_), Expr::Var(name, _)) => Filling::Pointer(name.clone()),
                _ => Filling::Value(own.expr.clone()),
            });
            continue;
        }
        let argument = match chosen.iter().position(|&c| same(c)) {
            Some(argument) => argument,
            None => {
                chosen.push(k);
                chosen.len() - 1
            }
        };
        let at = chosen[argument];
        fillings.push(match &own.kind {
            Kind::Position(_) => {
                Filling::Value(Expr::var(Name::numbered("at_", argument)) + Expr::Int(distance(at)))
            }
            Kind::Number => Filling::Value(Expr::var(Name::numbered("n_", argument))),
            Kind::Block(like) => {
                let name = Name::numbered("data_", argument);
                let view = View {
                    name: name.clone(),
                    ..like.clone()
                };
                if at == k {
                    blocks.push((view, Name::numbered("from_", argument)));
                }
                Filling::Pointer(name)
            }
        });
    }
    if chosen.len() > MOST {
        return None;
    }
    let name = |(argument, &k): (usize, &usize)| match first.holes[k].kind {
        Kind::Position(_) => Name::numbered("at_", argument),
        Kind::Number => Name::numbered("n_", argument),
        Kind::Block(_) => Name::numbered("from_", argument),
    };
    let own = chosen.iter().enumerate().map(name);
    Some(Shared {
        phase: Phase {
            name: "".into(),
            arguments: arguments.iter().cloned().chain(own).collect(),
            body: rewrite::list(&first.body, &mut Filled(&fillings)),
            blocks,
        },
        values: chosen,
    })
}

/// A kernel in functions.
pub(super) struct Functions {
    /// The functions.
    pub(super) phases: Vec<Phase>,
    /// What calls them, as data.
    pub(super) steps: Vec<Step>,
    /// What calls them, after the steps.
    pub(super) body: Vec<Stmt>,
    /// The offsets of constants that are named there.
    pub(super) offsets: Vec<Constant>,
}

/// Makes functions of pieces, one of all that are alike; their calls become data in
/// kernels of many pieces.
pub(super) fn share(pieces: Vec<Piece>, parts: Vec<Part>, names: &Names) -> Functions {
    let mut sharing = Sharing {
        names,
        shared: Vec::new(),
        calls: pieces.iter().map(|_| None).collect(),
        pieces,
        made: Vec::new(),
        functions: Functions {
            phases: Vec::new(),
            steps: Vec::new(),
            body: Vec::new(),
            offsets: Vec::new(),
        },
    };
    // those that would take too many arguments differ in fewer numbers
    for numbers in [true, false] {
        sharing.group(numbers);
    }
    sharing.made = sharing.shared.iter().map(|_| None).collect();
    let body = sharing.body(parts);
    let (steps, body) = match sharing.pieces.len() {
        ..MANY => (Vec::new(), body),
        _ => steps(body, &sharing.functions.phases),
    };
    Functions {
        steps,
        body,
        ..sharing.functions
    }
}

struct Sharing<'a> {
    names: &'a Names<'a>,
    pieces: Vec<Piece>,
    /// Functions of several pieces.
    shared: Vec<Shared>,
    /// By piece: which of these it is, and its values.
    calls: Vec<Option<(usize, Vec<Expr>)>>,
    /// The names of these functions, by order of use.
    made: Vec<Option<Name>>,
    functions: Functions,
}

impl Sharing<'_> {
    /// Finds pieces that are alike among those that are like none so far.
    fn group(&mut self, numbers: bool) {
        let free: Vec<usize> = (0..self.pieces.len())
            .filter(|&p| self.calls[p].is_none())
            .collect();
        let form = |&p: &usize| self.names.form(&self.pieces[p], numbers);
        let forms: Vec<Form> = free.iter().map(form).collect();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        for (k, form) in forms.iter().enumerate() {
            let key = form.key(&self.pieces[free[k]]);
            let group = *known.entry(key).or_insert(groups.len());
            if group == groups.len() {
                groups.push(Vec::new());
            }
            groups[group].push(k);
        }
        groups.retain(|g| g.len() > 1);
        // the most alike first
        groups.sort_by_key(|g| Reverse(g.len()));
        let most = match self.pieces.len() {
            ..MANY => FUNCTIONS,
            _ => usize::MAX,
        };
        for group in groups {
            if self.shared.len() >= most {
                break;
            }
            let members: Vec<&Form> = group.iter().map(|&k| &forms[k]).collect();
            let arguments = &self.pieces[free[group[0]]].arguments;
            let Some(shared) = function(arguments, &members) else {
                continue;
            };
            for &k in &group {
                let value = |&h: &usize| forms[k].holes[h].expr.clone();
                let values = shared.values.iter().map(value).collect();
                self.calls[free[k]] = Some((self.shared.len(), values));
            }
            self.shared.push(shared);
        }
    }

    /// The code that calls the functions, which are made in its order.
    fn body(&mut self, parts: Vec<Part>) -> Vec<Stmt> {
        let mut code = Vec::new();
        let mut run: Vec<usize> = Vec::new();
        for part in parts {
            match part {
                Part::Piece(p) => match self.calls[p].take() {
                    None => run.push(p),
                    Some((function, values)) => {
                        self.finish(&mut run, &mut code);
                        code.push(self.call(p, function, values));
                    }
                },
                Part::Stmt(s) => {
                    self.finish(&mut run, &mut code);
                    code.push(s);
                }
                Part::Chunks(first, count, step, inner) => {
                    self.finish(&mut run, &mut code);
                    code.push(Stmt::Chunks(first, count, step, self.body(inner)));
                }
            }
        }
        self.finish(&mut run, &mut code);
        code
    }

    /// A function of pieces that are like no others.
    fn finish(&mut self, run: &mut Vec<usize>, code: &mut Vec<Stmt>) {
        let Some(&first) = run.first() else { return };
        let arguments = self.pieces[first].arguments.clone();
        let given = Piece::given(&arguments);
        let bodies = run
            .drain(..)
            .flat_map(|p| std::mem::take(&mut self.pieces[p].body));
        let phase = Phase {
            name: "".into(),
            arguments,
            body: bodies.collect(),
            blocks: Vec::new(),
        };
        let name = self.add(phase);
        code.push(Stmt::Do(Expr::call(name, given, Type::Int)));
    }

    fn add(&mut self, phase: Phase) -> Name {
        let name = Name::numbered("phase_", self.functions.phases.len());
        self.functions.phases.push(Phase {
            name: name.clone(),
            ..phase
        });
        name
    }

    fn call(&mut self, piece: usize, function: usize, values: Vec<Expr>) -> Stmt {
        let name = match &self.made[function] {
            Some(name) => name.clone(),
            None => {
                let name = self.add(self.shared[function].phase.clone());
                self.made[function] = Some(name.clone());
                name
            }
        };
        values.iter().for_each(|v| self.name_offset(v));
        let mut given = Piece::given(&self.pieces[piece].arguments);
        given.extend(values);
        Stmt::Do(Expr::call(name, given, Type::Int))
    }

    /// Names the offset of a block of constants that a call gives.
    fn name_offset(&mut self, value: &Expr) {
        let Expr::Var(of, _) = value else { return };
        let Some(view) = self.names.blocks.iter().find(|v| v.name == *of) else {
            return;
        };
        if self.functions.offsets.iter().all(|c| c.name != view.name) {
            self.functions.offsets.push(Constant {
                name: view.name.clone(),
                value: view.offset as i64,
                comment: Comment::new(format!("{} numbers among the constants", view.length)),
            });
        }
    }
}

#[cfg(test)]
mod tests;
