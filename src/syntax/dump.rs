//! The tree as S-expressions without spans, one statement per line.
//!
//! Two files mean the same if and only if their dumps are equal: used to check
//! the formatter, and in the tests of the parser.

use super::ast::*;
use std::fmt::Write;

/// The whole module; comments other than documentation are left out.
pub fn module(module: &Module) -> String {
    let mut out = String::new();
    for line in &module.docs {
        push(&mut out, 0, &format!("(doc {line:?})"));
    }
    for item in &module.items {
        for line in &item.docs {
            push(&mut out, 0, &format!("(doc {line:?})"));
        }
        self::item(&mut out, &item.kind);
    }
    out
}

fn push(out: &mut String, depth: usize, line: &str) {
    let _ = writeln!(out, "{:1$}{line}", "", 2 * depth);
}

fn item(out: &mut String, item: &ItemKind) {
    match item {
        ItemKind::Use(item) => {
            let mut line = format!("(use {}", path(&item.path));
            for (name, new) in &item.names {
                match new {
                    Some(new) => line += &format!(" ({} as {})", name.name, new.name),
                    None => line += &format!(" {}", name.name),
                }
            }
            push(out, 0, &(line + ")"));
        }
        ItemKind::Const(item) => push(
            out,
            0,
            &format!("(const {} {})", item.name.name, expr(&item.value)),
        ),
        ItemKind::Fn(item) => {
            let role = item
                .role
                .as_ref()
                .map_or(String::new(), |r| format!(" : {}", r.name));
            push(
                out,
                0,
                &format!("(fn {}{role}{}", item.name.name, params(&item.params)),
            );
            body(out, &item.body);
        }
        ItemKind::Mixer(item) => {
            push(
                out,
                0,
                &format!(
                    "(mixer {} : {:?}{}",
                    item.name.name,
                    item.class.0,
                    params(&item.params)
                ),
            );
            body(out, &item.body);
        }
        ItemKind::Network(item) => {
            let full = if item.full.is_some() { "full " } else { "" };
            let head = format!(
                "({full}network {} {:?}{}",
                item.name.name,
                item.lattice,
                params(&item.params)
            );
            push(out, 0, &head);
            block(out, 1, &item.body);
        }
        ItemKind::Operator(item) => {
            push(
                out,
                0,
                &format!(
                    "(operator {} {:?}{}",
                    item.name.name,
                    item.lattice,
                    params(&item.params)
                ),
            );
            op_block(out, 1, &item.body);
        }
    }
}

fn params(params: &[FnParam]) -> String {
    let mut line = String::new();
    for param in params {
        line += &format!(" ({}", param.name.name);
        if let Some((ty, _)) = &param.ty {
            line += &format!(" : {ty:?}");
        }
        if let Some((lo, hi)) = &param.range {
            line += &format!(" in {} {}", expr(lo), expr(hi));
        }
        if let Some(default) = &param.default {
            line += &format!(" = {}", expr(default));
        }
        line += ")";
    }
    line
}

fn body(out: &mut String, body: &Body) {
    match body {
        Body::Expr(value) => push(out, 1, &format!("(= {}))", expr(value))),
        Body::Block(inner) => block(out, 1, inner),
    }
}

fn block(out: &mut String, depth: usize, block: &Block) {
    for stmt in &block.stmts {
        self::stmt(out, depth, &stmt.kind);
    }
    push(out, depth, ")");
}

fn stmt(out: &mut String, depth: usize, stmt: &StmtKind) {
    let line = match stmt {
        StmtKind::Let {
            pattern,
            tuple,
            annotation,
            value,
        } => {
            let names: Vec<&str> = pattern.iter().map(|n| n.name.as_str()).collect();
            let names = if *tuple {
                format!("({})", names.join(" "))
            } else {
                names.join(" ")
            };
            format!(
                "(let {names}{} {})",
                self::annotation(annotation),
                expr(value)
            )
        }
        StmtKind::Var {
            name,
            annotation,
            value,
        } => {
            format!(
                "(var {}{} {})",
                name.name,
                self::annotation(annotation),
                expr(value)
            )
        }
        StmtKind::Assign { name, value } => format!("(= {} {})", name.name, expr(value)),
        StmtKind::AddAssign { name, value } => format!("(+= {} {})", name.name, expr(value)),
        StmtKind::Param(param) => {
            let (per, of) = match &param.per {
                ParamPer::Whole => ("", None),
                ParamPer::Site(of) => (" site", Some(of)),
                ParamPer::Displacement(of) => (" displacement", Some(of)),
                ParamPer::Momentum(of) => (" momentum", Some(of)),
                ParamPer::Pair(of) => (" pair", Some(of)),
            };
            let of = of.map_or(String::new(), |of| format!(" of {}", expr(of)));
            let init = param
                .init
                .as_ref()
                .map_or(String::new(), |init| format!(" = {}", expr(init)));
            format!(
                "(param {} {}{per}{of}{init})",
                param.name.name,
                value_type(param.complex, &param.shape)
            )
        }
        StmtKind::Repeat {
            var,
            from,
            to,
            label,
            shared,
            body,
        } => {
            let mut line = "(repeat".to_string();
            if let (Some(var), Some(from)) = (var, from) {
                line += &format!(" {} in {} ..", var.name, expr(from));
            }
            line += &format!(" {}", expr(to));
            if *shared {
                line += " shared";
            }
            if let Some(label) = label {
                line += &format!(" as {}", label.name);
            }
            push(out, depth, &line);
            return block(out, depth + 1, body);
        }
        StmtKind::If {
            cond,
            then,
            otherwise,
        } => {
            push(out, depth, &format!("(if {}", expr(cond)));
            block(out, depth + 1, then);
            if let Some(otherwise) = otherwise {
                push(out, depth, "(else");
                block(out, depth + 1, otherwise);
            }
            return;
        }
        StmtKind::Return(value) => format!("(return {})", expr(value)),
    };
    push(out, depth, &line);
}

fn annotation(annotation: &Option<Annotation>) -> String {
    let Some(annotation) = annotation else {
        return String::new();
    };
    let mut line = String::new();
    match &annotation.kind {
        Some(KindAnnotation::Const) => line += " const",
        Some(KindAnnotation::Linear) => line += " linear",
        Some(KindAnnotation::Pooled) => line += " pooled",
        Some(KindAnnotation::Global) => line += " global",
        Some(KindAnnotation::Local(axes)) => {
            line += " (local";
            for (lo, hi) in axes {
                line += &format!(" ({} {})", expr(lo), expr(hi));
            }
            line += ")";
        }
        None => {}
    }
    if let Some((complex, shape)) = &annotation.ty {
        line += &format!(" {}", value_type(*complex, shape));
    }
    format!(" :{line}")
}

fn value_type(complex: bool, shape: &[Expr]) -> String {
    format!(
        "{}[{}]",
        if complex { "complex" } else { "real" },
        exprs(shape)
    )
}

fn op_block(out: &mut String, depth: usize, stmts: &[OpStmt]) {
    for stmt in stmts {
        op_stmt(out, depth, &stmt.kind);
    }
    push(out, depth, ")");
}

fn op_stmt(out: &mut String, depth: usize, stmt: &OpStmtKind) {
    let line = match stmt {
        OpStmtKind::Let { name, value } => format!("(let {} {})", name.name, expr(value)),
        OpStmtKind::Term(term) => format!("(term {})", expr(term)),
        OpStmtKind::For { domain, cond, term } => {
            let domain = match domain {
                ForDomain::Sites(i) => i.name.clone(),
                ForDomain::Range(i, lo, hi) => format!("{} in {} {}", i.name, expr(lo), expr(hi)),
                ForDomain::Pairs(i, j) => format!("{} < {}", i.name, j.name),
                ForDomain::Bonds(i, j, k) => format!("({} {}) bonds {}", i.name, j.name, expr(k)),
            };
            let cond = cond
                .as_ref()
                .map_or(String::new(), |cond| format!(" where {}", expr(cond)));
            format!("(for {domain}{cond} : {})", expr(term))
        }
        OpStmtKind::If {
            cond,
            then,
            otherwise,
        } => {
            push(out, depth, &format!("(if {}", expr(cond)));
            op_block(out, depth + 1, then);
            if !otherwise.is_empty() {
                push(out, depth, "(else");
                op_block(out, depth + 1, otherwise);
            }
            return;
        }
    };
    push(out, depth, &line);
}

fn exprs(list: &[Expr]) -> String {
    list.iter().map(expr).collect::<Vec<_>>().join(" ")
}

fn path(path: &[Ident]) -> String {
    path.iter()
        .map(|n| n.name.as_str())
        .collect::<Vec<_>>()
        .join("::")
}

/// One expression.
pub fn expr(value: &Expr) -> String {
    match &value.kind {
        ExprKind::Nat(n) => n.to_string(),
        ExprKind::Real(x) => format!("{x:?}"),
        ExprKind::Imaginary(x) => format!("{x:?}i"),
        ExprKind::Bool(b) => b.to_string(),
        ExprKind::Str(text) => format!("{text:?}"),
        ExprKind::Path(name) => path(name),
        ExprKind::Call(call) => self::call("call", "", call),
        ExprKind::Pipe(left, call) => self::call("pipe", &format!(" {}", expr(left)), call),
        ExprKind::Unary(op, inner) => {
            format!(
                "({} {})",
                if *op == UnaryOp::Neg { "neg" } else { "not" },
                expr(inner)
            )
        }
        ExprKind::Binary(op, a, b) => format!("({} {} {})", operator(*op), expr(a), expr(b)),
        ExprKind::Tuple(items) => format!("(tuple {})", exprs(items)),
        ExprKind::List(items) => format!("[{}]", exprs(items)),
        ExprKind::If(c, a, b) => format!("(if {} {} {})", expr(c), expr(a), expr(b)),
        ExprKind::Sum(sum) => {
            format!(
                "(sum {} {} {} {})",
                sum.var.name,
                expr(&sum.from),
                expr(&sum.to),
                expr(&sum.term)
            )
        }
        ExprKind::Paren(inner) => format!("(paren {})", expr(inner)),
    }
}

fn call(head: &str, left: &str, call: &Call) -> String {
    let mut line = format!("({head}{left} {}", path(&call.function));
    if call.parens {
        for (key, value) in &call.args {
            match key {
                Some(key) => line += &format!(" {}:{}", key.name, expr(value)),
                None => line += &format!(" {}", expr(value)),
            }
        }
    } else {
        line += " bare";
    }
    if let Some(label) = &call.label {
        line += &format!(" as {}", label.name);
    }
    line + ")"
}

/// How an infix operator is written.
pub fn operator(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
        BinaryOp::Rem => "%",
        BinaryOp::MatMul => "@",
        BinaryOp::Pow => "^",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::Lt => "<",
        BinaryOp::Le => "<=",
        BinaryOp::Gt => ">",
        BinaryOp::Ge => ">=",
        BinaryOp::And => "and",
        BinaryOp::Or => "or",
    }
}
