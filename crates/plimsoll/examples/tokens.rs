//! Prints the token ids of texts: one list of ids per line, without the special tokens that a tokenizer adds.
//!
//! ```text
//! cargo run --release -p plimsoll --example tokens -- MODEL LINES.json
//! ```
//!
//! MODEL is a GGUF file or a folder. LINES.json is a list of texts.

use std::error::Error;
use std::path::Path;

use plimsoll::model::Model;
use plimsoll::tokenizer::Special;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, lines] = arguments.as_slice() else { return Err("usage: tokens MODEL LINES.json".into()) };
    let tokenizer = Model::open(Path::new(model))?.tokenizer()?;
    let lines: Vec<String> = serde_json::from_str(&std::fs::read_to_string(lines)?)?;
    for line in lines {
        println!("{}", serde_json::to_string(&tokenizer.encode(&line, Special::Leave)?)?);
    }
    Ok(())
}
