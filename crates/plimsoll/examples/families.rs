//! Prints the differences between the engine and transformers with PEFT in double precision, for every model family,
//! weight format and kind of adapter.
//!
//! ```text
//! cargo run --release -p plimsoll --example families
//! ```

#[path = "../tests/common/families.rs"]
mod families;

fn main() {
    println!("{}", families::HEADER);
    for line in families::table() {
        println!("{line}");
    }
}
