//! File names made from text that somebody else wrote.

use std::fmt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Longer names are shortened: most file systems allow 255 bytes, and endings are still to come.
const LIMIT: usize = 150;

/// Bytes of the digest, in hexadecimal, that end a shortened name.
const DIGEST: usize = 24;

/// One component of a path, made from any text: a label, an image name, a variant.
///
/// Letters, digits and ``_-.,+=@#&!'()[]{} `` stay as they are; everything else becomes `%XX` for each
/// byte of its UTF-8 form, as do a leading `.`, `-` or space, a trailing `.` or space, and the first letter of
/// a name that Windows reserves (`CON`, `nul.txt`). The empty text becomes `%`. A name that would be longer than
/// 150 bytes is cut and ends in `~` and 24 hexadecimal digits of the text's SHA-256. Different texts
/// therefore have different names (but for case, which some file systems ignore), and no name leaves the folder that
/// it is joined to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// The name of `text`. Every text has one.
    pub fn from_text(text: &str) -> Self {
        let last = text.chars().count().saturating_sub(1);
        let mut name = String::with_capacity(text.len());
        // Where the name may be cut without dividing a character or an escape.
        let mut cut = 0;
        for (at, character) in text.chars().enumerate() {
            let is_plain = is_harmless(character)
                && !(at == 0 && (matches!(character, '.' | '-' | ' ') || is_reserved(text)))
                && !(at == last && matches!(character, '.' | ' '));
            if is_plain {
                name.push(character);
            } else {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    name.push_str(&format!("%{byte:02X}"));
                }
            }
            if name.len() < LIMIT - DIGEST {
                cut = name.len();
            }
        }
        if name.is_empty() {
            name.push('%');
        }
        if name.len() > LIMIT {
            name.truncate(cut);
            name.push('~');
            for byte in Sha256::digest(text.as_bytes()).iter().take(DIGEST / 2) {
                name.push_str(&format!("{byte:02x}"));
            }
        }
        Self(name)
    }

    /// The name with an ending of our own, such as `.png`. What the ending has of characters that a name must
    /// not have is escaped as well.
    #[must_use]
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let mut name = self.0.clone();
        for character in suffix.chars() {
            name.push(if is_harmless(character) {
                character
            } else {
                '_'
            });
        }
        Self(name)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<Path> for FileName {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl AsRef<str> for FileName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn is_harmless(character: char) -> bool {
    character.is_alphanumeric() || " _-.,+=@#&!'()[]{}".contains(character)
}

/// Whether Windows takes the name for a device, whatever its extension.
fn is_reserved(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or_default().trim_end();
    let stem = stem.to_uppercase();
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str()) {
        return true;
    }
    let numbered = |device: &str| {
        stem.strip_prefix(device).is_some_and(|number| {
            let mut digits = number.chars();
            matches!(digits.next(), Some('0'..='9' | '¹' | '²' | '³')) && digits.next().is_none()
        })
    };
    numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> String {
        FileName::from_text(text).0
    }

    #[test]
    fn usual_labels_and_image_names_stay_as_they_are() {
        for text in [
            "Pleural_Thickening",
            "Rib fracture",
            "00000013_005.png",
            "Röntgen (2).jpg",
            "a..b",
        ] {
            assert_eq!(name(text), text);
        }
    }

    #[test]
    fn hostile_text_is_escaped() {
        for (text, expected) in [
            ("", "%"),
            ("%", "%25"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("../x", "%2E.%2Fx"),
            ("Nodule/Mass", "Nodule%2FMass"),
            ("C:\\x", "C%3A%5Cx"),
            ("-rf", "%2Drf"),
            (".hidden", "%2Ehidden"),
            ("x. ", "x.%20"),
            ("a\0b", "a%00b"),
            ("\u{202e}gnp", "%E2%80%AEgnp"),
            ("NUL", "%4EUL"),
            ("nul.png", "%6Eul.png"),
            ("CON .x", "%43ON .x"),
            ("Lpt9.tar.gz", "%4Cpt9.tar.gz"),
            ("COM", "COM"),
            ("COM10", "COM10"),
        ] {
            assert_eq!(name(text), expected, "{text:?}");
        }
    }

    #[test]
    fn long_text_is_cut_and_stays_different() {
        let long = "x".repeat(300);
        let other = format!("{long}y");
        assert_eq!(name(&long).len(), LIMIT);
        assert_ne!(name(&long), name(&other));
        let wide = "/".repeat(300);
        assert!(name(&wide).len() <= LIMIT && name(&wide).contains("%2F~"));
    }

    proptest! {
        #[test]
        fn a_name_is_one_component_of_a_path(text in any::<String>(), suffix in any::<String>()) {
            for name in [FileName::from_text(&text), FileName::from_text(&text).with_suffix(&suffix)] {
                let path: &Path = name.as_ref();
                let components: Vec<_> = path.components().collect();
                prop_assert!(matches!(components.as_slice(), [Component::Normal(part)] if *part == name.as_str()));
                prop_assert!(!name.as_str().contains(['/', '\\', ':', '\0']));
                prop_assert!(!name.as_str().chars().any(char::is_control));
            }
            prop_assert!(FileName::from_text(&text).as_str().len() <= LIMIT);
        }

        #[test]
        fn different_texts_have_different_names(texts in proptest::collection::vec("[%/.A2Fn -]{0,6}", 200)) {
            let mut texts_by_name = HashMap::new();
            for text in texts {
                let before = texts_by_name.insert(name(&text), text.clone());
                prop_assert!(before.is_none_or(|before| before == text));
            }
        }
    }
}
