//! What is wrong with a checkpoint, all at once.

/// Problems that are told one by one; the rest are counted.
const SHOWN: usize = 20;

/// One message of several.
pub(super) fn join(problems: &[String]) -> String {
    let shown = problems.get(..SHOWN).unwrap_or(problems).join("; ");
    match problems.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
