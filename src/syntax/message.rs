//! Syntax errors in words.

use super::ast::FileId;
use super::grammar::Rule;
use super::parser::span;
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
pub const KEYWORDS: [&str; 27] = [
    "use", "const", "fn", "mixer", "network", "full", "operator", "let", "var", "param", "repeat",
    "if", "else", "return", "for", "in", "where", "term", "as", "and", "or", "not", "true",
    "false", "shared", "per", "self",
];

const ASSIGN: &str = "`=`, `+=`";
const ITEM: &str = "an item (`use`, `const`, `fn`, `mixer`, `network`, `operator`)";

/// E0001 for text before the first item.
pub(super) fn stray(text: &str, file: FileId, at: usize) -> Diagnostic {
    describe(text, file, at, text.len(), &[ITEM])
}

/// E0001 for the text of one item, `start..end` of `text`.
pub(super) fn syntax_error(
    text: &str,
    file: FileId,
    start: usize,
    end: usize,
    error: &Error<Rule>,
) -> Diagnostic {
    let (InputLocation::Pos(at) | InputLocation::Span((at, _))) = error.location;
    match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => {
            describe(text, file, start + at, end, &expected(positives))
        }
        // The grammar library's own limits (stack space).
        ErrorVariant::CustomError { message } => Diagnostic::new(
            Code::E0002,
            message.clone(),
            span(file, start + at, start + at),
            "",
        ),
    }
}

fn describe(text: &str, file: FileId, at: usize, end: usize, expected: &[&str]) -> Diagnostic {
    let found = token_at(text, at, end);
    // At the end, point behind the last token, not at the blanks that follow it.
    let at = if found.is_empty() {
        text[..at].trim_end().len()
    } else {
        at
    };
    let label = if expected.is_empty() {
        "not expected here".to_string()
    } else {
        format!("expected {}", list(expected))
    };
    let error = |message: String, label: String| {
        Diagnostic::new(
            Code::E0001,
            message,
            span(file, at, at + found.len()),
            label,
        )
    };
    let wants_name = expected.contains(&"a name");
    if RESERVED.contains(&found) {
        return error(
            format!("`{found}` is reserved for a later version of the language"),
            "reserved word".to_string(),
        )
        .help("choose another name");
    }
    if KEYWORDS.contains(&found) && wants_name {
        return error(
            format!("`{found}` is a keyword and cannot be used as a name"),
            label,
        )
        .help(format!("rename it, e.g. `{found}_`"));
    }
    if found.is_empty() {
        let what = if end == text.len() {
            "unexpected end of file"
        } else {
            "unexpected end of the item"
        };
        return error(what.to_string(), label);
    }
    if found.starts_with('"') && (found.len() == 1 || !found.ends_with('"')) {
        return error(
            "string is not closed on its line".to_string(),
            "starts here".to_string(),
        );
    }
    let starts_number = found.as_bytes()[0].is_ascii_digit();
    let problem = if starts_number
        && !found.bytes().all(|b| b.is_ascii_digit())
        && wants_expression(expected)
    {
        format!("malformed number `{found}`")
    } else {
        format!("unexpected `{}`", found.escape_debug())
    };
    let error = error(problem, label);
    let previous = if expected.contains(&ASSIGN) {
        word_before(text, at)
    } else {
        ""
    };
    match hint(found, &text[at..end], expected).or_else(|| hint(previous, "", expected)) {
        Some(hint) => error.help(hint),
        None => error,
    }
}

fn word_before(text: &str, at: usize) -> &str {
    let before = text[..at].trim_end();
    let length = before.bytes().rev().take_while(|&b| is_word(b)).count();
    &before[before.len() - length..]
}

fn wants_expression(expected: &[&str]) -> bool {
    expected.contains(&"an expression")
}

/// What the author probably wanted, from habits of other languages.
fn hint(found: &str, rest: &str, expected: &[&str]) -> Option<&'static str> {
    Some(match found {
        ";" => "statements need no `;`: remove it",
        "*" if wants_expression(expected) => "powers are written with `^`",
        "&" => "write `and`",
        "|" if rest.starts_with("||") => "write `or`; the pipe is `|>`",
        "|" => "the pipe is written `|>`",
        "!" => "write `not`",
        "#" => "comments begin with `//`",
        "'" => "strings are written with double quotes",
        "." if wants_expression(expected) => "a number needs a digit before the dot",
        "." => "a number needs a digit after the dot, and names are joined with `::`",
        "=" if rest.starts_with("==") => "a statement assigns with a single `=`",
        "-" if rest.starts_with("-=") => "write `x += -(...)`",
        "def" | "func" | "function" => "functions begin with `fn`",
        "import" | "from" => "imports are written `use module::{name}`",
        "while" => "loops have a static number of turns: `repeat n { .. }`",
        "for" => "loops are written `repeat n { .. }`; `for` is for operators",
        _ => return None,
    })
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

/// The distinct things the grammar would have accepted, in its order.
fn expected(rules: &[Rule]) -> Vec<&'static str> {
    let mut words: Vec<&str> = Vec::new();
    for word in rules.iter().filter_map(|rule| in_words(*rule)) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    // A statement or an expression says it all: drop what they may begin with.
    if words.contains(&"a statement") {
        words.retain(|w| !matches!(*w, "a name" | "`(`" | "`[`"));
    }
    if words.contains(&"an expression") {
        words.retain(|w| !matches!(*w, "a name" | "`(`" | "`[`"));
    }
    words
}

fn list(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_string(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

fn in_words(rule: Rule) -> Option<&'static str> {
    use Rule::*;
    Some(match rule {
        name | use_name | fn_param | path | use_path | pipe_target | tuple_pattern | key | role => {
            "a name"
        }
        expr | number | string | bool | call | group | list | if_expr | sum_loop | prefix | arg
        | offset | window | condition => "an expression",
        infix | pipe_op | pipe | less => "an operator",
        assign_op => ASSIGN,
        kw_param => "a statement",
        kw_term => "`term`",
        kw_for => "`for`",
        let_stmt | var_stmt | param_stmt | repeat_stmt | if_stmt | return_stmt | assign_stmt => {
            "a statement"
        }
        op_let | op_term | op_for | op_if => "a term (`for`, `term`, `let`, `if`)",
        bonds_domain | pairs_domain | range_domain | sites_domain => {
            "a loop (`i`, `i < j`, `i in a..b`, `(i, j) in bonds(k)`)"
        }
        EOI => "the next item",
        use_item | const_item | fn_item | mixer_item | network_item | operator_item | one_item
        | file => ITEM,
        kw_use => "`use`",
        kw_const => "`const`",
        kw_fn => "`fn`",
        kw_mixer => "`mixer`",
        kw_network => "`network`",
        kw_operator => "`operator`",
        kw_as | label | repeat_label => "`as`",
        kw_on | lattice => "`on`",
        kw_in | param_range | repeat_from => "`in`",
        kw_of => "`of`",
        kw_per | per => "`per`",
        kw_where => "`where`",
        kw_bonds => "`bonds`",
        kw_else => "`else`",
        shared_mark => "`shared`",
        open_paren | params | args => "`(`",
        close_paren => "`)`",
        open_bracket | shape => "`[`",
        close_bracket => "`]`",
        open_brace | block | op_block | use_names => "`{`",
        close_brace => "`}`",
        comma => "`,`",
        colon => "`:`",
        path_sep => "`::`",
        equals | param_default => "`=`",
        body => "`=`, `{`",
        until_op => "`..`",
        range_op => "`..=`",
        lattice_kind => "`chain`, `square`",
        mixer_class => "a class (`stencil`, `state_space`, `toeplitz`, `dense`)",
        static_type => "a type (`nat`, `int`, `real`, `bool`)",
        index_set => "`site`, `displacement`, `momentum`, `pair`",
        scalar | value_type => "`real`, `complex`",
        annotation | value_kind | plain_kind | local_kind | kw_local => "a kind or a type",
        corner | axis_windows => "`(`",
        // Silent rules, never reported; words that only lead into the above.
        _ => return None,
    })
}
