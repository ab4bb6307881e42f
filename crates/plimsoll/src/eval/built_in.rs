//! The built-in tasks.

/// Name and TOML text of each built-in task.
pub(super) const BUILT_IN: [(&str, &str); 6] = [
    ("dialogsum", include_str!("tasks/dialogsum.toml")),
    ("e2e", include_str!("tasks/e2e.toml")),
    ("gsm8k", include_str!("tasks/gsm8k.toml")),
    ("hotpotqa", include_str!("tasks/hotpotqa.toml")),
    ("multi30k", include_str!("tasks/multi30k.toml")),
    ("xsum", include_str!("tasks/xsum.toml")),
];

/// The names of the built-in tasks.
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}
