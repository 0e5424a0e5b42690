//! The checker: names, hyperparameters, shapes, kinds.
//!
//! [`Program`] loads files and answers questions about them. It never changes
//! a tree: a network checked at given hyperparameters is a
//! [`core::NetworkInfo`], which every later stage demands.

pub mod builtins;
pub mod core;
pub mod elaborate;
pub mod lattice;
pub mod modules;
pub mod names;
pub mod operator;
pub mod slices;
mod unused;
pub mod walk;

use crate::diag::{Diagnostic, Severity};
use crate::syntax::ast::*;
use elaborate::Overrides;
use modules::{Def, ModuleId, Modules};
use std::collections::HashSet;
use std::path::Path;

/// Loaded files and the modules they use.
///
/// ```
/// let program = dnet::check::Program::parse(
///     "jastrow.dnet",
///     "use std::nn::{mean}
///      network mean_field(scale: real = 1) {
///          param field: real[] = 0.5
///          log_psi = mean(scale * field * spins)
///      }",
/// );
/// assert!(program.check().is_empty());
/// let network = program.network("mean_field").with("scale", 2.0).check().unwrap();
/// assert_eq!(network.params.len(), 1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Program {
    modules: Modules,
    roots: Vec<ModuleId>,
    load_errors: Vec<Diagnostic>,
}

/// Problems, with the sources needed to show them.
#[derive(Clone, Debug)]
pub struct CheckError {
    /// Errors and warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// The texts they point into.
    pub sources: SourceMap,
}

impl std::fmt::Display for CheckError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::diag::render::human(
            &self.sources,
            &self.diagnostics,
            false,
        ))
    }
}

impl std::error::Error for CheckError {}

impl Program {
    /// A program from one text. `use self::` finds nothing.
    pub fn parse(name: &str, text: &str) -> Program {
        let mut p = Program::default();
        p.roots
            .extend(p.modules.load(name, text, None, &mut p.load_errors));
        p
    }

    /// A program from a file.
    pub fn load(path: &Path) -> Program {
        let mut p = Program::default();
        p.add_file(path);
        p
    }

    /// Adds a file to the program. Files that cannot be read or parsed become
    /// diagnostics of [`Program::check`].
    pub fn add_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let unreadable = |p: &mut Program, make: &dyn Fn(FileId) -> Diagnostic| {
            // The diagnostic needs a file to point into.
            let file = p.modules.sources.add(name.clone(), "");
            p.load_errors.push(make(file));
            None
        };
        let root = match std::fs::read(path) {
            Ok(bytes) => {
                let next = FileId(self.modules.sources.files.len() as u32);
                match crate::syntax::source_from_bytes(next, &name, bytes) {
                    Ok(text) => self.modules.load_file(path, &text, &mut self.load_errors),
                    Err(d) => unreadable(self, &|_| d.clone()),
                }
            }
            Err(e) => unreadable(self, &|file| {
                let span = Span {
                    file,
                    start: 0,
                    end: 0,
                };
                Diagnostic::new(
                    crate::diag::Code::E0003,
                    format!("cannot read `{name}`: {e}"),
                    span,
                    "this file",
                )
                .help("check the path and its permissions")
            }),
        };
        self.roots.extend(root.filter(|r| !self.roots.contains(r)));
    }

    /// All texts, for rendering diagnostics.
    pub fn sources(&self) -> &SourceMap {
        &self.modules.sources
    }

    /// The loaded modules.
    pub fn modules(&self) -> &Modules {
        &self.modules
    }

    /// The modules named by the user, in order.
    pub fn roots(&self) -> &[ModuleId] {
        &self.roots
    }

    /// Networks of the files named by the user, in order.
    pub fn networks(&self) -> Vec<&NetworkItem> {
        self.items()
            .filter_map(|i| {
                if let ItemKind::Network(n) = &i.kind {
                    Some(n)
                } else {
                    None
                }
            })
            .collect()
    }

    /// Operators of the files named by the user, in order.
    pub fn operators(&self) -> Vec<&OperatorItem> {
        self.items()
            .filter_map(|i| {
                if let ItemKind::Operator(o) = &i.kind {
                    Some(o)
                } else {
                    None
                }
            })
            .collect()
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.roots
            .iter()
            .flat_map(|r| &self.modules.get(*r).ast.items)
    }

    /// Everything wrong with the files: syntax, names, and every network at its
    /// default hyperparameters. Sorted by file and place; empty if all is well.
    pub fn check(&self) -> Vec<Diagnostic> {
        let mut all = self.load_errors.clone();
        for k in 0..self.modules.list.len() {
            let id = ModuleId(k);
            if self.roots.contains(&id) || !self.modules.get(id).std {
                all.extend(names::check(&self.modules, id));
            }
        }
        for &root in &self.roots {
            for item in &self.modules.get(root).ast.items {
                match &item.kind {
                    ItemKind::Network(n) => {
                        all.extend(elaborate::network(&self.modules, root, n, &Overrides::new()).1);
                    }
                    ItemKind::Operator(o) => {
                        match operator::elaborate(o, &self.modules, &Overrides::new()) {
                            Ok(info) => all.extend(slices::warnings(&info)),
                            Err(errors) => all.extend(errors),
                        }
                    }
                    _ => {}
                }
            }
        }
        sorted(all)
    }

    /// A network of the files by name.
    pub fn network(&self, name: &str) -> NetworkRequest<'_> {
        NetworkRequest {
            program: self,
            name: Some(name.to_owned()),
            overrides: Overrides::new(),
        }
    }

    /// An operator of the files, or of the standard library's
    /// `std::operators` if the files have none of that name.
    ///
    /// # Errors
    /// An unknown name, or everything wrong with the operator at these couplings.
    pub fn operator(
        &self,
        name: &str,
        couplings: &Overrides,
    ) -> Result<operator::OperatorInfo, CheckError> {
        if !self.load_errors.is_empty() {
            return Err(self.error(sorted(self.load_errors.clone())));
        }
        if let Some(item) = self.operators().into_iter().find(|o| o.name.name == name) {
            return operator::elaborate(item, &self.modules, couplings)
                .map_err(|d| self.error(sorted(d)));
        }
        let (_, file, text) = modules::STDLIB
            .iter()
            .find(|m| m.0 == "operators")
            .expect("the library has operators");
        let library = Program::parse(file, text);
        match library
            .operators()
            .into_iter()
            .find(|o| o.name.name == name)
        {
            Some(item) => operator::elaborate(item, &library.modules, couplings)
                .map_err(|d| library.error(sorted(d))),
            None => {
                let own = self.operators();
                let std = library.operators();
                let known = own.iter().chain(&std).map(|o| o.name.name.as_str());
                let span = Span {
                    file: self
                        .roots
                        .first()
                        .map_or(FileId(0), |r| self.modules.get(*r).ast.file),
                    start: 0,
                    end: 0,
                };
                let d = Diagnostic::new(
                    crate::diag::Code::E0101,
                    format!("no operator `{name}`"),
                    span,
                    "neither in this file nor in std::operators",
                );
                let d = modules::with_suggestion(d, name, known);
                let list = own
                    .iter()
                    .chain(&std)
                    .map(|o| o.name.name.clone())
                    .collect::<Vec<_>>()
                    .join(", ");
                let help = d.help.clone().map_or(format!("there are {list}"), |h| {
                    format!("{h} (there are {list})")
                });
                Err(self.error(vec![d.help(help)]))
            }
        }
    }

    /// The only network of the files.
    pub fn only_network(&self) -> NetworkRequest<'_> {
        NetworkRequest {
            program: self,
            name: None,
            overrides: Overrides::new(),
        }
    }

    /// Finds a `fn`, `const` or other item as seen from a module.
    pub fn resolve(&self, from: ModuleId, path: &[Ident]) -> Option<(ModuleId, &Item)> {
        match self.modules.resolve(from, path)? {
            def @ Def::Item(m, _) => Some((m, self.modules.item(def)?)),
            Def::Module(_) => None,
        }
    }

    fn error(&self, diagnostics: Vec<Diagnostic>) -> CheckError {
        CheckError {
            diagnostics,
            sources: self.modules.sources.clone(),
        }
    }
}

/// A network about to be checked at chosen hyperparameters.
#[derive(Clone, Debug)]
pub struct NetworkRequest<'p> {
    program: &'p Program,
    name: Option<String>,
    overrides: Overrides,
}

impl NetworkRequest<'_> {
    /// Sets a hyperparameter.
    pub fn with(mut self, name: &str, value: impl Into<core::Static>) -> Self {
        self.overrides.insert(name.to_owned(), value.into());
        self
    }

    /// Checks it.
    ///
    /// # Errors
    /// Everything found wrong, warnings included, where at least one is an error.
    pub fn check(&self) -> Result<core::NetworkInfo, CheckError> {
        self.check_with_warnings().map(|(info, _)| info)
    }

    /// Checks it and returns the warnings, too.
    ///
    /// # Errors
    /// As [`NetworkRequest::check`].
    pub fn check_with_warnings(&self) -> Result<(core::NetworkInfo, Vec<Diagnostic>), CheckError> {
        let p = self.program;
        if !p.load_errors.is_empty() {
            return Err(p.error(sorted(p.load_errors.clone())));
        }
        let mut found = None;
        for &root in &p.roots {
            for item in &p.modules.get(root).ast.items {
                if let ItemKind::Network(n) = &item.kind
                    && self.name.as_ref().is_none_or(|name| *name == n.name.name)
                {
                    found.get_or_insert((root, n));
                }
            }
        }
        let Some((root, item)) = found else {
            let known: Vec<String> = p.networks().iter().map(|n| n.name.name.clone()).collect();
            let file = p
                .roots
                .first()
                .map_or(FileId(0), |r| p.modules.get(*r).ast.file);
            let span = Span {
                file,
                start: 0,
                end: 0,
            };
            let what = self
                .name
                .as_ref()
                .map_or("no network in this file".to_owned(), |n| {
                    format!("no network `{n}` in this file")
                });
            let label = if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has {}", known.join(", "))
            };
            return Err(p.error(vec![Diagnostic::new(
                crate::diag::Code::E0101,
                what,
                span,
                label,
            )]));
        };
        let mut diags = names::check(&p.modules, root);
        let (info, more) = elaborate::network(&p.modules, root, item, &self.overrides);
        diags.extend(more);
        let diags = sorted(diags);
        match info {
            Some(info) if diags.iter().all(|d| d.severity() == Severity::Warning) => {
                Ok((info, diags))
            }
            _ => Err(p.error(diags)),
        }
    }
}

/// By place, each (code, place) once; errors of a place before warnings.
fn sorted(mut diags: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diags.sort_by_key(|d| {
        (
            d.primary.span.file,
            d.primary.span.start,
            d.primary.span.end,
            d.code,
        )
    });
    let mut seen = HashSet::new();
    diags.retain(|d| seen.insert((d.code, d.primary.span)));
    diags
}

impl operator::Scope for Modules {
    fn resolve(&self, file: FileId, path: &[Ident]) -> Option<&ItemKind> {
        let from = self.list.iter().position(|m| m.ast.file == file)?;
        let def = Modules::resolve(self, ModuleId(from), path)?;
        self.item(def).map(|item| &item.kind)
    }
}

macro_rules! static_from {
    ($($from:ty => |$x:ident| $to:expr),* $(,)?) => {
        $(impl From<$from> for core::Static { fn from($x: $from) -> Self { $to } })*
    };
}
static_from! {
    i32 => |x| core::Static::Int(x.into()),
    i64 => |x| core::Static::Int(x),
    f64 => |x| core::Static::Real(x),
    bool => |x| core::Static::Bool(x),
}
