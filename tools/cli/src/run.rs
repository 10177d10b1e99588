//! `siskin run`

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use siskin::chat::{ChatTemplate, Message, RenderOptions};
use siskin::tokenizer::EncodeOptions;
use siskin::{Engine, Error, Finish, GenerateOptions, Session};

use crate::args::{ModelArgs, SamplerArgs, SessionArgs, parse_count};
use crate::prompt::PromptArgs;
use crate::{output, process};

/// Gives one answer, as it is generated
///
/// The model's chat template is applied if it has one; --raw goes on with the text instead.
///
/// Examples:
///   siskin run "Why is the sky blue?"
///   git diff | siskin run -m qwen2.5-coder-0.5b "Write a commit message for this:" -f -
///
/// With a PROMPT, standard input is read only for -f -, so that a pipe which nobody closes and the
/// input of a shell's loop are left alone.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct RunArgs {
    #[command(flatten)]
    prompt: PromptArgs,
    /// Complete the text; apply no chat template.
    #[arg(long)]
    raw: bool,
    /// Print {"text":...,"tokens":...,"finish":...,...} when done.
    #[arg(long)]
    json: bool,
    /// Print timings and memory to standard error when done.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    generate: GenerateArgs,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    sampler: SamplerArgs,
}

/// What an answer is like.
#[derive(Args)]
#[command(next_help_heading = "Answer")]
pub struct GenerateArgs {
    /// Tokens at the most; -1: until the model ends or the context is full [default: -1].
    #[arg(
        short = 'n',
        long,
        visible_alias = "n-predict",
        allow_negative_numbers = true,
        value_parser = parse_count
    )]
    pub predict: Option<usize>,
    /// Text that ends the answer; may be given several times.
    #[arg(long)]
    pub stop: Vec<String>,
    /// Go on where the model would end.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Print control tokens as text.
    #[arg(long)]
    pub special: bool,
    /// Text across which DRY sees no repetition; may be given several times [default: line
    /// breaks, ":", "\"" and "*"].
    #[arg(long)]
    pub dry_sequence_breaker: Vec<String>,
    /// A system message.
    #[arg(long)]
    pub system: Option<String>,
    /// The chat template: a file, or the name of one that is built in [default: the model's own].
    #[arg(long, value_name = "FILE|NAME")]
    pub chat_template: Option<String>,
}

impl GenerateArgs {
    /// The options.
    pub fn options(&self, sampler: &SamplerArgs) -> GenerateOptions {
        let mut options = GenerateOptions {
            sampler: sampler.params(),
            max_tokens: self.predict.unwrap_or(usize::MAX),
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            special: self.special,
            ..GenerateOptions::default()
        };
        if !self.dry_sequence_breaker.is_empty() {
            options.dry_breakers = self.dry_sequence_breaker.clone();
        }
        options
    }

    /// The template to use: the one asked for, or the model's own, if it has one.
    pub fn template(&self, engine: &Engine) -> anyhow::Result<Option<ChatTemplate>> {
        let Some(name) = &self.chat_template else {
            let own = engine.file().metadata().str("tokenizer.chat_template")?;
            return Ok(own.map(|t| ChatTemplate::new(t, "tokenizer.chat_template")).transpose()?);
        };
        if let Some(template) = ChatTemplate::builtin(name) {
            return Ok(Some(template));
        }
        let text = std::fs::read_to_string(name).map_err(|error| {
            anyhow!("--chat-template {name}: {error}; built in are{}", template_names())
        })?;
        Ok(Some(ChatTemplate::new(&text, name)?))
    }
}

/// The names of the built-in templates, on lines of their own.
pub fn template_names() -> String {
    let mut text = String::new();
    let mut column = usize::MAX;
    for name in ChatTemplate::builtin_names() {
        // As wide as the help.
        if column.saturating_add(name.len()) > 98 {
            text += "\n ";
            column = 1;
        }
        text += " ";
        text += name;
        column += 1 + name.len();
    }
    text
}

/// Renders a conversation and encodes it.
pub fn encode_chat(
    engine: &Engine,
    template: &ChatTemplate,
    messages: &[Message],
) -> anyhow::Result<Vec<u32>> {
    let tokenizer = engine.tokenizer();
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
    let bos = text(tokenizer.bos());
    let options = RenderOptions {
        bos_token: bos.clone(),
        eos_token: text(tokenizer.eos()),
        ..RenderOptions::default()
    };
    let prompt = template.render(messages, &options)?;
    // A template that writes BOS itself must not get a second one.
    let add_special = !bos.is_some_and(|bos| prompt.starts_with(&bos));
    Ok(tokenizer.encode(&prompt, EncodeOptions { add_special, parse_special: true })?)
}

/// How an answer went.
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub n_tokens: usize,
    /// Why it ended; `None` if it was interrupted.
    pub finish: Option<Finish>,
    /// From the request to the first text.
    pub first: Duration,
    /// All of it.
    pub total: Duration,
}

/// Bytes of text that there is room for from the beginning, for each token that an answer may have.
const BYTES_PER_TOKEN: usize = 8;

/// Generates an answer and writes it to standard output as it comes, unless `quiet`.
pub fn answer(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    quiet: bool,
) -> anyhow::Result<Answer> {
    let _interruptible = process::Interruptible::new(session.cancel_handle())?;
    let start = Instant::now();
    let mut text = String::new();
    let room = session.shape().n_ctx.saturating_sub(prompt.len()).min(options.max_tokens);
    // Where this is refused, the text grows as it comes.
    let _ = text.try_reserve(BYTES_PER_TOKEN * room);
    let mut result =
        Answer { text, n_tokens: 0, finish: None, first: Duration::ZERO, total: Duration::ZERO };
    let mut out = anstream::stdout().lock();
    match session.stream(prompt, options) {
        Ok(mut stream) => {
            result.first = start.elapsed();
            loop {
                match stream.next_piece() {
                    Ok(Some(piece)) => {
                        if !quiet {
                            let written = out.write_all(piece.as_bytes());
                            written.and_then(|()| out.flush()).context("standard output")?;
                        }
                        result.text += piece;
                    }
                    Ok(None) | Err(Error::Cancelled) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            result.finish = stream.finish().cloned();
            result.n_tokens = stream.n_tokens();
        }
        Err(Error::Cancelled) => {}
        Err(error) => return Err(error.into()),
    }
    result.total = start.elapsed();
    Ok(result)
}

/// The name of a reason to end.
fn finish_name(finish: Option<&Finish>) -> &'static str {
    match finish {
        Some(Finish::EndOfGeneration(_)) => "end",
        Some(Finish::Stop(_)) => "stop",
        Some(Finish::MaxTokens) => "length",
        Some(Finish::ContextFull) => "context",
        None => "interrupted",
    }
}

pub fn main(args: RunArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    let text = args.prompt.text()?;
    if !args.raw && text.trim().is_empty() {
        bail!("the prompt is empty; with --raw the model begins a text of its own");
    }
    let engine = args.model.load()?;
    let mut session = args.session.session(&engine)?;
    let template = if args.raw { None } else { args.generate.template(&engine)? };
    let prompt = match &template {
        Some(template) => {
            let mut messages = Vec::new();
            messages.extend(args.generate.system.iter().map(|s| Message::new("system", s)));
            messages.push(Message::new("user", &text));
            encode_chat(&engine, template, &messages)?
        }
        None => {
            let options = EncodeOptions { add_special: true, parse_special: args.raw };
            engine.tokenizer().encode(&text, options)?
        }
    };
    let loaded = start.elapsed();
    let options = args.generate.options(&args.sampler);
    let answer = answer(&mut session, &prompt, &options, args.json)?;
    let decode = answer.total.saturating_sub(answer.first).as_secs_f64();
    let decode_rate = answer.n_tokens.saturating_sub(1) as f64 / decode.max(1e-9);
    let prefill_rate = prompt.len() as f64 / answer.first.as_secs_f64().max(1e-9);
    if args.json {
        output::json(&serde_json::json!({
            "text": answer.text,
            "prompt_tokens": prompt.len(),
            "tokens": answer.n_tokens,
            "ctx": session.shape().n_ctx,
            "finish": finish_name(answer.finish.as_ref()),
            "load_s": loaded.as_secs_f64(),
            "prefill_s": answer.first.as_secs_f64(),
            "prefill_tokens_per_s": prefill_rate,
            "decode_tokens_per_s": decode_rate,
            "peak_memory_bytes": process::peak_memory(),
        }))?;
    } else if !answer.text.ends_with('\n') {
        output::print("\n")?;
    }
    if args.verbose {
        let memory = process::peak_memory().map_or("?".into(), output::bytes);
        output::note(&format!(
            "load {:.0} ms; prompt {} tokens at {prefill_rate:.1}/s; answer {} tokens at \
             {decode_rate:.1}/s; context {}; peak memory {memory}; {} threads, {}",
            loaded.as_secs_f64() * 1e3,
            prompt.len(),
            answer.n_tokens,
            session.shape().n_ctx,
            engine.threads(),
            engine.level(),
        ));
    }
    if answer.finish.is_none() {
        return Err(process::Interrupted.into());
    }
    if answer.finish == Some(Finish::ContextFull) {
        output::note("the context is full; -c makes it longer");
    }
    Ok(())
}
