//! JSON as Python writes and reads it: with a byte order mark before it, and with `NaN` and `Infinity` in it.

use std::borrow::Cow;

/// The words that Python writes for numbers that JSON lacks; a word comes before those that it ends with.
const NOT_JSON: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// `bytes` without a byte order mark, and with Python's words for numbers that are not finite as strings: a field that
/// is read refuses the string by its name.
pub(crate) fn plain(bytes: &[u8]) -> Cow<'_, [u8]> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let (mut plain, mut copied) = (Vec::new(), 0);
    let (mut at, mut in_string) = (0, false);
    while at < bytes.len() {
        let word = NOT_JSON.iter().find(|word| !in_string && bytes[at..].starts_with(word));
        match (bytes[at], word) {
            (_, Some(word)) => {
                plain.extend_from_slice(&bytes[copied..at]);
                plain.push(b'"');
                plain.extend_from_slice(word);
                plain.push(b'"');
                at += word.len();
                copied = at;
            }
            (b'\\', _) if in_string => at += 2,
            (byte, _) => {
                in_string ^= byte == b'"';
                at += 1;
            }
        }
    }
    if copied == 0 {
        return Cow::Borrowed(bytes);
    }
    plain.extend_from_slice(&bytes[copied..]);
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_json_lacks_become_strings_and_all_else_stays() {
        let text = |bytes: &str| String::from_utf8(plain(bytes.as_bytes()).into_owned()).unwrap();
        assert_eq!(
            text("\u{feff}{\"a\": NaN, \"b\": [-Infinity,Infinity]}"),
            "{\"a\": \"NaN\", \"b\": [\"-Infinity\",\"Infinity\"]}"
        );
        for same in ["{\"NaN\": \"a \\\" NaN \\\\\", \"x\": -1}", "", "\"\\", "[\"Infinity\"]"] {
            assert_eq!(text(same), same);
        }
    }
}
