//! Inputs that the program cannot use: it prints one message with the place, prints nothing on stdout, writes nothing,
//! and returns the right exit code.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Run, adapter, copy_files, data, golden, model, run, search};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

const LFS_POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4711\n";

// Paths relative to the folder of the inputs.
const ADAPTER_CONFIG: &str = "adapter/adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter/adapter_model.safetensors";
const MODEL_CONFIG: &str = "model/config.json";
const MODEL_WEIGHTS: &str = "model/model.safetensors";
const DATA: &str = "data.jsonl";

const BAD_INPUT: i32 = 3;
const USAGE: i32 = 2;

/// Good inputs in a temporary folder, for a test to damage.
struct Inputs {
    folder: tempfile::TempDir,
    model: PathBuf,
    adapter: PathBuf,
    data: PathBuf,
    more: Vec<String>,
}

impl Inputs {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [model, adapter] = ["model", "adapter"].map(|name| folder.path().join(name));
        let data = folder.path().join("data.jsonl");
        copy_files(&common::model(), &model);
        for name in common::names(&model) {
            if name.contains("golden") || name == "config.v4.json" {
                fs::remove_file(model.join(name)).unwrap();
            }
        }
        copy_files(&common::adapter("trained"), &adapter);
        fs::copy(common::data(), &data).unwrap();
        Self { folder, model, adapter, data, more: Vec::new() }
    }

    fn search(&self) -> Run {
        let more: Vec<&str> = self.more.iter().map(String::as_str).collect();
        search(&self.model, &self.adapter, &self.data, &self.out(), &more)
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn adapter_config(&self, key: &str, value: Value) {
        set(&self.adapter.join("adapter_config.json"), key, value);
    }

    fn model_config(&self, key: &str, value: Value) {
        set(&self.model.join("config.json"), key, value);
    }

    fn adapter_tensors(&self, change: impl FnOnce(&mut Tensors)) {
        change_tensors(&self.adapter.join("adapter_model.safetensors"), change);
    }

    fn model_tensors(&self, change: impl FnOnce(&mut Tensors)) {
        change_tensors(&self.model.join("model.safetensors"), change);
    }

    /// Uses the GGUF file of the model instead of the folder.
    fn use_gguf(&mut self) {
        self.model = self.folder.path().join("model.gguf");
        fs::copy(golden().join("tiny-gqa-tied.gguf"), &self.model).unwrap();
    }

    /// Replaces a line of the data, counted from 1.
    fn line(&self, number: usize, text: &str) {
        let whole = fs::read_to_string(&self.data).unwrap();
        let mut lines: Vec<&str> = whole.lines().collect();
        lines[number - 1] = text;
        fs::write(&self.data, lines.join("\n")).unwrap();
    }
}

/// Name, shape and values of `F32` tensors.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn set(path: &Path, key: &str, value: Value) {
    let mut config = common::json(path);
    config[key] = value;
    fs::write(path, serde_json::to_string_pretty(&config).unwrap()).unwrap();
}

fn change_tensors(path: &Path, change: impl FnOnce(&mut Tensors)) {
    let bytes = fs::read(path).unwrap();
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, tensor)| {
            assert_eq!(tensor.dtype(), Dtype::F32);
            let (values, rest) = tensor.data().as_chunks::<4>();
            assert!(rest.is_empty());
            (
                name.to_owned(),
                (tensor.shape().to_vec(), values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
            )
        })
        .collect();
    change(&mut tensors);
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, (shape, values))| (name, shape, values.into_iter().flat_map(f32::to_le_bytes).collect()))
        .collect();
    let views =
        tensors.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn truncate(path: &Path, keep: impl FnOnce(usize) -> usize) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..keep(bytes.len())]).unwrap();
}

fn module(layer: usize, module: &str, half: &str) -> String {
    format!("base_model.model.model.layers.{layer}.{module}.lora_{half}.weight")
}

/// One kind of damage, with the path and the words that the message must have.
struct Case {
    name: &'static str,
    damage: fn(&mut Inputs),
    /// The path in the message, relative to the inputs' folder; empty if the command line is wrong.
    path: &'static str,
    words: &'static [&'static str],
}

/// Runs all cases, then fails with a list of those that are wrong.
fn check(cases: &[Case], code: i32) {
    let mut wrong = String::new();
    for case in cases {
        let mut inputs = Inputs::new();
        (case.damage)(&mut inputs);
        let run = inputs.search();
        let (path, stderr) = (inputs.folder.path().join(case.path), &run.stderr);
        let mut faults = Vec::new();
        if run.code != Some(code) {
            faults.push(format!("exit code {:?}, expected {code}", run.code));
        }
        if !run.stdout.is_empty() {
            faults.push(format!("stdout: {}", run.stdout));
        }
        if inputs.out().exists() {
            faults.push("the output folder exists".to_owned());
        }
        if !stderr.starts_with("plimsoll: ") || !stderr.ends_with('\n') || stderr.trim_end().contains("\n\n") {
            faults.push("not one paragraph after \"plimsoll: \"".to_owned());
        }
        if !case.path.is_empty() && !stderr.contains(&format!("{}: ", path.display())) {
            faults.push(format!("{} is not named", path.display()));
        }
        faults.extend(case.words.iter().filter(|word| !stderr.contains(*word)).map(|word| format!("no {word:?}")));
        if !faults.is_empty() {
            wrong.push_str(&format!("{}: {}\n    {stderr}", case.name, faults.join("; ")));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// The inputs of this file are good until a case damages them.
#[test]
fn the_inputs_are_good() {
    let run = Inputs::new().search();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    // They are also good when their tensors are read and written again, as `change_tensors` does.
    let inputs = Inputs::new();
    inputs.adapter_tensors(|_| {});
    inputs.model_tensors(|_| {});
    let again = inputs.search();
    assert!(again.stderr.starts_with("plimsoll: scoring 24 samples, at most about "), "{}", again.stderr);
    assert_eq!((again.code, again.stderr.lines().count()), (Some(0), 1), "{}", again.stderr);
}

#[test]
fn bad_adapter_folders() {
    let cases = [
        Case {
            name: "no folder",
            damage: |inputs| fs::remove_dir_all(&inputs.adapter).unwrap(),
            path: "adapter",
            words: &["cannot read", "No such file"],
        },
        Case {
            name: "no config",
            damage: |inputs| fs::remove_file(inputs.adapter.join("adapter_config.json")).unwrap(),
            path: "adapter",
            words: &["adapter_config.json is missing", "found adapter_model.safetensors"],
        },
        Case {
            name: "no weights",
            damage: |inputs| fs::remove_file(inputs.adapter.join("adapter_model.safetensors")).unwrap(),
            path: "adapter",
            words: &["adapter_model.safetensors"],
        },
        Case {
            name: "a pickle",
            damage: |inputs| {
                let folder = &inputs.adapter;
                fs::rename(folder.join("adapter_model.safetensors"), folder.join("adapter_model.bin")).unwrap();
            },
            path: "adapter",
            words: &["adapter_model.bin", "pickle", "safe_serialization=True"],
        },
        Case {
            name: "mlx-lm's weights with PEFT's config",
            damage: |inputs| {
                let folder = &inputs.adapter;
                fs::rename(folder.join("adapter_model.safetensors"), folder.join("adapters.safetensors")).unwrap();
            },
            path: ADAPTER_CONFIG,
            words: &["lora_parameters is missing"],
        },
        Case {
            name: "a trainer's folder of checkpoints",
            damage: |inputs| {
                let checkpoint = inputs.folder.path().join("checkpoint-20");
                fs::rename(&inputs.adapter, &checkpoint).unwrap();
                fs::create_dir(&inputs.adapter).unwrap();
                fs::rename(&checkpoint, inputs.adapter.join("checkpoint-20")).unwrap();
            },
            path: "adapter",
            words: &["adapter_config.json is missing", "such as checkpoint-20"],
        },
    ];
    check(&cases, BAD_INPUT);
}

#[test]
fn bad_adapter_configs() {
    let cases = [
        Case {
            name: "a config of a Git LFS pointer",
            damage: |inputs| fs::write(inputs.adapter.join("adapter_config.json"), LFS_POINTER).unwrap(),
            path: ADAPTER_CONFIG,
            words: &["Git LFS pointer", "git lfs pull"],
        },
        Case {
            name: "a config with terminal escapes",
            damage: |inputs| inputs.adapter_config("peft_type", json!("\u{1b}[31m\u{202e}x")),
            path: ADAPTER_CONFIG,
            words: &["\\u{1b}[31m\\u{202e}x"],
        },
        Case {
            name: "an alpha that is too large",
            damage: |inputs| inputs.adapter_config("lora_alpha", json!(1e300)),
            path: ADAPTER_CONFIG,
            words: &["lora_alpha", "found 1e300"],
        },
        Case {
            name: "a config that is not JSON",
            damage: |inputs| fs::write(inputs.adapter.join("adapter_config.json"), "{\n  oops").unwrap(),
            path: ADAPTER_CONFIG,
            words: &["line 2"],
        },
        Case {
            name: "another method",
            damage: |inputs| inputs.adapter_config("peft_type", json!("IA3")),
            path: ADAPTER_CONFIG,
            words: &["peft_type", "IA3"],
        },
        Case {
            name: "DoRA without magnitudes",
            damage: |inputs| inputs.adapter_config("use_dora", json!(true)),
            path: ADAPTER_WEIGHTS,
            words: &["use_dora", "lora_magnitude_vector is missing"],
        },
        Case {
            name: "PiSSA",
            damage: |inputs| inputs.adapter_config("init_lora_weights", json!("pissa")),
            path: ADAPTER_CONFIG,
            words: &["init_lora_weights", "pissa", "base weights"],
        },
        Case {
            name: "a module trained in full that is not there",
            damage: |inputs| inputs.adapter_config("modules_to_save", json!(["lm_head"])),
            path: ADAPTER_WEIGHTS,
            words: &["modules_to_save", "lm_head", "missing"],
        },
        Case {
            name: "an unknown setting that is switched on",
            damage: |inputs| inputs.adapter_config("use_brand_new", json!(true)),
            path: ADAPTER_CONFIG,
            words: &["use_brand_new", "not a known setting"],
        },
        Case {
            name: "no rank",
            damage: |inputs| inputs.adapter_config("r", Value::Null),
            path: ADAPTER_CONFIG,
            words: &["r is missing"],
        },
    ];
    check(&cases, BAD_INPUT);
}

#[test]
fn bad_adapter_weight_files() {
    let cases = [
        Case {
            name: "a Git LFS pointer",
            damage: |inputs| fs::write(inputs.adapter.join("adapter_model.safetensors"), LFS_POINTER).unwrap(),
            path: ADAPTER_WEIGHTS,
            words: &["Git LFS pointer", "git lfs pull"],
        },
        Case {
            name: "half of the weights",
            damage: |inputs| truncate(&inputs.adapter.join("adapter_model.safetensors"), |length| length / 2),
            path: ADAPTER_WEIGHTS,
            words: &["19844", "39688"],
        },
        Case {
            name: "half of the header",
            damage: |inputs| truncate(&inputs.adapter.join("adapter_model.safetensors"), |_| 100),
            path: ADAPTER_WEIGHTS,
            words: &["100", "download"],
        },
        Case {
            name: "empty weights",
            damage: |inputs| fs::write(inputs.adapter.join("adapter_model.safetensors"), "").unwrap(),
            path: ADAPTER_WEIGHTS,
            words: &["0 bytes"],
        },
    ];
    check(&cases, BAD_INPUT);
}

#[test]
fn bad_adapter_tensors() {
    let cases = [
        Case {
            name: "one half of a module missing",
            damage: |inputs| {
                inputs.adapter_tensors(|tensors| {
                    tensors.remove(&module(1, "self_attn.q_proj", "B")).unwrap();
                });
            },
            path: ADAPTER_WEIGHTS,
            words: &["model.layers.1.self_attn.q_proj.lora_B.weight", "missing"],
        },
        Case {
            name: "a whole module missing",
            damage: |inputs| {
                inputs.adapter_tensors(|tensors| tensors.retain(|name, _| !name.contains("layers.2.mlp.up_proj")));
            },
            path: ADAPTER_WEIGHTS,
            words: &["model.layers.2.mlp.up_proj", "missing", "adapter_config.json targets it"],
        },
        Case {
            name: "a tensor of another kind",
            damage: |inputs| {
                inputs.adapter_tensors(|tensors| {
                    tensors.insert("base_model.model.lm_head.weight".into(), (vec![1], vec![1.0]));
                });
            },
            path: ADAPTER_WEIGHTS,
            words: &["lm_head.weight"],
        },
        Case {
            name: "a module that the config does not target",
            damage: |inputs| inputs.adapter_config("target_modules", json!(["q_proj"])),
            path: ADAPTER_WEIGHTS,
            words: &["model.layers.0.self_attn.k_proj", "adapter_config.json does not target it", "and 19 more"],
        },
        Case {
            name: "another rank than the config's",
            damage: |inputs| inputs.adapter_config("r", json!(8)),
            path: ADAPTER_WEIGHTS,
            words: &["lora_A.weight has shape [4, 32]", "adapter_config.json requires [8, in]"],
        },
        Case {
            name: "NaN",
            damage: |inputs| {
                inputs.adapter_tensors(|tensors| {
                    tensors.get_mut(&module(3, "mlp.down_proj", "A")).unwrap().1[7] = f32::NAN;
                });
            },
            path: ADAPTER_WEIGHTS,
            words: &["layers.3.mlp.down_proj.lora_A.weight", "value 7", "not a finite number"],
        },
        Case {
            name: "an adapter of another base",
            damage: |inputs| {
                fs::remove_dir_all(&inputs.adapter).unwrap();
                copy_files(&golden().join("tiny-llama3-untied/adapters/plain"), &inputs.adapter);
            },
            path: ADAPTER_WEIGHTS,
            words: &[
                "model.layers.0.self_attn.q_proj.lora_A.weight has shape (4, 48)",
                "the base model's weight has shape (32, 32)",
                "trained on another base model",
            ],
        },
        Case {
            name: "an adapter of a deeper base",
            damage: |inputs| {
                inputs.adapter_tensors(|tensors| {
                    for half in ["A", "B"] {
                        let tensor = tensors[&module(0, "self_attn.q_proj", half)].clone();
                        tensors.insert(module(4, "self_attn.q_proj", half), tensor);
                    }
                });
            },
            path: ADAPTER_WEIGHTS,
            words: &["model.layers.4.self_attn.q_proj", "the base model has 4 layers"],
        },
    ];
    check(&cases, BAD_INPUT);
}

#[test]
fn bad_model_files() {
    let cases = [
        Case {
            name: "no model",
            damage: |inputs| fs::remove_dir_all(&inputs.model).unwrap(),
            path: "model",
            words: &["cannot read"],
        },
        Case {
            name: "no config",
            damage: |inputs| fs::remove_file(inputs.model.join("config.json")).unwrap(),
            path: "model",
            words: &["folder without config.json"],
        },
        Case {
            name: "an architecture with other names in its config",
            damage: |inputs| {
                fs::write(inputs.model.join("config.json"), r#"{"model_type": "gpt2", "n_embd": 64, "n_layer": 2}"#)
                    .unwrap();
            },
            path: MODEL_CONFIG,
            words: &["model_type is gpt2, which is not supported: expected llama, mistral"],
        },
        Case {
            name: "no weights",
            damage: |inputs| fs::remove_file(inputs.model.join("model.safetensors")).unwrap(),
            path: "model",
            words: &["safetensors"],
        },
        Case {
            name: "no tokenizer",
            damage: |inputs| fs::remove_file(inputs.model.join("tokenizer.json")).unwrap(),
            path: "model/tokenizer.json",
            words: &["cannot read"],
        },
        Case {
            name: "a file of another kind",
            damage: |inputs| inputs.model = inputs.data.clone(),
            path: "data.jsonl",
            words: &["not a GGUF file"],
        },
        Case {
            name: "GGUF, half of the weights",
            damage: |inputs| {
                inputs.use_gguf();
                truncate(&inputs.model, |length| length - 5000);
            },
            path: "model.gguf",
            words: &["tensor ", "ends beyond the end of the file", "is the download complete?"],
        },
        Case {
            name: "GGUF, half of the header",
            damage: |inputs| {
                inputs.use_gguf();
                truncate(&inputs.model, |_| 1000);
            },
            path: "model.gguf",
            words: &["ends inside its header", "is the download complete?"],
        },
        Case {
            name: "GGUF, a Git LFS pointer",
            damage: |inputs| {
                inputs.model = inputs.folder.path().join("model.gguf");
                fs::write(&inputs.model, LFS_POINTER).unwrap();
            },
            path: "model.gguf",
            words: &["Git LFS pointer", "git lfs pull"],
        },
    ];
    check(&cases, BAD_INPUT);
}

#[test]
fn bad_model_configs() {
    let cases = [
        Case {
            name: "a config that is not JSON",
            damage: |inputs| fs::write(inputs.model.join("config.json"), "{\n\n]").unwrap(),
            path: MODEL_CONFIG,
            words: &["line 3"],
        },
        Case {
            name: "a config without a needed key",
            damage: |inputs| fs::write(inputs.model.join("config.json"), r#"{"model_type":"llama"}"#).unwrap(),
            path: MODEL_CONFIG,
            words: &["num_hidden_layers"],
        },
        Case {
            name: "another architecture",
            damage: |inputs| inputs.model_config("model_type", json!("mamba")),
            path: MODEL_CONFIG,
            words: &["model_type is mamba", "not supported", "llama"],
        },
        Case {
            name: "rope scaling of another kind",
            damage: |inputs| {
                inputs.model_config("rope_parameters", json!({"rope_type": "mrope", "rope_theta": 1e4}));
            },
            path: MODEL_CONFIG,
            words: &["rope", "mrope", "not supported"],
        },
        Case {
            name: "quantised weights",
            damage: |inputs| inputs.model_config("quantization_config", json!({"bits": 4})),
            path: MODEL_CONFIG,
            words: &["quantization_config", "GGUF"],
        },
        Case {
            name: "no layers",
            damage: |inputs| inputs.model_config("num_hidden_layers", json!(0)),
            path: MODEL_CONFIG,
            words: &["layers is 0", "expected 1 to"],
        },
    ];
    check(&cases, BAD_INPUT);
}

#[test]
fn bad_model_weights() {
    let cases = [
        Case {
            name: "a weight missing",
            damage: |inputs| {
                inputs.model_tensors(|tensors| {
                    tensors.remove("model.layers.2.mlp.up_proj.weight").unwrap();
                });
            },
            path: "model",
            words: &["tensor model.layers.2.mlp.up_proj.weight is missing"],
        },
        Case {
            name: "a weight too many",
            damage: |inputs| {
                inputs.model_tensors(|tensors| {
                    tensors.insert("model.layers.0.self_attn.q_proj.bias".into(), (vec![32], vec![0.0; 32]));
                });
            },
            path: "model",
            words: &["tensor model.layers.0.self_attn.q_proj.bias is not part of this architecture"],
        },
        Case {
            name: "a weight of another shape",
            damage: |inputs| {
                inputs.model_tensors(|tensors| {
                    tensors.get_mut("model.layers.0.mlp.gate_proj.weight").unwrap().0 = vec![32, 64];
                });
            },
            path: "model",
            words: &["tensor model.layers.0.mlp.gate_proj.weight has shape [32, 64]", "[64, 32]"],
        },
        Case {
            name: "a weight that is infinite",
            damage: |inputs| {
                inputs.model_tensors(|tensors| {
                    tensors.get_mut("model.layers.1.mlp.gate_proj.weight").unwrap().1[0] = f32::INFINITY;
                });
            },
            path: "model",
            words: &["tensor model.layers.1.mlp.gate_proj.weight", "not finite"],
        },
        Case {
            name: "a Git LFS pointer",
            damage: |inputs| fs::write(inputs.model.join("model.safetensors"), LFS_POINTER).unwrap(),
            path: MODEL_WEIGHTS,
            words: &["Git LFS pointer", "git lfs pull"],
        },
        Case {
            name: "half of the weights",
            damage: |inputs| truncate(&inputs.model.join("model.safetensors"), |length| length / 2),
            path: MODEL_WEIGHTS,
            words: &["94680", "189360"],
        },
    ];
    check(&cases, BAD_INPUT);
}

#[test]
fn bad_data() {
    let cases = [
        Case {
            name: "no file",
            damage: |inputs| fs::remove_file(&inputs.data).unwrap(),
            path: DATA,
            words: &["cannot read"],
        },
        Case {
            name: "a folder without valid.jsonl",
            damage: |inputs| inputs.data = inputs.adapter.clone(),
            path: "adapter",
            words: &["valid.jsonl"],
        },
        Case {
            name: "an empty file",
            damage: |inputs| fs::write(&inputs.data, "\n\n").unwrap(),
            path: DATA,
            words: &["at least one sample"],
        },
        Case {
            name: "a line that is not JSON",
            damage: |inputs| inputs.line(3, "{\"prompt\": \"one\", \"completion\""),
            path: DATA,
            words: &["line 3", "JSON object"],
        },
        Case {
            name: "a line that is not an object",
            damage: |inputs| inputs.line(24, "[1, 2]"),
            path: DATA,
            words: &["line 24", "JSON object"],
        },
        Case {
            name: "a line that is not UTF-8",
            damage: |inputs| fs::write(&inputs.data, b"{\"text\": \"\xff\"}\n").unwrap(),
            path: DATA,
            words: &["line 1", "UTF-8"],
        },
        Case {
            name: "an empty answer",
            damage: |inputs| inputs.line(7, r#"{"prompt": "one", "completion": ""}"#),
            path: DATA,
            words: &["line 7", "answer", "empty"],
        },
        Case {
            name: "missing fields",
            damage: |inputs| inputs.line(5, r#"{"prompt": "one", "answer": "two"}"#),
            path: DATA,
            words: &["line 5", "`prompt` and `completion`", "found", "answer"],
        },
        Case {
            name: "a field of another type",
            damage: |inputs| inputs.line(5, r#"{"prompt": "one", "completion": 2}"#),
            path: DATA,
            words: &["line 5", "`completion`", "a string", "a number"],
        },
        Case {
            name: "a chat without an answer",
            damage: |inputs| inputs.line(2, r#"{"messages": [{"role": "user", "content": "one"}]}"#),
            path: DATA,
            words: &["line 2", "assistant"],
        },
        Case {
            name: "samples that are all too long",
            damage: |inputs| inputs.model_config("max_position_embeddings", json!(16)),
            path: DATA,
            words: &["24", "all longer than 16 tokens"],
        },
    ];
    check(&cases, BAD_INPUT);
}

#[test]
fn bad_templates() {
    let cases = [
        Case {
            name: "a template that the data does not fit",
            damage: |inputs| {
                let template = inputs.folder.path().join("template.jinja");
                fs::write(&template, "{{ messages[7].content.nothing }}").unwrap();
                inputs.more = vec!["--template".into(), template.display().to_string()];
            },
            path: DATA,
            words: &["line 1", "template"],
        },
        Case {
            name: "a template that does not parse",
            damage: |inputs| {
                let template = inputs.folder.path().join("template.jinja");
                fs::write(&template, "{% if").unwrap();
                inputs.more = vec!["--template".into(), template.display().to_string()];
            },
            path: "template.jinja",
            words: &["template", "syntax error"],
        },
        Case {
            name: "no template file",
            damage: |inputs| {
                inputs.more = vec!["--template".into(), inputs.folder.path().join("none.jinja").display().to_string()];
            },
            path: "none.jinja",
            words: &["cannot read"],
        },
    ];
    check(&cases, BAD_INPUT);
}

#[test]
fn bad_requests() {
    let cases = [
        Case {
            name: "one sample",
            damage: |inputs| inputs.more = vec!["--max-samples=1".into()],
            path: "",
            words: &["samples: 1", "at least 4 samples"],
        },
        Case {
            name: "one line",
            damage: |inputs| fs::write(&inputs.data, r#"{"prompt": "one", "completion": "two"}"#).unwrap(),
            path: "",
            words: &["samples: 1", "at least 4 samples"],
        },
        Case {
            name: "one fold",
            damage: |inputs| inputs.more = vec!["--folds=1".into()],
            path: "",
            words: &["--folds 1: expected 2 to 24, one for each sample"],
        },
        Case {
            name: "more folds than samples",
            damage: |inputs| inputs.more = vec!["--folds=25".into()],
            path: "",
            words: &["--folds 25: expected 2 to 24"],
        },
    ];
    check(&cases, USAGE);
}

/// An adapter that overflows when it is applied. With the scale corrected, the same command works.
#[test]
fn a_scale_that_overflows() {
    let inputs = Inputs::new();
    inputs.adapter_config("lora_alpha", json!(1e37));
    let run = inputs.search();
    assert_eq!((run.code, run.stdout.as_str()), (Some(4), ""), "{}", run.stderr);
    for word in ["plimsoll: ", "line 1", "overflow", "scale"] {
        assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
    }
    inputs.adapter_config("lora_alpha", json!(8));
    let run = inputs.search();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

/// Arguments that the argument parser refuses.
#[test]
fn bad_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (more, words) in [
        (&["--threads", "0"][..], &["--threads", "'0'", "from 1 to 512"][..]),
        (&["--threads", "513"], &["--threads", "'513'", "from 1 to 512"]),
        (&["--holdout", "0"], &["--holdout", "'0'", "between 0 and 1"]),
        (&["--holdout", "1"], &["--holdout", "'1'", "between 0 and 1"]),
        (&["--holdout", "nan"], &["--holdout", "'nan'", "between 0 and 1"]),
        (&["--max-samples", "0"], &["--max-samples", "'0'", "at least 1"]),
        (&["--max-samples", "many"], &["--max-samples", "'many'"]),
        (&["--seed=-1"], &["--seed", "'-1'"]),
        (&["--dtype", "f8"], &["--dtype", "'f8'", "bf16", "f32"]),
        (&["--memory", "2"], &["--memory", "'2'", "with a unit"]),
        (&["--memory", "0MiB"], &["--memory", "'0MiB'", "with a unit"]),
        (&["--memory", "99999999999GiB"], &["--memory", "with a unit"]),
        (&["--search", "fast"], &["--search", "'fast'", "exact", "racing"]),
        (&["--error-rate", "0.1"], &["--error-rate", "--search racing"]),
        (&["--error-rate", "1"], &["--error-rate", "'1'", "between 0 and 1"]),
        (&["--lens-samples", "0"], &["--lens-samples", "'0'", "at least 1"]),
        (&["--layers-kept", "2"], &["--layers-kept"]),
    ] {
        let run = search(&model(), &adapter("trained"), &data(), &out, more);
        assert_eq!((run.code, run.stdout.as_str()), (Some(USAGE), ""), "{more:?}: {}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{more:?}: no {word:?}: {}", run.stderr);
        }
        assert!(!run.stderr.contains('\x1b'), "{more:?}: {}", run.stderr);
        assert!(!out.exists(), "{more:?}: the output folder exists");
    }
    let run = run(["search", "--model", "model"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(USAGE), ""), "only --model: {}", run.stderr);
    for word in ["--adapter", "--data", "--out", "Usage"] {
        assert!(run.stderr.contains(word), "only --model: no {word:?}: {}", run.stderr);
    }
}

/// The subcommands that need no model refuse the same adapters.
#[test]
fn inspect_and_trim_refuse_what_search_refuses() {
    let inputs = Inputs::new();
    inputs.adapter_config("use_qalora", json!(true));
    let (adapter, out) = (inputs.adapter.to_str().unwrap(), inputs.out());
    for arguments in [
        &["inspect", "--adapter", adapter][..],
        &["trim", "--adapter", adapter, "--layers-kept", "2", "--out", out.to_str().unwrap()],
    ] {
        let run = run(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(BAD_INPUT), ""), "{arguments:?}: {}", run.stderr);
        let start = format!("plimsoll: {adapter}/adapter_config.json: use_qalora is true");
        assert!(run.stderr.starts_with(&start), "{arguments:?}: {}", run.stderr);
        assert!(!out.exists(), "{arguments:?}: the output folder exists");
    }
}

#[test]
fn a_trim_that_cannot_be_made_writes_nothing() {
    let inputs = Inputs::new();
    inputs.adapter_tensors(|tensors| {
        tensors.get_mut(&module(1, "self_attn.q_proj", "B")).unwrap().1[3] = -2e38;
    });
    let path = |name: &str, text: &str| {
        let path = inputs.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let searched = inputs.folder.path().join("searched");
    let found = search(&inputs.model, &adapter("trained"), &inputs.data, &searched, &[]);
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    let mut result = common::json(&searched.join("result.json"));
    result.as_object_mut().unwrap().remove("candidate");
    let none = path("none.json", &result.to_string());
    result["candidate"] = json!({"family": "bottom-k", "label": "", "gates": "1=0", "layers_kept": 3, "bytes": 1});
    let other = path("other.json", &result.to_string());
    let files = ["adapter_config.json", "adapter_model.safetensors"].map(|name| inputs.adapter.join(name));
    let hash = plimsoll::formats::files::sha256_of_files(&files).unwrap();
    result["adapter"]["sha256"] = json!(hash);
    result["candidate"]["gates"] = json!("4=0");
    let beyond = path("beyond.json", &result.to_string());
    result["model"]["layers"] = json!(1_000_000_000_000_u64);
    let huge = path("huge.json", &result.to_string());
    let broken = path("broken.json", "{\"schema\": 1}");
    let missing = inputs.folder.path().join("nothing").into_os_string().into_string().unwrap();
    let (adapter, out) = (inputs.adapter.to_str().unwrap().to_owned(), inputs.out());
    for (more, code, words) in [
        (&[][..], USAGE, &["--layers-kept", "--gates", "--from"][..]),
        (&["--layers-kept", "2", "--gates", "1=0"], USAGE, &["--layers-kept", "cannot be used with", "--gates"]),
        (&["--gates", "1=0", "--from", &other], USAGE, &["--gates", "cannot be used with", "--from"]),
        (&["--gates", "3-4=0"], USAGE, &[&adapter, "highest layer with LoRA is 3", "layers 3 to 4", "from 0 to 3"]),
        (&["--gates", "1.z_proj=0"], USAGE, &["`z_proj`", "q_proj, k_proj"]),
        (&["--gates", "1=x"], USAGE, &["`x` is not a finite number"]),
        (&["--gates", "0"], USAGE, &["no LoRA is kept", "use the base model"]),
        (
            &["--gates", "1=-2"],
            BAD_INPUT,
            &[
                "adapter_model.safetensors: base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight: ",
                "its largest value, -2e38, times the LoRA strength -2 is 3.999",
            ],
        ),
        (&["--from", &missing], BAD_INPUT, &["nothing: ", "cannot read"]),
        (&["--from", &adapter], BAD_INPUT, &["adapter: no result.json in this folder"]),
        (&["--from", &broken], BAD_INPUT, &["broken.json: not the result of a search: missing field"]),
        (&["--from", &none], BAD_INPUT, &["none.json: has no candidate.gates"]),
        (&["--from", &other], BAD_INPUT, &["other.json: is of another adapter", &hash]),
        (&["--from", &beyond], BAD_INPUT, &["beyond.json: candidate.gates: ", "layers 4 to 4", "from 0 to 3"]),
        (&["--from", &huge], BAD_INPUT, &["huge.json: model.layers is 1000000000000", "1024"]),
    ] {
        let run = run(["trim", "--adapter", &adapter, "--out", out.to_str().unwrap()].iter().chain(more));
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{more:?}: {}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{more:?}: no {word:?}: {}", run.stderr);
        }
        assert!(!out.exists(), "{more:?}: the output folder exists");
    }
}

/// Paths that are not a model: the message says what is expected.
#[test]
fn wrong_paths_to_a_model_are_explained() {
    let inputs = Inputs::new();
    let folder = inputs.folder.path();
    let ggufs = folder.join("ggufs");
    fs::create_dir(&ggufs).unwrap();
    fs::write(ggufs.join("b.Q4_1.gguf"), "").unwrap();
    let weights = inputs.model.join("model.safetensors");
    for (model, words) in [
        (Path::new("someone/some-model"), "downloading it from http://127.0.0.1:9 failed"),
        (&ggufs, "pass the file itself, such as b.Q4_1.gguf"),
        (&weights, "a safetensors file: pass its folder"),
        (Path::new("/dev/null"), "not a regular file"),
    ] {
        let run = search(model, &inputs.adapter, &inputs.data, &inputs.out(), &[]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(BAD_INPUT), ""), "{}: {}", model.display(), run.stderr);
        assert!(run.stderr.contains(words), "{}: no {words:?}: {}", model.display(), run.stderr);
    }
}

/// A broken template of the tokenizer is an error only if it is used.
#[test]
fn a_broken_template_is_an_error_only_where_it_is_used() {
    let mut inputs = Inputs::new();
    let file = inputs.model.join("chat_template.jinja");
    fs::write(&file, "{% if %}").unwrap();
    let run = inputs.search();
    assert_eq!(run.code, Some(BAD_INPUT), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("{}: chat template", file.display())), "{}", run.stderr);
    let given = inputs.folder.path().join("given.jinja");
    fs::write(
        &given,
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
        {% if add_generation_prompt %}assistant: {% endif %}",
    )
    .unwrap();
    inputs.more = vec!["--template".into(), given.to_str().unwrap().into()];
    let run = inputs.search();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

/// Untrusted results from which no report can be made.
#[test]
fn bad_results() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let good = common::json(&common::result());
    let write = |name: &str, key: &str, value: Value| {
        let mut result = good.clone();
        result[key] = value;
        fs::write(file(name), result.to_string()).unwrap();
    };
    write("later.json", "schema", json!(3));
    write("half.json", "choice", json!({"verdict": "trim"}));
    write("type.json", "variants", json!([{"family": "none"}]));
    write("text.json", "seed", json!("\u{1b}[31mred"));
    fs::write(file("not.json"), "{\"schema\": 1,").unwrap();
    fs::write(file("deep.json"), "[".repeat(100_000)).unwrap();
    fs::write(file("nested.json"), format!("{{\"schema\": {}", "[".repeat(100_000))).unwrap();
    fs::write(file("bytes.json"), b"\xff\xfe").unwrap();
    fs::write(file("huge.json"), vec![b' '; (64 << 20) + 1]).unwrap();
    fs::write(file("pointer.json"), LFS_POINTER).unwrap();
    fs::write(file("eval.json"), r#"{"schema": 1, "task": {"name": "gsm8k"}, "metrics": []}"#).unwrap();
    fs::write(file("compared.json"), r#"{"schema": 1, "runs": []}"#).unwrap();
    fs::write(file("other.json"), r#"{"name": "something"}"#).unwrap();
    fs::create_dir(file("empty")).unwrap();
    fs::create_dir(file("begun")).unwrap();
    fs::write(file("begun/journal.jsonl"), "{}\n").unwrap();
    for (name, words) in [
        ("later.json", &["`schema` is 3", "expected 1 to 2", "plimsoll 0.1.0 wrote it", "repeat its search"][..]),
        ("half.json", &["not the result of a search", "missing field"]),
        ("type.json", &["unknown variant `none`", "bottom-k", "line 1 column"]),
        ("text.json", &["invalid type: string", "\\u{1b}[31mred"]),
        ("not.json", &["EOF", "line 1 column"]),
        ("deep.json", &["not the result of a search", "found something else than a JSON object"]),
        ("nested.json", &["not the result of a search", "invalid type: sequence"]),
        ("bytes.json", &["not UTF-8 from byte 0"]),
        ("huge.json", &["larger than the limit of 67108864 bytes"]),
        ("pointer.json", &["Git LFS pointer", "git lfs pull"]),
        ("eval.json", &["found the result of an evaluation", "expected the result.json that plimsoll search writes"]),
        ("compared.json", &["found a comparison"]),
        ("other.json", &["found no `schema`"]),
        ("empty", &["no result.json in this folder", "expected a folder that plimsoll search wrote into"]),
        ("begun", &["no result.json in this folder", "interrupted search"]),
        ("nothing", &["cannot read", "No such file"]),
    ] {
        let (path, whole) = (file(name), common::result());
        // Alone, and together with a good result.
        for others in [&[][..], &[whole.as_path()][..]] {
            let arguments = [Path::new("report")].into_iter().chain(others.iter().copied()).chain([path.as_path()]);
            let run = run(arguments);
            let case = format!("{name} with {} others", others.len());
            assert_eq!((run.code, run.stdout.as_str()), (Some(BAD_INPUT), ""), "{case}: {}", run.stderr);
            assert!(run.stderr.starts_with(&format!("plimsoll: {}: ", path.display())), "{case}: {}", run.stderr);
            for word in words {
                assert!(run.stderr.contains(word), "{case}: no {word:?}: {}", run.stderr);
            }
            assert!(run.stderr.len() < 2_000 && !run.stderr.contains('\x1b'), "{case}: {}", run.stderr);
        }
    }
}

/// Bad lines of tokens.jsonl in the folder of a good result.
#[test]
fn bad_tokens_of_a_good_result() {
    let folder = tempfile::tempdir().unwrap();
    let [result, tokens] = ["result.json", "tokens.jsonl"].map(|name| folder.path().join(name));
    fs::copy(common::result(), &result).unwrap();
    const SEQUENCE: &str = r#"[{"id": 7, "text": "p", "scored": false}, {"id": 8, "text": "a", "scored": true},
        {"id": 9, "text": "b", "scored": true}]"#;
    let line = |base: &str| {
        let sequence = SEQUENCE.replace('\n', "");
        let scores = format!(r#""tokens": ["a", "b"], "base": {base}, "full": [0.1, 0.2]"#);
        format!(r#"{{"line": 1, "part": "holdout", "prompt": "p", "sequence": {sequence}, {scores}}}"#)
    };
    let page = || run(["report", folder.path().to_str().unwrap(), "--format", "html"]);
    fs::write(&tokens, line("[1, 2]") + "\n").unwrap();
    let good = page();
    assert_eq!((good.code, good.stderr.as_str()), (Some(0), ""));
    assert!(good.stdout.starts_with("<!DOCTYPE html>"), "{}", good.stdout);
    for (base, words) in [
        ("[1]", "`base` has 1 numbers: expected 2, one for each token"),
        ("[1, 1e300]", "number out of range"),
        ("[1, null]", "invalid type: null"),
        ("null", "not the tokens of a sample"),
    ] {
        fs::write(&tokens, format!("{}\n{}\n", line("[1, 2]"), line(base))).unwrap();
        let run = page();
        assert_eq!((run.code, run.stdout.as_str()), (Some(BAD_INPUT), ""), "{base}: {}", run.stderr);
        let start = format!("plimsoll: {}: line 2: ", tokens.display());
        assert!(run.stderr.starts_with(&start) && run.stderr.contains(words), "{base}: {}", run.stderr);
    }
    fs::write(&tokens, line("[1, 2]").replacen("true", "false", 1) + "\n").unwrap();
    let run = page();
    assert_eq!(run.code, Some(BAD_INPUT), "sequence: {}", run.stderr);
    let words = "`sequence` has 1 scored tokens: expected 2, as `tokens` has";
    assert!(run.stderr.contains(words), "sequence: {}", run.stderr);
}

#[test]
fn an_architecture_is_named_by_modules_of_the_decoder_only() {
    fn add(inputs: &mut Inputs, module: &str) {
        inputs.adapter_tensors(|tensors| {
            for half in ["A", "B"] {
                tensors.insert(format!("base_model.model.{module}.lora_{half}.weight"), (vec![4, 4], vec![0.5; 16]));
            }
        });
    }
    check(
        &[
            Case {
                name: "GPT-2",
                damage: |inputs| add(inputs, "transformer.h.0.attn.c_attn"),
                path: "adapter/adapter_model.safetensors",
                words: &[
                    "modules such as transformer.h.0.attn.c_attn, which belong to gpt2 models",
                    "plimsoll search --help",
                ],
            },
            Case {
                name: "a vision tower",
                damage: |inputs| add(inputs, "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1"),
                path: "adapter/adapter_model.safetensors",
                words: &[
                    "vision_tower",
                    "LoRA on this module is not supported: expected a linear module of a decoder layer",
                ],
            },
            Case {
                name: "StarCoder2",
                damage: |inputs| add(inputs, "model.layers.0.mlp.c_fc"),
                path: "adapter/adapter_model.safetensors",
                words: &["model.layers.0.mlp.c_fc", "LoRA on this module is not supported"],
            },
        ],
        BAD_INPUT,
    );
}
