//! Several things in one message.

/// The first `most` of them; the rest are counted.
pub(crate) fn join(problems: &[String], separator: &str, most: usize) -> String {
    let shown = problems.get(..most).unwrap_or(problems).join(separator);
    match problems.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown}{separator}and {more} more"),
    }
}

/// What is wrong with a file, all at once: the first 20.
pub(crate) fn all(problems: &[String]) -> String {
    join(problems, "; ", 20)
}
