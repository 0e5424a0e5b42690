//! Random modules that follow the grammar, as tokens: the blanks and comments
//! between them are chosen independently.
#![allow(dead_code)] // each test crate uses a part of it

use proptest::collection::vec;
use proptest::prelude::*;

/// The tokens of a piece of program.
pub type Tokens = Vec<String>;

fn tokens(words: &str) -> Tokens {
    words.split_whitespace().map(str::to_string).collect()
}

fn join(parts: impl IntoIterator<Item = Tokens>, separator: &str) -> Tokens {
    let mut out = Tokens::new();
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            out.extend(tokens(separator));
        }
        out.extend(part);
    }
    out
}

fn seq(parts: impl IntoIterator<Item = Tokens>) -> Tokens {
    join(parts, "")
}

fn between(open: &str, inner: Tokens, close: &str) -> Tokens {
    seq([tokens(open), inner, tokens(close)])
}

fn name() -> impl Strategy<Value = Tokens> {
    prop::sample::select(vec![
        "x",
        "h",
        "phi",
        "dim",
        "_y2",
        "i",
        "N",
        "sum",
        "on",
        "of",
        "real",
        "site",
        "bonds",
        "e1",
        "inner",
        "a_rather_long_name_that_makes_lines_break",
    ])
    .prop_map(tokens)
}

fn path() -> impl Strategy<Value = Tokens> {
    vec(name(), 1..3).prop_map(|names| join(names, "::"))
}

fn literal() -> impl Strategy<Value = Tokens> {
    prop_oneof![
        any::<u64>().prop_map(|n| tokens(&n.to_string())),
        (0.0..1e9f64).prop_map(|x| tokens(&format!("{x:?}"))),
        prop::sample::select(vec![
            "1e-6",
            "0.5",
            "2i",
            "0.25E+3i",
            "true",
            "false",
            "\"hd,de->he\"",
            "\"//\"",
            "\"{\""
        ])
        .prop_map(tokens),
    ]
}

fn arguments(expr: impl Strategy<Value = Tokens> + Clone) -> impl Strategy<Value = Tokens> {
    let arg = prop_oneof![
        3 => expr.clone(),
        1 => (name(), expr).prop_map(|(key, value)| seq([key, tokens(":"), value])),
    ];
    (vec(arg, 0..4), any::<bool>()).prop_map(|(args, comma)| {
        let comma = if comma && !args.is_empty() { "," } else { "" };
        between("(", seq([join(args, ","), tokens(comma)]), ")")
    })
}

fn label() -> impl Strategy<Value = Tokens> {
    prop::option::of(name()).prop_map(|l| l.map_or(Tokens::new(), |l| seq([tokens("as"), l])))
}

/// An expression with a known place in the precedence order: the caller may put
/// operators around it.
fn primary(expr: BoxedStrategy<Tokens>) -> impl Strategy<Value = Tokens> {
    prop_oneof![
        4 => literal(),
        4 => path(),
        3 => (path(), arguments(expr.clone()), label()).prop_map(|(f, args, label)| seq([f, args, label])),
        1 => vec(expr.clone(), 1..4).prop_map(|items| between("(", join(items, ","), ")")),
        1 => vec(expr.clone(), 0..4).prop_map(|items| between("[", join(items, ","), "]")),
        1 => (expr.clone(), expr.clone(), expr.clone()).prop_map(|(c, a, b)| {
            seq([tokens("if"), c, between("{", a, "}"), tokens("else"), between("{", b, "}")])
        }),
        1 => (expr.clone(), expr.clone(), expr.clone(), expr.clone()).prop_map(|(c, a, d, b)| {
            seq([tokens("if"), c, between("{", a, "}"), tokens("else if"), d, between("{", b.clone(), "}"),
                tokens("else"), between("{", b, "}")])
        }),
        1 => (name(), expr.clone(), expr.clone(), expr).prop_map(|(r, lo, hi, term)| {
            seq([tokens("sum ("), r, tokens("in"), lo, tokens(".."), hi, tokens(":"), term, tokens(")")])
        }),
    ]
}

/// Any expression.
pub fn expr() -> BoxedStrategy<Tokens> {
    let leaf = prop_oneof![literal(), path()].boxed();
    leaf.prop_recursive(4, 40, 4, |inner| {
        let operand = (
            prop::sample::select(vec!["", "", "", "-", "not", "- -"]),
            primary(inner.clone()),
        )
            .prop_map(|(prefix, value)| seq([tokens(prefix), value]))
            .boxed();
        // Comparisons do not chain, so at most one; its sides are sums.
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%", "@", "^", "and", "or"])
            .prop_map(tokens);
        let chain =
            (operand.clone(), vec((operator, operand.clone()), 0..4)).prop_map(|(first, rest)| {
                seq(std::iter::once(first)
                    .chain(rest.into_iter().map(|(op, value)| seq([op, value]))))
            });
        let compared = (
            operand.clone(),
            prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]),
            operand,
        )
            .prop_map(|(a, op, b)| seq([a, tokens(op), b]));
        let target = (path(), prop::option::of(arguments(inner)), label())
            .prop_map(|(f, args, label)| seq([tokens("|>"), f, args.unwrap_or_default(), label]));
        (prop_oneof![4 => chain, 1 => compared], vec(target, 0..3))
            .prop_map(|(head, pipes)| seq(std::iter::once(head).chain(pipes)))
            .boxed()
    })
    .boxed()
}

fn value_type() -> impl Strategy<Value = Tokens> {
    (
        prop::sample::select(vec!["real", "complex"]),
        prop::option::of(vec(expr(), 0..3)),
    )
        .prop_map(|(scalar, shape)| {
            let shape = shape.map_or(Tokens::new(), |dims| between("[", join(dims, ","), "]"));
            seq([tokens(scalar), shape])
        })
}

fn annotation() -> impl Strategy<Value = Tokens> {
    let kind = prop::sample::select(vec![
        "const",
        "linear",
        "pooled",
        "global",
        "local",
        "local [ - 1 , 2 ]",
        "local [ ( - 1 , 0 ) , ( 1 , 2 * k ) ]",
    ])
    .prop_map(tokens);
    let both = (prop::option::of(kind.clone()), value_type())
        .prop_map(|(k, t)| seq([k.unwrap_or_default(), t]));
    prop_oneof![3 => Just(Tokens::new()), 1 => kind.prop_map(|k| seq([tokens(":"), k])), 1 => both.prop_map(|b| seq([tokens(":"), b]))]
}

fn block(stmt: impl Strategy<Value = Tokens>) -> impl Strategy<Value = Tokens> {
    vec(stmt, 0..4).prop_map(|stmts| between("{", seq(stmts), "}"))
}

fn init() -> impl Strategy<Value = Tokens> {
    prop::option::of(expr()).prop_map(|e| e.map_or(Tokens::new(), |e| seq([tokens("="), e])))
}

/// A statement of a network or function.
pub fn stmt() -> BoxedStrategy<Tokens> {
    let pattern = prop_oneof![
        name(),
        vec(name(), 2..4).prop_map(|names| between("(", join(names, ","), ")"))
    ];
    let per = prop::sample::select(vec!["", "", "site", "displacement", "momentum", "pair"]);
    let simple = prop_oneof![
        (pattern, annotation(), expr()).prop_map(|(p, a, e)| seq([
            tokens("let"),
            p,
            a,
            tokens("="),
            e
        ])),
        (name(), annotation(), expr()).prop_map(|(n, a, e)| seq([
            tokens("var"),
            n,
            a,
            tokens("="),
            e
        ])),
        (name(), prop::sample::select(vec!["=", "+="]), expr()).prop_map(|(n, op, e)| seq([
            n,
            tokens(op),
            e
        ])),
        (name(), value_type(), per, name(), init()).prop_map(|(n, t, per, of, init)| {
            let per = if per.is_empty() {
                Tokens::new()
            } else {
                seq([tokens("per"), tokens(per), tokens("of"), of])
            };
            seq([tokens("param"), n, tokens(":"), t, per, init])
        }),
        expr().prop_map(|e| seq([tokens("return"), e])),
    ];
    simple
        .prop_recursive(2, 8, 3, |inner| {
            let head = prop_oneof![
                (expr(), label()).prop_map(|(n, label)| seq([n, label])),
                (name(), expr(), expr()).prop_map(|(l, a, b)| seq([
                    l,
                    tokens("in"),
                    a,
                    tokens(".."),
                    b,
                    tokens("shared")
                ])),
            ];
            let repeat = (head, block(inner.clone()))
                .prop_map(|(head, body)| seq([tokens("repeat"), head, body]));
            let branches = (
                expr(),
                block(inner.clone()),
                prop::option::of((expr(), block(inner.clone()))),
                prop::option::of(block(inner)),
            )
                .prop_map(|(c, then, middle, otherwise)| {
                    let middle =
                        middle.map_or(Tokens::new(), |(c, b)| seq([tokens("else if"), c, b]));
                    let otherwise = otherwise.map_or(Tokens::new(), |b| seq([tokens("else"), b]));
                    seq([tokens("if"), c, then, middle, otherwise])
                });
            prop_oneof![repeat, branches].boxed()
        })
        .boxed()
}

fn op_stmt() -> BoxedStrategy<Tokens> {
    let domain = prop_oneof![
        name(),
        (name(), name()).prop_map(|(i, j)| seq([i, tokens("<"), j])),
        (name(), expr(), expr()).prop_map(|(i, a, b)| seq([i, tokens("in"), a, tokens(".."), b])),
        (name(), name(), expr()).prop_map(|(i, j, k)| seq([
            tokens("("),
            i,
            tokens(","),
            j,
            tokens(") in bonds ("),
            k,
            tokens(")")
        ])),
    ];
    let cond = prop::option::of(expr())
        .prop_map(|c| c.map_or(Tokens::new(), |c| seq([tokens("where"), c])));
    let simple = prop_oneof![
        (name(), expr()).prop_map(|(n, e)| seq([tokens("let"), n, tokens("="), e])),
        expr().prop_map(|e| seq([tokens("term"), e])),
        (domain, cond, expr()).prop_map(|(d, c, e)| seq([tokens("for"), d, c, tokens(":"), e])),
    ];
    simple
        .prop_recursive(2, 6, 3, |inner| {
            (
                expr(),
                block(inner.clone()),
                prop::option::of((expr(), block(inner.clone()))),
                prop::option::of(block(inner)),
            )
                .prop_map(|(c, then, middle, otherwise)| {
                    let middle =
                        middle.map_or(Tokens::new(), |(c, b)| seq([tokens("else if"), c, b]));
                    let otherwise = otherwise.map_or(Tokens::new(), |b| seq([tokens("else"), b]));
                    seq([tokens("if"), c, then, middle, otherwise])
                })
                .boxed()
        })
        .boxed()
}

fn params() -> impl Strategy<Value = Tokens> {
    let ty = prop::sample::select(vec!["", ": nat", ": int", ": real", ": bool"]).prop_map(tokens);
    let range =
        prop::sample::select(vec!["", "", "in 1 ..= 8", "in - 0.5 ..= 2 * n"]).prop_map(tokens);
    let param = (name(), ty, range, init()).prop_map(|(n, t, r, d)| seq([n, t, r, d]));
    vec(param, 0..5).prop_map(|list| between("(", join(list, ","), ")"))
}

/// One item.
pub fn item() -> BoxedStrategy<Tokens> {
    let body = prop_oneof![expr().prop_map(|e| seq([tokens("="), e])), block(stmt())].boxed();
    let role =
        prop::option::of(name()).prop_map(|r| r.map_or(Tokens::new(), |r| seq([tokens(":"), r])));
    let class = prop::sample::select(vec![": stencil", ": state_space", ": toeplitz", ": dense"])
        .prop_map(tokens);
    let lattice = prop::sample::select(vec!["", "on chain", "on square"]).prop_map(tokens);
    let network = prop::sample::select(vec!["network", "full network"]).prop_map(tokens);
    let names = vec((name(), label()), 1..6).prop_map(|names| {
        between(
            ":: {",
            join(names.into_iter().map(|(n, l)| seq([n, l])), ","),
            "}",
        )
    });
    prop_oneof![
        (path(), prop::option::of(names)).prop_map(|(p, n)| seq([
            tokens("use"),
            p,
            n.unwrap_or_default()
        ])),
        (name(), expr()).prop_map(|(n, e)| seq([tokens("const"), n, tokens("="), e])),
        (name(), params(), role, body.clone()).prop_map(|(n, p, r, b)| seq([
            tokens("fn"),
            n,
            p,
            r,
            b
        ])),
        (name(), params(), class, body).prop_map(|(n, p, c, b)| seq([tokens("mixer"), n, p, c, b])),
        (network, name(), params(), lattice.clone(), block(stmt()))
            .prop_map(|(k, n, p, l, b)| seq([k, n, p, l, b])),
        (name(), params(), lattice, block(op_stmt())).prop_map(|(n, p, l, b)| seq([
            tokens("operator"),
            n,
            p,
            l,
            b
        ])),
    ]
    .boxed()
}

/// A module's text: tokens with random blanks and comments between them.
pub fn module() -> impl Strategy<Value = String> {
    let blank = prop::sample::select(vec![
        " ",
        " ",
        " ",
        " ",
        " ",
        " ",
        " ",
        " ",
        " ",
        " ",
        " ",
        "\n",
        "\n",
        "\n\n\n",
        "\t\r\n",
        " // remark\n",
        "\n// own line\n",
        " //\n\n/// three\n",
        "\n    //! odd\n",
    ]);
    (vec(item(), 0..4), vec(blank, 1..40)).prop_map(|(items, blanks)| {
        let mut text = String::new();
        for (index, token) in seq(items).iter().enumerate() {
            text.push_str(blanks[index % blanks.len()]);
            text.push_str(token);
        }
        text
    })
}
