//! What elaboration accepts, what it makes of it, and what it refuses.

use super::*;
use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::SourceMap;
use num_complex::Complex64;
use std::convert::Infallible;

fn elaborated(
    text: &str,
    couplings: &[(&str, Static)],
) -> (SourceMap, Result<OperatorInfo, Vec<Diagnostic>>) {
    let mut sources = SourceMap::default();
    let file = sources.add("<test>", text);
    let module = crate::syntax::parser::parse(&sources, file).expect("syntax");
    let item = module.items.iter().find_map(|item| match &item.kind {
        ItemKind::Operator(o) => Some(o),
        _ => None,
    });
    let couplings = couplings
        .iter()
        .map(|&(name, value)| (name.to_owned(), value))
        .collect();
    let result = elaborate(item.expect("an operator"), &module, &couplings);
    (sources, result)
}

/// The code and the marked text of every error.
fn errors(text: &str) -> Vec<(Code, String)> {
    let (sources, result) = elaborated(text, &[]);
    result
        .expect_err(text)
        .iter()
        .map(|d| (d.code, sources.text(d.primary.span).to_owned()))
        .collect()
}

fn body_errors(body: &str) -> Vec<(Code, String)> {
    errors(&format!("operator h(J: real = 1) on chain {{ {body} }}"))
}

/// What a lattice makes of an operator, equal strings added up.
#[derive(Default, Debug)]
struct Collected {
    strings: Vec<(f64, Vec<(usize, Pauli)>)>,
    couplings: Vec<([i64; 2], f64)>,
    raw: Vec<(Complex64, Vec<(usize, Pauli)>)>,
}

impl Sink for Collected {
    type Error = Infallible;

    fn string(&mut self, c: Complex64, factors: &[(usize, Pauli)]) -> Result<(), Infallible> {
        match self.raw.iter_mut().find(|s| s.1 == factors) {
            Some(string) => string.0 += c,
            None => self.raw.push((c, factors.to_vec())),
        }
        Ok(())
    }

    fn pair_coupling(&mut self, d: [i64; 2], coupling: f64) -> Result<(), Infallible> {
        self.couplings.push((d, coupling));
        Ok(())
    }
}

fn expand(body: &str, n: usize, periodic: bool) -> Collected {
    let text = format!("operator h(J: real = 1) on chain {{ {body} }}");
    let info = elaborated(&text, &[]).1.expect(body);
    let mut out = Collected::default();
    let geometry = Geometry {
        extent: [n, 1],
        periodic,
    };
    info.expand(geometry, &mut out).expect(body);
    for (c, factors) in std::mem::take(&mut out.raw) {
        assert_eq!(c.im, 0.0, "{body}: {factors:?}");
        if c.re != 0.0 {
            out.strings.push((c.re, factors));
        }
    }
    out
}

use Pauli::{X, Y, Z};

#[test]
fn products_are_multiplied_out() {
    let square = expand("term ((1 - Z(0)) / 2)^2", 2, false);
    assert_eq!(square.strings, [(0.5, vec![]), (-0.5, vec![(0, Z)])]);
    // X Z = -i Y
    let turned = expand("term 2i * X(1) * Z(1)", 2, false);
    assert_eq!(turned.strings, [(2.0, vec![(1, Y)])]);
    let both = expand(
        "for i in 0..1: X(i) * Z(i) * X(i + 1) + Z(i) * X(i) * X(i + 1)",
        3,
        true,
    );
    assert_eq!(both.strings, [], "they cancel");
    let piped = expand("term 1 |> Z", 3, false);
    assert_eq!(piped.strings, [(1.0, vec![(1, Z)])]);
}

#[test]
fn sums_that_cancel_symbolically_or_numerically_are_hermitian() {
    expand("for i: X(i) * Z(i) + Z(i) * X(i)", 4, true);
    expand("for i: 1i * X(i) * Y(i)", 4, true);
    // order matters only where i + 1 is j
    assert_eq!(
        body_errors("for i < j: X(i + 1) * Z(j)"),
        [(Code::E0401, "X(i + 1) * Z(j)".into())]
    );
    expand(
        "for i < j where dist(i, j) > 1.5: X(i + 1) * Z(j - 1 + 1)",
        3,
        true,
    );
}

#[test]
fn a_summand_is_dropped_where_it_leaves_an_open_chain() {
    let open = expand("for i: -Z(i) * X(i + 1) - J * X(i)", 3, false);
    let fields = |out: &Collected| out.strings.iter().filter(|s| s.1.len() == 1).count();
    assert_eq!((open.strings.len(), fields(&open)), (5, 3));
    let ring = expand("for i: -Z(i) * X(i + 1) - J * X(i)", 3, true);
    assert_eq!((ring.strings.len(), fields(&ring)), (6, 3));
    let projector = expand("for i: (1 - Z(i) * Z(i + 1)) / 2", 3, false);
    assert_eq!(projector.strings, [(1.0, vec![])]);
    assert_eq!(projector.couplings, [([1, 0], -0.5)]);
}

#[test]
fn distances_become_couplings_and_positions_do_not() {
    let n = 1000;
    let long = expand("for i < j: J / dist(i, j)^2 * Z(i) * Z(j)", n, true);
    assert_eq!((long.strings.len(), long.couplings.len()), (0, n / 2));
    assert_eq!(
        long.couplings[n / 2 - 1],
        ([500, 0], 0.5 / 250_000.0),
        "met from both sides"
    );
    let open = expand("for i < j where dist(i, j) < 3: Z(j) * Z(i)", n, false);
    assert_eq!(open.couplings, [([1, 0], 1.0), ([2, 0], 1.0)]);
    let placed = expand("for i < j where parity(i) == 0: Z(i) * Z(j)", 4, true);
    assert_eq!((placed.strings.len(), placed.couplings.len()), (4, 0));
    // an open loop that does not reach the first bond is no coupling
    let inner = expand("for i: Z(i + 1) * Z(i + 2)", 4, false);
    assert_eq!(
        inner.strings,
        [(1.0, vec![(1, Z), (2, Z)]), (1.0, vec![(2, Z), (3, Z)])]
    );
    let densities = expand("for i < j: (1 - Z(i)) * (1 - Z(j))", n, false);
    assert!(densities.strings.len() <= 3 * n);
}

#[test]
fn lattice_conditions_hold_per_lattice() {
    let body = "if periodic { term Z(0) } else { term X(0) } if N % 2 == 0 { term Y(1) }";
    assert_eq!(
        expand(body, 4, true).strings,
        [(1.0, vec![(0, Z)]), (1.0, vec![(1, Y)])]
    );
    assert_eq!(expand(body, 3, false).strings, [(1.0, vec![(0, X)])]);
    let folded = expand(
        "if J > 2 { term Z(0) } else { term if periodic { 1 } else { 3 } * X(N - 1) }",
        3,
        false,
    );
    assert_eq!(folded.strings, [(3.0, vec![(2, X)])]);
}

#[test]
fn terms_that_wrap_onto_themselves_are_refused() {
    let info = elaborated("operator h() { for i: X(i) * X(i + 2) }", &[])
        .1
        .unwrap();
    let mut out = Collected::default();
    let error = info
        .expand(
            Geometry {
                extent: [2, 1],
                periodic: true,
            },
            &mut out,
        )
        .unwrap_err();
    assert_eq!(error, ExpandError::TooSmall { sites: 2 });
    let info = elaborated("operator h() { for i: log(-1) * X(i) }", &[])
        .1
        .unwrap();
    let error = info
        .expand(
            Geometry {
                extent: [2, 1],
                periodic: true,
            },
            &mut out,
        )
        .unwrap_err();
    assert_eq!(error, ExpandError::NotFinite { sites: 2 });
}

#[test]
fn couplings_are_typed_ranged_and_overridden() {
    let text = "operator h(J: real in 0..=2 = 1, k: nat = 1) { for i: J * Z(i) * Z(i + k) }";
    let code = |couplings: &[(&str, Static)]| {
        elaborated(text, couplings)
            .1
            .map(|i| i.couplings["J"])
            .map_err(|d| d[0].code)
    };
    assert_eq!(code(&[("J", Static::Int(2))]), Ok(Static::Real(2.0)));
    assert_eq!(code(&[("J", Static::Real(2.1))]), Err(Code::E0103));
    assert_eq!(code(&[("k", Static::Real(1.5))]), Err(Code::E0202));
    assert_eq!(code(&[("k", Static::Int(-1))]), Err(Code::E0202));
    assert_eq!(code(&[("g", Static::Int(1))]), Err(Code::E0101));
}

#[test]
fn errors_name_the_place() {
    use Code::*;
    let cases: &[(&str, Code, &str)] = &[
        ("for i: K * Z(i)", E0101, "K"),
        ("for i: S(i)", E0101, "S(i)"),
        ("let J = 1", E0102, "J"),
        ("for i < i: Z(i)", E0102, "i"),
        ("for i: Z(i, i)", E0105, "Z(i, i)"),
        ("for i: i", E0106, "i"),
        ("for i: h * Z(i)", E0106, "h"),
        ("for i where J: Z(i)", E0202, "J"),
        ("for i: exp(Z(i))", E0402, "Z(i)"),
        ("for i: Z(i + 0.5)", E0202, "0.5"),
        ("for i: Z(i + N)", E0203, "N"),
        ("for (i, j) in bonds(N): Z(i)", E0203, "N"),
        ("for (i, j) in bonds(0): Z(i)", E0402, "0"),
        (
            "term (9223372036854775807 + 1) * Z(0)",
            E0204,
            "9223372036854775807 + 1",
        ),
        ("term div(1, 0)", E0207, "div(1, 0)"),
        ("term 1 / Z(0)", E0402, "Z(0)"),
        ("term Z(0)^0.5", E0402, "0.5"),
        ("term \"Z\"", E0402, "\"Z\""),
        ("term Z(0) as z", E0402, "z"),
        ("for i: X(i) * Z(i)", E0401, "X(i) * Z(i)"),
        ("term 1i * Z(0)", E0401, "1i * Z(0)"),
    ];
    for (body, code, place) in cases {
        assert_eq!(body_errors(body), [(*code, (*place).to_owned())], "{body}");
    }
    assert_eq!(
        errors("operator h() on square { for i: Z(i + 1) }"),
        [(E0402, "1".into())]
    );
    // all errors of an operator in one run
    let codes: Vec<Code> = body_errors("for i: K * Z(i) term A for i: Z(i, i)")
        .iter()
        .map(|e| e.0)
        .collect();
    assert_eq!(codes, [E0101, E0101, E0105]);
}

#[test]
fn a_non_hermitian_term_names_both_factors() {
    let (sources, result) = elaborated("operator h() { for i: X(i) * Z(i + 1) * Y(i) }", &[]);
    let diagnostic = &result.unwrap_err()[0];
    let places: Vec<&str> = diagnostic
        .secondary
        .iter()
        .map(|l| sources.text(l.span))
        .collect();
    assert_eq!(places, ["X(i)", "Y(i)"]);
    assert!(diagnostic.help.is_some());
}

#[test]
fn functions_are_inlined_and_checked() {
    let with = |functions: &str, body: &str| {
        elaborated(&format!("{functions} operator h() {{ {body} }}"), &[])
    };
    let swap = "fn swap(i, j, s: real in 0..=9 = 2) { let zz = Z(i) * Z(j); return (1 + X(i) * X(j) + Y(i) * Y(j) + zz) / s }"
        .replace(';', "");
    let (_, ok) = with(
        &swap,
        "for i: swap(i, i + 1) for i: swap(i, j: i + 2, s: 3)",
    );
    assert_eq!(ok.unwrap().families[0].summands[0].products.len(), 4);
    let code = |body: &str| with(&swap, body).1.unwrap_err()[0].code;
    assert_eq!(code("for i: swap(i)"), Code::E0105);
    assert_eq!(code("for i: swap(i, i + 1, 2, 3)"), Code::E0105);
    assert_eq!(code("for i: swap(i, i + 1, t: 3)"), Code::E0105);
    assert_eq!(code("for i: swap(i, i + 1, s: 10)"), Code::E0103);
    assert_eq!(code("for i: swap(i, i + 1, s: Z(i))"), Code::E0402);
    let (_, endless) = with("fn f(i) = g(i) fn g(i) = f(i)", "for i: f(i)");
    assert_eq!(endless.unwrap_err()[0].code, Code::E0104);
    let factors: Vec<String> = (0..13).map(|k| format!("(1 + Z({k}))")).collect();
    let (_, huge) = with("", &format!("term {}", factors.join(" * ")));
    assert!(huge.is_err_and(|d| d[0].code == Code::E0402));
}
