//! Diagnostics for people and for programs.

use super::{Diagnostic, Severity};
use crate::syntax::ast::{SourceMap, Span};
use codespan_reporting::diagnostic as codespan;
use codespan_reporting::files::SimpleFiles;
use codespan_reporting::term::{self, termcolor};
use serde::Serialize;

/// Source excerpts with underlined spans, as a terminal shows them.
///
/// `colour` adds ANSI escapes; the caller decides (a terminal without `NO_COLOR`).
/// Spans outside their file, and files not in `sources`, are left out: the
/// message is shown without its excerpt.
pub fn human(sources: &SourceMap, diagnostics: &[Diagnostic], colour: bool) -> String {
    let mut files = SimpleFiles::new();
    for source in &sources.files {
        files.add(source.name.as_str(), source.text.as_str());
    }
    let config = term::Config {
        tab_width: 4,
        ..term::Config::default()
    };
    let mut buffer = if colour {
        termcolor::Buffer::ansi()
    } else {
        termcolor::Buffer::no_color()
    };
    for diagnostic in diagnostics {
        let converted = convert(sources, diagnostic);
        let styles = term::Styles::default();
        let mut writer = term::StylesWriter::new(&mut buffer, &styles);
        if term::emit_to_write_style(&mut writer, &config, &files, &converted).is_err() {
            // Writing to memory does not fail and spans were checked; should the
            // excerpt be impossible all the same, the message is still shown.
            let plain = format!("{}\n", one_line(diagnostic));
            std::io::Write::write_all(&mut buffer, plain.as_bytes()).ok();
        }
    }
    String::from_utf8_lossy(buffer.as_slice()).into_owned()
}

fn one_line(diagnostic: &Diagnostic) -> String {
    let severity = severity_name(diagnostic.severity());
    format!(
        "{severity}[{}]: {}",
        diagnostic.code.as_str(),
        diagnostic.message
    )
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn convert(sources: &SourceMap, diagnostic: &Diagnostic) -> codespan::Diagnostic<usize> {
    let severity = match diagnostic.severity() {
        Severity::Warning => codespan::Severity::Warning,
        Severity::Error => codespan::Severity::Error,
    };
    let primary = std::iter::once((codespan::LabelStyle::Primary, &diagnostic.primary));
    let secondary = diagnostic
        .secondary
        .iter()
        .map(|l| (codespan::LabelStyle::Secondary, l));
    let labels = primary.chain(secondary).filter_map(|(style, label)| {
        let range = excerpt(sources, label.span)?;
        let file = label.span.file.0 as usize;
        // A file that could not be read has nothing to show.
        if sources.files[file].text.is_empty() {
            return None;
        }
        Some(codespan::Label::new(style, file, range).with_message(&label.message))
    });
    codespan::Diagnostic::new(severity)
        .with_code(diagnostic.code.as_str())
        .with_message(&diagnostic.message)
        .with_labels(labels.collect())
        .with_notes(
            diagnostic
                .help
                .iter()
                .map(|help| format!("help: {help}"))
                .collect(),
        )
}

/// The bytes of a span, if its file is known and holds them.
fn excerpt(sources: &SourceMap, span: Span) -> Option<std::ops::Range<usize>> {
    let text = &sources.files.get(span.file.0 as usize)?.text;
    let range = span.start as usize..span.end as usize;
    text.get(range.clone()).map(|_| range)
}

/// One line of JSON per diagnostic (`--message-format json`).
///
/// Stable fields: `code`, `severity` (`error` or `warning`), `message`, `help`
/// (string or null) and `spans`, the primary one first. Each span has `file`,
/// `primary`, `label`, and `start` and `end` (exclusive), each with `byte` (from
/// 0), `line` and `column` (from 1; columns count characters).
pub fn json(sources: &SourceMap, diagnostics: &[Diagnostic]) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        let primary = std::iter::once((true, &diagnostic.primary));
        let labels = primary.chain(diagnostic.secondary.iter().map(|l| (false, l)));
        let line = JsonDiagnostic {
            code: diagnostic.code.as_str(),
            severity: severity_name(diagnostic.severity()),
            message: &diagnostic.message,
            help: diagnostic.help.as_deref(),
            spans: labels
                .filter_map(|(primary, label)| {
                    let range = excerpt(sources, label.span)?;
                    let source = &sources.files[label.span.file.0 as usize];
                    Some(JsonSpan {
                        file: &source.name,
                        primary,
                        label: &label.message,
                        start: position(&source.text, range.start),
                        end: position(&source.text, range.end),
                    })
                })
                .collect(),
        };
        // Strings and numbers only: serialising cannot fail.
        out.push_str(&serde_json::to_string(&line).unwrap_or_else(|_| one_line(diagnostic)));
        out.push('\n');
    }
    out
}

#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    code: &'a str,
    severity: &'a str,
    message: &'a str,
    help: Option<&'a str>,
    spans: Vec<JsonSpan<'a>>,
}

#[derive(Serialize)]
struct JsonSpan<'a> {
    file: &'a str,
    primary: bool,
    label: &'a str,
    start: Position,
    end: Position,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Bytes from the start of the file.
    pub byte: usize,
    /// Line, from 1.
    pub line: usize,
    /// Characters from the line's start, from 1.
    pub column: usize,
}

/// Line and column of a byte offset (clamped to the text).
pub fn position(text: &str, byte: usize) -> Position {
    let byte = byte.min(text.len());
    let before = &text.as_bytes()[..byte];
    let line_start = before
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |n| n + 1);
    // Count characters by their first bytes.
    let column = before[line_start..]
        .iter()
        .filter(|&&b| b & 0xC0 != 0x80)
        .count()
        + 1;
    Position {
        byte,
        line: before.iter().filter(|&&b| b == b'\n').count() + 1,
        column,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Code;
    use crate::syntax::ast::FileId;

    fn sample() -> (SourceMap, Diagnostic) {
        let mut sources = SourceMap::default();
        let file = sources.add("a.dnet", "let é = 1\nlet b = tanh(é)\n");
        let span = |start, end| Span { file, start, end };
        let diagnostic = Diagnostic::new(
            Code::E0301,
            "`tanh` on a linear value",
            span(19, 23),
            "not linear",
        )
        .also(span(4, 6), "linear since here")
        .help("apply it before the mixer");
        (sources, diagnostic)
    }

    #[test]
    fn human_text() {
        let (sources, diagnostic) = sample();
        insta::assert_snapshot!(human(&sources, &[diagnostic], false), @r"
        error[E0301]: `tanh` on a linear value
          ┌─ a.dnet:2:9
          │
        1 │ let é = 1
          │     - linear since here
        2 │ let b = tanh(é)
          │         ^^^^ not linear
          │
          = help: apply it before the mixer
        ");
    }

    #[test]
    fn colour_is_the_callers_choice() {
        let (sources, diagnostic) = sample();
        assert!(human(&sources, std::slice::from_ref(&diagnostic), true).contains("\x1b["));
        assert!(!human(&sources, &[diagnostic], false).contains('\x1b'));
    }

    #[test]
    fn json_lines() {
        let (sources, diagnostic) = sample();
        let value: serde_json::Value =
            serde_json::from_str(&json(&sources, &[diagnostic])).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&value["spans"][1]).unwrap(), @r#"
        {
          "file": "a.dnet",
          "primary": false,
          "label": "linear since here",
          "start": {
            "byte": 4,
            "line": 1,
            "column": 5
          },
          "end": {
            "byte": 6,
            "line": 1,
            "column": 6
          }
        }
        "#);
        let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["code", "severity", "message", "help", "spans"]);
        assert_eq!(value["spans"][0]["primary"], true);
    }

    #[test]
    fn spans_that_do_not_exist_are_left_out() {
        let (sources, _) = sample();
        for (file, start, end) in [(7, 0, 0), (0, 5, 6), (0, 9, 3), (0, 20, 999)] {
            let span = Span {
                file: FileId(file),
                start,
                end,
            };
            let diagnostic = Diagnostic::new(Code::E0003, "gone", span, "");
            assert_eq!(
                human(&sources, std::slice::from_ref(&diagnostic), false),
                "error[E0003]: gone\n\n"
            );
            assert!(json(&sources, &[diagnostic]).contains("\"spans\":[]"));
        }
    }
}
