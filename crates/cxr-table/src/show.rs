//! Text from files, made safe to show.
//!
//! A terminal obeys control characters: a file name or a cell with an escape sequence could clear the screen, or
//! colour a failure like a success. Characters that turn the direction of writing make one name look like another.

use std::fmt::Write as _;

/// A piece of text for a message: at most 80 characters, on one line, everything invisible escaped.
pub fn excerpt(text: &str) -> String {
    const LIMIT: usize = 80;
    let mut shown: String = text
        .chars()
        .take(LIMIT)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(LIMIT).is_some() {
        shown.push('…');
    }
    shown
}

/// A whole text for a terminal: line ends and tabs stay, every other control character and every character that is
/// invisible or changes the direction of writing is shown as `\u{1b}`.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_invisible(character) && !matches!(character, '\n' | '\t') {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same for JSON, where the characters become `\u001b`. The value stays as it is: outside of its texts JSON has
/// none of them but line ends and tabs.
pub fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if is_invisible(character) && !matches!(character, '\n' | '\r' | '\t') {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let hostile = "a\u{1b}[2J\u{9b}31m\rb\u{202e}gnp.\n\tä ─█";
        let shown = printable(hostile);
        assert_eq!(shown, "a\\u{1b}[2J\\u{9b}31m\\u{d}b\\u{202e}gnp.\n\tä ─█");
        assert_eq!(excerpt("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(excerpt(&"x".repeat(81)), format!("{}…", "x".repeat(80)));
        assert_eq!(
            printable_json("{\"a\": \"\u{9b}\u{e0001}\"}\n"),
            "{\"a\": \"\\u009b\\udb40\\udc01\"}\n"
        );
    }
}
