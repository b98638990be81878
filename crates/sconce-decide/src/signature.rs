//! Signatures of records in OpenSSH's format (`ssh-keygen -Y sign`), and the file of signers that are believed.
//!
//! The formats are those of `ssh-keygen(1)`, sections "ALLOWED SIGNERS" and `-Y sign`, and OpenSSH's `PROTOCOL.sshsig`. The
//! algorithm is Ed25519 (RFC 8032). So a record is signed with a key that people have, and anyone can check it:
//!
//! ```sh
//! ssh-keygen -Y sign -n sconce-decision -f ~/.ssh/id_ed25519 decision.json
//! ssh-keygen -Y verify -n sconce-decision -f allowed_signers -I cto@example.com -s decision.json.sig < decision.json
//! ```

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

/// The namespace of signatures of records, so that one made for something else (a commit, a file) does not count.
pub const NAMESPACE: &str = "sconce-decision";
/// Most bytes of a file of signers.
const MAX_SIGNERS_BYTES: usize = 1 << 20;
/// Most bytes of a signature.
const MAX_SIGNATURE_BYTES: usize = 16 << 10;

/// The people whose signatures are believed, as OpenSSH's `allowed_signers` file lists them: a line has principals, options
/// (`namespaces`, `valid-after`, `valid-before`), and an Ed25519 key.
///
/// ```
/// let signers: sconce_decide::AllowedSigners = "\
///     cto@example.com namespaces=\"sconce-decision\" ssh-ed25519 \
///     AAAAC3NzaC1lZDI1NTE5AAAAIMuz3PNa161XQpfT/A4iLlFHAEmCPBnRWi+VmyaP2Dkx cto\n"
///     .parse()?;
/// assert_eq!(signers.principals().collect::<Vec<_>>(), ["cto@example.com"]);
/// # Ok::<(), sconce_decide::SignersError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct AllowedSigners(Vec<AllowedSigner>);

#[derive(Debug, Clone)]
struct AllowedSigner {
    principals: Vec<String>,
    namespaces: Option<Vec<String>>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
    key: KeyData,
}

/// A file of signers that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct SignersError {
    /// The line, from 1.
    pub line: usize,
    /// The problem with it.
    pub problem: String,
}

/// A signature that does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Text that is no OpenSSH signature.
    #[error("the signature cannot be read: {0}")]
    Unreadable(String),
    /// A signature for something else.
    #[error("the signature is for '{0}', not for '{NAMESPACE}': sign with `ssh-keygen -Y sign -n {NAMESPACE}`")]
    OtherNamespace(String),
    /// A key of another kind.
    #[error("the key is {0}: sign with an Ed25519 key (`ssh-keygen -t ed25519`)")]
    OtherAlgorithm(String),
    /// A record or a signature that was changed.
    #[error("the record is not what was signed: it was changed after that, or the signature belongs to another")]
    Changed,
    /// A signer who may not approve.
    #[error("the record was signed by {signer}, and its policy wants the approval of '{approver}': {remedy}")]
    NotApproved {
        /// The signer's key, and name if it is known.
        signer: String,
        /// The approver that the policy names.
        approver: String,
        /// The remedy.
        remedy: &'static str,
    },
}

/// A key that cannot sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Text that is no private key in OpenSSH's format.
    #[error("no private key in OpenSSH's format: {0}; `ssh-keygen -t ed25519` makes one")]
    Unreadable(String),
    /// A key behind a passphrase.
    #[error("the key has a passphrase: sign with `ssh-keygen -Y sign -n {NAMESPACE} -f KEY RECORD`, which asks for it")]
    Encrypted,
    /// A key of another kind.
    #[error("the key is {0}: take an Ed25519 key, which `ssh-keygen -t ed25519` makes")]
    OtherAlgorithm(String),
}

/// Signs a record's bytes with a private key in OpenSSH's format. Returns the content of `decision.json.sig`.
///
/// # Errors
/// [`SignError`] if the key cannot be used.
pub fn sign(record: &[u8], private_key: &str) -> Result<String, SignError> {
    let key = PrivateKey::from_openssh(private_key).map_err(|error| SignError::Unreadable(error.to_string()))?;
    if key.is_encrypted() {
        return Err(SignError::Encrypted);
    }
    if key.key_data().ed25519().is_none() {
        return Err(SignError::OtherAlgorithm(key.algorithm().to_string()));
    }
    let signature = key.sign(NAMESPACE, HashAlg::Sha512, record).and_then(|signature| signature.to_pem(LineEnding::LF));
    signature.map_err(|error| SignError::Unreadable(error.to_string()))
}

impl AllowedSigners {
    /// Every name in the file.
    pub fn principals(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|signer| &signer.principals).map(String::as_str)
    }

    /// Checks that `approver` signed these bytes, and that this signer counts at the time `at`.
    ///
    /// # Errors
    /// [`SignatureError`] if the signature does not count.
    pub fn check(&self, record: &[u8], signature: &str, approver: &str, at: Timestamp) -> Result<(), SignatureError> {
        if signature.len() > MAX_SIGNATURE_BYTES {
            let problem = format!("{} bytes, and signatures have at most {MAX_SIGNATURE_BYTES}", signature.len());
            return Err(SignatureError::Unreadable(problem));
        }
        let signature = SshSig::from_pem(signature).map_err(|error| SignatureError::Unreadable(error.to_string()))?;
        if signature.namespace() != NAMESPACE {
            return Err(SignatureError::OtherNamespace(signature.namespace().chars().take(40).collect()));
        }
        let key = PublicKey::from(signature.public_key().clone());
        if key.key_data().ed25519().is_none() {
            return Err(SignatureError::OtherAlgorithm(key.algorithm().to_string()));
        }
        key.verify(NAMESPACE, record, &signature).map_err(|_| SignatureError::Changed)?;
        let of_key = || self.0.iter().filter(|signer| signer.key == *key.key_data());
        let may_approve = |signer: &AllowedSigner| signer.principals.iter().any(|name| name == approver);
        let remedy = match of_key().find(|signer| may_approve(signer)) {
            Some(signer) if signer.counts(at) => return Ok(()),
            Some(_) => "this line of the allowed signers does not count now, or not for decisions",
            None if self.0.iter().any(may_approve) => "let them sign",
            None => "let them sign, and add their key to the allowed signers",
        };
        let known = of_key().next().map(|signer| format!(" ({})", signer.principals.join(", ")));
        let signer = format!("{}{}", key.fingerprint(HashAlg::Sha256), known.unwrap_or_default());
        Err(SignatureError::NotApproved { signer, approver: approver.to_owned(), remedy })
    }
}

impl AllowedSigner {
    fn counts(&self, at: Timestamp) -> bool {
        self.namespaces.as_ref().is_none_or(|namespaces| namespaces.iter().any(|namespace| namespace == NAMESPACE))
            && self.valid_after.is_none_or(|after| after <= at)
            && self.valid_before.is_none_or(|before| at < before)
    }
}

impl std::str::FromStr for AllowedSigners {
    type Err = SignersError;

    fn from_str(text: &str) -> Result<Self, SignersError> {
        if text.len() > MAX_SIGNERS_BYTES {
            let problem = format!("the file has {} bytes, and at most {MAX_SIGNERS_BYTES} are read", text.len());
            return Err(SignersError { line: 1, problem });
        }
        let mut signers = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                signers.push(signer(line).map_err(|problem| SignersError { line: at + 1, problem })?);
            }
        }
        Ok(Self(signers))
    }
}

/// Reads a line: principals, options if there are any, kind of key, key, comment.
fn signer(line: &str) -> Result<AllowedSigner, String> {
    let form = "write PRINCIPAL[,PRINCIPAL…] [OPTIONS] ssh-ed25519 KEY";
    let (principals, rest) = line.split_once(char::is_whitespace).ok_or(form)?;
    let principals: Vec<String> = principals.trim_matches('"').split(',').map(str::to_owned).collect();
    if let Some(pattern) = principals.iter().find(|name| name.is_empty() || name.contains(['*', '?', '!'])) {
        return Err(format!("the principal '{pattern}' is a pattern or empty: write whole names"));
    }
    let rest = rest.trim_start();
    let without_options = ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| rest.starts_with(kind));
    let (options, key) = if without_options { ("", rest) } else { split_options(rest).ok_or(form)? };
    let key = PublicKey::from_openssh(key.trim_start())
        .map_err(|error| format!("the key cannot be read: {error}; {form}"))?;
    if key.key_data().ed25519().is_none() {
        return Err(format!("the key is {}: only Ed25519 keys approve decisions", key.algorithm()));
    }
    let mut signer = AllowedSigner {
        principals,
        namespaces: None,
        valid_after: None,
        valid_before: None,
        key: key.key_data().clone(),
    };
    let mut seen = Vec::new();
    for option in options_of(options) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if seen.contains(&name.to_ascii_lowercase()) {
            return Err(format!("the option '{name}' is given twice"));
        }
        seen.push(name.to_ascii_lowercase());
        let value = value.trim_matches('"');
        match name.to_ascii_lowercase().as_str() {
            "namespaces" => signer.namespaces = Some(value.split(',').map(str::to_owned).collect()),
            "valid-after" => signer.valid_after = Some(timestamp(value)?),
            "valid-before" => signer.valid_before = Some(timestamp(value)?),
            _ => {
                return Err(format!(
                    "the option '{name}' is not known: known are namespaces, valid-after, valid-before"
                ));
            }
        }
    }
    Ok(signer)
}

/// Splits at the first white space outside of quotes.
fn split_options(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let end = text.find(|character: char| {
        quoted ^= character == '"';
        !quoted && character.is_whitespace()
    })?;
    Some(text.split_at(end))
}

/// Options between commas outside of quotes.
fn options_of(text: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character: char| {
        quoted ^= character == '"';
        !quoted && character == ','
    })
    .filter(|option| !option.is_empty())
}

/// A time as OpenSSH writes it: `YYYYMMDD` or `YYYYMMDDHHMM[SS]`, with `Z` for UTC. Without it OpenSSH means local time; here
/// all times are UTC, so that a file means the same on every machine.
fn timestamp(text: &str) -> Result<Timestamp, String> {
    let wrong = || format!("the time '{text}' is none: write YYYYMMDD or YYYYMMDDHHMM[SS], in UTC");
    let digits = text.strip_suffix('Z').unwrap_or(text);
    let time = match digits.len() {
        8 => Date::strptime("%Y%m%d", digits).map(DateTime::from),
        12 => DateTime::strptime("%Y%m%d%H%M", digits),
        14 => DateTime::strptime("%Y%m%d%H%M%S", digits),
        _ => return Err(wrong()),
    };
    time.and_then(|time| time.to_zoned(TimeZone::UTC)).map(|time| time.timestamp()).map_err(|_| wrong())
}

impl fmt::Display for AllowedSigners {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.principals().collect();
        formatter.write_str(if names.is_empty() { "nobody" } else { "" })?;
        formatter.write_str(&names.join(", "))
    }
}
