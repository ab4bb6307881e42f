//! The CPU engine: a base model and an adapter, packed.

use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::lora::adapter::{BoundAdapter, LoraWeights};
use crate::lora::{Projection, Variant};
use crate::model::{Lora, Model, Precision, Scratch, Transformer};

/// More threads than this are refused: they would be a slip of the hand, and take the machine down with them.
pub const MAX_THREADS: usize = 512;

/// What the CPU engine computes in, and bounds on what it uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Worker threads; all cores where none is given.
    pub threads: Option<NonZero<usize>>,
    /// Type of number and instruction set.
    pub precision: Precision,
    /// Bytes of the working set: hidden states, keys and values, intermediate results, but not the weights. The number
    /// of rows in flight follows from it. 1 GiB where none is given, or more where one sample needs it.
    pub memory: Option<u64>,
}

/// A base model and an adapter on this machine's CPU.
#[derive(Debug)]
pub struct CpuEngine {
    pub(super) model: Transformer,
    pub(super) adapted: Vec<[bool; Projection::COUNT]>,
    /// Multiply-adds of a row in each module's LoRA, layer by layer.
    pub(super) lora_work: Vec<[u64; Projection::COUNT]>,
    pub(super) lora: Vec<Lora>,
    pub(super) pool: rayon::ThreadPool,
    /// What each thread of the pool works in.
    workspaces: Vec<Mutex<Workspace>>,
    pub(super) memory: Option<u64>,
}

/// What a thread works in: rows on their way through a layer, and the layer's own memory.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) x: Vec<f32>,
    pub(super) scratch: Scratch,
}

impl CpuEngine {
    /// Loads a model and packs an adapter for it.
    ///
    /// # Errors
    /// A weight that cannot be read, more than [`MAX_THREADS`], or the operating system gives none.
    ///
    /// # Panics
    /// If `lora` has another number of layers than the model.
    pub fn load(model: &Model, lora: &BoundAdapter, options: CpuOptions) -> Result<Self> {
        let CpuOptions { threads, precision, memory } = options;
        assert_eq!(lora.len(), model.config().layers, "an adapter of another model");
        let threads = threads.map_or(0, NonZero::get);
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

    /// The threads that it works on, for work of the caller's own.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }

    /// The bound on memory beside the weights, where there is one.
    pub fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// How many threads it works on.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// The workspace of the pool's calling thread; no other asks for it.
    pub(super) fn workspace(&self) -> MutexGuard<'_, Workspace> {
        let index = self.pool.current_thread_index().unwrap_or(0);
        // What a panic left in it is overwritten before it is read.
        self.workspaces[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check(&self, variants: &[Variant]) -> Result<()> {
        let layers = self.model.config().layers;
        match variants.iter().find(|variant| variant.gates.len() != layers) {
            Some(variant) => {
                let found = variant.gates.len();
                Err(Error::Usage(format!("a variant of {found} layers for a model of {layers}")))
            }
            None => Ok(()),
        }
    }
}
