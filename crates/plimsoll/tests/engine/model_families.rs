//! Every family, from folders and from GGUF files, with LoRA, rank-stabilised LoRA and DoRA, compared with transformers
//! and PEFT in double precision. `cargo run --example families` prints the table.

#[path = "../common/families.rs"]
mod families;

/// Largest error, as a multiple of PyTorch's error in single precision on the same fixture. Ours is at most 1.6 times
/// PyTorch's in hidden states and logits, and 0.4 times in the NLL. Another order of the sums can give more.
const MULTIPLE: f64 = 4.0;

/// Errors up to this always pass: about eight units in the last place of `f32`, which the order of sums alone can give.
/// It applies only if PyTorch's error on a fixture happens to be smaller than 2.5e-7; the smallest is now 3.5e-7.
const FLOOR: f64 = 1e-6;

#[test]
fn hidden_states_logits_and_scores_are_those_of_transformers_and_peft() {
    let lines = families::table();
    assert!(lines.len() > 60, "fixtures are missing: {}", lines.len());
    for line in lines {
        let bound = (MULTIPLE * line.pytorch).max(FLOOR);
        assert!(
            line.hidden <= bound && line.logits <= bound && line.nll <= bound,
            "expected errors of at most {bound:.1e}\n{}\n{line}",
            families::HEADER
        );
    }
}
