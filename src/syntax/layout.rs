//! Documents that know where they may be broken, after Wadler's "A prettier
//! printer": a group is written on one line if it fits, else all of its own
//! lines are broken.

/// Columns per level of indentation.
pub const INDENT: usize = 4;
/// Line width aimed at.
pub const WIDTH: usize = 100;

/// A text with possible line breaks.
#[derive(Clone, Debug)]
pub enum Doc {
    /// Text without line breaks.
    Text(String),
    /// A space, or a line break in a broken group.
    Line,
    /// Nothing, or a line break in a broken group.
    Soft,
    /// A line break; breaks every group around it.
    Hard,
    /// An empty line's worth of break: nothing but a line end, never indented.
    Blank,
    /// Only in a broken group.
    IfBroken(&'static str),
    /// One after the other.
    Seq(Vec<Doc>),
    /// Breaks inside are indented one level more.
    Nest(Box<Doc>),
    /// Broken as a whole or not at all.
    Group(Box<Doc>),
}

impl Doc {
    /// A text.
    pub fn text(text: impl Into<String>) -> Doc {
        Doc::Text(text.into())
    }
    /// An empty document.
    pub fn nothing() -> Doc {
        Doc::Seq(Vec::new())
    }
    /// One level deeper.
    pub fn nest(parts: Vec<Doc>) -> Doc {
        Doc::Nest(Box::new(Doc::Seq(parts)))
    }
    /// A group.
    pub fn group(parts: Vec<Doc>) -> Doc {
        Doc::Group(Box::new(Doc::Seq(parts)))
    }
}

#[derive(Clone, Copy)]
struct Entry<'a> {
    indent: usize,
    broken: bool,
    doc: &'a Doc,
}

/// Writes a document, `WIDTH` columns wide, without trailing blanks.
pub fn write(doc: &Doc) -> String {
    let mut out = String::new();
    let mut column = 0;
    let mut stack = vec![Entry {
        indent: 0,
        broken: true,
        doc,
    }];
    while let Some(Entry {
        indent,
        broken,
        doc,
    }) = stack.pop()
    {
        match doc {
            Doc::Text(text) => {
                // Indentation is written with the first text of a line: no
                // trailing blanks.
                if column == 0 && !text.is_empty() {
                    out.extend(std::iter::repeat_n(' ', indent));
                    column = indent;
                }
                out.push_str(text);
                column += text.chars().count();
            }
            Doc::Line if !broken => {
                out.push(' ');
                column += 1;
            }
            Doc::Soft if !broken => {}
            Doc::Line | Doc::Soft | Doc::Hard => {
                out.truncate(out.trim_end_matches(' ').len());
                out.push('\n');
                column = 0;
            }
            Doc::Blank => {
                out.push('\n');
                column = 0;
            }
            Doc::IfBroken(text) => {
                if broken {
                    out.push_str(text);
                    column += text.len();
                }
            }
            Doc::Seq(parts) => stack.extend(parts.iter().rev().map(|doc| Entry {
                indent,
                broken,
                doc,
            })),
            Doc::Nest(inner) => stack.push(Entry {
                indent: indent + INDENT,
                broken,
                doc: inner,
            }),
            Doc::Group(inner) => {
                let flat = Entry {
                    indent,
                    broken: false,
                    doc: inner,
                };
                let used = if column == 0 { indent } else { column };
                let broken = !fits(flat, &stack, WIDTH.saturating_sub(used));
                stack.push(Entry { broken, ..flat });
            }
        }
    }
    out
}

/// Whether `entry` and what follows it up to the next possible break fit into `room` columns.
fn fits<'a>(entry: Entry<'a>, rest: &[Entry<'a>], room: usize) -> bool {
    let mut room = room;
    let mut stack = vec![entry];
    let mut after = rest.iter().rev();
    loop {
        let Some(Entry {
            broken,
            doc,
            indent,
        }) = stack.pop().or_else(|| after.next().copied())
        else {
            return true;
        };
        let used = match doc {
            Doc::Text(text) => text.chars().count(),
            Doc::Line if !broken => 1,
            Doc::Line | Doc::Soft if broken => return true,
            // A forced break inside the group breaks it; behind the group it ends the line.
            Doc::Hard | Doc::Blank => return broken,
            Doc::IfBroken(text) if broken => text.len(),
            Doc::Line | Doc::Soft | Doc::IfBroken(_) => 0,
            Doc::Seq(parts) => {
                stack.extend(parts.iter().rev().map(|doc| Entry {
                    doc,
                    broken,
                    indent,
                }));
                0
            }
            // Inside the group asked about all is flat; a group behind it may break.
            Doc::Nest(inner) | Doc::Group(inner) => {
                stack.push(Entry {
                    doc: inner,
                    broken,
                    indent,
                });
                0
            }
        };
        if used > room {
            return false;
        }
        room -= used;
    }
}
