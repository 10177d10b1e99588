//! `siskin chat`

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use siskin::chat::{ChatTemplate, Message};
use siskin::{Engine, Finish, GenerateOptions, Session};

use crate::args::{ModelArgs, SamplerArgs, SessionArgs};
use crate::run::{Answer, GenerateArgs, answer, encode_chat, template_names};
use crate::{output, process, store};

/// Holds a conversation.
///
/// Lines are edited as in a shell; a line that ends with \ goes on. Ctrl-C stops the answer,
/// Ctrl-D leaves. /help shows the commands.
///
/// What is typed on a terminal is kept in .chat_history in the folder of the models, for the next
/// time; --no-history neither reads nor writes it.
#[derive(Args)]
pub struct ChatArgs {
    /// Keep no history of the lines that are typed.
    #[arg(long)]
    no_history: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    generate: GenerateArgs,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    sampler: SamplerArgs,
}

const HELP: &str = "\
/help            this
/clear           begin a new conversation
/system [TEXT]   set the system message (or none) and begin anew
/regen           answer the last message again
/undo            take the last message and its answer back
/history         show the conversation
/save FILE       write the conversation as JSON
/load FILE       read one
/stats           tokens, speed and memory
/quit            leave (also Ctrl-D)";

struct Chat {
    engine: Engine,
    session: Session,
    template: ChatTemplate,
    options: GenerateOptions,
    messages: Vec<Message>,
    last: Option<Answer>,
}

impl Chat {
    fn clear(&mut self, system: Option<&str>) {
        self.messages.clear();
        self.messages.extend(system.map(|s| Message::new("system", s)));
    }

    fn system(&self) -> Option<String> {
        let first = self.messages.first().filter(|m| m.role == "system");
        first.map(|m| m.content.clone())
    }

    /// Answers the last message.
    fn reply(&mut self) -> anyhow::Result<()> {
        let prompt = encode_chat(&self.engine, &self.template, &self.messages)?;
        let n_ctx = self.session.shape().n_ctx;
        if prompt.len() >= n_ctx {
            self.messages.pop();
            bail!("the conversation has {} tokens, the context {n_ctx}: /clear it", prompt.len());
        }
        let result = answer(&mut self.session, &prompt, &self.options, false);
        let result = match result {
            Ok(result) => result,
            Err(error) => {
                self.messages.pop();
                return Err(error);
            }
        };
        output::print("\n\n")?;
        match result.finish {
            None => output::note("(stopped)"),
            Some(Finish::ContextFull) => output::note("(the context is full: /clear begins anew)"),
            Some(_) => {}
        }
        self.messages.push(Message::new("assistant", &result.text));
        self.last = Some(result);
        Ok(())
    }

    /// Takes the last message of the user back, and what came after it.
    fn undo(&mut self) -> Option<Message> {
        let at = self.messages.iter().rposition(|m| m.role == "user")?;
        self.messages.drain(at..).next()
    }

    /// Runs a /-command. False ends the conversation.
    fn command(&mut self, line: &str) -> anyhow::Result<bool> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match name {
            "/help" | "/?" => output::note(HELP),
            "/quit" | "/exit" | "/bye" => return Ok(false),
            "/clear" => {
                let system = self.system();
                self.clear(system.as_deref());
                output::note("(a new conversation)");
            }
            "/system" => {
                self.clear(Some(rest).filter(|r| !r.is_empty()));
                let what = if rest.is_empty() { "no" } else { "this" };
                output::note(&format!("(a new conversation with {what} system message)"));
            }
            "/undo" => match self.undo() {
                Some(message) => output::note(&format!("(taken back: {})", message.content)),
                None => output::note("nothing to take back"),
            },
            "/regen" => match self.undo() {
                Some(message) => {
                    self.messages.push(message);
                    self.reply()?;
                }
                None => output::note("nothing to answer"),
            },
            "/history" => {
                for message in &self.messages {
                    output::print(&format!("{}: {}\n\n", message.role, message.content))?;
                }
            }
            "/save" | "/load" if rest.is_empty() => bail!("{name} needs the name of a file"),
            "/save" => self.save(Path::new(rest))?,
            "/load" => self.load(Path::new(rest))?,
            "/stats" => self.stats(),
            _ => output::note(&format!("no command {name}; /help shows them")),
        }
        Ok(true)
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        let list: Vec<_> = self
            .messages
            .iter()
            .map(|m| serde_json::json!({ "role": m.role, "content": m.content }))
            .collect();
        let text = serde_json::to_string_pretty(&list)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
        output::note(&format!("({} messages written)", list.len()));
        Ok(())
    }

    fn load(&mut self, path: &Path) -> anyhow::Result<()> {
        #[derive(serde::Deserialize)]
        struct Saved {
            role: String,
            content: String,
        }
        let name = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(name)?;
        let list: Vec<Saved> = serde_json::from_str(&text).with_context(name)?;
        self.messages = list.iter().map(|m| Message::new(&m.role, &m.content)).collect();
        output::note(&format!("({} messages read)", list.len()));
        Ok(())
    }

    fn stats(&self) {
        let shape = self.session.shape();
        let used = self.session.tokens().len();
        let memory = process::peak_memory().map_or("?".into(), output::bytes);
        output::note(&format!("context {used} of {} tokens; peak memory {memory}", shape.n_ctx));
        if let Some(last) = &self.last {
            let rest = last.total.saturating_sub(last.first).as_secs_f64().max(1e-9);
            let rate = last.n_tokens.saturating_sub(1) as f64 / rest;
            let first = last.first.as_secs_f64();
            output::note(&format!(
                "last answer: {} tokens, first after {first:.2} s, {rate:.1} tokens/s",
                last.n_tokens
            ));
        }
    }
}

pub fn main(args: ChatArgs) -> anyhow::Result<()> {
    let engine = args.model.load()?;
    let session = args.session.session(&engine)?;
    let Some(template) = args.generate.template(&engine)? else {
        let family = match engine.hparams().arch.name {
            "gemma2" | "gemma3" => " (here perhaps gemma)",
            "qwen2" | "qwen3" => " (here perhaps chatml)",
            _ => "",
        };
        bail!(
            "{}: no chat template in the file. A base model has none: `siskin run` goes on with a \
             text. For one that was trained to chat, name its template with --chat-template \
             FILE|NAME{family}; built in are{}",
            engine.file().path().display(),
            template_names(),
        );
    };
    let options = args.generate.options(&args.sampler);
    let mut chat = Chat { engine, session, template, options, messages: Vec::new(), last: None };
    chat.clear(args.generate.system.as_deref());

    let mut editor = DefaultEditor::new()?;
    // After the editor, which takes the signal for itself: Ctrl-C would stop no answer.
    process::handle_interrupts()?;
    let history = match std::io::stdin().is_terminal() && !args.no_history {
        true => Some(store::root()?.join(".chat_history")),
        false => None,
    };
    if let Some(history) = &history {
        // The first time there is none.
        let _ = editor.load_history(history);
    }
    output::note("/help shows the commands, Ctrl-D leaves");
    let mut text = String::new();
    loop {
        match editor.readline(if text.is_empty() { "> " } else { ". " }) {
            Ok(line) => {
                if let Some(line) = line.strip_suffix('\\') {
                    text += line;
                    text.push('\n');
                    continue;
                }
                text += &line;
            }
            Err(ReadlineError::Interrupted) => {
                text.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
        let line = std::mem::take(&mut text);
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        // What is not kept can still be chatted about.
        let _ = editor.add_history_entry(line);
        let result = if line.starts_with('/') {
            match chat.command(line) {
                Ok(false) => break,
                other => other.map(|_| ()),
            }
        } else {
            chat.messages.push(Message::new("user", line));
            chat.reply()
        };
        if let Err(error) = result {
            if output::is_broken_pipe(&error) {
                return Err(error);
            }
            output::error(&error)?;
        }
    }
    if let Some(history) = &history {
        // A history that cannot be kept does not keep anybody from chatting.
        let _ = history.parent().map(std::fs::create_dir_all);
        let _ = editor.save_history(history);
    }
    Ok(())
}
