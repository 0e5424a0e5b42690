//! Arithmetic of sums of Pauli strings.

use super::elaborate::{Elaborator, PRODUCT_LIMIT};
use super::expr::{Reported, Value};
use super::number::{Number, Operation};
use super::pauli::Product;
use crate::check::core::Static;
use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::*;

impl Elaborator<'_> {
    /// `a op b` where at least one is a sum of strings.
    pub(super) fn operators(
        &mut self,
        op: BinaryOp,
        a: Value,
        b: Value,
        a_span: Span,
        b_span: Span,
        span: Span,
    ) -> Result<Value, Reported> {
        match op {
            BinaryOp::Add | BinaryOp::Sub => {
                let mut x = self.as_operator(a, a_span)?;
                let mut y = self.as_operator(b, b_span)?;
                if op == BinaryOp::Sub {
                    y.iter_mut().for_each(|p| p.quarter = (p.quarter + 2) % 4);
                }
                x.extend(y);
                Ok(Value::Operator(x))
            }
            BinaryOp::Mul => {
                let x = self.as_operator(a, a_span)?;
                let y = self.as_operator(b, b_span)?;
                self.product(&x, &y, span).map(Value::Operator)
            }
            BinaryOp::Div => {
                let mut x = self.as_operator(a, a_span)?;
                if matches!(b, Value::Operator(_)) {
                    return self.fail(Diagnostic::new(
                        Code::E0402,
                        "cannot divide by an operator",
                        b_span,
                        "an operator",
                    ));
                }
                let y = self.arithmetic(b, b_span)?;
                for p in &mut x {
                    let quotient = Number::binary(Operation::Div, p.number.clone(), y.clone());
                    p.number = self.folded(quotient, span)?;
                }
                Ok(Value::Operator(x))
            }
            _ => {
                let x = self.as_operator(a, a_span)?;
                let power = match b {
                    Value::Number(n) => n.known_int().filter(|p| (0..=64).contains(p)),
                    _ => None,
                };
                let Some(power) = power else {
                    return self.fail(Diagnostic::new(
                        Code::E0402,
                        "operators have powers 0 to 64 only",
                        b_span,
                        "not such a number",
                    ));
                };
                let mut result = vec![Product::number(Number::int(1))];
                for _ in 0..power {
                    result = self.product(&result, &x, span)?;
                }
                Ok(Value::Operator(result))
            }
        }
    }

    fn product(
        &mut self,
        x: &[Product],
        y: &[Product],
        span: Span,
    ) -> Result<Vec<Product>, Reported> {
        if x.len() * y.len() > PRODUCT_LIMIT {
            return self.fail(Diagnostic::new(
                Code::E0402,
                format!("term expands to more than {PRODUCT_LIMIT} Pauli strings"),
                span,
                "multiplied out here",
            ));
        }
        let mut out = Vec::with_capacity(x.len() * y.len());
        for a in x {
            for b in y {
                out.push(self.folded(a.times(b), span)?);
            }
        }
        Ok(collect(out))
    }
}

/// Adds up strings with the same factors and constant coefficients, so that
/// powers like `((1 - Z(i)) / 2)^2` stay short.
fn collect(products: Vec<Product>) -> Vec<Product> {
    let mut out: Vec<Product> = Vec::with_capacity(products.len());
    for product in products {
        let real = |p: &Product| match p.number.known() {
            Some(Static::Int(v)) => Some(v as f64),
            Some(Static::Real(v)) => Some(v),
            _ => None,
        };
        let same = |p: &&mut Product| {
            (p.quarter + product.quarter).is_multiple_of(2)
                && p.factors.len() == product.factors.len()
                && p.factors
                    .iter()
                    .zip(&product.factors)
                    .all(|(a, b)| a.pauli == b.pauli && a.site == b.site)
        };
        match out.iter_mut().find(same) {
            Some(p) if real(p).is_some() && real(&product).is_some() => {
                let sign = if p.quarter == product.quarter {
                    1.0
                } else {
                    -1.0
                };
                let total = real(p).unwrap_or(0.0) + sign * real(&product).unwrap_or(0.0);
                p.number = Number::real(total);
            }
            _ => out.push(product),
        }
    }
    out
}
