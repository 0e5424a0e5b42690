//! Modules: which file a name comes from.
//!
//! A program is a set of modules: the files given by the user, the files they
//! `use self::...`, and the modules of the embedded standard library. Every
//! module has a flat scope of its own items and of what it imports.

use crate::diag::{Code, Diagnostic};
use crate::syntax::ast::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The embedded standard library: module name, display name, text.
pub const STDLIB: &[(&str, &str, &str)] = &[
    (
        "init",
        "<std>/init.dnet",
        include_str!("../../stdlib/init.dnet"),
    ),
    ("nn", "<std>/nn.dnet", include_str!("../../stdlib/nn.dnet")),
    (
        "mixers",
        "<std>/mixers.dnet",
        include_str!("../../stdlib/mixers.dnet"),
    ),
    (
        "operators",
        "<std>/operators.dnet",
        include_str!("../../stdlib/operators.dnet"),
    ),
];

/// Index of a module in [`Modules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(pub usize);

/// What a name in a module's scope stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Def {
    /// Item `index` of a module.
    Item(ModuleId, usize),
    /// A whole module, used as `nn::dense`.
    Module(ModuleId),
}

/// A name in scope and where it was introduced.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it stands for.
    pub def: Def,
    /// The definition, or the name in the `use`.
    pub span: Span,
    /// Introduced by a `use`.
    pub imported: bool,
}

/// One loaded module.
#[derive(Clone, Debug)]
pub struct ModuleData {
    /// Its tree.
    pub ast: Module,
    /// Names visible at its top level.
    pub scope: HashMap<String, Entry>,
    /// Belongs to the standard library.
    pub std: bool,
    dir: Option<PathBuf>,
}

/// All modules of a program.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// Source texts.
    pub sources: SourceMap,
    /// Modules in load order.
    pub list: Vec<ModuleData>,
    by_key: HashMap<String, ModuleId>,
    loading: Vec<String>,
}

impl Modules {
    /// The module with this id.
    pub fn get(&self, id: ModuleId) -> &ModuleData {
        &self.list[id.0]
    }

    /// The item a definition points to.
    pub fn item(&self, def: Def) -> Option<&Item> {
        match def {
            Def::Item(m, k) => Some(&self.list[m.0].ast.items[k]),
            Def::Module(_) => None,
        }
    }

    /// Whether a span lies in the standard library.
    pub fn in_std(&self, span: Span) -> bool {
        self.sources.files[span.file.0 as usize]
            .name
            .starts_with("<std>")
    }

    /// Loads a module from text; `dir` is where its `use self::` files live.
    /// Every problem found goes to `diags`.
    pub fn load(
        &mut self,
        name: &str,
        text: &str,
        dir: Option<&Path>,
        diags: &mut Vec<Diagnostic>,
    ) -> Option<ModuleId> {
        self.load_keyed(
            &format!("file {name}"),
            name,
            text,
            dir.map(Path::to_owned),
            false,
            diags,
        )
    }

    fn load_keyed(
        &mut self,
        key: &str,
        name: &str,
        text: &str,
        dir: Option<PathBuf>,
        std: bool,
        diags: &mut Vec<Diagnostic>,
    ) -> Option<ModuleId> {
        let file = self.sources.add(name, text);
        let ast = match crate::syntax::parse(&self.sources, file) {
            Ok(ast) => ast,
            Err(errors) => {
                diags.extend(errors);
                return None;
            }
        };
        self.loading.push(key.to_owned());
        let scope = self.build_scope(&ast, dir.as_deref(), diags);
        self.loading.pop();
        let id = ModuleId(self.list.len());
        // Items refer to their own module, whose id is only known now.
        let mut scope = scope;
        for (index, item) in ast.items.iter().enumerate() {
            let Some(ident) = item_name(item) else {
                continue;
            };
            let entry = Entry {
                def: Def::Item(id, index),
                span: ident.span,
                imported: false,
            };
            if super::builtins::is_reserved_function(&ident.name) {
                diags.push(
                    Diagnostic::new(
                        Code::E0102,
                        format!("`{}` is a primitive of the language", ident.name),
                        ident.span,
                        "defined again here",
                    )
                    .help("choose another name"),
                );
            } else if let Some(first) = scope.insert(ident.name.clone(), entry) {
                diags.push(
                    Diagnostic::new(
                        Code::E0102,
                        format!("`{}` is defined twice", ident.name),
                        ident.span,
                        "defined again here",
                    )
                    .also(first.span, "first defined here")
                    .help("rename one of the two"),
                );
                scope.insert(ident.name.clone(), first);
            }
        }
        self.list.push(ModuleData {
            ast,
            scope,
            std,
            dir,
        });
        self.by_key.insert(key.to_owned(), id);
        Some(id)
    }

    fn build_scope(
        &mut self,
        ast: &Module,
        dir: Option<&Path>,
        diags: &mut Vec<Diagnostic>,
    ) -> HashMap<String, Entry> {
        let mut scope: HashMap<String, Entry> = HashMap::new();
        for item in &ast.items {
            let ItemKind::Use(used) = &item.kind else {
                continue;
            };
            let (path, names) = self.split_use(used, dir);
            let span = path[0].span.to(path[path.len() - 1].span);
            let Some(module) = self.find_module(path, span, dir, diags) else {
                continue;
            };
            let mut add = |ident: &Ident, name: &str, def: Def, diags: &mut Vec<Diagnostic>| {
                let entry = Entry {
                    def,
                    span: ident.span,
                    imported: true,
                };
                if let Some(first) = scope.get(name) {
                    if first.def != def {
                        diags.push(
                            Diagnostic::new(
                                Code::E0102,
                                format!("`{name}` is imported twice"),
                                ident.span,
                                "imported again here",
                            )
                            .also(first.span, "first imported here")
                            .help("rename one of them with `as`"),
                        );
                    }
                    return;
                }
                scope.insert(name.to_owned(), entry);
            };
            if names.is_empty() {
                let last = &path[path.len() - 1];
                add(last, &last.name, Def::Module(module), diags);
            }
            for (name, renamed) in &names {
                let found = self.list[module.0]
                    .scope
                    .get(&name.name)
                    .filter(|e| !e.imported)
                    .map(|e| e.def);
                match found {
                    Some(def) => {
                        let new = renamed.as_ref().unwrap_or(name);
                        add(new, &new.name, def, diags);
                    }
                    None => {
                        let have = self.list[module.0]
                            .scope
                            .iter()
                            .filter(|(_, e)| !e.imported)
                            .map(|(n, _)| n.as_str());
                        diags.push(with_suggestion(
                            Diagnostic::new(
                                Code::E0101,
                                format!("module `{}` has no `{}`", path_text(path), name.name),
                                name.span,
                                "not found",
                            ),
                            &name.name,
                            have,
                        ));
                    }
                }
            }
        }
        scope
    }

    /// The module part of a `use` and the names taken from it: in
    /// `use std::nn::dense` the last segment is a name, in `use std::nn` it is
    /// the module itself.
    fn split_use<'u>(
        &self,
        used: &'u Use,
        dir: Option<&Path>,
    ) -> (&'u [Ident], Vec<(Ident, Option<Ident>)>) {
        let path = &used.path[..];
        let n = path.len();
        if !used.names.is_empty() || n < 3 {
            return (path, used.names.clone());
        }
        let is_module = path[0].name == "self"
            && dir.is_some_and(|d| {
                let file = path[1..].iter().fold(d.to_owned(), |f, s| f.join(&s.name));
                file.with_extension("dnet").exists()
            });
        if is_module {
            (path, Vec::new())
        } else {
            (&path[..n - 1], vec![(path[n - 1].clone(), None)])
        }
    }

    fn find_module(
        &mut self,
        path: &[Ident],
        span: Span,
        dir: Option<&Path>,
        diags: &mut Vec<Diagnostic>,
    ) -> Option<ModuleId> {
        let (key, name, text, new_dir, std) = match (path[0].name.as_str(), path.len()) {
            ("std", 2) => match STDLIB.iter().find(|m| m.0 == path[1].name) {
                Some((module, name, text)) => (
                    format!("std {module}"),
                    (*name).to_owned(),
                    (*text).to_owned(),
                    None,
                    true,
                ),
                None => {
                    diags.push(with_suggestion(
                        Diagnostic::new(
                            Code::E0003,
                            format!("the standard library has no module `{}`", path[1].name),
                            path[1].span,
                            "not found",
                        ),
                        &path[1].name,
                        STDLIB.iter().map(|m| m.0),
                    ));
                    return None;
                }
            },
            ("self", n) if n >= 2 => {
                let Some(dir) = dir else {
                    diags.push(
                        Diagnostic::new(
                            Code::E0003,
                            "`use self::` needs a file on disk",
                            span,
                            "no directory to look in",
                        )
                        .help("load this source from a file"),
                    );
                    return None;
                };
                let mut file = dir.to_owned();
                for segment in &path[1..n] {
                    file.push(&segment.name);
                }
                file.set_extension("dnet");
                let key = match file.canonicalize() {
                    Ok(real) => format!("file {}", real.display()),
                    Err(_) => format!("file {}", file.display()),
                };
                if let Some(&id) = self.by_key.get(&key) {
                    return Some(id);
                }
                if self.loading.contains(&key) {
                    diags.push(cyclic(path, span));
                    return None;
                }
                let text = std::fs::read(&file)
                    .map_err(|e| e.to_string())
                    .and_then(|bytes| {
                        String::from_utf8(bytes).map_err(|_| "not valid UTF-8".to_owned())
                    });
                match text {
                    Ok(text) => {
                        let parent = file.parent().map(Path::to_owned);
                        (key, file.display().to_string(), text, parent, false)
                    }
                    Err(error) => {
                        diags.push(
                            Diagnostic::new(
                                Code::E0003,
                                format!("cannot read `{}`: {error}", file.display()),
                                span,
                                "used here",
                            )
                            .help("`use self::name` reads `name.dnet` beside this file"),
                        );
                        return None;
                    }
                }
            }
            _ => {
                diags.push(
                    Diagnostic::new(Code::E0003, format!("no module `{}`", path_text(path)), span, "not found")
                        .help("modules are `std::NAME` (the standard library) or `self::NAME` (a file beside this one)"),
                );
                return None;
            }
        };
        if let Some(&id) = self.by_key.get(&key) {
            return Some(id);
        }
        if self.loading.contains(&key) {
            diags.push(cyclic(path, span));
            return None;
        }
        self.load_keyed(&key, &name, &text, new_dir, std, diags)
    }

    /// Loads a file of the user. The key is its canonical path, so that a
    /// `use self::` of the same file finds it.
    pub fn load_file(
        &mut self,
        path: &Path,
        text: &str,
        diags: &mut Vec<Diagnostic>,
    ) -> Option<ModuleId> {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let key = format!("file {}", real.display());
        if let Some(&id) = self.by_key.get(&key) {
            return Some(id);
        }
        let dir = path.parent().map(Path::to_owned);
        // A standard library file checked by name is the module of that name.
        self.load_keyed(&key, &path.display().to_string(), text, dir, false, diags)
    }

    /// Resolves a path from inside a module.
    pub fn resolve(&self, from: ModuleId, path: &[Ident]) -> Option<Def> {
        let mut def = self.list[from.0].scope.get(&path[0].name)?.def;
        for segment in &path[1..] {
            let Def::Module(m) = def else { return None };
            let entry = self.list[m.0].scope.get(&segment.name)?;
            if entry.imported {
                return None;
            }
            def = entry.def;
        }
        Some(def)
    }

    /// The library module that defines a name, if any.
    pub fn std_home(&self, name: &str) -> Option<&'static str> {
        let heads = ["fn ", "mixer ", "operator ", "network ", "const "];
        STDLIB.iter().find_map(|(module, _, text)| {
            let found = text.lines().any(|line| {
                heads.iter().any(|h| {
                    line.strip_prefix(h).is_some_and(|rest| {
                        rest.strip_prefix(name)
                            .is_some_and(|r| r.starts_with(['(', ' ']))
                    })
                })
            });
            found.then_some(*module)
        })
    }

    /// The directory a module's relative files live in.
    pub fn dir(&self, id: ModuleId) -> Option<&Path> {
        self.list[id.0].dir.as_deref()
    }
}

fn cyclic(path: &[Ident], span: Span) -> Diagnostic {
    Diagnostic::new(
        Code::E0104,
        format!("`{}` uses itself", path_text(path)),
        span,
        "this closes the cycle",
    )
    .help("move what both files need into a third")
}

/// The name an item defines.
pub fn item_name(item: &Item) -> Option<&Ident> {
    match &item.kind {
        ItemKind::Use(_) => None,
        ItemKind::Const(c) => Some(&c.name),
        ItemKind::Fn(f) => Some(&f.name),
        ItemKind::Mixer(m) => Some(&m.name),
        ItemKind::Network(n) => Some(&n.name),
        ItemKind::Operator(o) => Some(&o.name),
    }
}

/// `std::nn`
pub fn path_text(path: &[Ident]) -> String {
    path.iter()
        .map(|p| p.name.as_str())
        .collect::<Vec<_>>()
        .join("::")
}

/// Adds "did you mean" where a known name is close.
pub fn with_suggestion<'a>(
    diagnostic: Diagnostic,
    name: &str,
    known: impl Iterator<Item = &'a str>,
) -> Diagnostic {
    // Names of one or two letters resemble too much.
    let limit = match name.chars().count() {
        0..=2 => 0,
        n => 1 + n / 4,
    };
    let best = known
        .map(|k| (edit_distance(name, k), k))
        .filter(|(d, _)| *d <= limit)
        .min();
    match best {
        Some((_, k)) => diagnostic.help(format!("did you mean `{k}`?")),
        None => diagnostic,
    }
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let cost = if ca.eq_ignore_ascii_case(cb) {
                diagonal
            } else {
                diagonal + 1
            };
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
