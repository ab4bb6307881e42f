//! Finds the LoRA layers of an adapter that inference needs.
//!
//! Given a base model, an adapter (PEFT or mlx-lm) and validation samples, plimsoll scores every boundary (LoRA is kept
//! in the layers below it and dropped above; arXiv:2503.23360). It tests how many layers keep a share of the adapter's
//! gain, and returns a trimmed adapter, or the verdict that the full adapter or the base model is the better choice.
//! [`search()`] does all of it:
//!
//! ```
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden");
//! # let out = tempfile::tempdir().unwrap();
//! # let (model, adapter) = (format!("{folder}/tiny-gqa-tied"), format!("{folder}/tiny-gqa-tied/adapters/trained"));
//! # let (valid, out) = (format!("{folder}/data/valid.jsonl"), out.path().join("out"));
//! use plimsoll::choose::Margin;
//! use plimsoll::data::{DataOptions, Dataset, TemplateChoice};
//! use plimsoll::{Adapter, Model};
//!
//! let model = Model::open(&model)?;
//! let adapter = Adapter::open(&adapter)?;
//! let data = Dataset::from_jsonl(&valid)?;
//! let found = plimsoll::search(&model, &adapter, &data)
//!     .margin(Margin::Share(0.98))
//!     .data_options(DataOptions { template: TemplateChoice::None, ..DataOptions::default() })
//!     .on_progress(|progress| eprintln!("{progress}"))
//!     .run()?;
//! println!("{}", found.summary());
//! if let Some(trimmed) = found.trimmed() {
//!     trimmed.save(out.join("adapter"))?;
//! }
//! found.write_html(out.join("report.html"))?;
//! # assert!(out.join("report.html").exists());
//! # Ok::<(), plimsoll::Error>(())
//! ```
//!
//! Its parts can be used alone: [`engine::Scorer`] scores samples under any variants of an adapter,
//! [`engine::Generator`] generates answers, [`eval`] evaluates answers on tasks, [`lora`] reads, trims and writes
//! adapters, and [`report`] renders results.
//!
//! The library never prints, exits, reads the environment or touches the network.

pub mod data;
pub mod engine;
mod error;
pub mod eval;
pub mod generate;
mod journal;
pub mod lora;
pub mod model;
pub mod report;
pub mod result;
pub mod search;
pub mod tokenizer;

pub use lora::Adapter;
pub use model::Model;
pub use plimsoll_formats as formats;
pub use plimsoll_stats as stats;
pub use plimsoll_stats::{choose, metrics};

pub use error::{Error, ErrorKind, Result};
pub use journal::{Existing, TOOL};
pub use plimsoll_formats::Problem;
pub use search::search;
