//! Phases that differ only in where their operands are, as those of equal layers and
//! heads do, become one function of these places: less text, and less to compile.

use super::super::ast::{Constant, Expr, Operator, Phase, Stmt, Type, View};
use super::super::names::{Comment, Name};
use std::collections::{HashMap, HashSet};

/// Places a function takes at most.
const MOST: usize = 12;

/// What stands for a place.
pub(super) struct Places<'a> {
    /// Named positions of buffers.
    pub(super) positions: HashSet<Name>,
    /// Blocks of constants.
    pub(super) blocks: &'a [View],
}

/// A phase without its places, and the places.
#[derive(Default)]
struct Form {
    body: Vec<Stmt>,
    /// Blocks of constants it reads, as its code names them, and the arguments with
    /// their offsets.
    blocks: Vec<(View, Name)>,
    /// By argument.
    values: Vec<(Name, Expr)>,
}

impl Places<'_> {
    fn form(&self, phase: &Phase) -> Form {
        let mut form = Form::default();
        form.body = self.list(&phase.body, &mut form);
        form
    }

    fn list(&self, body: &[Stmt], form: &mut Form) -> Vec<Stmt> {
        body.iter().map(|s| self.stmt(s, form)).collect()
    }

    fn stmt(&self, s: &Stmt, form: &mut Form) -> Stmt {
        let e = Places::expr;
        match s {
            Stmt::Comment(_) | Stmt::Array(..) | Stmt::Sums(..) | Stmt::Barrier => s.clone(),
            Stmt::Let(n, x) => Stmt::Let(n.clone(), e(self, x, form)),
            Stmt::Var(n, x) => Stmt::Var(n.clone(), e(self, x, form)),
            Stmt::Set(n, x) => Stmt::Set(n.clone(), e(self, x, form)),
            Stmt::Do(x) => Stmt::Do(e(self, x, form)),
            Stmt::Return(x) => Stmt::Return(e(self, x, form)),
            Stmt::Store(n, at, x) => Stmt::Store(n.clone(), e(self, at, form), e(self, x, form)),
            Stmt::For(n, c, b) => Stmt::For(n.clone(), e(self, c, form), self.list(b, form)),
            Stmt::Each(n, c, b) => Stmt::Each(n.clone(), e(self, c, form), self.list(b, form)),
            Stmt::Warps(n, c, b) => Stmt::Warps(n.clone(), e(self, c, form), self.list(b, form)),
            Stmt::Lanes(n, c, b) => Stmt::Lanes(n.clone(), e(self, c, form), self.list(b, form)),
            Stmt::If(c, b) => Stmt::If(e(self, c, form), self.list(b, form)),
            Stmt::Chunks(n, c, k, b) => Stmt::Chunks(n.clone(), *c, *k, self.list(b, form)),
            Stmt::Unroll(n, c, b) => Stmt::Unroll(n.clone(), *c, self.list(b, form)),
        }
    }

    fn expr(&self, e: &Expr, form: &mut Form) -> Expr {
        let boxed = |e: &Expr, form: &mut Form| Box::new(self.expr(e, form));
        match e {
            Expr::Var(name, Type::Int) if self.positions.contains(name) => form.position(e),
            Expr::Binary(Operator::Add | Operator::Sub, a, b)
                if matches!((&**a, &**b), (Expr::Var(name, _), Expr::Int(_))
                    if self.positions.contains(name)) =>
            {
                form.position(e)
            }
            Expr::Var(name, ty) => Expr::Var(self.pointer(name, form), *ty),
            Expr::Load(name, at, ty) => Expr::Load(self.pointer(name, form), boxed(at, form), *ty),
            Expr::Int(_) | Expr::Number(..) => e.clone(),
            Expr::Binary(op, a, b) => Expr::Binary(*op, boxed(a, form), boxed(b, form)),
            Expr::Call(name, arguments, ty) => {
                let arguments = arguments.iter().map(|a| self.expr(a, form)).collect();
                Expr::Call(name.clone(), arguments, *ty)
            }
            Expr::Select(c, a, b) => Expr::Select(boxed(c, form), boxed(a, form), boxed(b, form)),
            Expr::Cast(ty, a) => Expr::Cast(*ty, boxed(a, form)),
            Expr::Negative(a) => Expr::Negative(boxed(a, form)),
        }
    }

    /// A pointer as the function names it.
    fn pointer(&self, name: &Name, form: &mut Form) -> Name {
        match self.blocks.iter().find(|v| v.name == *name) {
            Some(view) => form.block(view),
            None => name.clone(),
        }
    }
}

impl Form {
    /// The argument of a position.
    fn position(&mut self, e: &Expr) -> Expr {
        let known = self.values.iter().find(|v| v.1 == *e);
        let name = match known {
            Some((name, _)) => name.clone(),
            None => {
                let name = Name::numbered("at_", self.values.len());
                self.values.push((name.clone(), e.clone()));
                name
            }
        };
        Expr::var(name)
    }

    /// The local name of a block of constants, whose offset is an argument.
    fn block(&mut self, view: &View) -> Name {
        let value = Expr::var(view.name.clone());
        if let Some(k) = self.values.iter().position(|v| v.1 == value) {
            return Name::numbered("data_", k);
        }
        let name = Name::numbered("data_", self.values.len());
        let argument = Name::numbered("from_", self.values.len());
        let own = View {
            name: name.clone(),
            offset: 0,
            ..view.clone()
        };
        self.blocks.push((own, argument.clone()));
        self.values.push((argument, value));
        name
    }

    /// What tells functions apart.
    fn key(&self, phase: &Phase) -> String {
        let code: Vec<&Stmt> = (self.body.iter())
            .filter(|s| !matches!(s, Stmt::Comment(_)))
            .collect();
        let names: Vec<&Name> = self.values.iter().map(|v| &v.0).collect();
        let blocks = &self.blocks;
        format!("{:?} {names:?} {blocks:?} {code:?}", phase.arguments)
    }
}

/// Makes phases that are alike one; returns the phases that are left, the code that
/// calls them, and the offsets of constants that are named there.
pub(super) fn share(
    phases: Vec<Phase>,
    body: Vec<Stmt>,
    places: &Places,
) -> (Vec<Phase>, Vec<Stmt>, Vec<Constant>) {
    let forms: Vec<Form> = phases.iter().map(|p| places.form(p)).collect();
    let keys: Vec<String> = phases.iter().zip(&forms).map(|(p, f)| f.key(p)).collect();
    let mut count: HashMap<&str, usize> = HashMap::new();
    keys.iter().for_each(|k| *count.entry(k).or_default() += 1);
    let mut made: HashMap<&str, Name> = HashMap::new();
    let mut calls: HashMap<Name, (Name, Vec<Expr>)> = HashMap::new();
    let (mut left, mut offsets) = (Vec::new(), Vec::new());
    for ((phase, form), key) in phases.into_iter().zip(forms).zip(&keys) {
        let shared = count[key.as_str()] > 1 && form.values.len() <= MOST;
        let (names, values): (Vec<Name>, Vec<Expr>) = form.values.into_iter().unzip();
        let name = match made.get(key.as_str()) {
            Some(name) if shared => name.clone(),
            _ => Name::numbered("phase_", left.len()),
        };
        let old = phase.name.clone();
        if !shared {
            left.push(Phase {
                name: name.clone(),
                ..phase
            });
            calls.insert(old, (name, Vec::new()));
            continue;
        }
        for value in &values {
            let Expr::Var(of, _) = value else { continue };
            let view = places.blocks.iter().find(|v| v.name == *of);
            if let Some(view) = view.filter(|v| offsets.iter().all(|c: &Constant| c.name != v.name))
            {
                offsets.push(Constant {
                    name: view.name.clone(),
                    value: view.offset as i64,
                    comment: Comment::new(format!("{} numbers among the constants", view.length)),
                });
            }
        }
        if made.insert(key, name.clone()).is_none() {
            left.push(Phase {
                name: name.clone(),
                arguments: [phase.arguments, names].concat(),
                body: form.body,
                blocks: form.blocks,
            });
        }
        calls.insert(old, (name, values));
    }
    (left, renamed(body, &calls), offsets)
}

/// The code with calls of what the phases became.
fn renamed(body: Vec<Stmt>, calls: &HashMap<Name, (Name, Vec<Expr>)>) -> Vec<Stmt> {
    let each = body.into_iter().map(|s| match s {
        Stmt::Do(Expr::Call(name, mut arguments, ty)) => match calls.get(&name) {
            Some((name, places)) => {
                arguments.extend(places.iter().cloned());
                Stmt::Do(Expr::Call(name.clone(), arguments, ty))
            }
            None => Stmt::Do(Expr::Call(name, arguments, ty)),
        },
        Stmt::Chunks(first, count, step, inner) => {
            Stmt::Chunks(first, count, step, renamed(inner, calls))
        }
        other => other,
    });
    each.collect()
}
