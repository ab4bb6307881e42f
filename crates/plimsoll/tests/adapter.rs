//! Adapters: PEFT's matching rules, folders that are refused, and trimmed adapters read back.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use plimsoll::choose::Interval;
use plimsoll::lora::adapter::{
    Adapter, AdapterConfig, BaseShapes, CARD_FILE, CONFIG_FILE, HashedFile, Module, PROVENANCE_FILE, Provenance,
    Support, TrimScores, WEIGHTS_FILE, inspect, write_trimmed,
};
use plimsoll::lora::{LayerGates, Projection, Variant};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Fixture {
    linear: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    config: Value,
    modules: Option<BTreeMap<String, (usize, f64)>>,
}

#[test]
fn modules_ranks_and_scales_are_those_of_peft() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/peft_targets.json")).unwrap();
    assert!(fixture.cases.len() >= 40);
    for Case { name, config, modules } in fixture.cases {
        let ours = AdapterConfig::from_json(&config.to_string());
        let Some(modules) = modules else {
            assert!(ours.is_err(), "{name}: PEFT refuses it");
            continue;
        };
        let ours = ours.unwrap();
        let adapted: BTreeMap<String, (usize, f64)> = fixture
            .linear
            .iter()
            .filter(|path| ours.adapts(path).unwrap())
            .map(|path| {
                let (rank, alpha) = ours.rank_and_alpha(path).unwrap();
                (path.clone(), (rank, ours.scaling().scale(rank, alpha)))
            })
            .collect();
        assert_eq!(adapted, modules, "{name}");
    }
}

// A small adapter: 3 layers, q and v of a base model with 6 inputs and 4 outputs, rank 2.

const LAYERS: usize = 3;
const RANK: usize = 2;
const INPUT: usize = 6;
const OUTPUT: usize = 4;

fn config() -> Value {
    json!({
        "base_model_name_or_path": "organisation/model", "peft_type": "LORA", "r": RANK, "lora_alpha": 4,
        "target_modules": ["v_proj", "q_proj"], "layers_to_transform": null, "layers_pattern": null,
        "use_rslora": false, "zeta": null, "alpha_pattern": {}
    })
}

fn key(layer: usize, module: &str, half: &str) -> String {
    format!("base_model.model.model.layers.{layer}.{module}.lora_{half}.weight")
}

#[derive(Clone, Debug, PartialEq)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

type Tensors = BTreeMap<String, Tensor>;

fn f32_tensor(shape: &[usize], value: impl Fn(usize) -> f32) -> Tensor {
    let count = shape.iter().product();
    Tensor {
        dtype: Dtype::F32,
        shape: shape.to_vec(),
        bytes: (0..count).flat_map(|i| value(i).to_le_bytes()).collect(),
    }
}

fn tensors() -> Tensors {
    let mut tensors = Tensors::new();
    for layer in 0..LAYERS {
        for (m, module) in ["self_attn.q_proj", "self_attn.v_proj"].into_iter().enumerate() {
            let seed = (10 * layer + m) as f32;
            tensors.insert(key(layer, module, "A"), f32_tensor(&[RANK, INPUT], |i| (seed + i as f32 * 0.7).sin()));
            tensors.insert(key(layer, module, "B"), f32_tensor(&[OUTPUT, RANK], |i| (seed + i as f32 * 1.3).cos()));
        }
    }
    tensors
}

fn write_weights(folder: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(n, t)| (n, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
    fs::write(folder.join(WEIGHTS_FILE), safetensors::serialize(views, None).unwrap()).unwrap();
}

fn folder(config: &Value, tensors: &Tensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(CONFIG_FILE), config.to_string()).unwrap();
    write_weights(folder.path(), tensors);
    folder
}

fn read_weights(folder: &Path) -> Tensors {
    let bytes = fs::read(folder.join(WEIGHTS_FILE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let tensor = Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
            (name.to_owned(), tensor)
        })
        .collect()
}

/// The values of an `F32` tensor.
fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.bytes.chunks_exact(4).map(|c| f64::from(f32::from_le_bytes(c.try_into().unwrap()))).collect()
}

fn read_config(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join(CONFIG_FILE)).unwrap()).unwrap()
}

fn refusal(config: &Value, tensors: &Tensors) -> String {
    Adapter::open(folder(config, tensors).path()).expect_err("should be refused").to_string()
}

fn shape(_: usize, projection: Projection) -> Option<(usize, usize)> {
    let is_fused = matches!(projection, Projection::Qkv | Projection::GateUp);
    (!is_fused).then_some((OUTPUT, INPUT))
}

#[test]
fn an_adapter_is_read_and_bound() {
    let folder = folder(&config(), &tensors());
    let adapter = Adapter::open(folder.path()).unwrap();
    assert_eq!(adapter.layers(), [0, 1, 2]);
    assert_eq!(adapter.modules().len(), 2 * LAYERS);
    assert_eq!(adapter.bytes(), (2 * LAYERS * RANK * (INPUT + OUTPUT) * 4) as u64);
    assert_eq!(adapter.bytes_kept(&Variant::bottom_k(3, 1)) * 3, adapter.bytes());
    let layers = adapter.bind(&BaseShapes { layers: LAYERS, shape: &shape, weight: &|_| None }).unwrap();
    assert_eq!(layers.len(), LAYERS);
    let q = layers[1].get(Projection::Q).unwrap();
    assert_eq!((q.rank, q.scale, q.a.len(), q.b.len()), (2, 2.0, RANK * INPUT, OUTPUT * RANK));
    assert_eq!(q.a[3], (10.0_f32 + 3.0 * 0.7).sin());
    assert!(layers[1].get(Projection::K).is_none());
    assert_eq!(adapter.module(1, Projection::Q).unwrap().as_ref(), Some(q));
    assert_eq!(adapter.module(1, Projection::Up).unwrap(), None);
}

#[test]
fn tensors_that_do_not_fit_the_config_are_named() {
    let with = |change: &dyn Fn(&mut Tensors)| {
        let mut changed = tensors();
        change(&mut changed);
        refusal(&config(), &changed)
    };
    let q0a = key(0, "self_attn.q_proj", "A");
    let message = with(&|t| drop(t.remove(&q0a)));
    assert!(message.contains("layers.0.self_attn.q_proj.lora_A.weight is missing"), "{message}");
    let message = with(&|t| drop(t.insert(q0a.clone(), f32_tensor(&[3, INPUT], |_| 0.0))));
    assert!(message.contains("has shape [3, 6]: adapter_config.json requires [2, in]"), "{message}");
    let message = with(&|t| drop(t.insert(q0a.clone(), f32_tensor(&[RANK, INPUT], |_| f32::NAN))));
    assert!(message.contains("q_proj.lora_A.weight: value 0 is not a finite number"), "{message}");
    let message = with(&|t| drop(t.insert(q0a.clone(), f32_tensor(&[RANK * INPUT], |_| 0.0))));
    assert!(message.contains("has shape [12]"), "{message}");
    let message = with(&|t| {
        t.insert(key(0, "mlp.up_proj", "A"), f32_tensor(&[RANK, INPUT], |_| 0.0));
        t.insert(key(0, "mlp.up_proj", "B"), f32_tensor(&[OUTPUT, RANK], |_| 0.0));
    });
    assert!(message.contains("unused tensor: model.layers.0.mlp.up_proj"), "{message}");
    let message = with(&|t| {
        for n in 0..20 {
            t.insert(format!("stray.{n}"), f32_tensor(&[1], |_| 0.0));
        }
    });
    assert!(message.contains("stray.12") && message.contains("and 15 more"), "{message}");
    assert!(refusal(&config(), &Tensors::new()).contains("no LoRA tensors"));
    let mut two_stacks = tensors();
    let other = |half: &str| format!("base_model.model.language_model.layers.0.self_attn.q_proj.lora_{half}.weight");
    two_stacks.insert(other("A"), f32_tensor(&[RANK, INPUT], |_| 0.0));
    two_stacks.insert(other("B"), f32_tensor(&[OUTPUT, RANK], |_| 0.0));
    assert!(refusal(&config(), &two_stacks).contains("another stack"));
}

#[test]
fn another_base_model_is_refused_with_both_shapes() {
    let folder = folder(&config(), &tensors());
    let adapter = Adapter::open(folder.path()).unwrap();
    let message = adapter
        .bind(&BaseShapes { layers: LAYERS, shape: &|_, _| Some((576, 576)), weight: &|_| None })
        .unwrap_err()
        .to_string();
    let expected = "model.layers.0.self_attn.q_proj.lora_A.weight has shape (2, 6), the base model's weight has shape \
                    (576, 576): this adapter was trained on another base model";
    assert!(message.contains(expected), "{message}");
    let message = adapter.bind(&BaseShapes { layers: 2, shape: &shape, weight: &|_| None }).unwrap_err().to_string();
    assert!(message.contains("layers.2.self_attn.q_proj: the base model has 2 layers"), "{message}");
    let message = adapter.bind(&BaseShapes { layers: 5, shape: &shape, weight: &|_| None }).unwrap_err().to_string();
    assert!(message.contains("layers.4.self_attn.v_proj: adapter_config.json targets it"), "{message}");
}

#[test]
fn folders_that_are_no_adapters_are_refused_with_a_reason() {
    let message = |folder: &Path| Adapter::open(folder).expect_err("should be refused").to_string();
    let empty = tempfile::tempdir().unwrap();
    assert!(message(empty.path()).contains("expected an adapter folder"));
    assert!(message(Path::new("does/not/exist")).contains("cannot read: No such file"));
    fs::write(empty.path().join("adapters.safetensors"), "x").unwrap();
    assert!(message(empty.path()).contains("adapter_config.json is missing"));
    fs::write(empty.path().join("adapter_model.bin"), "x").unwrap();
    assert!(message(empty.path()).contains("pickle"));
    fs::write(empty.path().join(WEIGHTS_FILE), "version https://git-lfs.github.com/spec/v1\noid x\n").unwrap();
    assert!(message(empty.path()).contains(CONFIG_FILE));
    fs::write(empty.path().join(CONFIG_FILE), config().to_string()).unwrap();
    assert!(message(empty.path()).contains("Git LFS"));
}

/// A variant of the small adapter.
fn gates(text: &str) -> Variant {
    Variant::parse(text, LAYERS).unwrap()
}

/// Trims the adapter and returns the new folder.
fn trim(adapter: &Adapter, variant: &Variant) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("trimmed");
    write_trimmed(adapter, variant, &Provenance::default(), &out).unwrap();
    #[cfg(unix)]
    for entry in fs::read_dir(&out).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        let (path, metadata) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o644, "{}", path.display());
    }
    (parent, out)
}

#[test]
fn a_trim_restricts_the_config_and_keeps_every_field() {
    let full = folder(&config(), &tensors());
    let adapter = Adapter::open(full.path()).unwrap();
    let (_parent, out) = trim(&adapter, &Variant::bottom_k(LAYERS, 2));
    let mut expected = config();
    expected["layers_to_transform"] = json!([0, 1]);
    expected["layers_pattern"] = json!("layers");
    let written = read_config(&out);
    assert_eq!(written, expected);
    let order = |config: &Value| config.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(order(&written), order(&config()));
    assert_eq!(read_weights(&out).len(), 8);
    // A variant that keeps everything changes nothing.
    let (_parent, out) = trim(&adapter, &Variant::bottom_k(5, 5));
    assert_eq!(read_config(&out), config());
    assert_eq!(read_weights(&out), tensors());
}

#[test]
fn patterns_that_match_no_kept_module_are_removed() {
    let mut fields = config();
    fields["alpha_pattern"] = json!({"2.self_attn.q_proj": 1, r"layers\.[12]\..*": 3, "q_proj": 5, "o_proj": 7});
    let full = folder(&fields, &tensors());
    let adapter = Adapter::open(full.path()).unwrap();
    let (_parent, out) = trim(&adapter, &Variant::bottom_k(LAYERS, 2));
    assert_eq!(read_config(&out)["alpha_pattern"], json!({r"layers\.[12]\..*": 3, "q_proj": 5}));
    let scales: Vec<f64> = Adapter::open(&out).unwrap().modules().map(|module| module.scale).collect();
    assert_eq!(scales, [2.5, 2.0, 1.5, 1.5]);
}

#[test]
fn a_string_of_target_modules_is_expanded_to_a_list() {
    for text in ["all-linear", r"model\.layers\.\d+\.self_attn\.(q|v)_proj"] {
        let mut fields = config();
        fields["target_modules"] = json!(text);
        let full = folder(&fields, &tensors());
        let adapter = Adapter::open(full.path()).unwrap();
        let (_parent, out) = trim(&adapter, &Variant::bottom_k(LAYERS, 1));
        let written = read_config(&out);
        assert_eq!(written["target_modules"], json!(["q_proj", "v_proj"]), "{text}");
        assert_eq!(written["layers_to_transform"], json!([0]), "{text}");
        let (_parent, out) = trim(&adapter, &Variant::bottom_k(LAYERS, 3));
        assert_eq!(read_config(&out)["target_modules"], json!(text), "{text}");
    }
}

#[test]
fn layers_with_different_modules_are_targeted_by_full_paths() {
    let mut fields = config();
    fields["target_modules"] = json!(r".*\.([02]\.self_attn\.q|1\.self_attn\.v)_proj");
    let mut some = tensors();
    let targeted = |name: &str| !(name.contains("1.self_attn.q") || name.contains("[02].self_attn.v"));
    some.retain(|name, _| targeted(name) && !name.contains("0.self_attn.v") && !name.contains("2.self_attn.v"));
    let full = folder(&fields, &some);
    let adapter = Adapter::open(full.path()).unwrap();
    let (_parent, out) = trim(&adapter, &Variant::bottom_k(LAYERS, 2));
    let written = read_config(&out);
    let paths = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"];
    assert_eq!(written["target_modules"], json!(paths));
    assert_eq!(written["layers_to_transform"], Value::Null);
    assert_eq!(Adapter::open(&out).unwrap().layers(), [0, 1]);
}

#[test]
fn dropped_modules_are_left_out_of_the_config() {
    let paths = |layers: &[(usize, &str)]| {
        layers.iter().map(|(layer, name)| json!(format!("model.layers.{layer}.self_attn.{name}"))).collect::<Value>()
    };
    let cases = [
        // A module of one layer: full paths.
        (
            "1.q_proj=0",
            paths(&[(0, "q_proj"), (0, "v_proj"), (1, "v_proj"), (2, "q_proj"), (2, "v_proj")]),
            Value::Null,
        ),
        ("0=0,1.q_proj=0", paths(&[(1, "v_proj"), (2, "q_proj"), (2, "v_proj")]), Value::Null),
        // A module of all layers: names.
        ("q_proj=0", json!(["v_proj"]), json!([0, 1, 2])),
        ("1=0,q_proj=0", json!(["v_proj"]), json!([0, 2])),
        // Whole layers: the unchanged list.
        ("1=0", json!(["v_proj", "q_proj"]), json!([0, 2])),
    ];
    let full = folder(&config(), &tensors());
    let adapter = Adapter::open(full.path()).unwrap();
    for (text, targets, layers) in cases {
        let (_parent, out) = trim(&adapter, &gates(text));
        let written = read_config(&out);
        assert_eq!((&written["target_modules"], &written["layers_to_transform"]), (&targets, &layers), "{text}");
        let kept = Adapter::open(&out).unwrap();
        assert!(kept.bind(&BaseShapes { layers: LAYERS, shape: &shape, weight: &|_| None }).is_ok(), "{text}");
        assert!(read_weights(&out).iter().all(|(name, tensor)| tensors()[name] == *tensor), "{text}");
    }
}

#[test]
fn strengths_are_folded_into_b_only() {
    let full = folder(&config(), &tensors());
    let adapter = Adapter::open(full.path()).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("trimmed");
    let variant = gates("0=-0.3,1.v_proj=0.5,1.q_proj=0");
    let written = write_trimmed(&adapter, &variant, &Provenance::default(), &out).unwrap();
    assert_eq!(written.strengths, [-0.3, 0.5]);
    assert_eq!((written.modules, written.modules_dropped), (5, 1));
    assert_eq!((written.layers_kept, written.layers_dropped), (vec![0, 1, 2], vec![]));
    assert_eq!(gates(&written.gates), variant);
    for (name, tensor) in read_weights(&out) {
        let strength = match &name {
            b if b.contains("lora_B") && b.contains("layers.0.") => -0.3_f32,
            b if b.contains("lora_B") && b.contains("layers.1.") => 0.5,
            _ => 1.0,
        };
        let (found, whole) = (values(&tensor), values(&tensors()[&name]));
        let expected: Vec<f64> = whole.iter().map(|value| f64::from((value * f64::from(strength)) as f32)).collect();
        assert_eq!(found, expected, "{name}");
    }
    for (whole, kept) in adapter
        .modules()
        .filter(|m| (m.layer, m.projection) != (1, Projection::Q))
        .zip(Adapter::open(&out).unwrap().modules())
    {
        assert_eq!(whole, kept);
    }
    let fields: Value = serde_json::from_str(&fs::read_to_string(out.join(PROVENANCE_FILE)).unwrap()).unwrap();
    assert_eq!((&fields["strengths"], &fields["modules_dropped"]), (&json!([-0.3, 0.5]), &json!(1)));
    let readme = fs::read_to_string(out.join(CARD_FILE)).unwrap();
    for part in [
        "All 3 layers of the adapter are kept.",
        "In the kept layers, these modules are dropped: q_proj in layer 1.",
        "-0.3 for q_proj, v_proj in layer 0; 0.5 for v_proj in layer 1.",
    ] {
        assert!(readme.contains(part), "{part} is not in\n{readme}");
    }
    assert!(!readme.contains("byte for byte"), "{readme}");
}

#[test]
fn a_strength_beyond_the_range_of_the_dtype_is_refused() {
    let mut f16 = tensors();
    for tensor in f16.values_mut() {
        // Every value is 30,000.
        *tensor = Tensor {
            dtype: Dtype::F16,
            shape: tensor.shape.clone(),
            bytes: [0x53, 0x77].repeat(tensor.bytes.len() / 4),
        };
    }
    let full = folder(&config(), &f16);
    let adapter = Adapter::open(full.path()).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("trimmed");
    let message = write_trimmed(&adapter, &gates("1.v_proj=-3"), &Provenance::default(), &out).unwrap_err().to_string();
    let expected = "adapter_model.safetensors: base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight: its \
                    largest value, 30000.0, times the LoRA strength -3 is -90000.0, but the largest F16 number is \
                    65504.0";
    assert!(message.contains(expected), "{message}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn nothing_kept_writes_nothing() {
    let full = folder(&config(), &tensors());
    let adapter = Adapter::open(full.path()).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("trimmed");
    // Strengths of modules without LoRA keep nothing.
    for (variant, words) in [
        (gates("0"), "use the base model"),
        (Variant::parse("0,k_proj=1", LAYERS).unwrap(), "use the base model"),
        (Variant::of_layers(5, |layer| layer > 2), "use the base model"),
        (
            Variant::uniform(2, 1.0),
            "a variant of more than 2 layers, since the adapter has LoRA in layer 2, found one of 2",
        ),
    ] {
        let message = write_trimmed(&adapter, &variant, &Provenance::default(), &out).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn the_card_states_kept_layers_scores_and_provenance() {
    let full = folder(&config(), &tensors());
    let adapter = Adapter::open(full.path()).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("trimmed");
    let source = |path: &str| Some(HashedFile { path: path.to_owned(), sha256: "ab12".to_owned() });
    let card = Provenance {
        tool: "plimsoll 0.1.0".to_owned(),
        command: Some("plimsoll search --model m".to_owned()),
        adapter: source("adapters/`x|y`"),
        model: source("m.gguf"),
        model_layers: Some(LAYERS),
        data: source("valid.jsonl"),
        seed: Some(7),
        scores: Some(TrimScores {
            metric: None,
            samples: 48,
            base: 1.5,
            full: 1.25,
            trimmed: 1.24,
            gain: Interval { value: 0.01, low: -0.02, high: 0.04 },
            retained: Some(Interval { value: 1.04, low: 0.985, high: 1.1 }),
        }),
    };
    let written = write_trimmed(&adapter, &Variant::bottom_k(LAYERS, 2), &card, &out).unwrap();
    assert_eq!((written.layers_kept, written.layers_dropped), (vec![0, 1], vec![2]));
    assert_eq!((written.modules, written.modules_dropped, written.gates.as_str()), (4, 2, "2=0"));
    assert_eq!(written.bytes * 3, written.bytes_before * 2);
    let readme = fs::read_to_string(out.join(CARD_FILE)).unwrap();
    assert!(
        readme.starts_with("---\nbase_model: organisation/model\nlibrary_name: peft\ntags:\n- lora\n- plimsoll\n---\n")
    );
    let parts = [
        "kept in layers 0–1 and dropped in layer 2",
        "byte for byte",
        "| LoRA strengths | `2=0` |",
        "on 48 samples",
        "98.5 % to 110.0 %",
        "adapter: `'x¦y'`,",
    ];
    for part in parts {
        assert!(readme.contains(part), "{part} is not in\n{readme}");
    }
    assert!(!readme.contains("adapters/") && !readme.contains("--model"), "{readme}");
    let text = fs::read_to_string(out.join(PROVENANCE_FILE)).unwrap();
    let fields: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(fields["layers_kept"], json!([0, 1]));
    let again: Provenance = serde_json::from_str(&text).unwrap();
    assert_eq!(again, card);
    // Without a search the card has no scores.
    let (_parent, out) = trim(&adapter, &Variant::bottom_k(LAYERS, 1));
    assert!(!fs::read_to_string(out.join(CARD_FILE)).unwrap().contains("Scores"));
}

#[test]
fn an_inspection_measures_every_module() {
    let mut fields = config();
    fields["use_rslora"] = json!(true);
    let all = tensors();
    let full = folder(&fields, &all);
    let inspection = inspect(&Adapter::open(full.path()).unwrap()).unwrap();
    assert_eq!(inspection.modules, ["q_proj", "v_proj"]);
    assert_eq!((inspection.ranks, inspection.alphas), (vec![RANK], vec![4.0]));
    assert_eq!(inspection.parameters, (2 * LAYERS * RANK * (INPUT + OUTPUT)) as u64);
    assert_eq!(inspection.dtypes, ["F32"]);
    assert!(!inspection.untrained && !inspection.only_upper_layers && inspection.rank_stabilised);
    for module in &inspection.per_module {
        let path = format!("self_attn.{}", module.module);
        let (a, b) = (values(&all[&key(module.layer, &path, "A")]), values(&all[&key(module.layer, &path, "B")]));
        let mut squares = 0.0;
        for o in 0..OUTPUT {
            for i in 0..INPUT {
                let entry: f64 = (0..RANK).map(|r| b[o * RANK + r] * a[r * INPUT + i]).sum();
                squares += entry * entry;
            }
        }
        let expected = 4.0 / 2.0_f64.sqrt() * squares.sqrt();
        assert!((module.norm - expected).abs() < 1e-12 * expected, "{path}: {}, expected {expected}", module.norm);
    }
    let llama_cpp = inspection.runtimes.iter().find(|facts| facts.runtime == "llama.cpp").unwrap();
    assert_eq!(llama_cpp.loads, Support::WrongResult);
    let runtime = |name: &str| inspection.runtimes.iter().find(|facts| facts.runtime == name).unwrap();
    assert_eq!((runtime("TGI").loads, runtime("TGI").loads_trimmed), (Support::Yes, Support::No));
    assert!(runtime("vLLM").notes.iter().any(|note| note.contains("only a part of q, k and v")));
    assert!(llama_cpp.notes[0].contains("rsLoRA"));
}

#[test]
fn an_inspection_reports_an_untrained_adapter_of_upper_layers_only() {
    let mut some = tensors();
    some.retain(|name, _| !name.contains("layers.0."));
    for (name, tensor) in &mut some {
        if name.contains("lora_B") {
            tensor.bytes.fill(0);
        }
    }
    let mut fields = config();
    fields["layers_to_transform"] = json!([1, 2]);
    let full = folder(&fields, &some);
    let inspection = inspect(&Adapter::open(full.path()).unwrap()).unwrap();
    assert!(inspection.untrained && inspection.only_upper_layers);
    assert!(inspection.per_module.iter().all(|module| module.norm == 0.0));
    let runtime = |name: &str| inspection.runtimes.iter().find(|facts| facts.runtime == name).unwrap();
    assert_eq!(runtime("TGI").loads, Support::No);
    assert_eq!(runtime("llama.cpp").loads, Support::AfterConversion);
    assert_eq!(runtime("PEFT").loads_trimmed, Support::Yes);
}

#[test]
fn adapters_of_unsupported_architectures_are_refused_by_name() {
    for (module, model_type) in [
        ("base_model.model.model.decoder.layers.0.self_attn.q_proj", "opt"),
        ("base_model.model.transformer.h.0.attn.c_attn", "gpt2"),
        ("base_model.model.model.layers.0.mlp.fc1", "phi"),
    ] {
        let mut all = tensors();
        for half in ["A", "B"] {
            all.insert(format!("{module}.lora_{half}.weight"), f32_tensor(&[RANK, RANK], |_| 0.5));
        }
        let message = Adapter::open(folder(&config(), &all).path()).unwrap_err().to_string();
        let module = module.strip_prefix("base_model.model.").unwrap();
        let expected = format!(
            "modules such as {module}, which belong to {model_type} models: this architecture is not supported"
        );
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn an_inspection_reports_an_unsupported_base_model() {
    let mut fields = config();
    let unsupported = |fields: &Value| {
        let inspection = inspect(&Adapter::open(folder(fields, &tensors()).path()).unwrap()).unwrap();
        (
            inspection.unsupported_base,
            plimsoll::report::inspection(&inspection, &plimsoll::model::supported_families()).replace('\n', " "),
        )
    };
    let (none, text) = unsupported(&fields);
    assert!(none.is_none() && !text.contains("can be scored"), "{text}");
    fields["base_model_name_or_path"] = "microsoft/phi-1_5".into();
    let (phi, text) = unsupported(&fields);
    assert_eq!(phi, Some("phi"));
    assert!(
        text.contains("No base model of this adapter can be scored") && text.contains("architecture phi,"),
        "{text}"
    );
}

// Untrusted files.

/// Opens a folder with these bytes; must not panic.
fn open_bytes(config: &[u8], weights: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(CONFIG_FILE), config).unwrap();
    fs::write(folder.path().join(WEIGHTS_FILE), weights).unwrap();
    Adapter::open(folder.path()).is_ok()
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0_u64..9).prop_map(Value::from),
        r"[a-z_.*+?(){}\[\]|^$\\0-9=!<>:,-]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(r"[a-z_.(|)*\\^$]{0,10}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Text of tokens that occur in regular expressions.
fn regex_like() -> &'static str {
    r"(\(\?[:=!<>P]?|[a-z.*+?(){}\[\]|^$\\0-9=!<>:,]|\{[0-9]{1,9}(,[0-9]{0,9})?\}|\\[a-zA-Z0-9]|layers|\)){0,24}"
}

fn any_dtype() -> impl Strategy<Value = Dtype> {
    prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::BF16)]
}

/// An adapter of some layers and modules, of one dtype, with any finite values.
fn any_adapter() -> impl Strategy<Value = (Value, Tensors)> {
    let layers = prop::collection::btree_set(0_usize..40, 1..6);
    let modules = prop::sample::subsequence(Projection::ALL[..7].to_vec(), 1..=7);
    let sizes = (1_usize..5, 1_usize..9, 1_usize..9);
    let styles = prop::sample::select(vec!["list", "layers", "regex", "paths"]);
    (layers, modules, sizes, any_dtype(), styles, any::<u64>()).prop_map(
        |(layers, modules, (r, i, o), dtype, style, seed)| {
            let mut state = seed;
            let mut tensor = |shape: [usize; 2]| {
                let count = shape[0] * shape[1] * dtype.bitsize() / 8;
                let bytes = (0..count).map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    // Bit 6 of every byte is clear, so that no exponent is all ones: every value is finite.
                    (state >> 56) as u8 & 0b1011_1111
                });
                Tensor { dtype, shape: shape.to_vec(), bytes: bytes.collect() }
            };
            let mut tensors = Tensors::new();
            for layer in &layers {
                for module in &modules {
                    tensors.insert(key(*layer, module.path(), "A"), tensor([r, i]));
                    tensors.insert(key(*layer, module.path(), "B"), tensor([o, r]));
                }
            }
            let names: Vec<&str> = modules.iter().map(|module| module.name()).collect();
            let mut config =
                json!({"peft_type": "LORA", "r": r, "lora_alpha": 0.3, "target_modules": names, "kept": null});
            match style {
                "layers" => config["layers_to_transform"] = json!(layers),
                "regex" => {
                    let numbers: Vec<String> = layers.iter().map(usize::to_string).collect();
                    let (numbers, names) = (numbers.join("|"), names.join("|"));
                    config["target_modules"] = json!(format!(r"model\.layers\.(?:{numbers})\..*\.(?:{names})"));
                }
                "paths" => {
                    let path = |layer: &usize, module: &Projection| format!("model.layers.{layer}.{}", module.path());
                    let paths = layers.iter().flat_map(|layer| modules.iter().map(move |module| path(layer, module)));
                    config["target_modules"] = paths.collect();
                }
                _ => {}
            }
            (config, tensors)
        },
    )
}

/// LoRA strengths of a layer: all 0, all 1, or one for each module. None is above 1, so that nothing overflows.
fn any_gates() -> impl Strategy<Value = LayerGates> {
    let strength = prop_oneof![3 => Just(0.0_f32), 3 => Just(1.0), 1 => Just(-0.5), 1 => -1.0_f32..1.0];
    prop_oneof![Just(LayerGates::OFF), Just(LayerGates::ON), prop::array::uniform9(strength).prop_map(LayerGates)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_as_config_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!open_bytes(&bytes, b""));
    }

    #[test]
    fn any_fields_are_read_or_refused(
        changes in prop::collection::hash_map(prop::sample::select(vec![
            "peft_type", "r", "lora_alpha", "use_rslora", "bias", "init_lora_weights", "target_modules",
            "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
            "modules_to_save", "base_model_name_or_path", "novel",
        ]), any_json(), 1..3),
    ) {
        let mut fields = config();
        let changes: HashMap<&str, Value> = changes;
        for (field, value) in changes {
            fields[field] = value;
        }
        let folder = folder(&fields, &tensors());
        // An adapter that is read can be bound or refused, inspected and trimmed.
        if let Ok(adapter) = Adapter::open(folder.path()) {
            let bound = adapter.bind(&BaseShapes { layers: LAYERS, shape: &shape, weight: &|_| None });
            prop_assert!(bound.is_err() || bound.unwrap().len() == LAYERS);
            prop_assert_eq!(inspect(&adapter).unwrap().per_module.len(), 2 * LAYERS);
            let (_parent, out) = trim(&adapter, &Variant::bottom_k(LAYERS, 1));
            prop_assert_eq!(Adapter::open(&out).unwrap().layers(), [0]);
        }
    }

    #[test]
    fn any_regex_is_matched_or_refused(pattern in regex_like()) {
        for field in ["target_modules", "exclude_modules"] {
            let mut fields = config();
            fields[field] = json!(pattern);
            if let Ok(config) = AdapterConfig::from_json(&fields.to_string()) {
                // Too many steps are an error.
                let _: Result<bool, _> = config.adapts("model.layers.1.self_attn.q_proj");
            }
        }
        let fields = json!({
            "peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"],
            "rank_pattern": {pattern: 3}, "layers_to_transform": [1], "layers_pattern": "layers"
        });
        if let Ok(config) = AdapterConfig::from_json(&fields.to_string()) {
            prop_assert!(config.adapts("model.layers.1.self_attn.q_proj").unwrap());
            let rank = config.rank_and_alpha("model.layers.1.self_attn.q_proj").map(|(rank, _)| rank);
            prop_assert!(matches!(rank, Ok(1 | 3) | Err(_)));
        }
    }

    #[test]
    fn any_bytes_as_weights_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!open_bytes(config().to_string().as_bytes(), &bytes));
    }

    #[test]
    fn any_change_to_the_weights_is_read_or_refused(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let folder = folder(&config(), &tensors());
        let mut bytes = fs::read(folder.path().join(WEIGHTS_FILE)).unwrap();
        let header = bytes.len() - tensors().values().map(|tensor| tensor.bytes.len()).sum::<usize>();
        let at = at.index(header);
        bytes[at] = byte;
        fs::write(folder.path().join(WEIGHTS_FILE), &bytes).unwrap();
        // If the changed file is an adapter, it has the same modules.
        if let Ok(adapter) = Adapter::open(folder.path()) {
            prop_assert_eq!(adapter.modules().len(), 2 * LAYERS);
        }
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(!open_bytes(config().to_string().as_bytes(), &bytes));
    }

    #[test]
    fn a_trim_has_exactly_the_kept_tensors(
        (config, tensors) in any_adapter(), gates in prop::collection::vec(any_gates(), 40..50),
    ) {
        let full = folder(&config, &tensors);
        let adapter = Adapter::open(full.path()).unwrap();
        let variant = Variant { gates };
        let strength = |module: &Module| variant.gates[module.layer].get(module.projection);
        let is_kept = |module: &&Module| strength(module) != 0.0;
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("trimmed");
        let written = write_trimmed(&adapter, &variant, &Provenance::default(), &out);
        if !adapter.modules().any(|module| is_kept(&module)) {
            prop_assert!(written.is_err() && !out.exists());
            return Ok(());
        }
        let written = written.unwrap();
        let again = Adapter::open(&out).unwrap();
        prop_assert_eq!(again.layers(), written.layers_kept);
        prop_assert_eq!((again.modules().len(), again.bytes()), (written.modules, written.bytes));
        prop_assert_eq!(written.modules + written.modules_dropped, adapter.modules().len());
        let mut found = read_weights(&out);
        for (before, after) in adapter.modules().filter(is_kept).zip(again.modules()) {
            prop_assert_eq!(before, after);
            for half in ["A", "B"] {
                let name = key(before.layer, before.projection.path(), half);
                let (tensor, whole) = (found.remove(&name).unwrap(), &tensors[&name]);
                if half == "A" || strength(before) == 1.0 {
                    prop_assert_eq!(&tensor, whole);
                } else {
                    prop_assert_eq!((tensor.dtype, &tensor.shape), (whole.dtype, &whole.shape));
                    let (folded, whole) = [&again, &adapter]
                        .map(|adapter| adapter.module(before.layer, before.projection).unwrap().unwrap().b)
                        .into();
                    for (folded, whole) in folded.iter().zip(whole) {
                        let exact = f64::from(whole) * f64::from(strength(before));
                        // Half a unit in the last place, also of subnormal numbers.
                        let (share, least) = match tensor.dtype {
                            Dtype::F16 => (2_f64.powi(-11), 2_f64.powi(-25)),
                            Dtype::BF16 => (2_f64.powi(-8), 2_f64.powi(-134)),
                            _ => (2_f64.powi(-24), 2_f64.powi(-150)),
                        };
                        let distance = (f64::from(*folded) - exact).abs();
                        prop_assert!(distance <= (share * exact.abs()).max(least), "{exact}: {folded}");
                    }
                }
            }
        }
        prop_assert!(found.is_empty());
    }
}
