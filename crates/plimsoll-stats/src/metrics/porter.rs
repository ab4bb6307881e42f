//! The Porter stemmer: removes the endings of English inflection and derivation from a word.
//!
//! M. F. Porter, "An algorithm for suffix stripping", Program 14:3 (1980), with the changes that NLTK makes by default,
//! because `rouge-score` uses that stemmer: a few irregular words; words of one or two letters do not change;
//! four-letter words in `-ies` and `-ied` keep their `e`; `y` becomes `i` after a consonant that is not the word's
//! first letter; `-alli` becomes `-al` before the rest of step 2, which also has `-bli`, `-fulli` and `-logi`; and a
//! vowel followed by a consonant is a short syllable. The result need not be a word.

/// Words for which the rules give a wrong stem, and their stems.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("inning", "inning"),
    ("innings", "inning"),
    ("outing", "outing"),
    ("outings", "outing"),
    ("canning", "canning"),
    ("cannings", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// Endings of step 2, in which one suffix follows another. If one ends in another, the longer one comes first.
const DOUBLE: [(&str, &str); 22] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
    ("logi", "log"),
];

/// Endings of step 3.
const DERIVED: [(&str, &str); 7] =
    [("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")];

/// Endings of step 4, which are removed. `ement` and `ment` come before `ent`: the first that matches is used.
const FINAL: [(&str, &str); 19] = [
    ("al", ""),
    ("ance", ""),
    ("ence", ""),
    ("er", ""),
    ("ic", ""),
    ("able", ""),
    ("ible", ""),
    ("ant", ""),
    ("ement", ""),
    ("ment", ""),
    ("ent", ""),
    ("ion", ""),
    ("ou", ""),
    ("ism", ""),
    ("ate", ""),
    ("iti", ""),
    ("ous", ""),
    ("ive", ""),
    ("ize", ""),
];

/// The Porter stem of a word in lower-case ASCII letters. Digits count as consonants. A word with characters outside
/// ASCII is returned unchanged.
pub fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 || !word.is_ascii() {
        return word.to_owned();
    }
    let word = participle(plural(word));
    let word = double_suffix(final_y(word));
    let word = rewrite(word, &DERIVED, |stem, _| measure(stem) > 0);
    let word =
        rewrite(word, &FINAL, |stem, ending| measure(stem) > 1 && (ending != "ion" || stem.ends_with(['s', 't'])));
    final_l(final_e(word))
}

/// Step 1a: plurals.
fn plural(word: &str) -> String {
    if word.len() == 4 && word.ends_with("ies") {
        return word[..3].to_owned();
    }
    rewrite(word.to_owned(), &[("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")], |_, _| true)
}

/// Step 1b: past tenses and participles. After `-ed` or `-ing` is removed, an `e` is added or a double consonant
/// reduced.
fn participle(word: String) -> String {
    if word.ends_with("ied") {
        let kept = if word.len() == 4 { 3 } else { word.len() - 2 };
        return word[..kept].to_owned();
    }
    if word.ends_with("eed") {
        return rewrite(word, &[("eed", "ee")], |stem, _| measure(stem) > 0);
    }
    let Some(stem) = ["ed", "ing"].iter().find_map(|ending| word.strip_suffix(ending)).filter(|stem| has_vowel(stem))
    else {
        return word;
    };
    if ["at", "bl", "iz"].iter().any(|end| stem.ends_with(end)) || !ends_double(stem) && is_short(stem) {
        return format!("{stem}e");
    }
    let single = ends_double(stem) && !stem.ends_with(['l', 's', 'z']);
    stem[..stem.len() - usize::from(single)].to_owned()
}

/// Step 1c: `y` to `i`.
fn final_y(word: String) -> String {
    rewrite(word, &[("y", "i")], |stem, _| stem.len() > 1 && consonants(stem).last() == Some(&true))
}

/// Step 2: of two suffixes the second is removed.
fn double_suffix(word: String) -> String {
    if let Some(stem) = word.strip_suffix("alli").filter(|stem| measure(stem) > 0) {
        return double_suffix(format!("{stem}al"));
    }
    rewrite(word, &DOUBLE, |stem, ending| match ending {
        // The `l` is counted with the stem, so that `geology` is treated like `archaeology`.
        "logi" => measure(&format!("{stem}l")) > 0,
        _ => measure(stem) > 0,
    })
}

/// Step 5a: a final `e`.
fn final_e(word: String) -> String {
    rewrite(word, &[("e", "")], |stem, _| match measure(stem) {
        0 => false,
        1 => !ends_short_syllable(stem),
        _ => true,
    })
}

/// Step 5b: a final double `l`.
fn final_l(word: String) -> String {
    rewrite(word, &[("ll", "l")], |stem, _| measure(&format!("{stem}l")) > 1)
}

/// Replaces the first ending in the list that the word has, if `is_allowed` holds for the rest of the word and the
/// ending. If not, later endings are not tried.
fn rewrite(word: String, endings: &[(&str, &str)], is_allowed: impl Fn(&str, &str) -> bool) -> String {
    let found = endings.iter().find_map(|(ending, new)| word.strip_suffix(ending).map(|stem| (stem, ending, new)));
    match found {
        Some((stem, ending, new)) if is_allowed(stem, ending) => format!("{stem}{new}"),
        _ => word,
    }
}

/// Which letters are consonants: all except a, e, i, o, u, and except y after a consonant.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(word.len());
    for letter in word.bytes() {
        flags.push(match letter {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => !flags.last().copied().unwrap_or(false),
            _ => true,
        });
    }
    flags
}

/// Porter's measure: how often a vowel is followed by a consonant, m in `[C](VC){m}[V]`.
fn measure(stem: &str) -> usize {
    consonants(stem).windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).contains(&false)
}

/// Whether a word ends in the same consonant twice.
fn ends_double(word: &str) -> bool {
    let letters = word.as_bytes();
    letters.len() >= 2
        && letters[letters.len() - 1] == letters[letters.len() - 2]
        && consonants(word).last() == Some(&true)
}

/// Whether a word ends in consonant, vowel, consonant, the last one not w, x or y; or is a vowel and a consonant.
fn ends_short_syllable(word: &str) -> bool {
    match consonants(word).as_slice() {
        [false, true] => true,
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

/// Whether a word is one short syllable: its `e` was removed with `-ed` or `-ing`.
fn is_short(word: &str) -> bool {
    measure(word) == 1 && ends_short_syllable(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_example() {
        let examples = [
            ("caresses", "caress"),
            ("ties", "tie"),
            ("ponies", "poni"),
            ("agreed", "agre"),
            ("feed", "feed"),
            ("died", "die"),
            ("spied", "spi"),
            ("hopping", "hop"),
            ("hoping", "hope"),
            ("falling", "fall"),
            ("sized", "size"),
            ("sing", "sing"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("by", "by"),
            ("relational", "relat"),
            ("geology", "geolog"),
            ("electrical", "electr"),
            ("adjustment", "adjust"),
            ("adoption", "adopt"),
            ("controlling", "control"),
            ("rate", "rate"),
            ("skies", "sky"),
        ];
        for (word, expected) in examples {
            assert_eq!(stem(word), expected, "{word}");
        }
    }

    #[test]
    fn consecutive_ys_alternate() {
        assert_eq!(consonants("yyysyzygy"), [true, false, true, true, false, true, false, true, false]);
    }

    #[test]
    fn text_that_is_not_an_english_word_is_returned_unchanged() {
        for word in ["", "s", "日本ies", "1234", "naïves"] {
            assert_eq!(stem(word), word);
        }
    }
}
