//! `plimsoll generate`: answers to prompts under any variant of an adapter, without writing an adapter.

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
use plimsoll::generate::{Chat, GenerateOptions, GenerationEvent, Prompt};
use plimsoll::lora::adapter::Adapter;
use plimsoll::lora::{LayersKept, Variant};
use plimsoll::model::Model;
use plimsoll::result::{Finish, Generated};
use plimsoll::tokenizer::{Message, Tokenizer};
use serde_json::json;

use super::inputs::{EmbeddingLoraArgument, EngineArguments, SamplingArguments, at_least_one, default_batch, template};
use super::output::print;
use crate::hub;
use crate::interrupt::{self, Stage};
use crate::progress::{self, Tokens, ask, say};

/// Generate answers to prompts with the base model, the full adapter or any variant of it.
///
/// No adapter is written: variants exist in memory only, and several of them can answer the same prompts. Decoding is
/// greedy unless --temperature is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll generate --model model.gguf --adapter my-adapter 'What is 12 times 14?'
  plimsoll generate --model model.gguf --adapter my-adapter --layers-kept base,18,full 'What is 12 times 14?'
  plimsoll generate --model model.gguf --adapter my-adapter --data prompts.jsonl --format json > answers.jsonl
  plimsoll generate --model model.gguf --adapter my-adapter --interactive --temperature 0.7 --top-p 0.9
  plimsoll generate --model model.gguf --adapter my-adapter --gates 20-29=0.5 --gates 20-29=0 'Hello'

Lines of --data have the formats that `plimsoll search` reads. Their answers are optional and not used.")]
pub(super) struct Arguments {
    /// Base model: a GGUF file, a folder with config.json, safetensors and tokenizer.json, or a repository id
    /// (OWNER/NAME[@REVISION][:FILE])
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// LoRA adapter: a PEFT folder, an mlx-lm folder, or a repository id. Without it the base model answers
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    embedding_lora: EmbeddingLoraArgument,
    /// Prompts, each sent as a user message
    #[arg(value_name = "PROMPT", required_unless_present_any = ["data", "interactive"])]
    prompts: Vec<String>,
    /// A JSONL file of prompts, or a folder with valid.jsonl
    #[arg(long, value_name = "PATH", conflicts_with = "prompts")]
    data: Option<PathBuf>,
    /// Chat in the terminal: /help lists the commands, /new starts a new chat, /quit or the end of input ends it
    #[arg(long, short, conflicts_with_all = ["prompts", "data"])]
    interactive: bool,
    /// System message before each prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// How many layers keep their LoRA, from the bottom: numbers, `base` (none) or `full` (all). Each value is a
    /// variant that answers [default: full, unless --gates is given]
    #[arg(long, value_name = "K,…", value_delimiter = ',', requires = "adapter")]
    layers_kept: Vec<LayersKept>,
    /// LoRA strengths of layers and modules, such as 0.5, 20-29=0.5 or 7.q_proj=0 (see `plimsoll trim --help`). May be
    /// repeated: each value is a variant that answers
    #[arg(long, value_name = "PLACE=STRENGTH,…", allow_hyphen_values = true, requires = "adapter")]
    gates: Vec<String>,
    /// Chat template of the prompts: `tokenizer` for the tokenizer's own, `none`, or a Jinja file
    #[arg(long, value_name = "tokenizer|none|FILE", default_value = "tokenizer")]
    template: String,
    /// Maximum length of an answer, in tokens
    #[arg(long, value_name = "N", default_value = "256", value_parser = at_least_one)]
    max_tokens: NonZero<usize>,
    /// Text that ends an answer. May be repeated
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Number of answers that are generated in parallel
    #[arg(long, value_name = "N", default_value_t = default_batch(), value_parser = at_least_one)]
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

/// Maximum length of a typed turn, in bytes.
const LONGEST_TURN: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The answers; a single answer is printed while it is generated
    Text,
    /// One JSON object per line for each prompt and variant: line, layers_kept, gates, text, tokens, finish,
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

/// What generates answers: engine, tokenizer, variants and options.
struct Job<'a> {
    engine: &'a CpuEngine,
    tokenizer: &'a Tokenizer,
    variants: &'a [Variant],
    options: &'a GenerateOptions,
}

/// Answers all questions. Prints the answers in the order of the questions.
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
        let printing = match event {
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
        failed = failed.take().or(printing.err());
        if failed.is_some() || interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    tokens.finish();
    match failed {
        Some(error) => Err(error),
        None => Ok(answers.map(drop)?),
    }
}

/// A text for stdout: on a terminal, control characters are replaced, because a model's output could contain escapes.
fn shown(text: &str) -> String {
    if !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    let is_replaced = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if is_replaced(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// An answer as a JSON object on one line.
fn line(question: &Question, variant: &Variant, answer: &Generated) -> String {
    let Generated { text, tokens, finish } = answer;
    json!({
        "line": question.line, "layers_kept": variant.layers_kept(), "gates": variant.spec(), "text": text,
        "tokens": tokens, "finish": finish, "prompt_tokens": question.tokens.len(),
    })
    .to_string()
}

/// One of several answers, with a heading.
fn block(question: &Question, variant: &Variant, answer: &Generated, is_first: bool) -> String {
    let (space, name) = (if is_first { "" } else { "\n" }, variant.name());
    let cut = if answer.finish == Finish::Length { " …" } else { "" };
    format!("{space}── prompt {}, {name}\n{}{cut}\n", question.line, answer.text)
}

/// The commands of a chat, printed at its start and by `/help`.
const COMMANDS: &str = "\
Commands:
  /help   print this list
  /new    start a new chat
  /quit   end the chat (as do /exit, and the end of input with Ctrl-D)
Ctrl-C stops an answer, and the chat continues with the part that was written. With several variants,
the turn is dropped for all of them. Ctrl-C twice ends the chat. A line that starts with a space is
never a command.";

/// Maximum number of characters of a line that a message repeats.
const SHOWN: usize = 60;

/// Runs a chat in the terminal, with all variants.
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
        // Nothing of a chat is kept, so without a terminal an interrupt may end the program at once.
        interrupt::install();
        if !arguments.quiet {
            say(COMMANDS);
        }
    }
    for number in 1.. {
        // Interrupts during the last answer.
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
                let advice = "to send the line as text, start it with a space";
                say(&format!("plimsoll: /{name}: expected nothing after the command, found {rest:?}; {advice}"));
            }
            (Some(("quit" | "exit", _)), _) => break,
            (Some(("help", _)), _) => say(COMMANDS),
            (Some(("new", _)), _) => chats.iter_mut().for_each(|(_, messages)| messages.truncate(system.len())),
            (Some((name, _)), _) => say(&format!("plimsoll: unknown command /{name}\n{COMMANDS}")),
            (None, "") => {}
            (None, text) => take_turn(&mut chats, text, number, job, renderer)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The command of a line, and the text after it: a line that starts with a slash and a word, but not with a path.
fn command(typed: &str) -> Option<(&str, &str)> {
    let typed = typed.strip_prefix('/')?;
    let (name, rest) = typed.split_once(char::is_whitespace).unwrap_or((typed, ""));
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_name.then(|| (name, rest.trim()))
}

/// Answers a turn with each of the variants. If one of several does not finish its answer, all of them drop the turn,
/// so that their conversations stay the same.
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

/// Answers the last turn of a chat, and prints the answer while it is generated. Returns the answer: if an interrupt
/// stopped it, its first part; `None` if there is no text.
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
        // The chat is longer than the context.
        (None, Err(Error::Usage(problem))) => {
            say(&format!("plimsoll: {problem}; /new starts a new chat"));
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
                let problem = "--system is for prompts on the command line: put system messages into the --data file";
                return Err(Error::Usage(problem.into()).into());
            }
            return Ok(data::questions(path, renderer, context)?);
        }
        let is_plain = renderer.used() == TemplateUse::None;
        if is_plain && self.system.is_some() {
            let problem = "--system needs a chat template, and there is none: give one with --template FILE";
            return Err(Error::Usage(problem.into()).into());
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
