//! Bearer tokens: their file, and the client that holds each.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::client::{Client, ClientName, ClientRates};
use crate::small_files;

/// Characters of a token at least: shorter ones can be guessed.
const MIN_TOKEN_CHARACTERS: usize = 16;
/// Characters of a token at most, and of its name.
const MAX_TOKEN_CHARACTERS: usize = 1024;
const MAX_NAME_CHARACTERS: usize = 64;

/// A token that clients send. Neither `Debug` nor any error shows it.
#[derive(Clone)]
pub struct BearerToken([u8; 32]);

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

impl BearerToken {
    /// Checks a token.
    ///
    /// # Errors
    /// The fault, in words that do not repeat the token.
    pub fn new(token: &str) -> Result<Self, &'static str> {
        // RFC 6750, section 2.1.
        if !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)) {
            return Err("the token has characters other than letters, digits and -._~+/=");
        }
        if !(MIN_TOKEN_CHARACTERS..=MAX_TOKEN_CHARACTERS).contains(&token.len()) {
            return Err(
                "the token has fewer than 16 or more than 1024 characters; make one with: openssl rand -hex 32",
            );
        }
        Ok(Self::sent(token))
    }

    /// The digest of a token of whatever form.
    pub(crate) fn sent(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads a token, or `sha256:` and the 64 hexadecimal digits of its digest.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(digits) = text.strip_prefix("sha256:") else { return Self::new(text) };
        let mut digest = [0; 32];
        let pairs = digits.as_bytes().chunks_exact(2);
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("sha256: is not followed by 64 hexadecimal digits");
        }
        for (byte, pair) in digest.iter_mut().zip(pairs) {
            let value = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
            *byte = value.ok_or("sha256: is not followed by 64 hexadecimal digits")?;
        }
        Ok(Self(digest))
    }
}

/// The reason why a file of tokens cannot be used. No message repeats any of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read the tokens in {}: {source}; give a file that this process may read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file has no token.
    #[error("{} has no token; give one a line, as NAME:TOKEN or NAME:sha256:DIGEST", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is not of the form.
    #[error("line {line} of {}: {problem}; give one token a line, as NAME:TOKEN or NAME:sha256:DIGEST", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The fault.
        problem: &'static str,
    },
}

/// Names and tokens in the order of the file.
pub(crate) type NamedTokens = Vec<(Arc<str>, BearerToken)>;

/// Reads a file of tokens: one a line, as `NAME:TOKEN` or `NAME:sha256:DIGEST`; empty lines and those that begin with `#` are
/// passed over. Tokens of one name are of one client.
pub(crate) fn read_file(path: &Path) -> Result<NamedTokens, TokenFileError> {
    let unreadable = |source| TokenFileError::Read { path: path.to_owned(), source };
    let bytes = small_files::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable(std::io::ErrorKind::InvalidData.into()))?;
    let wrong = |line: usize, problem| TokenFileError::Line { path: path.to_owned(), line, problem };
    let mut tokens = NamedTokens::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            tokens.push(parse_line(line).map_err(|problem| wrong(number, problem))?);
        }
    }
    if tokens.is_empty() { Err(TokenFileError::Empty { path: path.to_owned() }) } else { Ok(tokens) }
}

fn parse_line(line: &str) -> Result<(Arc<str>, BearerToken), &'static str> {
    let (name, token) = line.split_once(':').ok_or("there is no colon between name and token")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME_CHARACTERS || !name.bytes().all(is_plain) {
        return Err("the name has not 1 to 64 letters, digits and -._@");
    }
    Ok((name.into(), BearerToken::parse(token)?))
}

/// The clients that hold tokens.
///
/// A token is found by the keyed hash of its digest, under a key that no one else knows, and hashes are compared in
/// constant time: the time of a search tells nothing of the tokens.
pub(crate) struct TokenTable {
    key: [u8; 32],
    digest: blake3::Hash,
    clients: HashMap<blake3::Hash, Arc<Client>>,
}

impl fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenTable").field("tokens", &self.clients.len()).finish_non_exhaustive()
    }
}

impl TokenTable {
    /// A table of `tokens`. Clients of `before` that are still there keep what they have asked for.
    pub(crate) fn new(tokens: &NamedTokens, rates: ClientRates, before: Option<&Self>) -> Self {
        let key = rand::random();
        let mut by_name: HashMap<ClientName, Arc<Client>> = HashMap::new();
        for client in before.iter().flat_map(|before| before.clients.values()) {
            by_name.insert(client.name().clone(), Arc::clone(client));
        }
        let mut client_of = |name: &Arc<str>| {
            let name = ClientName::Token(Arc::clone(name));
            let client = by_name.entry(name.clone()).or_insert_with(|| Arc::new(Client::new(name, rates)));
            Arc::clone(client)
        };
        let clients = tokens.iter().map(|(name, token)| (blake3::keyed_hash(&key, &token.0), client_of(name)));
        Self { clients: clients.collect(), digest: digest(tokens), key }
    }

    /// Returns true if the table was made of these tokens.
    pub(crate) fn is_of(&self, tokens: &NamedTokens) -> bool {
        self.digest == digest(tokens)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The client that holds this token.
    pub(crate) fn find(&self, token: &BearerToken) -> Option<Arc<Client>> {
        self.clients.get(&blake3::keyed_hash(&self.key, &token.0)).cloned()
    }
}

fn digest(tokens: &NamedTokens) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (name, BearerToken(digest)) in tokens {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(digest);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(tokens: &[(&str, &str)], before: Option<&TokenTable>) -> TokenTable {
        let named = |(name, token): &(&str, &str)| ((*name).into(), BearerToken::parse(token).expect("a token"));
        TokenTable::new(&tokens.iter().map(named).collect(), ClientRates::default(), before)
    }

    #[test]
    fn a_token_is_found_as_it_is_and_by_its_digest() {
        // printf %s 0123456789abcdef | sha256sum
        let digest = "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
        let table = table(&[("a", "a-token-of-some-length"), ("b", digest)], None);
        let name = |token: &str| table.find(&BearerToken::sent(token)).map(|client| client.name().to_string());
        assert_eq!(name("a-token-of-some-length").as_deref(), Some("a"));
        assert_eq!(name("0123456789abcdef").as_deref(), Some("b"));
        for wrong in ["", "a-token-of-some-lengt", "a-token-of-some-length ", digest] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tokens_of_one_name_are_one_client_also_after_the_file_was_read_anew() {
        let old = table(&[("app", "the-first-token-of-app")], None);
        let new = table(&[("app", "the-first-token-of-app"), ("app", "the-second-token-of-app")], Some(&old));
        let find = |table: &TokenTable, token: &str| table.find(&BearerToken::sent(token));
        let first = find(&old, "the-first-token-of-app").unwrap();
        assert!(Arc::ptr_eq(&first, &find(&new, "the-second-token-of-app").unwrap()));
        assert!(find(&old, "the-second-token-of-app").is_none());
    }

    #[test]
    fn a_line_that_is_wrong_is_told_by_its_number_and_never_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        let error = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_file(&path).unwrap_err().to_string()
        };
        let good = "# comment\n\napp:a-token-of-some-length\n";
        for (line, problem) in [
            ("secret-without-colon", "there is no colon between name and token"),
            (":secret-secret-secret", "the name has not 1 to 64 letters"),
            ("a b:secret-secret-secret", "the name has not 1 to 64 letters"),
            ("app:secret", "the token has fewer than 16"),
            ("app:secret secret secret", "the token has characters other than"),
            ("app:sha256:secret", "sha256: is not followed by 64 hexadecimal digits"),
        ] {
            let error = error(&format!("{good}{line}"));
            assert!(error.starts_with("line 4 of ") && error.contains(problem), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(error("# nothing\n").contains("has no token"));
        assert!(
            read_file(&directory.path().join("absent"))
                .unwrap_err()
                .to_string()
                .starts_with("cannot read the tokens in")
        );
        std::fs::write(&path, good).unwrap();
        assert_eq!(format!("{:?}", read_file(&path).unwrap()), r#"[("app", BearerToken(…))]"#);
    }
}
