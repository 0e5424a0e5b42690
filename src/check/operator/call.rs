//! Calls in operators: Pauli matrices, lattice numbers, and inlined functions.

use super::elaborate::Elaborator;
use super::expr::{Env, Reported, Value};
use super::number::{Function, Number, NumberType, Operation, Site};
use super::pauli::{Pauli, Product};
use super::{Base, Scope};
use crate::check::core::Static;
use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::*;

type Argument = (Value, Span);

impl Elaborator<'_> {
    /// A call; the left side of a pipe is its first argument.
    pub(super) fn call(
        &mut self,
        first: Option<Argument>,
        call: &Call,
        env: &mut Env,
    ) -> Result<Value, Reported> {
        if let Some(label) = &call.label {
            return self.fail(Diagnostic::new(
                Code::E0402,
                "operators have no parameters to label",
                label.span,
                "label",
            ));
        }
        let mut named = Vec::new();
        let mut arguments: Vec<Argument> = first.into_iter().collect();
        for (key, e) in &call.args {
            let value = self.expr(e, env)?;
            match key {
                Some(key) => named.push((key, (value, e.span))),
                None => arguments.push((value, e.span)),
            }
        }
        if let [name] = call.function.as_slice()
            && env.defined(&name.name).is_none()
            && let Some(builtin) = Builtin::parse(&name.name)
        {
            if let Some((key, _)) = named.first() {
                return self.fail(Diagnostic::new(
                    Code::E0105,
                    format!("`{}` has no argument `{}`", name.name, key.name),
                    key.span,
                    "unknown argument",
                ));
            }
            return self.builtin(builtin, name, arguments, call.span);
        }
        let text = call
            .function
            .iter()
            .map(|p| p.name.as_str())
            .collect::<Vec<_>>()
            .join("::");
        let scope: &dyn Scope = self.scope;
        match scope.resolve(env.file, &call.function) {
            Some(ItemKind::Fn(item)) => self.nested(call.span, |this| this.inline(item, arguments, named, call.span)),
            Some(_) => self.fail(
                Diagnostic::new(Code::E0106, format!("`{text}` is not a function"), call.span, "called here"),
            ),
            None => self.fail(
                Diagnostic::new(Code::E0101, format!("unknown function `{text}`"), call.span, "not found")
                    .help("known are X, Y, Z, dist, x, y, parity, shift, elementary functions, and `fn` items"),
            ),
        }
    }

    fn inline(
        &mut self,
        item: &FnItem,
        arguments: Vec<Argument>,
        named: Vec<(&Ident, Argument)>,
        span: Span,
    ) -> Result<Value, Reported> {
        let name = &item.name.name;
        if arguments.len() > item.params.len() {
            return self.fail(
                Diagnostic::new(
                    Code::E0105,
                    format!(
                        "`{name}` takes {} arguments, {} were given",
                        item.params.len(),
                        arguments.len()
                    ),
                    span,
                    "too many arguments",
                )
                .also(item.name.span, "defined here"),
            );
        }
        let mut slots: Vec<Option<Argument>> = arguments.into_iter().map(Some).collect();
        slots.resize_with(item.params.len(), || None);
        for (key, argument) in named {
            match item.params.iter().position(|p| p.name.name == key.name) {
                Some(k) if slots[k].is_none() => slots[k] = Some(argument),
                Some(_) => {
                    return self.fail(Diagnostic::new(
                        Code::E0105,
                        format!("`{}` is given twice", key.name),
                        key.span,
                        "again here",
                    ));
                }
                None => {
                    return self.fail(
                        Diagnostic::new(
                            Code::E0105,
                            format!("`{name}` has no argument `{}`", key.name),
                            key.span,
                            "unknown argument",
                        )
                        .also(item.name.span, "defined here"),
                    );
                }
            }
        }
        let mut env = Env::new(item.name.span.file);
        for (param, slot) in item.params.iter().zip(slots) {
            let (value, value_span) = match (slot, &param.default) {
                (Some(argument), _) => argument,
                (None, Some(default)) => (self.expr(default, &mut env)?, default.span),
                (None, None) => {
                    return self.fail(
                        Diagnostic::new(
                            Code::E0105,
                            format!("`{name}` needs an argument `{}`", param.name.name),
                            span,
                            "missing argument",
                        )
                        .also(param.name.span, "declared here"),
                    );
                }
            };
            let value = match param.ty {
                Some((ty, _)) => {
                    let number = self.typed(value, ty, value_span)?;
                    self.in_range(param, &number, value_span, &mut env)?;
                    Value::Number(number)
                }
                None => value,
            };
            self.define(&param.name, value, &mut env);
        }
        match &item.body {
            Body::Expr(e) => self.expr(e, &mut env),
            Body::Block(block) => match self.block(block, &mut env)? {
                Some(value) => Ok(value),
                None => self.fail(Diagnostic::new(
                    Code::E0402,
                    format!("`{name}` returns nothing"),
                    block.span,
                    "no `return`",
                )),
            },
        }
    }

    /// Statements of a function; the value of its `return`, if reached.
    fn block(&mut self, block: &Block, env: &mut Env) -> Result<Option<Value>, Reported> {
        for stmt in &block.stmts {
            match &stmt.kind {
                StmtKind::Let {
                    pattern,
                    tuple: false,
                    annotation: None,
                    value,
                } if pattern.len() == 1 => {
                    let value = self.expr(value, env)?;
                    self.define(&pattern[0], value, env);
                }
                StmtKind::Return(value) => return self.expr(value, env).map(Some),
                StmtKind::If {
                    cond,
                    then,
                    otherwise,
                } => {
                    let condition = self.condition(cond, env)?;
                    let branch = match condition.known() {
                        Some(Static::Bool(true)) => Some(then),
                        Some(_) => otherwise.as_ref(),
                        None => {
                            return self.fail(
                                Diagnostic::new(
                                    Code::E0203,
                                    "condition is not static",
                                    cond.span,
                                    "depends on the lattice",
                                )
                                .help("write `return if c { a } else { b }`"),
                            );
                        }
                    };
                    let depth = env.len();
                    if let Some(branch) = branch
                        && let Some(value) = self.block(branch, env)?
                    {
                        return Ok(Some(value));
                    }
                    env.truncate(depth);
                }
                _ => {
                    return self.fail(
                        Diagnostic::new(
                            Code::E0402,
                            "statement not possible in an operator",
                            stmt.span,
                            "here",
                        )
                        .help("functions of operators consist of `let`, static `if` and `return`"),
                    );
                }
            }
        }
        Ok(None)
    }

    fn builtin(
        &mut self,
        builtin: Builtin,
        name: &Ident,
        arguments: Vec<Argument>,
        span: Span,
    ) -> Result<Value, Reported> {
        let wanted = builtin.arity();
        if arguments.len() != wanted {
            let plural = if wanted == 1 { "argument" } else { "arguments" };
            return self.fail(Diagnostic::new(
                Code::E0105,
                format!(
                    "`{}` takes {wanted} {plural}, {} were given",
                    name.name,
                    arguments.len()
                ),
                span,
                "wrong number of arguments",
            ));
        }
        let mut arguments = arguments.into_iter();
        let mut next = || arguments.next().unwrap_or((Value::Unknown, span));
        match builtin {
            Builtin::Pauli(pauli) => {
                let site = self.mention(next())?;
                Ok(Value::Operator(vec![Product::single(pauli, site, span)]))
            }
            Builtin::Distance => {
                let i = self.mention(next())?;
                let j = self.mention(next())?;
                Ok(Value::Number(Number::distance(i, j)))
            }
            Builtin::Coordinate(axis) => {
                let site = self.mention(next())?;
                Ok(Value::Number(Number::coordinate(axis, site)))
            }
            Builtin::Parity => {
                let site = self.mention(next())?;
                Ok(Value::Number(Number::parity(site)))
            }
            Builtin::Shift => {
                let (site, site_span) = next();
                let site = self.as_site(site, site_span)?;
                let mut by = [0; 2];
                for by in &mut by {
                    let (value, value_span) = next();
                    let number = self.typed(value, StaticType::Int, value_span)?;
                    let Some(known) = number.known_int() else {
                        return self.fail(Diagnostic::new(
                            Code::E0203,
                            "the distance to a site must be a known number",
                            value_span,
                            "depends on the lattice",
                        ));
                    };
                    *by = known;
                }
                self.moved(site, by, span)
            }
            Builtin::Unary(function) => {
                let (value, value_span) = next();
                let number = self.arithmetic(value, value_span)?;
                self.folded(Number::unary(function, number), span)
                    .map(Value::Number)
            }
            Builtin::Binary(operation) => {
                let (a, a_span) = next();
                let (b, b_span) = next();
                let a = self.arithmetic(a, a_span)?;
                let b = self.arithmetic(b, b_span)?;
                if operation == Operation::IntDiv
                    && (a.ty != NumberType::Int || b.ty != NumberType::Int)
                {
                    return self.fail(Diagnostic::new(
                        Code::E0202,
                        "`div` takes integers",
                        span,
                        "not integers",
                    ));
                }
                self.folded(Number::binary(operation, a, b), span)
                    .map(Value::Number)
            }
        }
    }

    /// A site that the present summand needs on the lattice.
    fn mention(&mut self, (value, span): Argument) -> Result<Site, Reported> {
        let site = self.as_site(value, span)?;
        let needed = match &site.base {
            Base::First | Base::Second => true,
            // the variable of a sum has no value outside it
            Base::Absolute(index) => !index.is_open(),
        };
        if needed && !self.mentioned.contains(&site) {
            self.mentioned.push(site.clone());
        }
        Ok(site)
    }
}

#[derive(Clone, Copy)]
enum Builtin {
    Pauli(Pauli),
    Distance,
    Coordinate(usize),
    Parity,
    Shift,
    Unary(Function),
    Binary(Operation),
}

impl Builtin {
    fn parse(name: &str) -> Option<Builtin> {
        Some(match name {
            "X" => Builtin::Pauli(Pauli::X),
            "Y" => Builtin::Pauli(Pauli::Y),
            "Z" => Builtin::Pauli(Pauli::Z),
            "dist" => Builtin::Distance,
            "x" => Builtin::Coordinate(0),
            "y" => Builtin::Coordinate(1),
            "parity" => Builtin::Parity,
            "shift" => Builtin::Shift,
            "exp" => Builtin::Unary(Function::Exp),
            "log" => Builtin::Unary(Function::Log),
            "log1p" => Builtin::Unary(Function::Log1p),
            "sqrt" => Builtin::Unary(Function::Sqrt),
            "sin" => Builtin::Unary(Function::Sin),
            "cos" => Builtin::Unary(Function::Cos),
            "tanh" => Builtin::Unary(Function::Tanh),
            "abs" => Builtin::Unary(Function::Abs),
            "sign" => Builtin::Unary(Function::Sign),
            "floor" => Builtin::Unary(Function::Floor),
            "min" => Builtin::Binary(Operation::Min),
            "max" => Builtin::Binary(Operation::Max),
            "div" => Builtin::Binary(Operation::IntDiv),
            _ => return None,
        })
    }

    fn arity(self) -> usize {
        match self {
            Builtin::Pauli(_) | Builtin::Coordinate(_) | Builtin::Parity | Builtin::Unary(_) => 1,
            Builtin::Distance | Builtin::Binary(_) => 2,
            Builtin::Shift => 3,
        }
    }
}
