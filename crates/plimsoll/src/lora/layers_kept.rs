//! Variants as users request them: a number of layers, `base`, `full`, or LoRA strengths.

use super::variant::{LoraPlaces, Variant};
use crate::error::{Error, Result};

/// The number of layers that keep their LoRA, as given to `--layers-kept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayersKept {
    /// None: the base model.
    Base,
    /// All: the full adapter.
    Full,
    /// This many, from layer 0 on.
    Some(usize),
}

impl LayersKept {
    /// The requested variants of an adapter with LoRA in these places, without duplicates: boundaries by ascending
    /// number of layers, then `gates` in the order given.
    ///
    /// # Errors
    /// [`Error::Usage`]: more layers than the model has, or LoRA strengths that [`Variant::parse_for`] refuses.
    pub fn variants(asked: &[Self], gates: &[String], layers: usize, lora: &LoraPlaces) -> Result<Vec<Variant>> {
        let kept = asked.iter().map(|kept| match *kept {
            Self::Base => Ok(0),
            Self::Full => Ok(layers),
            Self::Some(kept) if kept <= layers => Ok(kept),
            Self::Some(kept) => Err(Error::Usage(format!("cannot keep {kept} layers: the model has {layers}"))),
        });
        let mut kept = kept.collect::<Result<Vec<usize>>>()?;
        kept.sort_unstable();
        kept.dedup();
        let mut variants: Vec<Variant> = kept.into_iter().map(|kept| Variant::bottom_k(layers, kept)).collect();
        for text in gates {
            let variant = Variant::parse_for(text, layers, lora)?;
            if !variants.contains(&variant) {
                variants.push(variant);
            }
        }
        Ok(variants)
    }
}

impl std::str::FromStr for LayersKept {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "base" => Ok(Self::Base),
            "full" => Ok(Self::Full),
            number => number.parse().map(Self::Some).map_err(|_| "expected a number of layers, `base` or `full`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::projection::Projection;
    use super::*;

    #[test]
    fn variants_are_requested_by_name_or_number() {
        let asked: Vec<LayersKept> = ["full", "2", "0", "base"].iter().map(|text| text.parse().unwrap()).collect();
        let gates = ["0.5", "2-3=0", "0", "1=0"].map(str::to_owned);
        let lora: LoraPlaces = (0..4).map(|layer| (layer, Projection::Q)).collect();
        let variants = LayersKept::variants(&asked, &gates, 4, &lora).unwrap();
        assert_eq!(variants.iter().map(Variant::name).collect::<Vec<_>>(), ["base", "2 layers", "full", "0.5", "1=0"]);
        assert!(LayersKept::variants(&[LayersKept::Some(5)], &[], 4, &lora).is_err());
        assert!(LayersKept::variants(&[], &["4=0".to_owned()], 4, &lora).is_err());
        assert!(LayersKept::variants(&[], &["1.k_proj=0".to_owned()], 4, &lora).is_err());
        assert!("half".parse::<LayersKept>().is_err());
    }
}
