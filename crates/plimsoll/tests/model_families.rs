//! Every family, from folders and from GGUF files, under LoRA, rank-stabilised LoRA and DoRA, is what transformers and
//! PEFT make of it. `cargo run --example families` prints the table.

#[path = "common/families.rs"]
mod families;

#[test]
fn hidden_states_logits_and_scores_are_those_of_transformers_and_peft() {
    let lines = families::table();
    assert!(lines.len() > 60, "fixtures are missing: {}", lines.len());
    for line in lines {
        // Single precision through four to seven layers: PyTorch's own is some 1e-6 from the reference.
        assert!(line.hidden < 1e-4 && line.logits < 1e-4 && line.nll < 1e-4, "{}\n{line}", families::HEADER);
    }
}
