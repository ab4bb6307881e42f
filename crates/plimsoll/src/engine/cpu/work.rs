//! Multiply-adds of what the CPU engine does, and how many it does in a second.

use std::time::{Duration, Instant};

use plimsoll_kernels::Threads;

use super::load::{CpuEngine, Workspace};
use super::score::CHUNK_ROWS;
use crate::lora::{LayerGates, Projection};
use crate::model::{BlockPass, Segment};

/// How long a rate is measured, or little more.
const MEASURED: Duration = Duration::from_millis(300);

impl CpuEngine {
    /// Multiply-adds of one token in all layers of the full adapter and in the head.
    pub(super) fn work_of_token(&self) -> u64 {
        let layers = 0..self.lora.len();
        layers.map(|layer| self.layer_work(layer, &LayerGates::ON, 0, 1, None)).sum::<u64>() + self.head_work(1)
    }

    /// Multiply-adds a second, measured for a moment: each thread takes the leading tokens of a sequence through one layer
    /// after the other. Rough, for an estimate of the time that work will take.
    pub(super) fn multiply_adds_per_second(&self, tokens: &[u32]) -> f64 {
        let rows = 0..tokens.len().min(CHUNK_ROWS);
        let (tokens, length, gates) = (&tokens[rows.clone()], rows.len(), LayerGates::ON);
        let ropes = self.model.ropes([length]);
        self.pool.broadcast(|_| self.workspace().x = self.model.embed(tokens));
        let (begun, mut work) = (Instant::now(), 0);
        for (layer, lora) in self.lora.iter().enumerate() {
            self.pool.broadcast(|_| {
                let Workspace { x, scratch } = &mut *self.workspace();
                let mut segments =
                    [Segment { rows: rows.clone(), gates, length, past: None, cache: None, wanted: None }];
                let pass = BlockPass { ropes: &ropes, threads: Threads::One, scratch, observer: None };
                self.model.block(layer, lora, &mut segments, x, pass);
            });
            work += self.threads() as u64 * self.layer_work(layer, &gates, 0, length, None);
            if begun.elapsed() > MEASURED {
                break;
            }
        }
        work as f64 / begun.elapsed().as_secs_f64().max(1e-9)
    }

    /// Multiply-adds of one sequence in one layer of one node: keys and values of all its rows, everything else of those
    /// whose output is wanted.
    pub(super) fn layer_work(
        &self,
        layer: usize,
        gates: &LayerGates,
        first: usize,
        rows: usize,
        wanted: Option<&[usize]>,
    ) -> u64 {
        let config = self.model.config();
        let head = (config.heads * config.head_dim) as u64;
        // Positions that the queries see, in sum.
        let (outputs, seen) = match wanted {
            Some(wanted) => (wanted.len(), wanted.iter().map(|row| first + row + 1).sum()),
            None => (rows, rows * (2 * first + rows + 1) / 2),
        };
        let (hidden, rows, outputs, seen) = (config.hidden as u64, rows as u64, outputs as u64, seen as u64);
        let keys_and_values = 2 * hidden * (config.kv_heads * config.head_dim) as u64;
        let rest = hidden * (2 * head + 3 * config.intermediate as u64);
        let lora = Projection::ALL.iter().filter(|&&projection| gates.get(projection) != 0.0).map(|&projection| {
            let rows = if matches!(projection, Projection::K | Projection::V) { rows } else { outputs };
            rows * self.lora_work[layer][projection as usize]
        });
        rows * keys_and_values + outputs * rest + seen * 2 * head + lora.sum::<u64>()
    }

    /// Multiply-adds of so many rows in the head.
    pub(super) fn head_work(&self, rows: usize) -> u64 {
        let config = self.model.config();
        (rows * config.hidden * config.vocabulary) as u64
    }
}
