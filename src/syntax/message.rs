//! Syntax errors in words.

use super::ast::FileId;
use super::parser::{Rule, span};
use super::scan::is_word;
use crate::diag::{Code, Diagnostic};
use pest::error::{Error, ErrorVariant, InputLocation};

/// Words reserved for later versions.
pub const RESERVED: [&str; 6] = [
    "autoregressive",
    "cell",
    "recur",
    "conditional",
    "stack",
    "sample",
];
/// Words of the language that cannot be names.
pub const KEYWORDS: [&str; 28] = [
    "use", "const", "fn", "mixer", "network", "full", "operator", "let", "var", "param", "repeat",
    "if", "else", "return", "for", "in", "where", "term", "as", "and", "or", "not", "true",
    "false", "shared", "per", "self", "on",
];

/// E0001 for text before the first item.
pub(super) fn stray(text: &str, file: FileId, at: usize) -> Diagnostic {
    let found = token_at(text, at, text.len());
    at_token(
        text,
        file,
        at,
        found,
        "an item (`use`, `const`, `fn`, `mixer`, `network`, `operator`)",
    )
}

/// E0001 for the text of one item, `start..end` of `text`.
pub(super) fn syntax_error(
    text: &str,
    file: FileId,
    start: usize,
    end: usize,
    error: &Error<Rule>,
) -> Diagnostic {
    let at = start
        + match error.location {
            InputLocation::Pos(at) => at,
            InputLocation::Span((at, _)) => at,
        };
    let expected = match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => expected(positives),
        ErrorVariant::CustomError { message } => message.clone(),
    };
    let found = token_at(text, at, end);
    at_token(text, file, at, found, &expected)
}

fn at_token(text: &str, file: FileId, at: usize, found: &str, expected: &str) -> Diagnostic {
    let place = span(file, at, at + found.len());
    let here = if expected.is_empty() {
        "not expected here".to_string()
    } else {
        format!("expected {expected}")
    };
    if RESERVED.contains(&found) {
        let message = format!("`{found}` is reserved for a later version of the language");
        return Diagnostic::new(Code::E0001, message, place, "reserved word")
            .help("choose another name");
    }
    if KEYWORDS.contains(&found) && expected.contains("a name") {
        let message = format!("`{found}` is a keyword and cannot be used as a name");
        return Diagnostic::new(Code::E0001, message, place, here)
            .help(format!("rename it, e.g. `{found}_`"));
    }
    let what = match found {
        "" if at >= text.len() => "unexpected end of file".to_string(),
        "" => "unexpected end of the item".to_string(),
        _ if found.starts_with('"') && !(found.len() > 1 && found.ends_with('"')) => {
            return Diagnostic::new(
                Code::E0001,
                "string is not closed on its line",
                place,
                "starts here",
            );
        }
        _ => format!("unexpected `{found}`"),
    };
    Diagnostic::new(Code::E0001, what, place, here)
}

/// The token starting at `at`: a word, a string, or one character.
fn token_at(text: &str, at: usize, end: usize) -> &str {
    let rest = &text[at..end];
    let Some(first) = rest.chars().next() else {
        return "";
    };
    if first == '"' {
        let line = rest.lines().next().unwrap_or("");
        return line[1..].find('"').map_or(line, |n| &line[..n + 2]);
    }
    if first.is_ascii() && is_word(first as u8) {
        let length = rest.bytes().position(|b| !is_word(b)).unwrap_or(rest.len());
        return &rest[..length];
    }
    &rest[..first.len_utf8()]
}

fn expected(rules: &[Rule]) -> String {
    let mut words: Vec<&str> = rules.iter().filter_map(|r| rule_words(*r)).collect();
    words.dedup();
    let mut unique: Vec<&str> = Vec::new();
    for word in words {
        if !unique.contains(&word) {
            unique.push(word);
        }
    }
    match unique.as_slice() {
        [] => String::new(),
        [one] => (*one).to_string(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

fn rule_words(rule: Rule) -> Option<&'static str> {
    Some(match rule {
        Rule::name => "a name",
        Rule::expr | Rule::number | Rule::call | Rule::group | Rule::list | Rule::prefix => {
            "an expression"
        }
        Rule::infix => "an operator",
        Rule::EOI => "the end of the item",
        _ => return None,
    })
}
