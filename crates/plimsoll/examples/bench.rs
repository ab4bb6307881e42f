//! Benchmark jobs of the CPU engine: plimsoll's side of `reference/bench`. Each call runs one job and prints one JSON
//! object.
//!
//! ```text
//! cargo run --release -p plimsoll --example bench -- JOB --NAME VALUE …
//! ```
//!
//! The jobs and their arguments are the functions below.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use plimsoll::choose::race::{Race, RaceStep};
use plimsoll::choose::sufficient::{self, Cut};
use plimsoll::choose::{ChooseOptions, Margin};
use plimsoll::data::{self, LongSamples, Sample, TemplateChoice, Turns};
use plimsoll::engine::{CpuEngine, CpuOptions, Engines, Request, Scorer as _, Sequence};
use plimsoll::generate::{self, Decoder as _, most_probable};
use plimsoll::lora::Variant;
use plimsoll::lora::adapter::Adapter;
use plimsoll::model::{Dtype, Isa, Model, Precision};
use plimsoll::result::SampleScores;
use plimsoll::search::{SearchSettings, Strategy, Study};
use plimsoll::stats::mean_and_se;
use plimsoll_kernels::{Mode, Packed, Rows, Threads, linear, peak};
use serde_json::{Value, json};

const JOBS: &str = "peak, gemm, tokens, sweep or generate";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let job = words.next().ok_or_else(|| format!("expected a job: {JOBS}"))?;
    let words: Vec<String> = words.collect();
    let mut arguments = Arguments(BTreeMap::new());
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(format!("{}: expected a value", pair[0]).into()) };
        arguments.0.insert(name.trim_start_matches("--").to_owned(), value.clone());
    }
    let result = match job.as_str() {
        "peak" => peak_job(&arguments),
        "gemm" => gemm(&arguments),
        "tokens" => tokens(&arguments),
        "sweep" => sweep(&arguments),
        "generate" => generate(&arguments),
        _ => Err(format!("expected a job: {JOBS}; found {job}").into()),
    }?;
    println!("{result}");
    Ok(())
}

struct Arguments(BTreeMap<String, String>);

impl Arguments {
    fn text(&self, name: &str) -> Result<&str> {
        Ok(self.0.get(name).ok_or_else(|| format!("--{name} is missing"))?)
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        Ok(self.text(name)?.into())
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.0.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("--{name}: expected a number, found {text}").into()),
        }
    }

    fn dtype(&self) -> Result<Dtype> {
        match self.text("dtype")? {
            "bf16" => Ok(Dtype::Bf16),
            "f32" => Ok(Dtype::F32),
            other => Err(format!("--dtype: expected bf16 or f32, found {other}").into()),
        }
    }
}

fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?)
}

/// Measures the multiply-add throughput of the processor without memory access: the upper limit of the other jobs.
fn peak_job(arguments: &Arguments) -> Result<Value> {
    let threads = arguments.number("threads", 2)?;
    let pool = pool(threads)?;
    let measure = |dtype| {
        let mut rates: Vec<f64> = (0..7)
            .map(|_| {
                let begun = Instant::now();
                let flops: f64 = pool.broadcast(|_| peak(Isa::best(), dtype, 20_000_000)).iter().sum();
                flops / begun.elapsed().as_secs_f64() / 1e9
            })
            .collect();
        median(&mut rates)
    };
    Ok(json!({"f32_gflops": measure(Dtype::F32), "bf16_gflops": measure(Dtype::Bf16), "isa": Isa::best().to_string()}))
}

/// Measures matrix products with weights that are not in a cache.
fn gemm(arguments: &Arguments) -> Result<Value> {
    let (dtype, seconds) = (arguments.dtype()?, arguments.number("seconds", 0.3)?);
    let pool = pool(arguments.number("threads", 2)?)?;
    let isa = Isa::best();
    let mut shapes = Vec::new();
    for shape in arguments.text("shapes")?.split(';') {
        let numbers: Vec<usize> = shape.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
        let [rows, inputs, outputs] = numbers[..] else {
            return Err(format!("{shape}: expected three numbers").into());
        };
        let copies = 64_000_000 / (inputs * outputs * dtype.bytes()) + 1;
        let number = |i: usize| (i as f32 * 0.37).sin();
        let w: Vec<f32> = (0..inputs * outputs).map(number).collect();
        let weights: Vec<Packed> = (0..copies).map(|_| Packed::from_rows(dtype, &w, inputs)).collect();
        let mut x = Rows::new(dtype);
        x.resize(rows, inputs);
        x.write(isa, 0, &(0..rows * inputs).map(number).collect::<Vec<_>>());
        let mut y = vec![0.0; rows * outputs];
        let mut rates: Vec<f64> = (0..5)
            .map(|_| {
                pool.install(|| {
                    let begun = Instant::now();
                    let mut done = 0;
                    while begun.elapsed().as_secs_f64() < seconds {
                        linear(isa, &mut y, &x, &weights[done % copies], None, Mode::Set, Threads::All);
                        done += 1;
                    }
                    2.0 * (rows * inputs * outputs * done) as f64 / begun.elapsed().as_secs_f64() / 1e9
                })
            })
            .collect();
        shapes.push(json!({"rows": rows, "inputs": inputs, "outputs": outputs, "gflops": median(&mut rates)}));
    }
    Ok(json!({"shapes": shapes}))
}

/// Writes the tokens of some samples, so that the other program scores the same tokens.
fn tokens(arguments: &Arguments) -> Result<Value> {
    let checkpoint = Model::open(&arguments.path("model")?)?;
    let (samples, shots) = (arguments.number("samples", 32)?, arguments.number("shots", 0)?);
    let text = fs::read_to_string(arguments.path("data")?)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    let field = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let examples: String = lines[..shots]
        .iter()
        .map(|line| format!("{}\n{}\n\n", field(line, "prompt"), field(line, "completion")))
        .collect();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("valid.jsonl");
    let rows = lines[shots..].iter().map(|line| {
        let prompt = format!("{examples}{}", field(line, "prompt"));
        json!({"prompt": prompt, "completion": field(line, "completion")}).to_string() + "\n"
    });
    fs::write(&file, rows.collect::<String>())?;
    let options = data::DataOptions {
        template: TemplateChoice::Tokenizer,
        turns: Turns::Last,
        max_samples: Some(samples),
        seed: 0,
        max_length: checkpoint.config().context,
        long: LongSamples::Skip,
    };
    let dataset = data::load(&file, &checkpoint.tokenizer()?, &options)?;
    let lines = dataset.samples.iter().map(|sample| {
        json!({"line": sample.line, "tokens": sample.tokens, "answer": sample.answer}).to_string() + "\n"
    });
    fs::write(arguments.path("out")?, lines.collect::<String>())?;
    let sum = |of: fn(&Sample) -> usize| dataset.samples.iter().map(of).sum::<usize>();
    let (tokens, answer_tokens) = (sum(|sample| sample.tokens.len()), sum(|sample| sample.answer.len()));
    Ok(json!({"samples": dataset.samples.len(), "tokens": tokens, "answer_tokens": answer_tokens}))
}

fn read_tokens(arguments: &Arguments) -> Result<Vec<Sample>> {
    let numbers = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect::<Vec<_>>();
    let mut samples = Vec::new();
    for line in fs::read_to_string(arguments.path("tokens")?)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        samples.push(Sample {
            line: line["line"].as_u64().ok_or("a line without a number")? as usize,
            tokens: numbers(&line["tokens"]).into_iter().map(|token| token as u32).collect(),
            answer: numbers(&line["answer"]).into_iter().map(|position| position as usize).collect(),
        });
    }
    Ok(samples)
}

fn engine(arguments: &Arguments) -> Result<CpuEngine> {
    let checkpoint = Model::open(&arguments.path("model")?)?;
    let lora = checkpoint.bind(Some(&Adapter::open(&arguments.path("adapter")?)?))?;
    let options = CpuOptions {
        threads: NonZero::new(arguments.number("threads", 2)?),
        precision: Precision::new(arguments.dtype()?),
        memory: Some(arguments.number("memory-mib", 1024)? << 20),
    };
    Ok(CpuEngine::load(&checkpoint, &lora, options)?)
}

/// The margin of sufficient layers.
const MARGIN: Margin = Margin::Share(0.95);

/// Runs a sequential search, which ends as soon as the margin needs no more.
fn sequential(arguments: &Arguments) -> Result<Value> {
    let begun = Instant::now();
    let engine = engine(arguments)?;
    let load_seconds = begun.elapsed().as_secs_f64();
    let table = Adapter::open(&arguments.path("adapter")?)?.table(engine.layers())?;
    let settings = SearchSettings { strategy: Strategy::Sequential, margin: MARGIN, ..SearchSettings::default() };
    let study = Study::new(settings, table, read_tokens(arguments)?, None)?;
    let begun = Instant::now();
    let engines = Engines { scorer: &engine, generator: None, probe: None, benchmark: None };
    let findings = study.run(&engines, &mut |_| ControlFlow::Continue(()))?;
    let seconds = begun.elapsed().as_secs_f64();
    let row = findings.sufficient[0].row(MARGIN).ok_or("no row for the margin")?;
    Ok(json!({
        "seconds": seconds, "load_seconds": load_seconds, "peak_rss_mb": peak_rss(),
        "layers_kept": row.answer.layers_kept, "layer_passes": findings.cost.layer_passes,
    }))
}

/// How many layers hold the margin, by the scores of an exact search.
fn layers_needed(layers: usize, rows: &[(usize, Vec<(f64, f64)>)]) -> usize {
    let column = |k: usize| rows.iter().map(|(_, row)| row[k].1).collect::<Vec<f64>>();
    let cuts: Vec<Cut> = (1..layers).rev().map(|k| Cut { layers_kept: k, loss: Some(column(k)) }).collect();
    let (base, full, options) = (column(0), column(layers), ChooseOptions::default());
    sufficient::Sequence::new(&base, &full, layers, &cuts, &options).sufficient(MARGIN).layers_kept
}

/// Scores every boundary on every sample, or runs a race.
fn sweep(arguments: &Arguments) -> Result<Value> {
    if arguments.0.get("search").is_some_and(|search| search == "sequential") {
        return sequential(arguments);
    }
    let begun = Instant::now();
    let engine = engine(arguments)?;
    let load_seconds = begun.elapsed().as_secs_f64();
    let samples = read_tokens(arguments)?;
    let layers = engine.layers();
    let mut work = 0;
    let mut score = |samples: &[Sample], boundaries: &[usize]| -> Result<Vec<SampleScores>> {
        let variants = boundaries.iter().map(|&k| Variant::bottom_k(layers, k)).collect();
        let request = Request { variants, ..Request::default() };
        work += engine.work(samples, &request);
        Ok(engine.score(samples, &request, &mut |_| ControlFlow::Continue(()))?)
    };
    let begun = Instant::now();
    let (boundaries, rows) = match arguments.0.get("search").map_or("exact", String::as_str) {
        "exact" => {
            let all: Vec<usize> = (0..=layers).collect();
            let scores = score(&samples, &all)?;
            let row = |s: &SampleScores| (s.line, all.iter().map(|&k| (s.variants[k].nll, s.mean_nll(k))).collect());
            let rows: Vec<(usize, Vec<(f64, f64)>)> = scores.iter().map(row).collect();
            (all, rows)
        }
        "racing" => {
            let order = data::race_order(samples.len(), arguments.number("seed", 0)?);
            let raced: Vec<Sample> = order.iter().map(|&index| samples[index].clone()).collect();
            let mut race = Race::new(layers, raced.len(), 0.05);
            let mut known: Vec<BTreeMap<usize, (f64, f64)>> = vec![BTreeMap::new(); raced.len()];
            while let RaceStep::Score { samples, boundaries } = race.step() {
                let scores = score(&raced[samples.clone()], &boundaries)?;
                let means = |s: &SampleScores| (0..boundaries.len()).map(|i| s.mean_nll(i)).collect::<Vec<_>>();
                race.record(samples.clone(), &boundaries, &scores.iter().map(means).collect::<Vec<_>>());
                for (known, scores) in known[samples].iter_mut().zip(&scores) {
                    let pairs = (0..boundaries.len()).map(|i| (scores.variants[i].nll, scores.mean_nll(i)));
                    known.extend(boundaries.iter().copied().zip(pairs));
                }
            }
            let left = race.left();
            let row = |(s, known): (&Sample, &BTreeMap<_, _>)| (s.line, left.iter().map(|k| known[k]).collect());
            let rows = raced.iter().zip(&known).map(row).collect();
            (left, rows)
        }
        other => return Err(format!("--search: expected exact, racing or sequential, found {other}").into()),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let mean = |column: usize| rows.iter().map(|(_, row)| row[column].1).sum::<f64>() / rows.len() as f64;
    let columns = 0..boundaries.len();
    let best = columns.clone().min_by(|&a, &b| mean(a).total_cmp(&mean(b))).unwrap_or(0);
    let within = |&column: &usize| {
        let deficits: Vec<f64> = rows.iter().map(|(_, row)| row[column].1 - row[best].1).collect();
        let (mean, se) = mean_and_se(&deficits);
        mean <= se
    };
    let set: Vec<usize> = columns.filter(within).map(|column| boundaries[column]).collect();
    let nll: BTreeMap<usize, Vec<f64>> =
        rows.iter().map(|(line, row)| (*line, row.iter().map(|(nll, _)| *nll).collect())).collect();
    Ok(json!({
        "seconds": seconds, "load_seconds": load_seconds, "tflop": 2e-12 * work as f64,
        "gflops": 2e-9 * work as f64 / seconds, "peak_rss_mb": peak_rss(), "best": boundaries[best],
        "one_se": set.first(), "one_se_set": set, "nll": nll,
        "layers_kept": (boundaries.len() == layers + 1).then(|| layers_needed(layers, &rows)), "boundaries": boundaries,
    }))
}

/// Generates tokens with unmerged LoRA for a batch of prompts, the same number for each.
fn generate(arguments: &Arguments) -> Result<Value> {
    let engine = engine(arguments)?;
    let layers = engine.layers();
    let variant = Variant::bottom_k(layers, arguments.number("layers-kept", layers)?);
    let (batch, count): (usize, usize) = (arguments.number("batch", 8)?, arguments.number("tokens", 128)?);
    let mut prompts: Vec<Vec<u32>> = Vec::new();
    for line in fs::read_to_string(arguments.path("prompts")?)?.lines().take(batch) {
        let line: Value = serde_json::from_str(line)?;
        let ids = line["tokens"].as_array().into_iter().flatten().filter_map(Value::as_u64);
        prompts.push(ids.map(|id| id as u32).collect());
    }
    if prompts.len() < batch || prompts.iter().any(Vec::is_empty) {
        return Err(format!("--prompts: expected {batch} prompts with tokens, found {}", prompts.len()).into());
    }
    let vocabulary = engine.model().config().vocabulary;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0) + count;
    let mut decoding = engine.decoder(longest);
    let (mut prefill, mut decode, mut total) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.number("repeats", 3)? {
        let begun = Instant::now();
        let mut sequences = Vec::with_capacity(batch);
        for _ in 0..batch {
            sequences.push(decoding.begin(&variant)?);
        }
        let pairs = sequences.iter_mut().zip(&prompts);
        let mut steps: Vec<generate::Step<'_, Sequence>> =
            pairs.map(|(sequence, tokens)| generate::Step { sequence, tokens }).collect();
        let mut logits = decoding.forward(&mut steps);
        let prefilled = begun.elapsed().as_secs_f64();
        for _ in 1..count {
            let next: Vec<u32> = logits.chunks_exact(vocabulary).map(most_probable).collect();
            let pairs = sequences.iter_mut().zip(next.chunks(1));
            let mut steps: Vec<generate::Step<'_, Sequence>> =
                pairs.map(|(sequence, tokens)| generate::Step { sequence, tokens }).collect();
            logits = decoding.forward(&mut steps);
        }
        let seconds = begun.elapsed().as_secs_f64();
        prefill.push(prompts.iter().map(Vec::len).sum::<usize>() as f64 / prefilled);
        decode.push((batch * (count - 1)) as f64 / (seconds - prefilled));
        total.push((batch * count) as f64 / seconds);
        sequences.into_iter().for_each(|sequence| decoding.end(sequence));
    }
    Ok(json!({
        "tokens_per_second": median(&mut decode), "total_tokens_per_second": median(&mut total),
        "prefill_tokens_per_second": median(&mut prefill), "peak_rss_mb": peak_rss(),
    }))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Peak memory of the process in MB; 0 if the system does not report it.
fn peak_rss() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0) * 1.024e-3
}
