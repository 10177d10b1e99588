//! What is done to a template's source before the engine sees it.
//!
//! A template comes with a model file from anywhere, so rendering it has to end, in bounded memory
//! and without exhausting the stack. The engine counts fuel for instructions and for the bytes
//! they make, which leaves these ways around it, closed here and in [`super::python`]:
//!
//! - An expression of thousands of operators is a tree as deep, and the engine recurses over it.
//!   Operators per tag, `elif`s and the size of the source are limited; nesting of brackets and
//!   blocks the engine limits itself.
//! - `{% set x = [x, x] %}`, repeated, makes a value that is small in memory and without end in
//!   print; comparing or printing it costs no fuel until it is done. Containers grow by being
//!   written down, by `+` and by some filters: at each of these the size that the value would have
//!   if written out is measured, by a filter that is written in at that place.
//! - `[x] * n` does the same in one step. No template needs it: factors must be numbers or strings.
//! - `{% set ns.x = ns %}` makes a cycle. What is assigned to a namespace is copied as plain data.
//!
//! `{% generation %}`, with which `transformers` marks the assistant's part for training, becomes
//! `{% with %}`, which is what it means for rendering.

use super::python::{FACTOR, MEASURE, STORE};

/// The largest source that is looked at; templates in use have up to 20 KiB.
const MAX_BYTES: usize = 256 << 10;
/// Operators, names and opening brackets in one tag; templates in use have up to 100.
const MAX_OPERATORS: usize = 600;
/// `elif`s in all.
const MAX_ELIF: usize = 200;

/// The source to compile, or the line and the reason why there is none.
pub(super) fn prepare(source: &str) -> Result<String, (usize, String)> {
    if source.len() > MAX_BYTES {
        return Err((1, format!("{} bytes are too many: at most {MAX_BYTES}", source.len())));
    }
    let mut out = String::with_capacity(source.len() * 2);
    let mut elifs = 0;
    let mut pos = 0;
    while let Some(start) = find_tag(source, pos) {
        out.push_str(&source[pos..start]);
        let line = 1 + source[..start].matches('\n').count();
        let opener = source.as_bytes()[start + 1];
        pos = if opener == b'#' {
            let end = source[start..].find("#}").map_or(source.len(), |i| start + i + 2);
            out.push_str(&source[start..end]);
            end
        } else {
            let tag = Tag::lex(source, start).map_err(|reason| (line, reason))?;
            elifs += usize::from(tag.first_word() == "elif");
            if elifs > MAX_ELIF {
                return Err((line, format!("more than {MAX_ELIF} elif")));
            }
            tag.rewrite(&mut out);
            if tag.first_word() == "raw" {
                let end = end_of_raw(source, tag.end);
                out.push_str(&source[tag.end..end]);
                end
            } else {
                tag.end
            }
        };
    }
    out.push_str(&source[pos..]);
    Ok(out)
}

/// Where the next `{{`, `{%` or `{#` begins.
fn find_tag(source: &str, from: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    (from..bytes.len().saturating_sub(1))
        .find(|&i| bytes[i] == b'{' && matches!(bytes[i + 1], b'{' | b'%' | b'#'))
}

/// Where the `{% endraw %}` begins that ends the block whose content begins at `from`.
fn end_of_raw(source: &str, from: usize) -> usize {
    let mut pos = from;
    while let Some(i) = source[pos..].find("{%") {
        let tag = source[pos + i + 2..].trim_start_matches(['-', '+']).trim_start();
        if tag.starts_with("endraw") {
            return pos + i;
        }
        pos += i + 2;
    }
    source.len()
}

/// A piece of a tag.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Name,
    /// A string or number.
    Literal,
    Open,
    Close,
    Comma,
    /// Any other operator; one character or two.
    Operator,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    start: usize,
    /// For brackets: the index of the other one.
    partner: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether an operand can end here, so that an operator, a call or a subscript may follow.
    fn ends_operand(&self) -> bool {
        const OPERATORS: [&str; 7] = ["and", "or", "not", "in", "is", "if", "else"];
        match self.kind {
            Kind::Name => !OPERATORS.contains(&self.text),
            Kind::Literal | Kind::Close => true,
            _ => false,
        }
    }
}

/// `{{ ... }}` or `{% ... %}`.
struct Tag<'a> {
    source: &'a str,
    start: usize,
    end: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> Tag<'a> {
    fn lex(source: &'a str, start: usize) -> Result<Tag<'a>, String> {
        let bytes = source.as_bytes();
        let close = if bytes[start + 1] == b'{' { "}}" } else { "%}" };
        let mut tokens: Vec<Token<'a>> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut operators = 0;
        let mut pos = start + 2;
        // The `-` or `+` of `{%-` is none of the expression's.
        pos += usize::from(matches!(bytes.get(pos), Some(b'-' | b'+')));
        loop {
            let rest = &source[pos..];
            let Some(c) = rest.chars().next() else {
                return Err(format!("the tag has no {close}"));
            };
            if open.is_empty() {
                let marked = usize::from(matches!(c, '-' | '+'));
                if rest[marked..].starts_with(close) {
                    let end = pos + marked + close.len();
                    return Ok(Tag { source, start, end, tokens });
                }
            }
            if c.is_whitespace() {
                pos += c.len_utf8();
                continue;
            }
            let (kind, len) = match c {
                '\'' | '"' => (Kind::Literal, string_len(rest)?),
                '0'..='9' => (Kind::Literal, number_len(rest)),
                _ if c == '_' || c.is_alphabetic() => {
                    // An attribute may have the name of an operator.
                    let attribute = tokens.last().is_some_and(|t| t.text == ".");
                    let kind = if attribute { Kind::Literal } else { Kind::Name };
                    (kind, run(rest, |c| c == '_' || c.is_alphanumeric()))
                }
                '(' | '[' | '{' => (Kind::Open, 1),
                ')' | ']' | '}' => (Kind::Close, 1),
                ',' => (Kind::Comma, 1),
                _ => {
                    let two = ["**", "//", "==", "!=", "<=", ">="];
                    let double = two.iter().any(|t| rest.starts_with(t));
                    (Kind::Operator, if double { 2 } else { c.len_utf8() })
                }
            };
            let mut token = Token { kind, text: &rest[..len], start: pos, partner: 0 };
            match kind {
                Kind::Open => open.push(tokens.len()),
                Kind::Close => {
                    let at = open.pop().ok_or_else(|| format!("{c:?} closes nothing"))?;
                    if !matches!((tokens[at].text, c), ("(", ')') | ("[", ']') | ("{", '}')) {
                        return Err(format!("{c:?} closes {:?}", tokens[at].text));
                    }
                    token.partner = at;
                    tokens[at].partner = tokens.len();
                }
                _ => {}
            }
            operators += usize::from(matches!(kind, Kind::Name | Kind::Open | Kind::Operator));
            if operators > MAX_OPERATORS {
                return Err(format!("more than {MAX_OPERATORS} operators and names in one tag"));
            }
            tokens.push(token);
            pos += len;
        }
    }

    fn first_word(&self) -> &'a str {
        match self.tokens.first() {
            Some(t) if self.is_statement() && t.kind == Kind::Name => t.text,
            _ => "",
        }
    }

    fn is_statement(&self) -> bool {
        self.source.as_bytes()[self.start + 1] == b'%'
    }

    /// Writes the tag with its measures to `out`.
    fn rewrite(&self, out: &mut String) {
        if let ["generation" | "endgeneration"] =
            self.tokens.iter().map(|t| t.text).collect::<Vec<_>>()[..]
            && self.is_statement()
        {
            let tag = &self.source[self.start..self.end];
            out.push_str(&tag.replace("generation", "with"));
            return;
        }
        let mut insertions = self.insertions();
        // Insertions at one place stay in the order in which they were made.
        insertions.sort_by_key(|i| i.0);
        let mut pos = self.start;
        for (at, text) in insertions {
            out.push_str(&self.source[pos..at]);
            out.push_str(&text);
            pos = at;
        }
        out.push_str(&self.source[pos..self.end]);
    }

    /// Text to write into the tag, and where.
    fn insertions(&self) -> Vec<(usize, String)> {
        let tokens = &self.tokens;
        let mut out = Vec::new();
        let targets = self.targets();
        for (i, token) in tokens.iter().enumerate().skip(targets) {
            // The first word of a statement is no operand.
            let after_operand =
                i > usize::from(self.is_statement()) && tokens[i - 1].ends_operand();
            match (token.kind, token.text) {
                (Kind::Open, text) if !after_operand => {
                    let close = tokens[token.partner];
                    if text != "(" || self.is_tuple(i) {
                        out.push((token.start, "(".to_string()));
                        out.push((close.end(), format!("|{MEASURE})")));
                    }
                }
                (Kind::Operator, "+") if after_operand => {
                    out.push((tokens[i - 1].end(), format!("|{MEASURE}")));
                }
                (Kind::Operator, "*") if after_operand => {
                    out.push((tokens[i - 1].end(), format!("|{FACTOR}")));
                    if let Some(end) = self.end_of_operand(i + 1) {
                        out.push((end, format!("|{FACTOR}")));
                    }
                }
                _ => {}
            }
        }
        if self.first_word() == "set"
            && targets > 0
            && let (Some(first), Some(last)) = (tokens.get(targets), tokens.last())
        {
            let dotted = tokens[..targets].iter().any(|t| t.text == ".");
            let filter = if dotted { STORE } else { MEASURE };
            // Around what is already there.
            out.insert(0, (first.start, "((".to_string()));
            out.push((last.end(), format!(")|{filter})")));
        }
        out
    }

    /// How many tokens at the beginning say what is assigned to: up to the `=` of `set`, the `in`
    /// of `for`, the parameters of `call`. 0 where there are none.
    fn targets(&self) -> usize {
        let stop = match self.first_word() {
            "set" => "=",
            "for" => "in",
            "call" if self.tokens.get(1).is_some_and(|t| t.text == "(") => {
                return self.tokens[1].partner + 1;
            }
            _ => return 0,
        };
        let mut i = 1;
        while let Some(token) = self.tokens.get(i) {
            match token.text {
                // The body of the `set` goes through a filter: it is text.
                "|" => return 0,
                text if text == stop && token.kind != Kind::Literal => return i + 1,
                _ if token.kind == Kind::Open => i = token.partner,
                _ => {}
            }
            i += 1;
        }
        0
    }

    /// Whether the parenthesis at `open` holds a comma of its own, or nothing.
    fn is_tuple(&self, open: usize) -> bool {
        let close = self.tokens[open].partner;
        let mut i = open + 1;
        while i < close {
            match self.tokens[i].kind {
                Kind::Comma => return true,
                Kind::Open => i = self.tokens[i].partner,
                _ => {}
            }
            i += 1;
        }
        close == open + 1
    }

    /// Where the operand ends that begins at token `i`: signs, a name, literal or bracket, and
    /// what is applied to that.
    fn end_of_operand(&self, mut i: usize) -> Option<usize> {
        let tokens = &self.tokens;
        while matches!(tokens.get(i)?.text, "-" | "+") {
            i += 1;
        }
        let past = |i: usize| {
            if tokens[i].kind == Kind::Open { tokens[i].partner } else { i }
        };
        let mut last = past(i);
        while let Some(next) = tokens.get(last + 1) {
            last = match next.text {
                "." | "|" if tokens.get(last + 2).is_some() => last + 2,
                "(" | "[" => past(last + 1),
                _ => break,
            };
        }
        Some(tokens[last].end())
    }
}

/// The length of the string literal at the beginning of `text`.
fn string_len(text: &str) -> Result<usize, String> {
    let bytes = text.as_bytes();
    let mut i = 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            b if b == bytes[0] => return Ok(i + 1),
            _ => {}
        }
        i += 1;
    }
    Err("a string has no end".to_string())
}

/// The length of the number at the beginning of `text`.
fn number_len(text: &str) -> usize {
    let digits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut len = run(text, digits);
    let fraction = &text[len..];
    if fraction.starts_with('.') && fraction[1..].starts_with(|c: char| c.is_ascii_digit()) {
        len += 1 + run(&fraction[1..], digits);
    }
    let exponent = &text[len..];
    if text[..len].ends_with(['e', 'E']) && exponent.starts_with(['-', '+']) {
        len += 1 + run(&exponent[1..], digits);
    }
    len
}

/// How many bytes at the beginning of `text` have the property.
fn run(text: &str, property: impl Fn(char) -> bool) -> usize {
    text.find(|c| !property(c)).unwrap_or(text.len())
}
