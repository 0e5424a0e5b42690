//! Operators named on the command line.

use super::common::{CliError, Ui, parse_override};
use crate::check::Program;
use crate::check::core::Static;
use crate::check::operator::OperatorInfo;
use crate::ir::{Boundary, Lattice};
use crate::syntax::ast::{ItemKind, LatticeKind};
use crate::vmc::operator::{Operator, compile};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};

/// How all numbers of operators are meant.
pub const CONVENTION: &str = "X, Y, Z are Pauli matrices (eigenvalues +-1); energies are totals";

/// An operator, as the positional arguments of a verb.
#[derive(clap::Args, Clone, Debug)]
pub struct OperatorArgs {
    /// NAME of std::operators; FILE.dnet with one operator; or FILE.dnet NAME
    #[arg(value_name = "FILE.dnet|NAME", num_args = 1..=2, required = true)]
    operator: Vec<String>,
    /// Override a coupling (or a hyperparameter of the network)
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = parse_override)]
    pub define: Vec<(String, Static)>,
}

impl OperatorArgs {
    /// What the arguments name.
    pub fn spec(&self) -> Result<OperatorSpec, CliError> {
        let is_file = |text: &String| text.ends_with(".dnet");
        let [first, rest @ ..] = &self.operator[..] else {
            return Err(CliError::plain("no operator was named"));
        };
        match (is_file(first), rest.first()) {
            (file, None) => Ok(OperatorSpec {
                file: file.then(|| first.into()),
                name: (!file).then(|| first.clone()),
            }),
            (true, Some(name)) => Ok(OperatorSpec {
                file: Some(first.into()),
                name: Some(name.clone()),
            }),
            (false, Some(name)) => Err(CliError::new(
                format!("`{first}` is no .dnet file"),
                format!("write `FILE.dnet {name}`, or one name of std::operators"),
            )),
        }
    }
}

/// An operator of a file or of `std::operators`.
#[derive(Clone, Debug)]
pub struct OperatorSpec {
    /// The file; without one, `std::operators`.
    pub file: Option<PathBuf>,
    /// Its name; not needed where the file has one operator.
    pub name: Option<String>,
}

impl std::str::FromStr for OperatorSpec {
    type Err = String;

    /// `NAME`, `FILE.dnet` or `FILE.dnet:NAME`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (file, name) = match text.rsplit_once(".dnet") {
            None => (None, Some(text)),
            Some((stem, "")) => (Some(stem), None),
            Some((stem, rest)) => (
                Some(stem),
                Some(
                    rest.strip_prefix(':')
                        .ok_or("expected NAME, FILE.dnet or FILE.dnet:NAME")?,
                ),
            ),
        };
        Ok(OperatorSpec {
            file: file.map(|stem| format!("{stem}.dnet").into()),
            name: name.map(str::to_owned),
        })
    }
}

/// An operator of the language, checked.
pub struct Model {
    /// What it is.
    pub info: OperatorInfo,
    /// Its documentation, in one line.
    pub doc: String,
    /// Overrides it has no coupling for.
    pub unused: Vec<(String, Static)>,
}

impl OperatorSpec {
    /// Finds and checks the operator. With `shared`, overrides that name none
    /// of its couplings are returned as unused; otherwise they are errors.
    pub fn find(
        &self,
        define: &[(String, Static)],
        shared: bool,
        ui: &Ui,
    ) -> Result<Model, CliError> {
        let program = match &self.file {
            Some(file) => Program::load(file),
            None => library(),
        };
        let known: Vec<String> = program
            .operators()
            .iter()
            .map(|o| o.name.name.clone())
            .collect();
        let name = match (&self.name, &known[..]) {
            (Some(name), _) => {
                if self.file.is_none() && !known.contains(name) {
                    return Err(CliError::new(
                        format!("std::operators has no operator `{name}`"),
                        format!(
                            "there are {}; write `FILE.dnet` for an operator of your own",
                            known.join(", ")
                        ),
                    ));
                }
                name.clone()
            }
            (None, [only]) => only.clone(),
            // an unreadable file gives its own diagnostics
            (None, []) => {
                program.operator("", &Default::default())?;
                return Err(CliError::plain("no operator in this file"));
            }
            (None, several) => {
                return Err(CliError::new(
                    format!("the file has {} operators", several.len()),
                    format!("name one of them: {}", several.join(", ")),
                ));
            }
        };
        let (couplings, doc) = declaration(&program, &name)
            .or_else(|| declaration(&library(), &name))
            .unwrap_or_default();
        let (own, unused): (Vec<_>, Vec<_>) = define
            .iter()
            .cloned()
            .partition(|(n, _)| !shared || couplings.contains(n));
        let info = program.operator(&name, &own.into_iter().collect())?;
        ui.diagnostics(program.sources(), &crate::check::slices::warnings(&info));
        Ok(Model { info, doc, unused })
    }
}

fn library() -> Program {
    let module = crate::check::modules::STDLIB
        .iter()
        .find(|m| m.0 == "operators");
    module.map_or_else(Program::default, |(_, file, text)| {
        Program::parse(file, text)
    })
}

/// Couplings and documentation of an operator.
fn declaration(program: &Program, name: &str) -> Option<(Vec<String>, String)> {
    program
        .roots()
        .iter()
        .flat_map(|r| &program.modules().get(*r).ast.items)
        .find_map(|item| match &item.kind {
            ItemKind::Operator(o) if o.name.name == name => Some((
                o.params.iter().map(|p| p.name.name.clone()).collect(),
                item.docs
                    .iter()
                    .map(|l| l.trim())
                    .collect::<Vec<_>>()
                    .join(" "),
            )),
            _ => None,
        })
}

impl Model {
    /// The operator on a lattice.
    pub fn compile(&self, lattice: Lattice) -> Result<Operator, CliError> {
        compile(&self.info, lattice).map_err(|e| {
            CliError::new(
                format!("operator `{}`: {e}", self.info.name),
                "choose another number of sites, another boundary or other couplings",
            )
        })
    }

    /// Name, couplings, lattice and convention, for people.
    pub fn heading(&self, lattice: Lattice) -> String {
        let mut text = format!(
            "operator {} on {}\n",
            self.info.name,
            lattice_text(self.info.lattice, lattice)
        );
        let shown: Vec<String> = self
            .info
            .couplings
            .iter()
            .map(|(k, v)| format!("{k} = {}", serde_json::to_string(v).unwrap_or_default()))
            .collect();
        if !shown.is_empty() {
            text += &format!("  {}\n", shown.join(", "));
        }
        if !self.doc.is_empty() {
            text += &format!("  {}\n", self.doc);
        }
        text + &format!("  {CONVENTION}\n")
    }

    /// The same for programs.
    pub fn json(&self, lattice: Lattice) -> serde_json::Map<String, Json> {
        let couplings: serde_json::Map<String, Json> = self
            .info
            .couplings
            .iter()
            .map(|(k, v)| (k.clone(), serde_json::to_value(v).unwrap_or(Json::Null)))
            .collect();
        let mut object = serde_json::Map::new();
        let mut put = |key: &str, value: Json| object.insert(key.to_owned(), value);
        put("operator", json!(self.info.name));
        put("couplings", json!(couplings));
        put("sites", json!(lattice.sites()));
        put("extent", json!(lattice.extent));
        put(
            "boundary",
            json!(match lattice.boundary {
                Boundary::Periodic => "periodic",
                Boundary::Open => "open",
            }),
        );
        put("convention", json!(CONVENTION));
        put("doc", json!(self.doc));
        object
    }
}

/// `a chain of 12 sites, periodic boundary`
pub fn lattice_text(kind: LatticeKind, lattice: Lattice) -> String {
    let boundary = match lattice.boundary {
        Boundary::Periodic => "periodic",
        Boundary::Open => "open",
    };
    match kind {
        LatticeKind::Chain => {
            format!("a chain of {} sites, {boundary} boundary", lattice.sites())
        }
        LatticeKind::Square => format!(
            "a {} x {} square lattice, {boundary} boundary",
            lattice.extent[0], lattice.extent[1]
        ),
    }
}

/// Refuses overrides that nobody takes.
pub fn refuse_unused(unused: &[(String, Static)]) -> Result<(), CliError> {
    match unused.first() {
        None => Ok(()),
        Some((name, _)) => Err(CliError::new(
            format!("neither an operator nor the network has `{name}`"),
            "see the names with `dnetc inspect`",
        )),
    }
}

/// Writes text where it is wanted: to a file, or to stdout.
pub fn deliver(output: Option<&Path>, text: &str) -> Result<(), CliError> {
    match output {
        Some(path) => super::common::write_atomically(path, text.as_bytes()),
        None => super::common::print(text),
    }
}
