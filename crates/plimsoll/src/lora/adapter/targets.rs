//! PEFT's matching rules: which modules an adapter's config targets, and with which rank and alpha.
//!
//! Source: PEFT 0.21.2, `check_target_module_exists` and `_maybe_include_all_linear_layers` (`tuners/tuners_utils.py`),
//! `get_pattern_key` (`utils/other.py`). The rules, in their order:
//! - `exclude_modules`: a regular expression that matches the whole path, or a list of paths and path suffixes;
//! - `target_modules` as a string: `all-linear`, or a regular expression that matches the whole path;
//! - `target_modules` as a list: full paths (which `layers_to_transform` does not restrict), or path suffixes;
//! - with `layers_to_transform`, the first number after `layers_pattern` must be in it;
//! - `rank_pattern` and `alpha_pattern`: the first key, in the file's order, that matches `(.*\.)?(key)$`.
//!
//! Regular expressions are Python's. Expressions with another meaning here, or with unbounded cost (backreferences,
//! conditionals, large counted repetitions), are refused.

use std::collections::HashSet;

use fancy_regex::{Regex, RegexBuilder};
use plimsoll_formats::text::shown;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::problem::AdapterProblem;

/// Most entries of a list or table. The largest models have a few thousand modules.
pub(super) const MAX_ENTRIES: usize = 1 << 14;

/// Most bytes of a regular expression. The names of all modules of a large model, joined by `|`, have fewer.
const MAX_REGEX_BYTES: usize = 1 << 16;
/// Most regular expressions in one table; plain names are not counted.
const MAX_REGEXES: usize = 256;
/// Largest product of the counted repetitions of a regular expression.
const MAX_REPETITIONS: u64 = 10_000;
/// Most look-arounds, atomic groups and possessive repetitions of a regular expression.
const MAX_LOOKAROUNDS: usize = 64;
/// Most backtracking steps on one path. Paths have up to about 100 characters.
const BACKTRACK_LIMIT: usize = 100_000;
/// Largest compiled size of a part of a regular expression, in bytes.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// Modules that PEFT's `all-linear` does not target: the head, and `embed_tokens`, which is not a linear module.
const NOT_ALL_LINEAR: &[&str] = &["lm_head", "embed_out", "embed_tokens"];

/// One value or a list of values.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected one value, or a list of values of one type")]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// The modules that an adapter's config names.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    select: Select,
    exclude: Exclude,
}

#[derive(Clone, Debug)]
enum Select {
    AllLinear,
    Regex(WholeMatch),
    List { names: HashSet<String>, layers: Layers },
}

#[derive(Clone, Debug)]
enum Exclude {
    Nothing,
    Regex(WholeMatch),
    List(HashSet<String>),
}

#[derive(Clone, Debug)]
enum Layers {
    All,
    Only { indices: HashSet<usize>, patterns: Vec<LayerIndex> },
}

impl Targets {
    /// Validates the four fields together, as PEFT's config does.
    pub(super) fn new(
        target_modules: OneOrMany<String>,
        exclude_modules: Option<OneOrMany<String>>,
        layers_to_transform: Option<OneOrMany<usize>>,
        layers_pattern: Option<OneOrMany<String>>,
    ) -> Result<Self, AdapterProblem> {
        let select = match target_modules {
            OneOrMany::One(text) => {
                let conflict = |key| AdapterProblem::StringTargets { key };
                if layers_to_transform.is_some() {
                    return Err(conflict("layers_to_transform"));
                }
                if layers_pattern.is_some() {
                    return Err(conflict("layers_pattern"));
                }
                if text.to_lowercase() == "all-linear" {
                    Select::AllLinear
                } else {
                    Select::Regex(WholeMatch::new("target_modules", &text)?)
                }
            }
            OneOrMany::Many(names) => {
                check_count("target_modules", names.len())?;
                let layers = Layers::new(layers_to_transform, layers_pattern)?;
                Select::List { names: names.into_iter().collect(), layers }
            }
        };
        let exclude = match exclude_modules {
            None => Exclude::Nothing,
            Some(OneOrMany::One(text)) if text.is_empty() => Exclude::Nothing,
            Some(OneOrMany::One(text)) => Exclude::Regex(WholeMatch::new("exclude_modules", &text)?),
            Some(OneOrMany::Many(names)) => {
                check_count("exclude_modules", names.len())?;
                Exclude::List(names.into_iter().collect())
            }
        };
        Ok(Self { select, exclude })
    }

    /// Whether the linear module with this path is targeted.
    pub(super) fn adapts(&self, path: &str) -> Result<bool, AdapterProblem> {
        let excluded = match &self.exclude {
            Exclude::Nothing => false,
            Exclude::Regex(regex) => regex.is_match(path)?,
            Exclude::List(names) => names.contains(path) || has_ending(names, path),
        };
        if excluded {
            return Ok(false);
        }
        match &self.select {
            Select::AllLinear => {
                let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
                Ok(!NOT_ALL_LINEAR.contains(&name))
            }
            Select::Regex(regex) => regex.is_match(path),
            Select::List { names, .. } if names.contains(path) => Ok(true),
            Select::List { names, layers } => Ok(has_ending(names, path) && layers.contain(path)?),
        }
    }

    /// Whether the targets are a list of names, so that `layers_to_transform` can restrict them.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.select, Select::List { .. })
    }
}

impl Layers {
    fn new(indices: Option<OneOrMany<usize>>, pattern: Option<OneOrMany<String>>) -> Result<Self, AdapterProblem> {
        let patterns = match pattern {
            None => Vec::new(),
            Some(OneOrMany::One(text)) if text.is_empty() => Vec::new(),
            Some(OneOrMany::One(text)) => vec![text],
            Some(OneOrMany::Many(texts)) => texts,
        };
        if patterns.len() > MAX_REGEXES {
            return Err(AdapterProblem::TooMany { key: "layers_pattern", found: patterns.len(), limit: MAX_REGEXES });
        }
        let indices = match indices {
            None if patterns.is_empty() => return Ok(Self::All),
            None => return Err(AdapterProblem::PatternWithoutLayers),
            // An empty list restricts nothing.
            Some(OneOrMany::Many(indices)) if indices.is_empty() => return Ok(Self::All),
            Some(OneOrMany::One(index)) => HashSet::from([index]),
            Some(OneOrMany::Many(indices)) => {
                check_count("layers_to_transform", indices.len())?;
                indices.into_iter().collect()
            }
        };
        let patterns = if patterns.is_empty() {
            vec![LayerIndex::anywhere()?]
        } else {
            patterns.iter().map(|pattern| LayerIndex::after(pattern)).collect::<Result<_, _>>()?
        };
        Ok(Self::Only { indices, patterns })
    }

    fn contain(&self, path: &str) -> Result<bool, AdapterProblem> {
        let Self::Only { indices, patterns } = self else { return Ok(true) };
        for pattern in patterns {
            if let Some(index) = pattern.find(path)? {
                return Ok(index.is_some_and(|index| indices.contains(&index)));
            }
        }
        Ok(false)
    }
}

/// Whether a proper suffix of the path, after one of its dots, is one of the names.
fn has_ending(names: &HashSet<String>, path: &str) -> bool {
    path.match_indices('.').any(|(dot, _)| names.contains(&path[dot + 1..]))
}

/// A table such as `rank_pattern`: values by regular expression, in the file's order.
#[derive(Clone, Debug)]
pub(super) struct Patterns<T>(Vec<(Pattern, T)>);

#[derive(Clone, Debug)]
enum Pattern {
    /// A module's name or path, possibly after `^`: the usual case, compared without a regular expression.
    Plain {
        ending: Vec<AnyOr>,
        anchored: Anchored,
    },
    Regex(Python),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Anchored {
    No,
    Yes,
}

/// One character of a plain pattern; `Any` is an unescaped dot.
#[derive(Clone, Copy, Debug)]
enum AnyOr {
    Any,
    Char(char),
}

impl<T: Copy> Patterns<T> {
    /// Reads a table; `value` parses its values.
    pub(super) fn new(
        key: &'static str,
        table: &Map<String, Value>,
        value: impl Fn(&Value) -> Result<T, AdapterProblem>,
    ) -> Result<Self, AdapterProblem> {
        check_count(key, table.len())?;
        let mut patterns = Vec::with_capacity(table.len());
        let mut regexes = 0;
        for (pattern, entry) in table {
            let compiled = if let Some(plain) = Pattern::plain(pattern) {
                plain
            } else {
                regexes += 1;
                if regexes > MAX_REGEXES {
                    return Err(AdapterProblem::TooMany { key, found: regexes, limit: MAX_REGEXES });
                }
                Pattern::Regex(Python::new(key, pattern, |pattern| format!(r"^(?:.*\.)?(?:{pattern})$"))?)
            };
            patterns.push((compiled, value(entry)?));
        }
        Ok(Self(patterns))
    }

    /// The value of the first pattern that matches.
    pub(super) fn get(&self, path: &str) -> Result<Option<T>, AdapterProblem> {
        for (pattern, value) in &self.0 {
            if pattern.is_match(path)? {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }

    /// For each pattern, in order, whether it matches any of the paths.
    pub(super) fn used(&self, paths: &[String]) -> Result<Vec<bool>, AdapterProblem> {
        let matches = |pattern: &Pattern| {
            for path in paths {
                if pattern.is_match(path)? {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        self.0.iter().map(|(pattern, _)| matches(pattern)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Pattern {
    /// The text as a plain pattern; `None` if it needs a regular expression.
    fn plain(text: &str) -> Option<Self> {
        let (text, anchored) = text.strip_prefix('^').map_or((text, Anchored::No), |rest| (rest, Anchored::Yes));
        let mut ending = Vec::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            ending.push(match character {
                '.' => AnyOr::Any,
                '\\' if characters.as_str().starts_with('.') => {
                    characters.next();
                    AnyOr::Char('.')
                }
                'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => AnyOr::Char(character),
                _ => return None,
            });
        }
        Some(Self::Plain { ending, anchored })
    }

    fn is_match(&self, path: &str) -> Result<bool, AdapterProblem> {
        let (ending, anchored) = match self {
            Self::Regex(regex) => return regex.is_match(path),
            Self::Plain { ending, anchored } => (ending, *anchored),
        };
        let mut head = path.chars();
        for expected in ending.iter().rev() {
            let fits = match (head.next_back(), expected) {
                (Some(found), AnyOr::Any) => found != '\n',
                (Some(found), AnyOr::Char(expected)) => found == *expected,
                (None, _) => false,
            };
            if !fits {
                return Ok(false);
            }
        }
        let head = head.as_str();
        Ok(head.is_empty() || (anchored == Anchored::No && head.ends_with('.')))
    }
}

/// A regular expression that must match the whole path, as in Python's `re.fullmatch`.
#[derive(Clone, Debug)]
struct WholeMatch(Python);

impl WholeMatch {
    fn new(key: &'static str, pattern: &str) -> Result<Self, AdapterProblem> {
        Python::new(key, pattern, |pattern| format!(r"\A(?:{pattern})\z")).map(Self)
    }

    fn is_match(&self, path: &str) -> Result<bool, AdapterProblem> {
        self.0.is_match(path)
    }
}

/// A regular expression that finds the layer's number in a path.
#[derive(Clone, Debug)]
struct LayerIndex(Python);

impl LayerIndex {
    /// The first number between dots, after at least two path components.
    fn anywhere() -> Result<Self, AdapterProblem> {
        Python::new("layers_pattern", "", |_| r"\A.*?\.[^.]*\.(?P<idx>\d+)\.".to_owned()).map(Self)
    }

    /// The first number after a path component that matches `pattern`.
    fn after(pattern: &str) -> Result<Self, AdapterProblem> {
        // Without a group around the pattern, as in PEFT.
        Python::new("layers_pattern", pattern, |pattern| format!(r"\A(?:(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.)"))
            .map(Self)
    }

    /// The layer's number; `None` without a match, `Some(None)` if the number is out of range.
    fn find(&self, path: &str) -> Result<Option<Option<usize>>, AdapterProblem> {
        let captures = self.0.regex.captures(path).map_err(|_| self.0.too_hard(path))?;
        Ok(captures.map(|captures| captures.name("idx").and_then(|index| index.as_str().parse().ok())))
    }
}

/// A regular expression of the config, in Python's syntax.
#[derive(Clone, Debug)]
struct Python {
    key: &'static str,
    regex: Regex,
}

impl Python {
    fn new(key: &'static str, pattern: &str, wrap: impl Fn(&str) -> String) -> Result<Self, AdapterProblem> {
        let refuse = |reason: String| AdapterProblem::Regex { key, pattern: shown(pattern), reason };
        check_cost(pattern).map_err(|reason| refuse(reason.to_owned()))?;
        let compile = |text: &str| {
            RegexBuilder::new(text)
                .backtrack_limit(BACKTRACK_LIMIT)
                .delegate_size_limit(REGEX_SIZE_LIMIT)
                .delegate_dfa_size_limit(REGEX_SIZE_LIMIT)
                .build()
                .map_err(|error| refuse(shown(&error.to_string())))
        };
        // Alone first, so that an unbalanced parenthesis cannot pair with one of `wrap`.
        compile(pattern)?;
        Ok(Self { key, regex: compile(&wrap(pattern))? })
    }

    fn is_match(&self, path: &str) -> Result<bool, AdapterProblem> {
        self.regex.is_match(path).map_err(|_| self.too_hard(path))
    }

    fn too_hard(&self, path: &str) -> AdapterProblem {
        AdapterProblem::RegexTooHard { key: self.key, path: shown(path) }
    }
}

/// Refuses expressions whose cost the regular expression library does not bound: the minimum length of a match is the
/// product of nested repetitions, and doubles with every backreference.
fn check_cost(pattern: &str) -> Result<(), &'static str> {
    if pattern.len() > MAX_REGEX_BYTES {
        return Err("longer than 65,536 bytes");
    }
    let mut repetitions: u64 = 1;
    let mut lookarounds = 0;
    let mut rest = pattern;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                let Some(escaped) = rest.chars().next() else { break };
                if matches!(escaped, '1'..='9' | 'g' | 'k') {
                    return Err("backreferences are not supported");
                }
                rest = &rest[escaped.len_utf8()..];
            }
            '(' if ["?P=", "?P>", "?(", "?R", "?&"].iter().any(|start| rest.starts_with(start)) => {
                return Err("backreferences are not supported");
            }
            '(' if ["?=", "?!", "?<", "?>", "?~"].iter().any(|start| rest.starts_with(start)) => lookarounds += 1,
            '+' | '*' | '?' | '}' if rest.starts_with('+') => lookarounds += 1,
            '{' => {
                let bounds = rest.split_once('}').map_or(rest, |(bounds, _)| bounds);
                let numbers = bounds.split(',').filter_map(|number| number.trim().parse().ok());
                // A number with too many digits to parse is too large.
                let huge =
                    bounds.split(',').any(|n| n.trim().len() > 9 && n.trim().bytes().all(|b| b.is_ascii_digit()));
                let most: u64 = if huge { u64::MAX } else { numbers.max().unwrap_or(1) };
                repetitions = repetitions.saturating_mul(most.max(1));
            }
            _ => {}
        }
    }
    if repetitions > MAX_REPETITIONS {
        return Err("its counted repetitions multiply to more than 10,000");
    }
    if lookarounds > MAX_LOOKAROUNDS {
        return Err("more than 64 look-arounds");
    }
    Ok(())
}

fn check_count(key: &'static str, found: usize) -> Result<(), AdapterProblem> {
    if found > MAX_ENTRIES {
        return Err(AdapterProblem::TooMany { key, found, limit: MAX_ENTRIES });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(table: &str, path: &str) -> Option<u64> {
        let table: Map<String, Value> = serde_json::from_str(table).unwrap();
        Patterns::new("rank_pattern", &table, |value| Ok(value.as_u64().unwrap())).unwrap().get(path).unwrap()
    }

    #[test]
    fn the_first_matching_pattern_wins_in_file_order() {
        let path = "model.layers.1.self_attn.q_proj";
        assert_eq!(rank(r#"{"q_proj":1,"1.self_attn.q_proj":2}"#, path), Some(1));
        assert_eq!(rank(r#"{"1.self_attn.q_proj":2,"q_proj":1}"#, path), Some(2));
        assert_eq!(rank(r#"{"proj":1}"#, path), None);
        assert_eq!(rank(r#"{"^layers.1.self_attn.q_proj":1}"#, path), None);
        assert_eq!(rank(r#"{"^model.layers.1.self_attn.q_proj":1}"#, path), Some(1));
        assert_eq!(rank(r#"{"[qk]_proj":3}"#, path), Some(3));
        // An unescaped dot matches any character, an escaped one only a dot.
        assert_eq!(rank(r#"{"self.attn.q.proj":4}"#, path), Some(4));
        assert_eq!(rank(r#"{"self\\.attn\\.q_proj":4}"#, path), None);
        // An alternation stays in its group.
        assert_eq!(rank(r#"{"k_proj|q_proj":5}"#, path), Some(5));
        assert_eq!(rank(r#"{"k_proj|proj":5}"#, path), None);
    }

    #[test]
    fn regexes_that_could_cost_too_much_are_refused() {
        for pattern in [
            r"(a)\1",
            r"(?P<x>a)(?P=x)",
            "(a{1000}){1000}",
            "a{99999999999999999999999}",
            "(",
            "a)(b",
            &"(?=a)".repeat(65),
            &"a".repeat(MAX_REGEX_BYTES + 1),
        ] {
            assert!(WholeMatch::new("target_modules", pattern).is_err(), "{pattern:.40}");
        }
        assert!(WholeMatch::new("target_modules", r"(?i)model\.layers\.\d{1,2}\.(?!mlp).*_proj").is_ok());
    }

    #[test]
    fn catastrophic_backtracking_is_an_error() {
        let regex = WholeMatch::new("target_modules", r"(?:(?=.)a+)+b").unwrap();
        let error = regex.is_match(&"a".repeat(60)).unwrap_err();
        assert!(matches!(error, AdapterProblem::RegexTooHard { key: "target_modules", .. }), "{error}");
    }
}
