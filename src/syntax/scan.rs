//! One pass over the bytes of a file before the grammar runs: comments,
//! nesting depth, and where items begin.
//!
//! The grammar is run item by item. That bounds its memory by the largest
//! item and lets one file report a syntax error in each of its items.

/// Words that begin an item. All are reserved, so outside comments and strings
/// they stand nowhere else (`const` also in annotations, `network` after `full`).
const ITEM_WORDS: [&[u8]; 7] = [
    b"use",
    b"const",
    b"fn",
    b"mixer",
    b"network",
    b"full",
    b"operator",
];

/// What [`scan`] finds. Offsets are in bytes.
#[derive(Debug, Default)]
pub struct Scan {
    /// Half-open ranges of comments, in order.
    pub comments: Vec<(usize, usize)>,
    /// Starts of items, in order.
    pub items: Vec<usize>,
    /// First byte that is neither blank nor comment, if not the first item.
    pub stray: Option<usize>,
    /// First bracket nested deeper than allowed; the scan stops there.
    pub too_deep: Option<usize>,
    /// Brackets left open when an item ended: (index into `items`, position).
    pub unclosed: Vec<(usize, usize)>,
}

/// Scans `text`; `max_depth` is the largest allowed nesting of brackets.
pub fn scan(text: &str, max_depth: usize) -> Scan {
    let bytes = text.as_bytes();
    let mut out = Scan::default();
    let mut open: Vec<usize> = Vec::new(); // positions
    let mut line_is_blank = true;
    let mut after_full = false;
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match byte {
            b'\n' => line_is_blank = true,
            b' ' | b'\t' | b'\r' => {}
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                let end = line_end(bytes, at);
                out.comments
                    .push((at, trim_carriage_return(bytes, at, end)));
                at = end;
                continue;
            }
            b'"' => {
                // An unterminated string ends with its line.
                let rest = &bytes[at + 1..];
                let length = rest.iter().position(|&b| b == b'"' || b == b'\n');
                at = length.map_or(bytes.len(), |n| at + 1 + n + usize::from(rest[n] == b'"'));
                (line_is_blank, after_full) = (false, false);
                continue;
            }
            b'(' | b'[' | b'{' => {
                if open.len() == max_depth {
                    out.too_deep = Some(at);
                    return out;
                }
                open.push(at);
                (line_is_blank, after_full) = (false, false);
            }
            b')' | b']' | b'}' => {
                // A bracket of another kind in between was left open.
                let opener = if byte == b')' { b'(' } else { byte - 2 };
                if let Some(partner) = open.iter().rposition(|&at| bytes[at] == opener) {
                    if let Some(&position) = open.get(partner + 1) {
                        out.unclosed
                            .push((out.items.len().saturating_sub(1), position));
                    }
                    open.truncate(partner);
                }
                (line_is_blank, after_full) = (false, false);
            }
            _ if is_word(byte) => {
                let end = at
                    + bytes[at..]
                        .iter()
                        .position(|&b| !is_word(b))
                        .unwrap_or(bytes.len() - at);
                let word = &bytes[at..end];
                let begins_item = ITEM_WORDS.contains(&word)
                    && !(word == b"network" && after_full)
                    // Inside brackets only at the start of a line: then a bracket
                    // was left open, and the rest of the file can still be read.
                    && (open.is_empty() || (line_is_blank && word != b"const"));
                if begins_item {
                    if let Some(&position) = open.last() {
                        out.unclosed
                            .push((out.items.len().saturating_sub(1), position));
                    }
                    open.clear();
                    out.items.push(at);
                } else if out.items.is_empty() {
                    out.stray.get_or_insert(at);
                }
                after_full = word == b"full";
                line_is_blank = false;
                at = end;
                continue;
            }
            _ => (line_is_blank, after_full) = (false, false),
        }
        if out.items.is_empty() && !byte.is_ascii_whitespace() {
            out.stray.get_or_insert(at);
        }
        at += 1;
    }
    if let Some(&position) = open.last() {
        out.unclosed
            .push((out.items.len().saturating_sub(1), position));
    }
    out
}

/// Whether a byte belongs to names and keywords.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..]
        .iter()
        .position(|&b| b == b'\n')
        .map_or(bytes.len(), |n| from + n)
}

fn trim_carriage_return(bytes: &[u8], start: usize, end: usize) -> usize {
    if end > start && bytes[end - 1] == b'\r' {
        end - 1
    } else {
        end
    }
}
