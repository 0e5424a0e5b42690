//! Lists of row positions as formulas.
//!
//! Positions almost always follow from counters: fourteen rows one after the
//! other, the same fourteen for every window offset. Such a list becomes an
//! expression in the counter; only what follows no rule becomes a table.

use super::ast::{Expr, TABLES, Table, Type};
use super::names::Name;

/// Counters a formula may be made of.
const MAX_DIGITS: usize = 4;

/// `base + sum_j stride_j digit_j`, where the digits are those of the position
/// in a mixed radix, the last one unbounded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Formula {
    base: i64,
    /// (radix, stride), fastest first.
    digits: Vec<(usize, i64)>,
}

impl Formula {
    fn fit(values: &[i64]) -> Option<Formula> {
        let base = *values.first()?;
        let mut digits = Vec::new();
        let mut rest = values.to_vec();
        while rest.len() > 1 {
            let stride = rest[1] - rest[0];
            let run = (0..rest.len())
                .take_while(|&k| rest[k] == rest[0] + k as i64 * stride)
                .count();
            let fits = |n: usize| {
                rest.len().is_multiple_of(n)
                    && rest
                        .chunks(n)
                        .all(|block| (0..n).all(|k| block[k] == block[0] + k as i64 * stride))
            };
            let radix = (2..=run).rev().find(|&n| fits(n))?;
            digits.push((radix, stride));
            rest = rest.iter().copied().step_by(radix).collect();
        }
        (digits.len() <= MAX_DIGITS).then_some(Formula { base, digits })
    }

    /// The formula without its base.
    fn expr(&self, counter: &Expr) -> Expr {
        let mut sum = Expr::Int(0);
        let mut block = 1;
        for (k, &(radix, stride)) in self.digits.iter().enumerate() {
            let mut digit = counter.clone() / Expr::int(block);
            if k + 1 < self.digits.len() {
                digit = digit % Expr::int(radix);
            }
            sum = sum + digit * Expr::Int(stride);
            block *= radix;
        }
        sum
    }
}

/// Makes positions into expressions, collecting the tables needed.
#[derive(Default)]
pub struct Positions {
    /// Tables so far.
    pub tables: Vec<Table>,
}

/// Names a position by something close below it: (name, value).
pub type Anchor<'a> = &'a dyn Fn(i64) -> Option<(Name, i64)>;

impl Positions {
    /// `values[counter]`.
    ///
    /// # Panics
    /// If there are no values.
    pub fn at(&mut self, values: &[i64], counter: &Expr, anchor: Anchor) -> Expr {
        match Formula::fit(values) {
            Some(f) => anchored(f.base, anchor) + f.expr(counter),
            None => self.table(values, counter.clone()),
        }
    }

    /// `values[outer * inner_count + inner]`.
    ///
    /// # Panics
    /// If there are no values.
    pub fn at2(
        &mut self,
        values: &[i64],
        inner_count: usize,
        [outer, inner]: [&Expr; 2],
        anchor: Anchor,
    ) -> Expr {
        let first = &values[..inner_count];
        let separable = values.chunks(inner_count).all(|row| {
            row.iter()
                .zip(first)
                .all(|(v, f)| v - row[0] == f - first[0])
        });
        if separable {
            let outer_values: Vec<i64> = values.iter().copied().step_by(inner_count).collect();
            let both = Formula::fit(&outer_values).zip(Formula::fit(first));
            if let Some((f, g)) = both {
                return anchored(f.base, anchor) + f.expr(outer) + g.expr(inner);
            }
        }
        let counter = outer.clone() * Expr::int(inner_count) + inner.clone();
        self.at(values, &counter, anchor)
    }

    fn table(&mut self, values: &[i64], index: Expr) -> Expr {
        let known = self.tables.iter().position(|t| t.values == values);
        let k = known.unwrap_or_else(|| {
            let start = self.tables.last().map_or(0, |t| t.start + t.values.len());
            self.tables.push(Table {
                name: Name::numbered("table_", self.tables.len()),
                start,
                values: values.to_vec(),
            });
            self.tables.len() - 1
        });
        let start = Expr::var(self.tables[k].name.clone());
        Expr::load(TABLES, start + index, Type::Int)
    }
}

fn anchored(value: i64, anchor: Anchor) -> Expr {
    match anchor(value) {
        Some((name, at)) => Expr::var(name) + Expr::Int(value - at),
        None => Expr::Int(value),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ast::Operator;
    use super::*;

    /// The value of an expression at counter values.
    fn value(e: &Expr, at: &dyn Fn(&str) -> i64, tables: &[Table]) -> i64 {
        match e {
            Expr::Int(k) => *k,
            Expr::Var(name, _) => match tables.iter().find(|t| t.name == *name) {
                Some(table) => table.start as i64,
                None => at(&name.to_string()),
            },
            Expr::Load(_, index, _) => {
                let all: Vec<i64> = tables.iter().flat_map(|t| t.values.clone()).collect();
                all[value(index, at, tables) as usize]
            }
            Expr::Binary(op, a, b) => {
                let (a, b) = (value(a, at, tables), value(b, at, tables));
                match op {
                    Operator::Add => a + b,
                    Operator::Sub => a - b,
                    Operator::Mul => a * b,
                    Operator::Div => a / b,
                    Operator::Rem => a % b,
                    other => panic!("{other:?} in a position"),
                }
            }
            other => panic!("{other:?} in a position"),
        }
    }

    #[test]
    fn every_list_reads_back() {
        let lists: Vec<Vec<i64>> = vec![
            vec![7],
            vec![3, 3, 3],
            (0..14).map(|k| 100 + 504 * k).collect(),
            (0..42).map(|k| 5 + 504 * (k % 14) - k / 14).collect(),
            (0..12)
                .map(|k| k % 2 + 10 * (k / 2 % 3) + 7 * (k / 6))
                .collect(),
            vec![0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23],
            vec![5, 1, 4, 1, 5, 9, 2, 6],
            vec![0, 1, 2, 3, 5, 6],
        ];
        let mut positions = Positions::default();
        let anchor = |v: i64| (v >= 5).then(|| (Name::from("five"), 5));
        for list in &lists {
            let e = positions.at(list, &Expr::var("k"), &anchor);
            for (k, want) in list.iter().enumerate() {
                let at = |n: &str| if n == "k" { k as i64 } else { 5 };
                assert_eq!(value(&e, &at, &positions.tables), *want, "{list:?}");
            }
            for inner in (1..=list.len()).filter(|n| list.len() % n == 0) {
                let counters = [&Expr::var("g"), &Expr::var("k")];
                let e = positions.at2(list, inner, counters, &anchor);
                for (n, want) in list.iter().enumerate() {
                    let at = |name: &str| match name {
                        "g" => (n / inner) as i64,
                        "k" => (n % inner) as i64,
                        _ => 5,
                    };
                    assert_eq!(
                        value(&e, &at, &positions.tables),
                        *want,
                        "{list:?} by {inner}"
                    );
                }
            }
        }
        assert_eq!(
            positions.tables.len(),
            2,
            "the irregular list and 0 1 2 3 | 5 6"
        );
    }
}
