//! Chat templates, compared with transformers' `apply_chat_template` (`reference/templates.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use plimsoll::tokenizer::{ChatTemplate, GenerationPrompt, Message};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    conversations: BTreeMap<String, Vec<Message>>,
    real: Vec<Real>,
    own: Vec<Own>,
}

#[derive(Deserialize)]
struct Real {
    name: String,
    sha256: String,
    renderings: Vec<Rendering>,
}

#[derive(Deserialize)]
struct Own {
    name: String,
    template: String,
    renderings: Vec<Rendering>,
}

#[derive(Deserialize)]
struct Rendering {
    conversation: String,
    prompt: bool,
    /// `None` if transformers refuses the conversation.
    text: Option<String>,
}

#[derive(Deserialize)]
struct Fetched {
    template: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
}

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn fixture() -> Fixture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn compare(name: &str, template: &ChatTemplate, fixture: &Fixture, renderings: &[Rendering]) {
    assert_eq!(renderings.len(), 2 * fixture.conversations.len());
    for rendering in renderings {
        let prompt = if rendering.prompt { GenerationPrompt::Add } else { GenerationPrompt::Leave };
        let found = template.render(&fixture.conversations[&rendering.conversation], prompt);
        let place =
            format!("template {name:?}, conversation {:?}, prompt {}", rendering.conversation, rendering.prompt);
        match (&rendering.text, found) {
            (Some(expected), Ok(found)) => assert_eq!(&found, expected, "{place}"),
            (None, Err(_)) => {}
            (expected, found) => panic!("{place}: expected {expected:?}, found {found:?}"),
        }
    }
}

#[test]
fn our_own_templates_render_as_in_transformers() {
    let fixture = fixture();
    assert!(fixture.own.len() >= 8);
    for own in &fixture.own {
        let template = ChatTemplate::new(&own.template, Some("<s>"), Some("</s>")).unwrap();
        compare(&own.name, &template, &fixture, &own.renderings);
    }
}

#[test]
#[ignore = "needs models/templates: run reference/fetch_templates.py first"]
fn real_templates_render_as_in_transformers() {
    let fixture = fixture();
    assert!(fixture.real.len() >= 3);
    for real in &fixture.real {
        let path = workspace(&format!("models/templates/{}.json", real.name));
        let fetched: Fetched = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("template");
        fs::write(&copy, &fetched.template).unwrap();
        assert_eq!(plimsoll::formats::files::sha256_of_files(&[copy]).unwrap(), real.sha256, "{}", real.name);
        let template =
            ChatTemplate::new(&fetched.template, fetched.bos_token.as_deref(), fetched.eos_token.as_deref()).unwrap();
        compare(&real.name, &template, &fixture, &real.renderings);
    }
}

#[test]
fn hostile_templates_end_with_an_error() {
    let huge = "x".repeat(2 << 20);
    assert!(ChatTemplate::new(&huge, None, None).is_err());
    let deep = format!("{}1{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(ChatTemplate::new(&format!("{{{{ {deep} }}}}"), None, None).is_err());
    let chat = [Message::new("user", "a")];
    let nest = |times: usize, after: &str| {
        let deeper = "{% set ns.x = [[[[[[[[[[[[[[[[ns.x]]]]]]]]]]]]]]]] %}";
        format!("{{% set ns = namespace(x=[]) %}}{{% for a in range({times}) %}}{deeper}{{% endfor %}}{after}")
    };
    let endless = nest(99999, "");
    let printed = nest(9999, "{{ ns.x | string }}{{ ns.x }}{{ 1 / 0 }}");
    let compared = nest(9999, "{{ ns.x == ns.x and ns.x < [ns.x] }}{{ {}[ns.x] }}{{ 1 / 0 }}");
    let as_json = nest(9999, "{{ ns.x | tojson }}");
    for source in [
        &endless[..],
        &printed,
        &compared,
        &as_json,
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' * 100000 }}{% endfor %}",
        "{{ 'x' * 100000000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(x='x') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for a in range(99) %}{% set ns.x = ns.x | replace('x', 'xx') %}{% endfor %}",
        "{{ [1, 2] | tojson(indent=1000000000000) }}{{ unknown.attribute.of_unknown }}",
        "{% include 'template' %}",
    ] {
        let template = ChatTemplate::new(source, None, None).unwrap();
        assert!(template.render(&chat, GenerationPrompt::Add).is_err(), "{source}");
    }
}

#[test]
fn a_template_that_uses_the_current_date_is_refused() {
    let template = ChatTemplate::new("{{ strftime_now('%d') }}", None, None).unwrap();
    let error = template.render(&[], GenerationPrompt::Add).unwrap_err();
    assert!(error.to_string().contains("strftime_now"), "{error}");
    let source = "{% if strftime_now is defined %}{{ strftime_now('%d') }}{% else %}26 Jul 2024{% endif %}";
    let template = ChatTemplate::new(source, None, None).unwrap();
    assert_eq!(template.render(&[], GenerationPrompt::Add).unwrap(), "26 Jul 2024");
}

#[test]
fn errors_name_the_line_of_the_template() {
    let error = ChatTemplate::new("a\nb\n{% if %}", None, None).unwrap_err();
    assert!(error.to_string().contains("line 3"), "{error}");
    let template = ChatTemplate::new("a\n{{ raise_exception('no system message') }}", None, None).unwrap();
    let error = template.render(&[], GenerationPrompt::Add).unwrap_err().to_string();
    assert!(error.contains("no system message") && error.contains("line 2"), "{error}");
}
