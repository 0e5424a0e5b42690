//! What `inspect` says of an operator.

use super::common::{CliError, LatticeArgs, Ui};
use crate::check::Program;
use crate::check::core::Static;
use crate::syntax::ast::{LatticeKind, OperatorItem};
use crate::vmc::operator::{ClusterShape, compile};
use serde_json::{Value as Json, json};
use std::fmt::Write;

/// Both forms of the report.
pub struct Report {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Json,
}

/// Without `--sites`, clusters are shown for this lattice.
const DEFAULT_SITES: [usize; 2] = [16, 0];

/// Connected elements, cluster extents and terms of an operator.
pub fn report(
    program: &Program,
    item: &OperatorItem,
    define: &[(String, Static)],
    lattice: &LatticeArgs,
    ui: &Ui,
) -> Result<Report, CliError> {
    // A value given for a network of the same file is not meant for us.
    let couplings = define
        .iter()
        .filter(|(n, _)| item.params.iter().any(|p| p.name.name == *n))
        .cloned()
        .collect();
    let info = program.operator(&item.name.name, &couplings)?;
    ui.diagnostics(program.sources(), &crate::check::slices::warnings(&info));
    let mut wanted = lattice.clone();
    wanted.sites.get_or_insert(DEFAULT_SITES);
    let lattice = wanted
        .lattice(item.lattice)?
        .expect("sites were given or defaulted");
    let operator = compile(&info, lattice).map_err(|e| {
        CliError::new(
            format!("operator `{}`: {e}", info.name),
            "choose another number of sites",
        )
    })?;
    let shapes = operator.cluster_shapes();
    let pairs = operator.pairs().map_or(0, |p| p.pair_count());
    let couplings: serde_json::Map<String, Json> = info
        .couplings
        .iter()
        .map(|(k, v)| (k.clone(), serde_json::to_value(v).unwrap_or(Json::Null)))
        .collect();
    let chain = item.lattice == LatticeKind::Chain;
    let extent = if chain {
        lattice.extent[..1].to_vec()
    } else {
        lattice.extent.to_vec()
    };
    let mut text = String::new();
    let kind = if chain { "chain" } else { "square lattice" };
    let _ = writeln!(text, "operator {} on a {kind}", info.name);
    let shown: Vec<String> = couplings
        .iter()
        .map(|(k, v)| format!("{k} = {v}"))
        .collect();
    if !shown.is_empty() {
        let _ = writeln!(text, "  {}", shown.join(", "));
    }
    let boundary = if lattice.boundary == crate::ir::Boundary::Periodic {
        "periodic"
    } else {
        "open"
    };
    let _ = writeln!(text, "\nat {} sites, {boundary} boundary:", lattice.sites());
    let _ = writeln!(
        text,
        "  terms               {} pair couplings, {} other strings",
        pairs,
        operator.string_count()
    );
    let _ = writeln!(
        text,
        "  connected elements  {} per configuration",
        operator.cluster_count()
    );
    let _ = writeln!(
        text,
        "  tr H / dim          {}",
        operator.infinite_temperature_energy()
    );
    if !shapes.is_empty() {
        let _ = writeln!(text, "  flip clusters:");
    }
    for s in &shapes {
        let _ = writeln!(text, "    {:>6} x {}", s.count, shape_text(s, chain));
    }
    text.push('\n');
    let json = json!({
        "item": "operator", "name": info.name, "lattice": if chain { "chain" } else { "square" },
        "couplings": couplings, "sites": lattice.sites(), "extent": extent, "boundary": boundary,
        "pair_couplings": pairs, "strings": operator.string_count(),
        "connected_elements": operator.cluster_count(),
        "infinite_temperature_energy": operator.infinite_temperature_energy(),
        "clusters": shapes,
    });
    Ok(Report { text, json })
}

fn shape_text(s: &ClusterShape, chain: bool) -> String {
    let offsets: Vec<String> = s
        .offsets
        .iter()
        .map(|o| {
            if chain {
                o[0].to_string()
            } else {
                format!("({}, {})", o[0], o[1])
            }
        })
        .collect();
    let extent = if chain {
        s.extent[0].to_string()
    } else {
        format!("{}x{}", s.extent[0], s.extent[1])
    };
    format!("sites {{{}}}, extent {extent}", offsets.join(", "))
}
