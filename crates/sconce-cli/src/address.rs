//! Server addresses as they may be shown: without passwords.

/// The part of an address that names the server, without anything that may be a password.
pub(crate) fn without_password(address: &str) -> String {
    // Options follow a question mark, and `password` may be one of them.
    let address = address.split('?').next().unwrap_or_default();
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    if scheme.is_empty() && rest.contains('=') {
        return pairs_without_password(rest);
    }
    if let Some((_, server)) = rest.rsplit_once('@') {
        return format!("{scheme}…@{server}");
    }
    // A password without a server.
    if rest.starts_with(':') {
        return format!("{scheme}…");
    }
    format!("{scheme}{rest}")
}

/// The parts of `host=db user=me password=secret` that name the server.
fn pairs_without_password(pairs: &str) -> String {
    let shown = |pair: &&str| {
        let key = pair.split('=').next().unwrap_or_default();
        ["host", "hostaddr", "port", "dbname", "user"].contains(&key)
    };
    let shown: Vec<&str> = pairs.split_whitespace().filter(shown).collect();
    // Inside quotes, any word may be part of a password.
    if shown.is_empty() || pairs.contains('\'') { "…".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_shown_and_a_password_never() {
        let table = [
            ("redis://localhost:6379/2", "redis://localhost:6379/2"),
            ("localhost:6379", "localhost:6379"),
            ("redis://:secret@cache:6379", "redis://…@cache:6379"),
            ("redis://user:se/cr@et@cache", "redis://…@cache"),
            ("user:secret@cache", "…@cache"),
            ("redis://:secret", "redis://…"),
            (":secret", "…"),
            ("postgres://user:secret@db:5432/answers?sslmode=require", "postgres://…@db:5432/answers"),
            ("postgres://db/answers?password=secret", "postgres://db/answers"),
            ("host=db user=me password=secret dbname=answers", "host=db user=me dbname=answers"),
            ("host=db password=secret@secret", "host=db"),
            ("host=db password='secret user=secret'", "…"),
            ("password=secret", "…"),
            ("", ""),
        ];
        for (address, shown) in table {
            assert_eq!(without_password(address), shown, "{address}");
        }
    }
}
