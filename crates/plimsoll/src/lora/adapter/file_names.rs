//! File names in an adapter folder.

/// File name of the config, in PEFT's and in mlx-lm's layout.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// File name of the weights in PEFT's layout.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// File name of the weights in mlx-lm's layout.
pub(super) const MLX_WEIGHTS_FILE: &str = "adapters.safetensors";
/// File name of the model card.
pub const CARD_FILE: &str = "README.md";
/// File name of the provenance of a trimmed adapter.
pub const PROVENANCE_FILE: &str = "plimsoll.json";
