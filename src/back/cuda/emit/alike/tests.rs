//! Calling the functions is the same as the code they were made of.

use super::super::super::ast::{Place, TABLES};
use super::super::outline::outline;
use super::*;

fn names(blocks: &[View]) -> Names<'_> {
    let at = |name: &'static str, of, value| (Name::from(name), (of, value));
    Names {
        positions: HashMap::from([
            at("b0", "rows", 0),
            at("b1", "rows", 500),
            at("table_0", TABLES, 0),
            at("table_1", TABLES, 40),
        ]),
        blocks,
    }
}

fn blocks() -> Vec<View> {
    let block = |(number, length)| View {
        name: Name::numbered("weights_", number),
        element: Type::Real,
        place: Place::Constants,
        offset: 96 * number,
        length,
    };
    [64, 64, 32].into_iter().enumerate().map(block).collect()
}

/// Rows from a position on, so far apart, times constants, to `targets` rows.
fn step(row: Expr, stride: i64, table: &'static str, block: usize, targets: i64) -> Vec<Stmt> {
    let (k, at) = (Expr::var("k"), Expr::var("at"));
    let from = row.clone() + k.clone() * Expr::Int(stride) + at.clone();
    let number = Expr::load(TABLES, Expr::var(table) + k.clone(), Type::Int);
    let weight = Expr::load(Name::numbered("weights_", block), number, Type::Real);
    let value = Expr::load("rows", from, Type::Real) * weight;
    let store = |t: i64| {
        let to = row.clone() + Expr::Int(7 * t * (t + stride)) + at.clone();
        Stmt::Store("rows".into(), to, value.clone())
    };
    let mut code = vec![Stmt::Let("at".into(), k - Expr::Int(3))];
    code.extend((1..=targets).map(store));
    vec![
        Stmt::Comment(Comment::new("a step")),
        Stmt::Each("k".into(), Expr::Int(8), code),
    ]
}

/// A function with what a call gives it.
struct Given(HashMap<Name, Expr>);

impl Rewrite for Given {
    fn expr(&mut self, e: &Expr) -> Option<Expr> {
        match e {
            Expr::Var(name, _) => self.0.get(name).cloned(),
            _ => None,
        }
    }
    fn index(&mut self, at: &Expr) -> Expr {
        rewrite::expr(at, self)
    }
    fn pointer(&mut self, name: &Name) -> Name {
        match self.0.get(name) {
            Some(Expr::Var(block, _)) => block.clone(),
            _ => name.clone(),
        }
    }
}

/// The code of all calls, as if there were no functions.
fn inlined(functions: &Functions) -> Vec<Stmt> {
    let mut all = Vec::new();
    for s in &functions.body {
        let Stmt::Do(Expr::Call(name, given, _)) = s else {
            continue;
        };
        let phase = functions.phases.iter().find(|p| p.name == *name);
        let phase = phase.expect("a function");
        assert_eq!(phase.arguments.len() + 2, given.len(), "{name}");
        let both = phase
            .arguments
            .iter()
            .cloned()
            .zip(given[2..].iter().cloned());
        let mut given: HashMap<Name, Expr> = both.collect();
        for (view, from) in &phase.blocks {
            given.insert(view.name.clone(), given[from].clone());
        }
        all.extend(rewrite::list(&phase.body, &mut Given(given)));
    }
    all
}

/// Functions, after a check that calling them is the same as the code.
fn shared(steps: Vec<Vec<Stmt>>) -> Functions {
    let blocks = blocks();
    let names = names(&blocks);
    let form = |mut body: Vec<Stmt>| {
        body.retain(|s| *s != Stmt::Barrier);
        let arguments = Vec::new();
        let piece = Piece { arguments, body };
        let form = names.form(&piece, true);
        let values: Vec<i64> = form.holes.iter().map(|h| h.value).collect();
        (form.key(&piece), values)
    };
    let (pieces, parts) = outline(steps.concat());
    let functions = share(pieces, parts, &names);
    assert_eq!(form(steps.concat()), form(inlined(&functions)));
    functions
}

#[test]
fn functions_of_numbers_do_what_each_piece_did() {
    let mut steps = Vec::new();
    for (row, stride) in [(0, 60), (33, 60), (-2, 59), (0, 60), (5, 61)] {
        for (table, block) in [("table_0", 0), ("table_1", 1), ("table_1", 0)] {
            for name in ["b0", "b1"] {
                steps.push(step(
                    Expr::var(name) + Expr::Int(row),
                    stride,
                    table,
                    block,
                    1,
                ));
                steps.push(vec![Stmt::Barrier]);
            }
        }
    }
    let functions = shared(steps);
    assert_eq!(functions.phases.len(), 1);
    // where to, from, and how far apart; a table; a block
    assert_eq!(functions.phases[0].arguments.len(), 5);
    let named: Vec<i64> = functions.offsets.iter().map(|c| c.value).collect();
    assert_eq!(named, [0, 96]);
}

#[test]
fn what_all_have_in_common_is_no_argument() {
    let at = |row: i64| step(Expr::var("b1") + Expr::Int(row), 60, "table_1", 1, 2);
    let functions = shared(vec![at(4), at(90), at(-5)]);
    assert_eq!(functions.phases.len(), 1);
    // positions a fixed distance apart
    assert_eq!(functions.phases[0].arguments, [Name::from("at_0")]);
    let same = shared(vec![at(4), at(4), at(4)]);
    assert_eq!(same.phases.len(), 1);
    assert!(same.phases[0].arguments.is_empty());
}

#[test]
fn what_is_like_nothing_stays_together() {
    let at = |block, targets| step(Expr::var("b0"), 60, "table_0", block, targets);
    // blocks of different lengths, other statements
    let functions = shared(vec![
        at(0, 1),
        at(2, 1),
        at(1, 2),
        vec![Stmt::Barrier],
        at(2, 3),
    ]);
    assert_eq!(functions.phases.len(), 2);
    // more numbers than a function takes
    let wide = |stride| step(Expr::var("b0"), stride, "table_0", 0, 20);
    let apart = |stride| [wide(stride), vec![Stmt::Barrier]].concat();
    let functions = shared([3, 5, 7].map(apart).to_vec());
    assert_eq!(functions.phases.len(), 3);
    assert!(functions.phases.iter().all(|p| p.arguments.is_empty()));
}
