//! Chat templates: from messages to the prompt that a model was trained on.
//!
//! A model file carries its template, a Jinja program, under `tokenizer.chat_template`. It is
//! rendered as `transformers` renders it, by minijinja. Such a program comes from anywhere, so
//! its size, steps, memory and nesting are limited (`source` says how): rendering ends with text or
//! with an [`Error::Template`] that names template, line and reason.
//!
//! ```
//! use siskin::chat::{ChatTemplate, Message, RenderOptions};
//!
//! let template = ChatTemplate::builtin("chatml").expect("a built-in template");
//! let messages = [Message::system("Be brief."), Message::user("Why is the sky blue?")];
//! let prompt = template.render(&messages, &RenderOptions::default())?;
//! assert!(prompt.ends_with("<|im_start|>assistant\n"));
//! # Ok::<(), siskin::Error>(())
//! ```
//!
//! A file's own template mostly writes the beginning-of-sequence token itself, a built-in one does
//! not: whoever tokenizes the prompt adds the token when the prompt does not begin with it.

mod builtin;
mod clock;
mod json;
mod python;
mod source;

use crate::error::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde_json::{Map, Value as Json};

/// A message of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Who speaks: mostly `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What is said.
    pub content: String,
    /// What else the template may read: `name`, `tool_calls`, `tool_call_id`,
    /// `reasoning_content`. An entry named `content` (a list of parts, or null) takes the place of
    /// the text.
    pub extra: Map<String, Json>,
}

impl Message {
    /// A message with text alone.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into(), extra: Map::new() }
    }

    /// A message of the system.
    pub fn system(content: impl Into<String>) -> Message {
        Message::new("system", content)
    }

    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Message {
        Message::new("user", content)
    }

    /// A message of the assistant.
    pub fn assistant(content: impl Into<String>) -> Message {
        Message::new("assistant", content)
    }

    /// The same message with one more entry.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Json>) -> Message {
        self.extra.insert(name.into(), value.into());
        self
    }
}

/// What a template is told beside the messages.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// Whether the prompt ends with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// The text of the beginning-of-sequence token; `None`: the model has none.
    pub bos_token: Option<String>,
    /// The text of the end-of-sequence token.
    pub eos_token: Option<String>,
    /// Descriptions of the functions that may be called, as JSON schemas.
    pub tools: Option<Json>,
    /// Documents to answer from.
    pub documents: Option<Json>,
    /// Variables of the template's own, as `enable_thinking`.
    pub kwargs: Map<String, Json>,
    /// The time for `strftime_now`, in seconds since 1970 of the clock on the user's wall (that is
    /// with the zone's offset added). `None`: the system's clock, in UTC.
    pub now: Option<i64>,
}

impl Default for RenderOptions {
    /// An answer is wanted, and nothing else is known.
    fn default() -> RenderOptions {
        RenderOptions {
            add_generation_prompt: true,
            bos_token: None,
            eos_token: None,
            tools: None,
            documents: None,
            kwargs: Map::new(),
            now: None,
        }
    }
}

/// A template, compiled.
pub struct ChatTemplate {
    name: String,
    source: String,
    env: Environment<'static>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The name of the one template in its environment.
const MAIN: &str = "chat";
/// Steps that a render may take whatever it is given; templates in use take some thousands.
const FUEL: u64 = 100_000;
/// Steps for each byte of what it is given.
const FUEL_PER_BYTE: u64 = 8;
/// Calls of macros inside each other, counted as minijinja counts them.
const MAX_RECURSION: usize = 200;
/// Lists and objects inside each other in what a template is given.
const MAX_INPUT_DEPTH: usize = 48;
/// The longest reason that is passed on: a template writes it.
const MAX_REASON: usize = 500;

impl ChatTemplate {
    /// Compiles a template. The name is for messages: a file, or the metadata key that holds it.
    pub fn new(source: &str, name: &str) -> Result<ChatTemplate> {
        let fail = |line: usize, reason: &str| {
            Error::Template(format!("{name}: line {line}: {}", shorten(reason)))
        };
        let prepared = source::prepare(source).map_err(|(line, reason)| fail(line, &reason))?;
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|e| Error::Internal(format!("template syntax: {e}")))?;
        env.set_syntax(syntax);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_debug(false);
        env.set_recursion_limit(MAX_RECURSION);
        python::install(&mut env);
        env.add_template_owned(MAIN, prepared)
            .map_err(|e| fail(e.line().unwrap_or(1), &reason(&e)))?;
        Ok(ChatTemplate { name: name.to_string(), source: source.to_string(), env })
    }

    /// A built-in template, by one of [`ChatTemplate::builtin_names`].
    pub fn builtin(name: &str) -> Option<ChatTemplate> {
        let (_, source) = builtin::TEMPLATES.iter().find(|t| t.0 == name)?;
        ChatTemplate::new(source, name).ok()
    }

    /// The names of the built-in templates: those of llama.cpp.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        builtin::TEMPLATES.iter().map(|t| t.0)
    }

    /// The name that it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for a conversation.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        let mut size = Input { bytes: 0 };
        let context = self.context(messages, options, &mut size)?;
        let mut env = self.env.clone();
        env.set_fuel(Some(FUEL.saturating_add(size.bytes.saturating_mul(FUEL_PER_BYTE))));
        env.get_template(MAIN).and_then(|t| t.render(context)).map_err(|e| {
            let line = e.line().map_or(String::new(), |n| format!(" line {n}:"));
            Error::Template(format!("{}:{line} {}", self.name, shorten(&reason(&e))))
        })
    }

    /// The variables of the template.
    fn context(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        size: &mut Input,
    ) -> Result<Value> {
        let fail = |what: &str| {
            Error::Template(format!(
                "{}: {what} is nested more than {MAX_INPUT_DEPTH} levels deep",
                self.name
            ))
        };
        let mut list = Vec::with_capacity(messages.len());
        for message in messages {
            let mut entries = vec![
                ("role".to_string(), size.text(&message.role)),
                ("content".to_string(), size.text(&message.content)),
            ];
            for (name, value) in &message.extra {
                let value = size.json(value, 0).ok_or_else(|| fail("a message"))?;
                match entries.iter_mut().find(|e| e.0 == *name) {
                    Some(entry) => entry.1 = value,
                    None => entries.push((name.clone(), value)),
                }
            }
            list.push(Value::from_pairs(entries));
        }
        let mut variables = vec![
            ("messages".to_string(), Value::from(list)),
            ("add_generation_prompt".to_string(), Value::from(options.add_generation_prompt)),
            (python::NOW.to_string(), Value::from(options.now.unwrap_or_else(clock::now))),
        ];
        // `transformers` always passes these, None where there are none.
        for (name, value) in [("tools", &options.tools), ("documents", &options.documents)] {
            let value = match value {
                Some(value) => size.json(value, 0).ok_or_else(|| fail(name))?,
                None => Value::from(()),
            };
            variables.push((name.to_string(), value));
        }
        for (name, token) in [("bos_token", &options.bos_token), ("eos_token", &options.eos_token)]
        {
            if let Some(token) = token {
                variables.push((name.to_string(), size.text(token)));
            }
        }
        for (name, value) in &options.kwargs {
            variables.push((name.clone(), size.json(value, 0).ok_or_else(|| fail(name))?));
        }
        Ok(Value::from_pairs(variables))
    }
}

/// Counts what a template is given.
struct Input {
    bytes: u64,
}

impl Input {
    fn text(&mut self, text: &str) -> Value {
        self.bytes = self.bytes.saturating_add(16 + text.len() as u64);
        Value::from(text)
    }

    /// `None` for a value that is nested too deeply.
    fn json(&mut self, json: &Json, depth: usize) -> Option<Value> {
        if depth > MAX_INPUT_DEPTH {
            return None;
        }
        self.bytes = self.bytes.saturating_add(16);
        Some(match json {
            Json::Null => Value::from(()),
            Json::Bool(b) => Value::from(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(n), ..) => Value::from(n),
                (_, Some(n), _) => Value::from(n),
                (.., x) => Value::from(x.unwrap_or(f64::NAN)),
            },
            Json::String(text) => self.text(text),
            Json::Array(items) => {
                let items = items.iter().map(|item| self.json(item, depth + 1));
                Value::from(items.collect::<Option<Vec<Value>>>()?)
            }
            Json::Object(entries) => {
                let mut pairs = Vec::with_capacity(entries.len());
                for (name, value) in entries {
                    pairs.push((self.text(name), self.json(value, depth + 1)?));
                }
                Value::from_pairs(pairs)
            }
        })
    }
}

/// What went wrong, in the template's own words where it spoke.
fn reason(error: &minijinja::Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => {
            "takes more steps or memory than what it is given allows".to_string()
        }
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_string(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    }
}

/// A reason of bounded length.
fn shorten(reason: &str) -> &str {
    let end = reason.char_indices().nth(MAX_REASON).map_or(reason.len(), |(i, _)| i);
    &reason[..end]
}
