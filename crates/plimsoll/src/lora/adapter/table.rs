//! An adapter's [`LoraTable`] for a base model.

use super::embeddings::EmbeddingLora;
use super::inspect::inspect;
use super::open::Adapter;
use crate::error::Result;
use crate::lora::lora_table::LoraTable;
use crate::lora::projection::Projection;

impl Adapter {
    /// The [`LoraTable`] of this adapter, for a base model with this number of layers.
    ///
    /// # Errors
    /// The weight file can no longer be read.
    pub fn table(&self, layers: usize) -> Result<LoraTable> {
        let mut table = LoraTable {
            adapted: vec![[false; Projection::COUNT]; layers],
            norms: vec![[0.0; Projection::COUNT]; layers],
            bytes: vec![[0; Projection::COUNT]; layers],
            bytes_kept_always: self.bytes_saved(),
            bytes_dropped_always: 0,
        };
        for module in self.modules().filter(|module| module.layer < layers) {
            table.adapted[module.layer][module.projection as usize] = true;
            table.bytes[module.layer][module.projection as usize] = module.bytes;
        }
        for module in inspect(self)?.per_module {
            if let (Some(norms), Some(projection)) =
                (table.norms.get_mut(module.layer), Projection::from_name(module.module))
            {
                norms[projection as usize] = module.norm;
            }
        }
        let on_embeddings = self.embedding_modules.values().map(|module| module.bytes).sum::<u64>();
        match self.embedding_lora {
            Some(EmbeddingLora::Drop) => table.bytes_dropped_always += on_embeddings,
            Some(EmbeddingLora::Keep) | None => table.bytes_kept_always += on_embeddings,
        }
        Ok(table)
    }
}
