//! Names and comments of emitted text.
//!
//! Whatever comes from a `.dnet` file passes through here: identifiers keep
//! lower-case letters, digits and underscores and carry a number that makes them
//! unique; comments keep a small set of characters that cannot end a comment or
//! continue a line. Nothing else of a file reaches the text.

use std::fmt;

/// Longest part of a user's name in an identifier.
const MAX_NAME: usize = 40;

/// Longest comment in characters.
const MAX_COMMENT: usize = 160;

/// An identifier of the emitted text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// `prefix` and a number: `map_3`.
    pub fn numbered(prefix: &'static str, number: usize) -> Name {
        Name(format!("{prefix}{number}"))
    }
    /// A template with numbers: `fourier_stage<5, 500>`.
    pub fn instance(template: &'static str, numbers: &[i64]) -> Name {
        let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
        Name(format!("{template}<{}>", numbers.join(", ")))
    }
    /// `prefix`, a number and what is harmless of a user's name: `b3_block_0_gate`.
    pub fn mangled(prefix: &'static str, number: usize, user: &str) -> Name {
        let mut name = format!("{prefix}{number}");
        let mut gap = true;
        for c in user.chars().take(MAX_NAME) {
            if c.is_ascii_alphanumeric() {
                if gap {
                    name.push('_');
                }
                name.push(c.to_ascii_lowercase());
                gap = false;
            } else {
                gap = true;
            }
        }
        Name(name)
    }
}

impl From<&'static str> for Name {
    fn from(text: &'static str) -> Name {
        Name(text.to_owned())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// So many of something: `1 row`, `14 rows`.
pub fn counted(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// One line of comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment(String);

impl Comment {
    /// What is harmless of a text, on one line; everything else becomes `_`.
    pub fn new(text: impl AsRef<str>) -> Comment {
        let harmless = |c: char| c.is_ascii_alphanumeric() || " _.,:;+-=()[]<>|%$@/".contains(c);
        let mut line: String = text
            .as_ref()
            .chars()
            .take(MAX_COMMENT + 1)
            .map(|c| if harmless(c) { c } else { '_' })
            .collect();
        if line.len() > MAX_COMMENT {
            line.truncate(MAX_COMMENT);
            line.push_str(" ...");
        }
        Comment(line)
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: [&str; 6] = [
        "x\n#include </etc/passwd>",
        "*/ system(\"rm\"); /*",
        "ends in a backslash \\",
        "trigraph ??/",
        "\u{2028}\r\0\u{202e}",
        "\"; __asm__(\"trap\");//",
    ];

    #[test]
    fn identifiers_are_identifiers() {
        for user in HOSTILE {
            let name = Name::mangled("b", 7, user).to_string();
            assert!(name.starts_with("b7"));
            let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(fine), "{name}");
        }
        assert_eq!(
            Name::mangled("b", 1, "block_0/gate").to_string(),
            "b1_block_0_gate"
        );
    }

    #[test]
    fn comments_stay_on_their_line() {
        for user in HOSTILE {
            let text = Comment::new(user).to_string();
            assert!(
                !text.contains(['\n', '\r', '\\', '*', '"', '?', '#', '\0']),
                "{text}"
            );
            assert!(text.is_ascii());
        }
    }
}
