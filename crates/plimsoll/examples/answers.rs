//! Prints the tokens of samples and which of them are scored, one JSON object per line.
//!
//! ```text
//! cargo run --release -p plimsoll --example answers -- TOKENIZER TEMPLATE DATA.jsonl last|all
//! ```
//!
//! TOKENIZER is a GGUF file or a folder with tokenizer.json. TEMPLATE is a Jinja file, `tokenizer` or `none`.

use std::error::Error;
use std::path::Path;

use plimsoll::data::{DataOptions, LongSamples, TemplateChoice, Turns, load};
use plimsoll::formats::Gguf;
use plimsoll::tokenizer::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, template, data, turns] = arguments.as_slice() else {
        return Err("usage: answers TOKENIZER TEMPLATE DATA.jsonl last|all".into());
    };
    let model = Path::new(model);
    let tokenizer = if model.is_dir() {
        Tokenizer::from_folder(model)?
    } else {
        Tokenizer::from_gguf(model, Gguf::open(model)?.metadata())?
    };
    let options = DataOptions {
        template: match template.as_str() {
            "tokenizer" => TemplateChoice::Tokenizer,
            "none" => TemplateChoice::None,
            file => TemplateChoice::from_file(Path::new(file))?,
        },
        turns: if turns == "all" { Turns::All } else { Turns::Last },
        max_samples: None,
        seed: 0,
        max_length: usize::MAX,
        long: LongSamples::Skip,
    };
    for sample in load(Path::new(data), &tokenizer, &options)?.samples {
        println!("{}", serde_json::json!({"line": sample.line, "tokens": sample.tokens, "answer": sample.answer}));
    }
    Ok(())
}
