//! Variants by a number: each once, however it came to be asked for.

use std::collections::HashMap;

use super::variant::Variant;

/// A variant's number in a [`VariantTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariantId(u32);

/// Variants, each once. Two variants are the same where their gates are.
///
/// ```
/// use plimsoll::lora::{Variant, VariantTable};
///
/// let mut table = VariantTable::default();
/// let full = table.insert(&Variant::bottom_k(4, 4));
/// assert_eq!(table.insert(&Variant::uniform(4, 1.0)), full);
/// assert_eq!(table.spec(full), "1");
/// ```
#[derive(Clone, Debug, Default)]
pub struct VariantTable {
    ids: HashMap<String, VariantId>,
    specs: Vec<String>,
}

impl VariantTable {
    /// The number of a variant, which is a new one where the table does not have it.
    pub fn insert(&mut self, variant: &Variant) -> VariantId {
        self.insert_spec(variant.spec())
    }

    /// The same of gates as [`Variant::spec`] writes them.
    pub fn insert_spec(&mut self, spec: String) -> VariantId {
        let next = VariantId(self.specs.len() as u32);
        *self.ids.entry(spec).or_insert_with_key(|spec| {
            self.specs.push(spec.clone());
            next
        })
    }

    /// The number of a variant that the table has.
    pub fn get(&self, variant: &Variant) -> Option<VariantId> {
        self.ids.get(&variant.spec()).copied()
    }

    /// The gates of a variant, as text.
    ///
    /// # Panics
    /// If the number is of another table.
    pub fn spec(&self, id: VariantId) -> &str {
        &self.specs[id.0 as usize]
    }
}
