//! The CPU engine and its options: loading of a base model and an adapter.

use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::{Error, Result};
use crate::lora::adapter::{BoundAdapter, LoraWeights};
use crate::lora::{Projection, Variant};
use crate::model::{Lora, Model, Precision, Scratch, Transformer};

/// Maximum number of worker threads. A larger number is most likely a mistake, and would overload the machine.
pub const MAX_THREADS: usize = 512;

/// Options of the CPU engine: threads, dtype, instruction set and memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Worker threads; all cores by default.
    pub threads: Option<NonZero<usize>>,
    /// Dtype and instruction set.
    pub precision: Precision,
    /// Memory limit in bytes, for hidden states, keys and values and intermediate results, but not for weights. The
    /// size of batches follows from it. 1 GiB by default, or more if one sample needs it.
    pub memory: Option<u64>,
}

/// The CPU engine: a base model and an adapter on the CPU of this machine.
#[derive(Debug)]
pub struct CpuEngine {
    pub(super) model: Transformer,
    pub(super) adapted: Vec<[bool; Projection::COUNT]>,
    /// Multiply-adds per row in each module's LoRA, layer by layer.
    pub(super) lora_work: Vec<[u64; Projection::COUNT]>,
    pub(super) lora: Vec<Lora>,
    pub(super) pool: rayon::ThreadPool,
    /// The workspace of each thread of the pool.
    workspaces: Vec<Mutex<Workspace>>,
    pub(super) memory: Option<u64>,
}

/// The buffers of a thread: rows that pass through a layer, and the layer's scratch memory.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) x: Vec<f32>,
    pub(super) scratch: Scratch,
}

impl CpuEngine {
    /// Loads a model's weights and an adapter bound to it.
    ///
    /// # Errors
    /// A weight that cannot be read, more threads than [`MAX_THREADS`], or threads that cannot be started.
    ///
    /// # Panics
    /// If `lora` has another number of layers than the model.
    pub fn load(model: &Model, lora: &BoundAdapter, options: CpuOptions) -> Result<Self> {
        let CpuOptions { threads, precision, memory } = options;
        assert_eq!(lora.len(), model.config().layers, "an adapter of another model");
        // Not rayon's default, which depends on an environment variable.
        let all = || thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        let threads = threads.map_or_else(all, NonZero::get);
        if threads > MAX_THREADS {
            return Err(Error::Usage(format!("{threads} threads: expected at most {MAX_THREADS}")));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Engine(error.to_string()))?;
        let model = pool.install(|| Transformer::load(model, lora, precision))?;
        let work = |lora: &LoraWeights| (lora.a.len() + lora.b.len()) as u64;
        Ok(Self {
            adapted: lora.iter().map(|layer| Projection::ALL.map(|p| layer.get(p).is_some())).collect(),
            lora_work: lora.iter().map(|layer| Projection::ALL.map(|p| layer.get(p).map_or(0, work))).collect(),
            lora: pool.install(|| lora.iter().enumerate().map(|(layer, lora)| model.pack_lora(layer, lora)).collect()),
            workspaces: (0..pool.current_num_threads())
                .map(|_| Mutex::new(Workspace { x: Vec::new(), scratch: model.scratch() }))
                .collect(),
            model,
            pool,
            memory,
        })
    }

    /// The base model.
    pub fn model(&self) -> &Transformer {
        &self.model
    }

    /// The engine's thread pool, which callers may use too.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// The memory limit of [`CpuOptions::memory`].
    pub fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// The number of worker threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// The workspace of the calling thread of the pool. No other thread uses it.
    pub(super) fn workspace(&self) -> MutexGuard<'_, Workspace> {
        let index = self.pool.current_thread_index().unwrap_or(0);
        // Its content after a panic is overwritten before it is read.
        self.workspaces[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses variants of another model.
    pub(super) fn check(&self, variants: &[Variant]) -> Result<()> {
        let layers = self.model.config().layers;
        match variants.iter().find(|variant| variant.gates.len() != layers) {
            Some(variant) => {
                let found = variant.gates.len();
                Err(Error::Usage(format!("a variant has {found} layers: expected {layers}, as the model has")))
            }
            None => Ok(()),
        }
    }
}
