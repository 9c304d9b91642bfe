//! Names that other systems do not hold, or take for one.

use proptest::prelude::*;
use s0_tree::{IssueCode, Policy, comparison_key, portable_issues};

use crate::times;

const DEVICES: [&str; 28] = [
    "CON",
    "PRN",
    "AUX",
    "NUL",
    "COM1",
    "COM2",
    "COM3",
    "COM4",
    "COM5",
    "COM6",
    "COM7",
    "COM8",
    "COM9",
    "COM\u{b9}",
    "COM\u{b2}",
    "COM\u{b3}",
    "LPT1",
    "LPT2",
    "LPT3",
    "LPT4",
    "LPT5",
    "LPT6",
    "LPT7",
    "LPT8",
    "LPT9",
    "LPT\u{b9}",
    "LPT\u{b2}",
    "LPT\u{b3}",
];

/// Texts in which case and composition matter.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[aA\u{e9}\u{301}\u{345}\u{1f88}\u{3b9}\u{130}\u{df}\u{3a3}\u{3c2}\u{212b}\u{fb01}\u{ac00}\u{1e9e}\u{390}\u{1d1c}]{0,6}",
    ]
}

/// Names that are reserved, nearly so, or troubled in another way.
fn troubled() -> impl Strategy<Value = String> {
    let device = prop_oneof![
        prop::sample::select(&DEVICES[..]).prop_map(String::from),
        prop::sample::select(vec!["COM", "COM0", "LPT10", "CONS", "XCON", "", "COM\u{2074}"])
            .prop_map(String::from),
    ];
    let cases = any::<[bool; 5]>();
    let end = "( {0,2})((\\.|:|<|\u{1}|\\\\)[a-z. ]{0,3}){0,2}";
    (device, cases, end).prop_map(|(device, lower, end)| {
        let change = |(letter, lower): (char, bool)| {
            if lower { letter.to_ascii_lowercase() } else { letter }
        };
        device.chars().zip(lower).map(change).chain(end.chars()).collect()
    })
}

fn issues(name: &str) -> Vec<IssueCode> {
    let windows = Policy { windows_names: true, ..Policy::default() };
    portable_issues(name, windows).iter().map(|issue| issue.code).collect()
}

/// The documented rules, one after the other, letter by letter.
fn naive_issues(name: &str) -> Vec<IssueCode> {
    let stem: String = name.chars().take_while(|letter| *letter != '.').collect();
    let reserved =
        DEVICES.iter().any(|device| stem.trim_end_matches(' ').eq_ignore_ascii_case(device));
    let ends = matches!(name.chars().last(), Some('.' | ' '));
    let forbidden = name.chars().any(|letter| "<>:\"|?*\\".contains(letter));
    let control = name.chars().any(|letter| u32::from(letter) < 0x20);
    [
        (reserved, IssueCode::WindowsReservedName),
        (ends, IssueCode::WindowsTrailingDotSpace),
        (forbidden, IssueCode::WindowsForbiddenCharacter),
        (control, IssueCode::WindowsControlCharacter),
    ]
    .into_iter()
    .filter_map(|(holds, code)| holds.then_some(code))
    .collect()
}

#[test]
fn every_character_has_one_key() {
    for letter in '\0'..=char::MAX {
        let key = comparison_key(&letter.to_string());
        assert_eq!(comparison_key(&key), key, "{letter:?}");
        // Folding is about case; composition and case mappings must not get past it.
        let same = |other: String| comparison_key(&other) == key;
        assert!(same(caseless::default_case_fold_str(&letter.to_string())), "{letter:?}");
    }
}

proptest! {
    #![proptest_config(times(512))]

    #[test]
    fn windows_refuses_what_its_documentation_lists(name in prop_oneof![troubled(), any::<String>()]) {
        prop_assert_eq!(issues(&name), naive_issues(&name));
        prop_assert_eq!(portable_issues(&name, Policy::default()), vec![]);
    }

    #[test]
    fn a_key_is_its_own_key(text in text()) {
        let key = comparison_key(&text);
        prop_assert_eq!(comparison_key(&key), key);
    }

    #[test]
    fn spellings_of_one_text_are_one_name(text in text(), other in text()) {
        use unicode_normalization::UnicodeNormalization;
        let unicode = Policy { unicode_insensitive: true, ..Policy::default() };
        let case = Policy { case_insensitive: true, ..Policy::default() };
        for same in [text.nfd().collect::<String>(), text.nfc().collect()] {
            prop_assert!(unicode.same_name(&text, &same));
            prop_assert_eq!(comparison_key(&text), comparison_key(&same));
        }
        let upper: String = text.chars().map(|letter| letter.to_ascii_uppercase()).collect();
        prop_assert!(case.same_name(&text, &upper));
        // A weaker policy never calls one name what a stronger one keeps apart.
        let both = unicode.and(case);
        for policy in [Policy::default(), unicode, case] {
            prop_assert_eq!(policy.same_name(&text, &other), policy.same_name(&other, &text));
            prop_assert!(!policy.same_name(&text, &other) || both.same_name(&text, &other));
        }
    }
}
