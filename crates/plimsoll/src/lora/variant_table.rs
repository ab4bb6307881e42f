//! A table that gives each distinct variant a number.

use std::collections::HashMap;

use super::variant::Variant;

/// The number of a variant in a [`VariantTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariantId(u32);

/// A table of distinct variants. Two variants are equal if their LoRA strengths are.
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
    /// The number of a variant; the variant is added if it is new.
    pub fn insert(&mut self, variant: &Variant) -> VariantId {
        self.insert_spec(variant.spec())
    }

    /// The number of a variant given as [`Variant::spec`] writes it; the variant is added if it is new.
    pub fn insert_spec(&mut self, spec: String) -> VariantId {
        let next = VariantId(self.specs.len() as u32);
        *self.ids.entry(spec).or_insert_with_key(|spec| {
            self.specs.push(spec.clone());
            next
        })
    }

    /// The number of a variant; `None` if the table does not have it.
    pub fn get(&self, variant: &Variant) -> Option<VariantId> {
        self.ids.get(&variant.spec()).copied()
    }

    /// The LoRA strengths of a variant as text, see [`Variant::spec`].
    ///
    /// # Panics
    /// If the number comes from another table and is not in this one.
    pub fn spec(&self, id: VariantId) -> &str {
        &self.specs[id.0 as usize]
    }
}
