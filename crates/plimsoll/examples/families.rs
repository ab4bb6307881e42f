//! Prints, for every family of models, form of its weights and kind of adapter, how far the engine is from what
//! transformers and PEFT computed in double precision: `cargo run --release -p plimsoll --example families`.

#[path = "../tests/common/families.rs"]
mod families;

fn main() {
    println!("{}", families::HEADER);
    for line in families::table() {
        println!("{line}");
    }
}
