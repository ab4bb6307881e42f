//! Names of the files of an adapter's folder.

/// The name of PEFT's config file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The name of PEFT's weight file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The name of mlx-lm's weight file.
pub(super) const MLX_WEIGHTS_FILE: &str = "adapters.safetensors";
/// The name of the model card.
pub const CARD_FILE: &str = "README.md";
/// The name of the file that says where a trimmed adapter comes from.
pub const PROVENANCE_FILE: &str = "plimsoll.json";
