//! The parts of a model's name, such as `Qwen/Qwen2.5-0.5B-Instruct`, as llama.cpp finds them.

/// The parts, as far as the name has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ModelId {
    /// All of it but the organization.
    pub(super) name: Option<String>,
    pub(super) organization: Option<String>,
    pub(super) basename: Option<String>,
    pub(super) finetune: Option<String>,
    pub(super) version: Option<String>,
    pub(super) size_label: Option<String>,
}

/// What a part between two hyphens is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Version,
    Quantization,
    Size,
    Finetune,
}

fn digits_with_dots(text: &str) -> bool {
    let all = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.split('.').all(all)
}

/// `(v|iter)?\d+([.]\d+)*`
fn is_version(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    digits_with_dots(lower.strip_prefix("iter").or(lower.strip_prefix('v')).unwrap_or(&lower))
}

/// `i?q\d(_\w)*|b?fp?(16|32)`
fn is_quantization(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    if matches!(
        lower.as_str(),
        "f16" | "f32" | "fp16" | "fp32" | "bf16" | "bf32" | "bfp16" | "bfp32"
    ) {
        return true;
    }
    let Some(rest) = lower.strip_prefix('i').unwrap_or(&lower).strip_prefix('q') else {
        return false;
    };
    let mut chars = rest.chars();
    let digit = chars.next().is_some_and(|c| c.is_ascii_digit());
    let rest: Vec<char> = chars.collect();
    digit && rest.chunks(2).all(|c| matches!(c, ['_', w] if w.is_alphanumeric() || *w == '_'))
}

/// `([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?`, or a word for a size.
fn is_size(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    if matches!(lower.as_str(), "small" | "mini" | "medium" | "large" | "xl" | "xxl") {
        return true;
    }
    let number = match lower.split_once('x') {
        Some((n, rest)) if digits_with_dots(n) && !n.contains('.') => rest,
        Some(_) => return false,
        None => lower.strip_prefix('a').unwrap_or(&lower),
    };
    let Some(unit) = number.find(['k', 'm', 'b', 't']) else { return false };
    let (number, rest) = number.split_at(unit);
    let after = &rest[1..];
    let number = number.replace('_', ".");
    let fits = digits_with_dots(&number) && number.matches('.').count() <= 1;
    fits && after.len() <= 1 && after.bytes().all(|b| b.is_ascii_digit())
}

/// A size as it is written in names: `7b1` is 7.1B, and units are capitals.
fn tidy_size(part: &str) -> String {
    let mut part = part.replace('_', ".");
    let bytes = part.as_bytes();
    if let [.., unit, last] = bytes
        && last.is_ascii_digit()
        && unit.is_ascii_alphabetic()
    {
        part = format!("{}.{}{}", &part[..part.len() - 2], *last as char, *unit as char);
    }
    if let [.., before, b'k' | b'm' | b'b' | b't'] = part.as_bytes()
        && before.is_ascii_digit()
    {
        let unit = part.len() - 1;
        part = format!("{}{}", &part[..unit], part[unit..].to_ascii_uppercase());
    }
    part
}

/// How many parameters a size label stands for.
fn size_value(label: &str) -> Option<f64> {
    let unit = " KMBT".find(label.chars().last()?)?;
    let number: f64 = label[..label.len() - 1].parse().ok()?;
    Some(number * 1000f64.powi(unit as i32))
}

impl ModelId {
    /// Takes a name apart. A size that is far from `n_params` is something else: a context length.
    pub(super) fn parse(id: &str, n_params: u64) -> ModelId {
        if id.contains(' ') {
            // A title, not a name of the hub.
            return ModelId { name: Some(id.to_string()), ..ModelId::default() };
        }
        let (organization, full) = match id.split_once('/') {
            Some((organization, full)) => (Some(organization), full),
            None => (None, id),
        };
        let organization = organization.filter(|o| !o.starts_with('.')).map(String::from);
        let mut parts: Vec<(String, Kind)> = Vec::new();
        for part in full.split('-').filter(|part| !part.is_empty()) {
            let later = !parts.is_empty();
            let lower = part.to_ascii_lowercase();
            let tuned = matches!(lower.as_str(), "chat" | "instruct" | "vision" | "lora");
            parts.push(if is_version(part) {
                (part.to_string(), Kind::Version)
            } else if is_quantization(part) {
                (part.to_uppercase(), Kind::Quantization)
            } else if later && is_size(part) {
                let label = tidy_size(part);
                let far = |n: f64| {
                    n_params > 0 && (n - n_params as f64).abs() > (7 * n_params / 8) as f64
                };
                match size_value(&label) {
                    Some(n) if far(n) => {
                        let unit = label.len() - 1;
                        let lower = label[unit..].to_ascii_lowercase();
                        (format!("{}{lower}", &label[..unit]), Kind::Finetune)
                    }
                    _ => (label, Kind::Size),
                }
            } else if later && tuned {
                (part.to_string(), Kind::Finetune)
            } else {
                (part.to_string(), Kind::Unknown)
            });
        }
        // Words for sizes do not count beside numbers.
        let numbered = |(part, kind): &(String, Kind)| {
            *kind == Kind::Size && part.bytes().any(|b| b.is_ascii_digit())
        };
        if parts.iter().any(numbered) {
            for (part, kind) in &mut parts {
                if *kind == Kind::Size && part.bytes().all(|b| b.is_ascii_alphabetic()) {
                    *kind = Kind::Unknown;
                }
            }
        }
        // The name's beginning, with versions in it but not at its end.
        let starts = |(part, kind): &(String, Kind)| {
            *kind == Kind::Version
                || *kind == Kind::Unknown && part.starts_with(|c: char| c.is_alphabetic())
        };
        let mut base = parts.iter().take_while(|part| starts(part)).count();
        while base > 0 && parts.get(base - 1).is_some_and(|(_, kind)| *kind == Kind::Version) {
            base -= 1;
        }
        let join = |wanted: &dyn Fn(usize, Kind) -> bool| {
            let chosen = parts.iter().enumerate().filter(|(i, (_, kind))| wanted(*i, *kind));
            let mut list: Vec<&str> = chosen.map(|(_, (part, _))| part.as_str()).collect();
            list.dedup();
            (!list.is_empty()).then(|| list.join("-"))
        };
        let basename = join(&|i, _| i < base);
        let size_label = join(&|_, kind| kind == Kind::Size);
        let finetune =
            join(&|i, kind| kind == Kind::Finetune || i >= base && kind == Kind::Unknown);
        let version = join(&|i, kind| i >= base && kind == Kind::Version);
        let vague = size_label.is_none() && finetune.is_none() && version.is_none();
        ModelId {
            name: (!full.is_empty()).then(|| full.to_string()),
            organization,
            basename: basename.filter(|_| !vague),
            finetune,
            version,
            size_label,
        }
    }
}

/// A name as a title: hyphens are spaces, small words get a capital.
pub(super) fn title(name: &str) -> String {
    let word = |word: &str| {
        let small = word.chars().any(char::is_alphabetic) && !word.chars().any(char::is_uppercase);
        let version = word.strip_prefix('v').is_some_and(digits_with_dots);
        if !small || version || word.starts_with(|c: char| c.is_ascii_digit()) {
            return word.to_string();
        }
        // As Python's `title`: after anything that is no letter, too.
        let mut inside = false;
        let letters = word.chars().flat_map(|c| {
            let first = c.is_alphabetic() && !inside;
            inside = c.is_alphabetic();
            let upper = first.then(|| c.to_uppercase());
            upper.into_iter().flatten().chain((!first).then_some(c))
        });
        letters.collect()
    };
    name.trim().replace('-', " ").split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{ModelId, title};

    #[test]
    fn names_are_taken_apart_as_llama_cpp_does() {
        let parse = |id: &str, n| {
            let id = ModelId::parse(id, n);
            [id.organization, id.basename, id.finetune, id.version, id.size_label]
                .map(Option::unwrap_or_default)
        };
        for (id, n, parts) in [
            (
                "Qwen/Qwen2.5-0.5B-Instruct",
                494_000_000,
                ["Qwen", "Qwen2.5", "Instruct", "", "0.5B"],
            ),
            ("SmolLM2-135M", 134_515_008, ["", "SmolLM2", "", "", "135M"]),
            ("Mixtral-8x7B-v0.1", 46_700_000_000, ["", "Mixtral", "", "v0.1", "8x7B"]),
            ("Mistral-7B-Instruct-v0.2", 7_241_732_096, ["", "Mistral", "Instruct", "v0.2", "7B"]),
            ("gemma-3-270m-it", 268_098_176, ["", "gemma", "it", "3", "270M"]),
            ("Phi-3-mini-4k-instruct", 3_821_079_552, ["", "Phi", "4k-instruct", "3", "mini"]),
            ("bloom-7b1", 7_069_016_064, ["", "bloom", "", "", "7.1B"]),
            ("tiny", 1000, ["", "", "", "", ""]),
        ] {
            assert_eq!(parse(id, n), parts, "{id}");
        }
    }

    #[test]
    fn titles_have_capitals() {
        assert_eq!(title("gemma-3-270m-it"), "Gemma 3 270m It");
        assert_eq!(title("SmolLM2-135M-v0.1"), "SmolLM2 135M v0.1");
        assert_eq!(title("v2-x_y"), "v2 X_Y");
    }
}
