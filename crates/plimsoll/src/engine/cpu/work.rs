//! Work of the CPU engine in multiply-adds, and its speed.

use std::time::{Duration, Instant};

use plimsoll_kernels::Threads;

use super::load::{CpuEngine, Workspace};
use super::score::CHUNK_ROWS;
use crate::lora::{LayerGates, Projection};
use crate::model::{BlockPass, Segment};

/// Time after which the measurement of the speed ends.
const MEASURED: Duration = Duration::from_millis(300);

impl CpuEngine {
    /// Multiply-adds of one token in all layers of the full adapter and in the head.
    pub(super) fn work_of_token(&self) -> u64 {
        let layers = 0..self.lora.len();
        layers.map(|layer| self.layer_work(layer, &LayerGates::ON, 0, 1, None)).sum::<u64>() + self.head_work(1)
    }

    /// Multiply-adds per second, measured briefly: each thread computes one layer after the other for the leading
    /// tokens of a sequence. Approximate, for an estimate of the time left.
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

    /// Multiply-adds of one sequence in one layer of one node: keys and values of all rows, everything else of the rows
    /// whose output is `wanted` (all by default). `first` is the position of the first row.
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
        // The number of positions that a query attends to, summed over queries.
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

    /// Multiply-adds of a number of rows in the head.
    pub(super) fn head_work(&self, rows: usize) -> u64 {
        let config = self.model.config();
        (rows * config.hidden * config.vocabulary) as u64
    }
}
