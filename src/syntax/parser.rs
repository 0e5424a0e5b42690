//! The parser: a file to a [`Module`].

use super::ast::{Comment, FileId, Item, Module, SourceMap, Span};
use super::build::Builder;
use super::grammar::{Grammar, Rule};
use super::scan::{self, Scan};
use crate::diag::{Code, Diagnostic};
use pest::Parser as _;

/// Largest file, in bytes.
pub const MAX_FILE_SIZE: usize = 16 << 20;
/// Largest single item, in bytes.
pub const MAX_ITEM_SIZE: usize = 1 << 20;
/// Deepest nesting of parentheses, brackets and braces.
pub const MAX_NESTING: usize = 200;
/// Greatest depth of the tree below an item. Stages recurse over the tree, so
/// this bounds the stack they need.
pub const MAX_TREE_DEPTH: usize = 500;
/// Errors reported per file.
const MAX_ERRORS: usize = 20;

/// Turns the bytes of a file into its text.
///
/// A byte order mark at the start is dropped.
///
/// # Errors
/// E0003 if the bytes are not UTF-8, E0002 if there are more than [`MAX_FILE_SIZE`].
/// `file` is the id the source will have; it is used for the span only.
pub fn source_from_bytes(file: FileId, name: &str, bytes: Vec<u8>) -> Result<String, Diagnostic> {
    if bytes.len() > MAX_FILE_SIZE {
        return Err(too_large(file, name, bytes.len()));
    }
    match String::from_utf8(bytes) {
        Ok(mut text) => {
            if text.starts_with('\u{feff}') {
                text.drain(..'\u{feff}'.len_utf8());
            }
            Ok(text)
        }
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..at]
                .iter()
                .filter(|&&b| b == b'\n')
                .count()
                + 1;
            Err(Diagnostic::new(
                Code::E0003,
                format!("`{name}` is not UTF-8 text (line {line}, byte {at})"),
                Span {
                    file,
                    start: 0,
                    end: 0,
                },
                "",
            )
            .help("save the file with the encoding UTF-8"))
        }
    }
}

fn too_large(file: FileId, name: &str, size: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0002,
        format!("`{name}` has {size} bytes, more than the allowed {MAX_FILE_SIZE}"),
        Span {
            file,
            start: 0,
            end: 0,
        },
        "",
    )
    .help("split the file and join the parts with `use self::...`")
}

/// Parses one file.
///
/// # Errors
/// Every syntax error found, at most one per item (E0001), or limits exceeded (E0002), in source order.
pub fn parse(sources: &SourceMap, file: FileId) -> Result<Module, Vec<Diagnostic>> {
    let source = &sources.files[file.0 as usize];
    let text = source.text.as_str();
    if text.len() > MAX_FILE_SIZE {
        return Err(vec![too_large(file, &source.name, text.len())]);
    }
    let scan = scan::scan(text, MAX_NESTING);
    if let Some(at) = scan.too_deep {
        return Err(vec![too_deep(file, at)]);
    }
    let mut errors = Vec::new();
    if let Some(at) = scan.stray {
        errors.push(super::message::stray(text, file, at));
    }
    let comments: Vec<Comment> = scan
        .comments
        .iter()
        .map(|&(start, end)| Comment {
            text: text[start..end].trim_end().to_string(),
            span: span(file, start, end),
        })
        .collect();
    let mut module = Module {
        file,
        docs: module_docs(&comments, &scan),
        items: Vec::new(),
        comments,
    };
    let mut previous_end = 0;
    for (index, &start) in scan.items.iter().enumerate() {
        let end = scan.items.get(index + 1).copied().unwrap_or(text.len());
        match item(text, file, &scan, start, end) {
            Ok(mut item) => {
                item.docs = item_docs(&module.comments, previous_end, start);
                previous_end = item.span.end as usize;
                module.items.push(item);
            }
            Err(mut error) => {
                previous_end = start;
                let unclosed = scan.unclosed.iter().find(|(owner, _)| *owner == index);
                if let (Some(&(_, position)), Code::E0001) = (unclosed, error.code) {
                    let bracket = &text[position..position + 1];
                    error = error.also(
                        span(file, position, position + 1),
                        format!("this `{bracket}` is never closed"),
                    );
                }
                errors.push(error);
                if errors.len() == MAX_ERRORS {
                    break;
                }
            }
        }
    }
    if errors.is_empty() {
        Ok(module)
    } else {
        Err(errors)
    }
}

fn item(
    text: &str,
    file: FileId,
    scan: &Scan,
    start: usize,
    end: usize,
) -> Result<Item, Diagnostic> {
    if end - start > MAX_ITEM_SIZE {
        let message = format!(
            "this item has {} bytes, more than the allowed {MAX_ITEM_SIZE}",
            end - start
        );
        return Err(Diagnostic::new(
            Code::E0002,
            message,
            span(file, start, start),
            "starts here",
        )
        .help("split it into functions"));
    }
    let slice = &text[start..end];
    match Grammar::parse(Rule::one_item, slice) {
        Ok(pairs) => Builder::new(text, file, start, &scan.comments).item(pairs),
        Err(error) => Err(super::message::syntax_error(text, file, start, end, &error)),
    }
}

fn too_deep(file: FileId, at: usize) -> Diagnostic {
    Diagnostic::new(
        Code::E0002,
        format!("brackets are nested more than {MAX_NESTING} levels deep"),
        span(file, at, at + 1),
        "one level too many",
    )
    .help("name inner parts with `let` or move them into functions")
}

pub(super) fn span(file: FileId, start: usize, end: usize) -> Span {
    // Files have at most 16 MiB: offsets fit.
    Span {
        file,
        start: start as u32,
        end: end as u32,
    }
}

/// `//!` lines before the first item, without the marker and one blank.
fn module_docs(comments: &[Comment], scan: &Scan) -> Vec<String> {
    let first = scan.items.first().copied().unwrap_or(usize::MAX);
    let before = comments
        .iter()
        .take_while(|c| (c.span.start as usize) < first);
    before
        .filter_map(|c| c.text.strip_prefix("//!"))
        .map(without_blank)
        .collect()
}

/// `///` lines between the previous item's end and this item's start.
fn item_docs(comments: &[Comment], from: usize, to: usize) -> Vec<String> {
    let first = comments.partition_point(|c| (c.span.start as usize) < from);
    let last = comments.partition_point(|c| (c.span.start as usize) < to);
    comments[first..last]
        .iter()
        .filter_map(|c| doc_text(&c.text))
        .map(without_blank)
        .collect()
}

fn doc_text(comment: &str) -> Option<&str> {
    // `////...` is a ruler, not documentation.
    comment
        .strip_prefix("///")
        .filter(|rest| !rest.starts_with('/'))
}

fn without_blank(line: &str) -> String {
    line.strip_prefix(' ').unwrap_or(line).to_string()
}
