//! Admission of requests: by a bearer token, or without one where that is allowed, and at each client's rate.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::client::{AnonymousClients, Client, ClientRates};
use crate::error::RequestError;
use crate::pacing::Governor;
use crate::tokens::{BearerToken, NamedTokens, TokenFileError, TokenTable, read_file};

/// The name of the client that holds [`ClientAccessConfig::token`].
const NAME_OF_THE_TOKEN: &str = "default";

/// The terms on which requests are admitted.
#[derive(Debug, Clone, Default)]
pub struct ClientAccessConfig {
    /// A file of tokens, one a line: `NAME:TOKEN` or `NAME:sha256:DIGEST`, the digest in hexadecimal digits. Tokens of one
    /// name are of one client. Empty lines and those that begin with `#` are passed over.
    pub token_file: Option<PathBuf>,
    /// A further token, whose client has the name `default`.
    pub token: Option<BearerToken>,
    /// True: requests without a token are admitted, too. Without any token, all are.
    pub allow_anonymous: bool,
    /// The bounds of each client: of each name, and of each address without a token.
    pub rates: ClientRates,
}

/// Admits requests, each for its [`Client`]. Clones share the tokens and the rates.
#[derive(Clone)]
pub struct ClientAccess(Arc<AccessTerms>);

struct AccessTerms {
    config: ClientAccessConfig,
    tokens: RwLock<Arc<TokenTable>>,
    anonymous: AnonymousClients,
    governor: Governor,
}

impl fmt::Debug for ClientAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAccess").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Default for ClientAccess {
    fn default() -> Self {
        Self::of(ClientAccessConfig::default(), &NamedTokens::new())
    }
}

/// The admission of a request by its token, among the extensions of the request.
#[derive(Debug, Clone)]
pub struct TokenAdmission {
    access: ClientAccess,
    token: BearerToken,
}

impl TokenAdmission {
    /// Checks that the token still admits. A request that goes on for long, such as a stream, asks again and again.
    ///
    /// # Errors
    /// [`RequestError::NotAdmitted`] if the token was taken out of the file.
    pub fn check(&self) -> Result<(), RequestError> {
        match self.access.tokens().find(&self.token) {
            Some(_) => Ok(()),
            None => Err(RequestError::NotAdmitted { problem: UNKNOWN_TOKEN }),
        }
    }
}

/// The address of a request's peer; `None` on a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub Option<IpAddr>);

impl ClientAccess {
    /// Reads the tokens.
    ///
    /// # Errors
    /// [`TokenFileError`] if the file of tokens cannot be used.
    pub fn new(config: ClientAccessConfig) -> Result<Self, TokenFileError> {
        let tokens = config.tokens()?;
        Ok(Self::of(config, &tokens))
    }

    fn of(config: ClientAccessConfig, tokens: &NamedTokens) -> Self {
        let tokens = RwLock::new(Arc::new(TokenTable::new(tokens, config.rates, None)));
        let anonymous = AnonymousClients::new(config.rates);
        Self(Arc::new(AccessTerms { config, tokens, anonymous, governor: Governor::new() }))
    }

    /// Reads the file of tokens anew, and returns true if they have changed: from then on they count for every request, also
    /// on open connections.
    ///
    /// # Errors
    /// [`TokenFileError`] if the file cannot be used; the tokens of before stay in use.
    pub fn refresh(&self) -> Result<bool, TokenFileError> {
        let (tokens, before) = (self.0.config.tokens()?, self.tokens());
        if before.is_of(&tokens) {
            return Ok(false);
        }
        let table = TokenTable::new(&tokens, self.0.config.rates, Some(&before));
        *self.0.tokens.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        Ok(true)
    }

    /// The file of tokens, if there is one.
    #[must_use]
    pub fn token_file(&self) -> Option<&PathBuf> {
        self.0.config.token_file.as_ref()
    }

    /// Returns true if requests without a token are refused.
    #[must_use]
    pub fn asks_for_tokens(&self) -> bool {
        !self.0.config.allow_anonymous && !self.tokens().is_empty()
    }

    /// Admits a request whose headers have come, and takes its token out of them. `None` if nothing is asked and nothing is
    /// counted. Refusals are held back where there are many.
    ///
    /// # Errors
    /// [`RequestError::NotAdmitted`] without a token that is known, and [`RequestError::TooFast`] beyond the client's rate.
    pub async fn admit(&self, parts: &mut Parts) -> Result<Option<Arc<Client>>, RequestError> {
        let now = Instant::now();
        let admitted = self.client(parts, now).and_then(|client| {
            if let Some(client) = &client {
                client.begin_request(now)?;
            }
            Ok(client)
        });
        match admitted {
            Ok(client) => Ok(client),
            Err(error) => Err(self.0.governor.hold_back(error, |_| None).await),
        }
    }

    fn client(&self, parts: &mut Parts, now: Instant) -> Result<Option<Arc<Client>>, RequestError> {
        let header = parts.headers.remove(AUTHORIZATION);
        let tokens = self.tokens();
        if !tokens.is_empty()
            && let Some(header) = header
        {
            let token =
                header.to_str().ok().and_then(bearer).ok_or(RequestError::NotAdmitted { problem: NO_BEARER })?;
            let token = BearerToken::sent(token);
            let client = tokens.find(&token).ok_or(RequestError::NotAdmitted { problem: UNKNOWN_TOKEN })?;
            parts.extensions.insert(TokenAdmission { access: self.clone(), token });
            return Ok(Some(client));
        }
        if !tokens.is_empty() && !self.0.config.allow_anonymous {
            return Err(RequestError::NotAdmitted { problem: NO_TOKEN });
        }
        if self.0.config.rates == ClientRates::default() {
            return Ok(None);
        }
        let peer = parts.extensions.get().and_then(|PeerAddress(address)| *address);
        Ok(Some(self.0.anonymous.at(peer, now)))
    }

    fn tokens(&self) -> Arc<TokenTable> {
        Arc::clone(&self.0.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }
}

const NO_TOKEN: &str = "the request has no token; send the header 'Authorization: Bearer TOKEN'";
const NO_BEARER: &str = "the header 'authorization' is not 'Bearer TOKEN'";
const UNKNOWN_TOKEN: &str = "the token is not known; ask the operator of the server for one";

/// The token of a header `Bearer TOKEN`.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl ClientAccessConfig {
    fn tokens(&self) -> Result<NamedTokens, TokenFileError> {
        let mut tokens = self.token_file.as_deref().map(read_file).transpose()?.unwrap_or_default();
        tokens.extend(self.token.clone().map(|token| (NAME_OF_THE_TOKEN.into(), token)));
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const TOKEN: &str = "a-token-of-some-length";

    fn access(allow_anonymous: bool) -> ClientAccess {
        let rates = ClientRates { max_requests_per_second: NonZeroU32::new(100), ..ClientRates::default() };
        let token = Some(BearerToken::new(TOKEN).expect("a token"));
        ClientAccess::new(ClientAccessConfig { token, allow_anonymous, rates, ..ClientAccessConfig::default() })
            .expect("no file")
    }

    async fn admit(access: &ClientAccess, authorization: Option<&str>) -> Result<String, String> {
        let mut request = http::Request::builder().extension(PeerAddress(Some([10, 0, 0, 1].into())));
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        let admitted = access.admit(&mut parts).await;
        assert!(!parts.headers.contains_key(AUTHORIZATION), "nothing behind can tell it");
        let admitted = admitted.map_err(|error| error.to_string())?;
        Ok(admitted.map_or_else(|| "nobody".to_owned(), |client| client.name().to_string()))
    }

    #[tokio::test]
    async fn a_known_token_is_admitted_and_any_other_is_told_what_to_send() {
        let access = access(false);
        for good in ["Bearer a-token-of-some-length", "bearer  a-token-of-some-length"] {
            assert_eq!(admit(&access, Some(good)).await.as_deref(), Ok("default"));
        }
        for (header, problem) in [
            (None, NO_TOKEN),
            (Some("Basic dXNlcjpwYXNz"), NO_BEARER),
            (Some(TOKEN), NO_BEARER),
            (Some("Bearer another-token-of-that-length"), UNKNOWN_TOKEN),
            (Some("Bearer "), UNKNOWN_TOKEN),
        ] {
            assert_eq!(admit(&access, header).await, Err(problem.to_owned()));
        }
        assert!(access.asks_for_tokens() && !format!("{access:?}").contains(TOKEN));
    }

    #[tokio::test]
    async fn without_a_token_a_client_is_its_address_where_that_is_allowed() {
        let lenient = access(true);
        assert_eq!(admit(&lenient, None).await.as_deref(), Ok("10.0.0.1"));
        assert_eq!(admit(&lenient, Some("Bearer wrong-wrong-wrong")).await, Err(UNKNOWN_TOKEN.to_owned()));
        let open = ClientAccess::default();
        assert_eq!(admit(&open, Some("Bearer sk-of-a-client-that-must-send-one")).await.as_deref(), Ok("nobody"));
    }

    #[tokio::test]
    async fn tokens_are_read_anew_and_stay_as_they_are_if_the_file_is_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, format!("app:{TOKEN}")).unwrap();
        let access =
            ClientAccess::new(ClientAccessConfig { token_file: Some(path.clone()), ..ClientAccessConfig::default() })
                .unwrap();
        let header = format!("Bearer {TOKEN}");
        assert_eq!(admit(&access, Some(&header)).await.as_deref(), Ok("app"));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(access.refresh().is_err());
        assert_eq!(admit(&access, Some(&header)).await.as_deref(), Ok("app"));
        std::fs::write(&path, "app:the-next-token-of-the-app").unwrap();
        assert!(access.refresh().unwrap() && !access.refresh().unwrap());
        assert_eq!(admit(&access, Some(&header)).await, Err(UNKNOWN_TOKEN.to_owned()));
        assert_eq!(admit(&access, Some("Bearer the-next-token-of-the-app")).await.as_deref(), Ok("app"));
    }
}
