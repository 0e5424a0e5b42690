//! The recurrence as written out, in all formats.

mod abacus_nets;

use abacus_nets::{Mix, Net, Plan};
use dnet::ir::{Boundary, Lattice};
use dnet::pass::cluster::Cluster;
use dnet::pass::derive::{Format, Recurrence, derive};
use dnet::pass::normal_form::NormalForm;

fn paper() -> Net {
    Net::build(Lattice::chain(40, Boundary::Periodic), &Plan::paper(), 1)
}

fn written(net: &Net, cluster: &str, format: Format) -> String {
    let form = NormalForm::new(&net.graph).unwrap();
    derive(&net.graph, &form, &cluster.parse().unwrap(), format)
}

#[test]
fn the_paper_needs_seven_diagonals() {
    let net = paper();
    let r = Recurrence::new(
        &net.graph,
        &NormalForm::new(&net.graph).unwrap(),
        &Cluster::single(),
    );
    let sizes: Vec<_> = r
        .mixers
        .iter()
        .map(|m| m.emission.size().unwrap())
        .collect();
    assert_eq!(sizes, [4, 7]);
    let link = r.links.iter().find(|l| (l.to, l.from) == (2, 1)).unwrap();
    assert_eq!(
        (link.targets.size(), link.sources.size(), link.diagonals),
        (Some(4), Some(4), Some(7))
    );
    assert_eq!(link.strategy, "fft");
    assert_eq!(link.shape, "[2, 7] x [2, 7]");
}

#[test]
fn text() {
    insta::assert_snapshot!(written(&paper(), "1", Format::Text));
}

#[test]
fn text_of_a_pair() {
    let text = written(&paper(), "pair:6", Format::Text);
    assert!(text.contains("flips `pair:6`"));
    assert!(
        text.contains("i in {-2, -1, 0, 1, 2, 3, 4}") || text.contains("i in [-2, 4]"),
        "{text}"
    );
}

#[test]
fn latex() {
    let tex = written(&paper(), "1", Format::Latex);
    // Coefficients and links have a table each.
    for (environment, count) in [("align", 1), ("document", 1), ("tabular", 2)] {
        for end in ["begin", "end"] {
            let mark = format!("\\{end}{{{environment}}}");
            assert_eq!(tex.matches(&mark).count(), count, "{mark}");
        }
    }
    let unescaped = tex.replace("\\{", "").replace("\\}", "");
    assert_eq!(
        unescaped.matches('{').count(),
        unescaped.matches('}').count()
    );
    assert_eq!(tex.matches('$').count() % 2, 0);
    insta::assert_snapshot!(tex);
}

#[test]
fn json_is_json_and_complete() {
    let text = written(&paper(), "0,1,4", Format::Json);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["cluster"], "0,1,4");
    assert_eq!(value["mixers"].as_array().unwrap().len(), 2);
    let vertex = &value["mixers"][1]["terms"][1];
    assert_eq!(vertex["gates"].as_array().unwrap().len(), 1);
    assert_eq!(vertex["matrices"].as_array().unwrap().len(), 0);
    assert_eq!(value["links"].as_array().unwrap().len(), 3);
    assert_eq!(value["pools"][0]["kind"], "sum");
}

#[test]
fn dot_draws_every_vertex() {
    let dot = written(&paper(), "1", Format::Dot);
    for edge in [
        "spins -> m1",
        "spins -> m2",
        "m1 -> m2",
        "m1 -> p1",
        "m2 -> p1",
        "spins -> p2",
        "p1 -> readout",
    ] {
        assert!(dot.contains(edge), "{edge}\n{dot}");
    }
    assert_eq!(dot.matches('{').count(), dot.matches('}').count());
}

#[test]
fn features_that_keep_their_sites_change_everywhere() {
    let n = Net::boltzmann(6);
    insta::assert_snapshot!(written(&n, "1", Format::Text));
}

#[test]
fn square_lattices_have_boxes() {
    let plan = Plan::dysonnet(1, (-1, 1), &[Mix::Convolve]);
    let net = Net::build(
        Lattice {
            extent: [6, 6],
            boundary: Boundary::Periodic,
        },
        &plan,
        1,
    );
    let text = written(&net, "1", Format::Text);
    assert!(
        text.contains("i in [-1, 1] x [-1, 1]     9 tokens"),
        "{text}"
    );
}
