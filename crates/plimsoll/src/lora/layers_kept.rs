//! Variants as users ask for them: a number of layers, `base`, `full`, or strengths of places.

use super::variant::{LoraPlaces, Variant};
use crate::error::{Error, Result};

/// Which layers keep their LoRA, as users say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayersKept {
    /// None of them.
    Base,
    /// All of them.
    Full,
    /// So many, from the bottom.
    Some(usize),
}

impl LayersKept {
    /// The variants that are asked for of an adapter with LoRA in these places, each once: by the number of layers that
    /// keep their LoRA, then by their gates in the order given.
    ///
    /// # Errors
    /// More layers than the model has, or gates that [`Variant::parse_for`] refuses.
    pub fn variants(asked: &[Self], gates: &[String], layers: usize, lora: &LoraPlaces) -> Result<Vec<Variant>> {
        let kept = asked.iter().map(|kept| match *kept {
            Self::Base => Ok(0),
            Self::Full => Ok(layers),
            Self::Some(kept) if kept <= layers => Ok(kept),
            Self::Some(kept) => Err(Error::Usage(format!("{kept} layers kept: the model has {layers}"))),
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
    fn variants_are_asked_for_by_name_or_number() {
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
