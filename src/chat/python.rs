//! What `transformers` adds to Jinja, what templates use of Python, and the measures that
//! [`super::source`] writes into a template.

use super::clock;
use super::json::{self, Style};
use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State, filters, functions};
use minijinja_contrib::pycompat;

/// The filter that refuses a value that is too large to be written out.
pub(super) const MEASURE: &str = "_siskin_measure";
/// The filter for what is assigned to a namespace: a copy that shares nothing with it.
pub(super) const STORE: &str = "_siskin_store";
/// The filter for factors: numbers and strings.
pub(super) const FACTOR: &str = "_siskin_factor";
/// The variable that holds the time of the render.
pub(super) const NOW: &str = "_siskin_now";

/// Containers inside containers.
const MAX_DEPTH: usize = 64;
/// What a container's item counts for beside its text.
const ITEM_BYTES: u64 = 32;

pub(super) fn install(env: &mut Environment<'static>) {
    env.add_filter(MEASURE, |state: &State, value: Value| measured(state, value));
    env.add_filter(STORE, store);
    env.add_filter(FACTOR, factor);
    env.add_filter("tojson", to_json);
    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(refuse(message.to_string()))
    });
    env.add_function("strftime_now", |state: &State, format: &str| {
        let now = state.lookup(NOW).and_then(|v| v.as_i64());
        clock::strftime(format, now.unwrap_or_default())
    });
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_test("sequence", |v: &Value| {
        matches!(v.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
    env.add_test("iterable", |v: &Value| {
        use ValueKind::{Iterable, Map, Seq, String, Undefined};
        matches!(v.kind(), Seq | Map | String | Iterable | Undefined)
    });
    env.set_unknown_method_callback(method);

    // Not Jinja's, or (with a nested value) without measure.
    env.remove_filter("pprint");
    env.remove_global("debug");
    // These make containers of their input and arguments.
    for (name, filter) in [
        ("batch", Value::from_function(filters::batch)),
        ("slice", Value::from_function(filters::slice)),
        ("groupby", Value::from_function(filters::groupby)),
        ("zip", Value::from_function(filters::zip)),
        ("chain", Value::from_function(filters::chain)),
        ("map", Value::from_function(filters::map)),
        ("sum", Value::from_function(filters::sum)),
    ] {
        env.add_filter(name, measuring(filter));
    }
    env.add_function("dict", measuring(Value::from_function(functions::dict)));
}

/// The same function, its result measured.
fn measuring(
    f: Value,
) -> impl Fn(&mut State, Rest<ValueOrKwargs>) -> Result<Value, Error> + Send + Sync + 'static {
    move |state, args| {
        let result = f.call(state, &args.into_values())?;
        measured(state, result)
    }
}

fn refuse(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// What a value may come to: in proportion to the fuel that the render began with.
fn budget(state: &State) -> u64 {
    state.fuel_levels().map_or(0, |(used, left)| used.saturating_add(left).saturating_mul(16))
}

/// The value, if it would not be too large written out. An iterator becomes a list.
fn measured(state: &State, value: Value) -> Result<Value, Error> {
    let budget = budget(state);
    let value = match value.kind() {
        ValueKind::Iterable => {
            let most = usize::try_from(budget / ITEM_BYTES).unwrap_or(usize::MAX);
            let mut items = Vec::new();
            for item in value.try_iter()?.checked() {
                if items.len() >= most {
                    return Err(too_large());
                }
                items.push(item?);
            }
            Value::from(items)
        }
        ValueKind::Seq | ValueKind::Map => value,
        _ => return Ok(value),
    };
    let mut left = budget;
    weigh(&value, &mut left, 0)?;
    // Comparing costs as much again, and is free in the engine.
    state.consume_fuel((budget - left) / 256)?;
    Ok(value)
}

fn too_large() -> Error {
    refuse("a value grows too large")
}

/// Takes from `left` what the value comes to, written out.
fn weigh(value: &Value, left: &mut u64, depth: usize) -> Result<(), Error> {
    let text = value.as_str().map_or(0, |s| s.len() as u64);
    *left = left.checked_sub(ITEM_BYTES + text).ok_or_else(too_large)?;
    let kind = value.kind();
    if !matches!(kind, ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) {
        return Ok(());
    }
    if depth >= MAX_DEPTH {
        return Err(refuse("a value is nested too deeply"));
    }
    for item in value.try_iter()?.checked() {
        let item = item?;
        weigh(&item, left, depth + 1)?;
        if kind == ValueKind::Map {
            weigh(&value.get_item(&item)?, left, depth + 1)?;
        }
    }
    Ok(())
}

fn store(state: &State, value: Value) -> Result<Value, Error> {
    let value = measured(state, value)?;
    plain(&value)
}

/// A copy of a value that has been measured, without lazy parts and namespaces: through one of
/// those it could come to contain itself.
fn plain(value: &Value) -> Result<Value, Error> {
    if value.as_object().is_some_and(|o| o.type_name().contains("Namespace")) {
        return Err(refuse("a namespace cannot be assigned to a namespace"));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.checked().map(|item| plain(&item?));
            let items = items.collect::<Result<Vec<Value>, Error>>()?;
            Ok(if value.is_tuple() { Value::from(Tuple::new(items)) } else { Value::from(items) })
        }
        ValueKind::Map => {
            let entries = value.try_iter()?.checked().map(|key| {
                let key = key?;
                let item = plain(&value.get_item(&key)?)?;
                Ok((key, item))
            });
            let entries = entries.collect::<Result<Vec<(Value, Value)>, Error>>()?;
            Ok(Value::from_pairs(entries))
        }
        _ => Ok(value.clone()),
    }
}

fn factor(value: Value) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            Err(refuse(format!("a {} cannot be multiplied", value.kind())))
        }
        _ => Ok(value),
    }
}

/// Jinja's `int`: the number that a text begins as, or the default.
fn int(value: Value, default: Option<i64>, base: Option<u32>) -> Value {
    let parsed = match value.kind() {
        ValueKind::Number if value.is_integer() => return value,
        ValueKind::Bool => Some(i64::from(value.is_true())),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default().trim().replace('_', "");
            let base = base.filter(|b| (2..=36).contains(b)).unwrap_or(10);
            i64::from_str_radix(&text, base).ok().or_else(|| whole(text.parse().ok()?))
        }
        _ => f64::try_from(value).ok().and_then(whole),
    };
    Value::from(parsed.unwrap_or(default.unwrap_or(0)))
}

/// The integer part, if there is one that fits.
fn whole(x: f64) -> Option<i64> {
    // -2^63 and 2^63 are floats; what is between them fits.
    (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&x).then_some(x as i64)
}

/// Jinja's `float`.
fn float(value: Value, default: Option<f64>) -> f64 {
    let parsed = match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None if value.kind() == ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        None => f64::try_from(value).ok(),
    };
    parsed.unwrap_or(default.unwrap_or(0.0))
}

/// `json.dumps` with the parameters that `transformers` gives the filter, in its order.
fn to_json(
    state: &State,
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let indent = match indent.or(kwargs.get("indent")?) {
        None => None,
        Some(v) if v.is_none() => None,
        Some(v) => Some(match v.as_str() {
            Some(text) => text.to_string(),
            None => " ".repeat(usize::try_from(i64::try_from(v)?.clamp(0, 100)).unwrap_or(0)),
        }),
    };
    let mut style = Style::new(indent);
    style.ensure_ascii = ensure_ascii.or(kwargs.get("ensure_ascii")?).unwrap_or(style.ensure_ascii);
    style.sort_keys = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(style.sort_keys);
    if let Some(separators) = kwargs.get::<Option<Value>>("separators")?
        && !separators.is_none()
    {
        let text = |i| Ok::<_, Error>(separators.get_item_by_index(i)?.to_string());
        style.item_separator = text(0)?;
        style.key_separator = text(1)?;
    }
    kwargs.assert_all_used()?;
    json::dumps(state, value, &style)
}

/// Python's methods: those of `minijinja-contrib`, and what it leaves out.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        let found = match name {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                Value::from(text.strip_prefix(prefix).unwrap_or(text))
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                Value::from(text.strip_suffix(suffix).unwrap_or(text))
            }
            "partition" | "rpartition" => {
                let (separator,): (&str,) = from_args(args)?;
                partition(text, separator, name == "rpartition")?
            }
            "rsplit" => {
                let (separator, limit): (Option<&str>, Option<i64>) = from_args(args)?;
                rsplit(text, separator, limit)?
            }
            "index" => {
                let (what,): (&str,) = from_args(args)?;
                let at = text.find(what).ok_or_else(|| refuse("substring not found"))?;
                Value::from(text[..at].chars().count())
            }
            "format" => {
                check_widths(text, args)?;
                return pycompat::unknown_method_callback(state, value, name, args);
            }
            _ => return pycompat::unknown_method_callback(state, value, name, args),
        };
        return Ok(found);
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

fn partition(text: &str, separator: &str, last: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(refuse("empty separator"));
    }
    let split = if last { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match split {
        Some((before, after)) => [before, separator, after],
        None if last => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(Tuple::new(parts.map(Value::from).to_vec())))
}

fn rsplit(text: &str, separator: Option<&str>, limit: Option<i64>) -> Result<Value, Error> {
    if separator == Some("") {
        return Err(refuse("empty separator"));
    }
    let pieces = limit.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n + 1);
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = text;
    loop {
        if separator.is_none() {
            rest = rest.trim_end();
            if rest.is_empty() {
                break;
            }
        }
        let split = if parts.len() + 1 >= pieces {
            None
        } else {
            match separator {
                Some(s) => rest.rsplit_once(s),
                None => rest.rsplit_once(char::is_whitespace),
            }
        };
        match split {
            Some((before, after)) => {
                parts.push(after);
                rest = before;
            }
            None => {
                parts.push(rest);
                break;
            }
        }
    }
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

/// Refuses a `str.format` that pads to more than 9,999 characters: the text is made before it is
/// paid for.
fn check_widths(format: &str, args: &[Value]) -> Result<(), Error> {
    let long_number = format
        .split(|c: char| !c.is_ascii_digit())
        .any(|digits| digits.trim_start_matches('0').len() > 4);
    // A width may be an argument itself.
    let nested = format.split('{').skip(1).any(|field| field.ends_with(':'));
    let large = |v: &Value| v.as_i64().is_none_or(|n| n > 9999) && v.is_number();
    if long_number || (nested && args.iter().any(large)) {
        return Err(refuse("a format is wider than 9999"));
    }
    Ok(())
}
