//! `plimsoll generate`: text from prompts, under any boundary, without rewriting a file.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use plimsoll::Error;
use plimsoll::data::{self, Question, Renderer, TemplateUse};
use plimsoll::engine::{CpuDecoder, CpuEngine, Generator as _};
use plimsoll::generate::{BATCH, Chat, GenerateOptions, GenerationEvent, Prompt};
use plimsoll::lora::adapter::Adapter;
use plimsoll::lora::{LayersKept, Variant};
use plimsoll::model::Model;
use plimsoll::result::{Finish, Generated};
use plimsoll::tokenizer::{Message, Tokenizer};
use serde_json::json;

use super::inputs::{EmbeddingLoraArgument, EngineArguments, SamplingArguments, at_least_one, template};
use super::output::print;
use crate::hub;
use crate::interrupt::{self, Stage};
use crate::progress::{self, Tokens, ask, say};

/// Answer prompts with the base model, the full adapter, or any part of it.
///
/// Boundaries and strengths are gates: no file is rewritten, and several variants answer the same prompts side by side.
/// The most probable token is taken at each step, unless a temperature is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll generate --model model.gguf --adapter my-adapter 'What is 12 times 14?'
  plimsoll generate --model model.gguf --adapter my-adapter --layers-kept base,18,full 'What is 12 times 14?'
  plimsoll generate --model model.gguf --adapter my-adapter --data prompts.jsonl --format json > answers.jsonl
  plimsoll generate --model model.gguf --adapter my-adapter --interactive --temperature 0.7 --top-p 0.9
  plimsoll generate --model model.gguf --adapter my-adapter --gates 20-29=0.5 --gates 20-29=0 'Hello'

Lines of --data have the shapes that search reads; their answers may be missing, and are not looked at.")]
pub(super) struct Arguments {
    /// Base model: a GGUF file, a folder with config.json, safetensors and tokenizer.json, or the id of a repository
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// LoRA adapter, as PEFT or mlx-lm writes it, or an id; the base model answers where none is given
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    embedding_lora: EmbeddingLoraArgument,
    /// What to answer, each a user's turn
    #[arg(value_name = "PROMPT", required_unless_present_any = ["data", "interactive"])]
    prompts: Vec<String>,
    /// A JSONL file of prompts, or a folder with valid.jsonl
    #[arg(long, value_name = "PATH", conflicts_with = "prompts")]
    data: Option<PathBuf>,
    /// Chat on the terminal: /help lists the commands, /new begins a new chat, /quit or the end of input leaves
    #[arg(long, short, conflicts_with_all = ["prompts", "data"])]
    interactive: bool,
    /// What the system's turn says, before each prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Which layers keep their LoRA, from the bottom: a number, `base` for none, `full` for all; several answer side by
    /// side [default: full, where no --gates are given]
    #[arg(long, value_name = "K,…", value_delimiter = ',', requires = "adapter")]
    layers_kept: Vec<LayersKept>,
    /// Strengths of layers and modules, such as 0.5, 20-29=0.5 or 7.q_proj=0 (see `plimsoll trim --help`); given
    /// several times, each answers
    #[arg(long, value_name = "GATES", allow_hyphen_values = true, requires = "adapter")]
    gates: Vec<String>,
    /// How prompts are rendered: `tokenizer` for its own chat template, `none`, or a Jinja file
    #[arg(long, value_name = "tokenizer|none|FILE", default_value = "tokenizer")]
    template: String,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value = "256", value_parser = at_least_one)]
    max_tokens: NonZero<usize>,
    /// A text that ends an answer; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Answers that are generated side by side
    #[arg(long, value_name = "N", default_value_t = NonZero::new(BATCH).unwrap_or(NonZero::<usize>::MIN), value_parser = at_least_one)]
    batch: NonZero<usize>,
    /// What to print on stdout
    #[arg(long, value_enum, default_value = "text", conflicts_with = "interactive")]
    format: Format,
    /// No progress on stderr
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Bytes of a turn that is typed.
const LONGEST_TURN: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The answers, as they come where there is one
    Text,
    /// One JSON object a line for each prompt and variant: line, layers_kept, gates, text, tokens, finish,
    /// prompt_tokens
    Json,
}

/// Runs the subcommand.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let options = arguments.options()?;
    let model = hub::model(&arguments.model, arguments.quiet)?;
    let adapter = arguments.adapter.as_deref().map(|adapter| hub::adapter(adapter, arguments.quiet)).transpose()?;
    let opening = progress::spinner("reading model and adapter", arguments.quiet);
    let checkpoint = Model::open(&model)?;
    let adapter = adapter.as_deref().map(Adapter::open).transpose()?;
    let adapter = adapter.map(|adapter| adapter.with_embedding_lora(arguments.embedding_lora.choice()));
    let lora = checkpoint.bind(adapter.as_ref())?;
    let layers = checkpoint.config().layers;
    let variants = match &adapter {
        None => vec![Variant::bottom_k(layers, 0)],
        Some(_) if arguments.layers_kept.is_empty() && arguments.gates.is_empty() => {
            vec![Variant::uniform(layers, 1.0)]
        }
        Some(adapter) => LayersKept::variants(&arguments.layers_kept, &arguments.gates, layers, &adapter.places())?,
    };
    let tokenizer = checkpoint.tokenizer()?;
    let renderer = Renderer::new(&tokenizer, &template(&arguments.template)?)?;
    let questions = if arguments.interactive { Vec::new() } else { arguments.questions(&renderer, &checkpoint)? };
    let engine = CpuEngine::load(&checkpoint, &lora, arguments.engine.options())?;
    opening.finish_and_clear();
    progress::warn_of_base(adapter.as_ref().and_then(|adapter| checkpoint.other_base(adapter)));

    let job = Job { engine: &engine, tokenizer: &tokenizer, variants: &variants, options: &options };
    if arguments.interactive {
        return chat(&job, &renderer, arguments);
    }
    interrupt::install();
    answer(&job, &questions, arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// What answers, and how.
struct Job<'a> {
    engine: &'a CpuEngine,
    tokenizer: &'a Tokenizer,
    variants: &'a [Variant],
    options: &'a GenerateOptions,
}

/// Answers all questions, and prints each answer once those before it are printed.
fn answer(job: &Job<'_>, questions: &[Question], arguments: &Arguments) -> Result<()> {
    let Job { engine, tokenizer, variants, options } = *job;
    let prompts: Vec<Prompt> = questions
        .iter()
        .flat_map(|question| {
            (0..variants.len()).map(|variant| Prompt {
                tokens: question.tokens.clone(),
                variant,
                number: question.line as u64,
            })
        })
        .collect();
    let streams = arguments.format == Format::Text && prompts.len() == 1;
    let mut tokens = Tokens::new(prompts.len(), arguments.quiet || streams);
    let mut finished: Vec<Option<Generated>> = prompts.iter().map(|_| None).collect();
    let (mut printed, mut failed) = (0, None);
    let answers = engine.generate(tokenizer, variants, &prompts, options, &mut |event| {
        let told = match event {
            GenerationEvent::Text(_, piece) if streams => print(&shown(piece)),
            GenerationEvent::Text(..) => Ok(()),
            GenerationEvent::Finished(index, answer) => {
                finished[index] = Some(answer.clone());
                tokens.finished();
                tokens.suspend(|| {
                    while let Some(Some(answer)) = finished.get(printed) {
                        let (question, variant) = (&questions[printed / variants.len()], prompts[printed].variant);
                        let is_first = printed == 0;
                        printed += 1;
                        print(&match arguments.format {
                            Format::Json => line(question, &variants[variant], answer) + "\n",
                            Format::Text if streams => "\n".to_owned(),
                            Format::Text => shown(&block(question, &variants[variant], answer, is_first)),
                        })?;
                    }
                    Ok(())
                })
            }
            GenerationEvent::Tokens(picked) => {
                tokens.picked(picked);
                Ok(())
            }
        };
        failed = failed.take().or(told.err());
        if failed.is_some() || interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    tokens.finish();
    match failed {
        Some(error) => Err(error),
        None => Ok(answers.map(drop)?),
    }
}

/// A text as it may go to a terminal: what a model writes could steer it.
fn shown(text: &str) -> String {
    if !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    let is_unruly = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if is_unruly(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn line(question: &Question, variant: &Variant, answer: &Generated) -> String {
    let Generated { text, tokens, finish } = answer;
    json!({
        "line": question.line, "layers_kept": variant.layers_kept(), "gates": variant.spec(), "text": text,
        "tokens": tokens, "finish": finish, "prompt_tokens": question.tokens.len(),
    })
    .to_string()
}

/// An answer among several, under a heading.
fn block(question: &Question, variant: &Variant, answer: &Generated, is_first: bool) -> String {
    let (space, name) = (if is_first { "" } else { "\n" }, variant.name());
    let cut = if answer.finish == Finish::Length { " …" } else { "" };
    format!("{space}── prompt {}, {name}\n{}{cut}\n", question.line, answer.text)
}

/// The commands of a chat, for its greeting and `/help`.
const COMMANDS: &str = "\
Commands:
  /help   print this list
  /new    begin a new chat
  /quit   leave, as /exit and the end of input (Ctrl-D) do
Ctrl-C stops an answer, and the chat continues with the part that was written; with several variants, the turn is dropped
for all of them. Ctrl-C twice leaves. A line that begins with a space is never a command.";

/// Characters of a line that are repeated in a message.
const SHOWN: usize = 60;

/// A chat on the terminal, with each of the variants.
fn chat(job: &Job<'_>, renderer: &Renderer<'_>, arguments: &Arguments) -> Result<ExitCode> {
    let Job { engine, tokenizer, variants, .. } = *job;
    if renderer.used() == TemplateUse::None {
        let problem = "--interactive needs a chat template, and there is none: give one with --template FILE";
        return Err(Error::Usage(problem.into()).into());
    }
    let system: Vec<Message> = arguments.system.iter().map(|text| Message::new("system", text)).collect();
    let begin = |variant: &Variant| (engine.chat(tokenizer, variant.clone()), system.clone());
    let mut chats: Vec<(Chat<'_, CpuDecoder<'_>>, Vec<Message>)> = variants.iter().map(begin).collect();
    let is_terminal = std::io::stdin().is_terminal();
    if is_terminal {
        // Nothing is kept of a chat: without a terminal, an interrupt ends it at once.
        interrupt::install();
        if !arguments.quiet {
            say(COMMANDS);
        }
    }
    for number in 1.. {
        // Those that came into the last answer.
        interrupt::forget();
        interrupt::enter(Stage::Typing);
        if is_terminal {
            ask("> ");
        }
        let mut typed = Vec::new();
        if std::io::stdin().lock().take(LONGEST_TURN).read_until(b'\n', &mut typed)? == 0 {
            break;
        }
        interrupt::enter(Stage::Answering);
        interrupt::forget();
        let typed = String::from_utf8_lossy(&typed);
        match (command(&typed), typed.trim()) {
            (Some((name @ ("quit" | "exit" | "help" | "new"), rest)), _) if !rest.is_empty() => {
                let rest: String = rest.chars().take(SHOWN).collect();
                let space = "to send the line as text, begin it with a space";
                say(&format!("plimsoll: /{name}: expected nothing behind it, found {rest:?}; {space}"));
            }
            (Some(("quit" | "exit", _)), _) => break,
            (Some(("help", _)), _) => say(COMMANDS),
            (Some(("new", _)), _) => chats.iter_mut().for_each(|(_, messages)| messages.truncate(system.len())),
            (Some((name, _)), _) => say(&format!("plimsoll: there is no command /{name}\n{COMMANDS}")),
            (None, "") => {}
            (None, text) => take_turn(&mut chats, text, number, job, renderer)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A command, and what is typed behind it: a line that begins with a slash and a word, which is no path.
fn command(typed: &str) -> Option<(&str, &str)> {
    let typed = typed.strip_prefix('/')?;
    let (name, rest) = typed.split_once(char::is_whitespace).unwrap_or((typed, ""));
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_name.then(|| (name, rest.trim()))
}

/// Answers a turn with each of the variants. Where one of several does not finish its answer, all of them drop the turn,
/// so that they go on from the same conversation.
fn take_turn(
    chats: &mut [(Chat<'_, CpuDecoder<'_>>, Vec<Message>)],
    text: &str,
    number: u64,
    job: &Job<'_>,
    renderer: &Renderer<'_>,
) -> Result<()> {
    let (count, before) = (chats.len(), chats.first().map_or(0, |(_, messages)| messages.len()));
    let mut is_kept = true;
    for ((chat, messages), variant) in chats.iter_mut().zip(job.variants) {
        if count > 1 {
            print(&format!("── {}\n", variant.name()))?;
        }
        messages.push(Message::new("user", text));
        match reply(chat, messages, number, job, renderer)? {
            Some(answer) if count == 1 || !interrupt::asked() => messages.push(Message::new("assistant", answer)),
            _ => {
                is_kept = false;
                break;
            }
        }
    }
    if !is_kept {
        chats.iter_mut().for_each(|(_, messages)| messages.truncate(before));
        if count > 1 {
            say(&format!("plimsoll: not all {count} variants finished an answer: the turn is dropped for all of them"));
        }
    }
    Ok(())
}

/// Answers the last turn of a chat, and prints the answer as it comes. Returns it, as far as it came where an interrupt
/// stopped it; nothing where there is none.
fn reply(
    chat: &mut Chat<'_, CpuDecoder<'_>>,
    messages: &[Message],
    number: u64,
    job: &Job<'_>,
    renderer: &Renderer<'_>,
) -> Result<Option<String>> {
    let tokens = renderer.chat(messages).map_err(|problem| Error::Usage(problem.to_string()))?;
    let prompt = Prompt { tokens, variant: 0, number };
    let (mut text, mut failed) = (String::new(), None);
    let answer = chat.answer(&prompt, job.options, &mut |piece| {
        text.push_str(piece);
        failed = print(&shown(piece)).err();
        if failed.is_some() || interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match (failed, answer) {
        (Some(error), _) => Err(error),
        (None, Ok(answer)) => print("\n").map(|()| Some(answer.text)),
        (None, Err(Error::Interrupted)) => print("\n").map(|()| Some(text).filter(|text| !text.is_empty())),
        // A chat that has grown too long.
        (None, Err(Error::Usage(problem))) => {
            say(&format!("plimsoll: {problem}; /new begins a new chat"));
            Ok(None)
        }
        (None, Err(error)) => Err(error.into()),
    }
}

impl Arguments {
    fn options(&self) -> Result<GenerateOptions> {
        Ok(GenerateOptions {
            sampling: self.sampling.sampling()?,
            max_tokens: self.max_tokens.get(),
            stop: self.stop.clone(),
            batch: self.batch.get(),
        })
    }

    fn questions(&self, renderer: &Renderer<'_>, checkpoint: &Model) -> Result<Vec<Question>> {
        let context = checkpoint.config().context;
        if let Some(path) = &self.data {
            if self.system.is_some() {
                return Err(
                    Error::Usage("--system goes with prompts on the command line; --data has its own".into()).into()
                );
            }
            return Ok(data::questions(path, renderer, context)?);
        }
        let is_plain = renderer.used() == TemplateUse::None;
        if is_plain && self.system.is_some() {
            return Err(Error::Usage("--system needs a chat template, and there is none".into()).into());
        }
        let mut questions = Vec::with_capacity(self.prompts.len());
        for (line, text) in (1..).zip(&self.prompts) {
            let system = self.system.iter().map(|text| Message::new("system", text));
            let messages: Vec<Message> = system.chain([Message::new("user", text)]).collect();
            let tokens = if is_plain { renderer.plain(text) } else { renderer.chat(&messages) };
            let tokens = tokens.map_err(|problem| Error::Usage(format!("prompt {line}: {problem}")))?;
            questions.push(Question { line, tokens });
        }
        Ok(questions)
    }
}
