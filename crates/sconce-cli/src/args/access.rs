//! Flags for TLS, tokens, and the rates of clients.

use std::num::NonZeroU32;
use std::path::PathBuf;

use sconce_grpc::{BearerToken, ClientAccess, ClientAccessConfig, ClientRates, Tls, TlsFiles};

use super::numbers::positive;
use crate::error::Error;

/// The variable of a single token, which no list of processes shows.
const TOKEN: &str = "SCONCE_TOKEN";

/// TLS, tokens, and the rates of clients.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessArgs {
    /// The server's certificate in PEM, followed by those of intermediate authorities; gRPC and HTTP then speak TLS alone
    ///
    /// The files are read anew when they change, and on SIGHUP; open connections stay. unix: addresses have no TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key in PEM, without a passphrase
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Refuse clients without a certificate that an authority in this PEM file has signed
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,

    /// Answer only calls with a token from this file (`authorization: Bearer TOKEN`), except health
    ///
    /// One a line, as `NAME:TOKEN` or `NAME:sha256:DIGEST`, the digest in hexadecimal digits; tokens of one name are of one client, and
    /// lines that begin with # are passed over. The file is read anew when it changes, and on SIGHUP. A single token may be in
    /// the variable `SCONCE_TOKEN` instead. Tokens are asked for on every address, also on loopback and unix:.
    #[arg(long, value_name = "FILE", env = "SCONCE_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// Answer calls without a token, also on addresses that other machines reach
    ///
    /// Without this flag, a server that other machines reach does not start unless it asks for tokens or for client
    /// certificates. Beside tokens, it lets in calls without one as clients of their own, one for each address.
    #[arg(long)]
    allow_anonymous: bool,

    /// Requests of each client in a second; the rest are refused with a time to come back [default: no limit]
    ///
    /// A client is the name of a token, or, without tokens, an address. A second's worth may come at once. Behind a proxy all
    /// calls without tokens come from one address.
    #[arg(long, value_name = "REQUESTS", value_parser = positive::<NonZeroU32>)]
    max_requests_per_second: Option<NonZeroU32>,

    /// Tokens of text (other models: items) answered to each client in a second, likewise [default: no limit]
    ///
    /// A request is let in while less than a second's worth is owed, and counts in full once its tokens are known.
    #[arg(long, value_name = "WEIGHT", value_parser = positive::<NonZeroU32>)]
    max_weight_per_second: Option<NonZeroU32>,
}

impl AccessArgs {
    /// TLS, if there is a certificate.
    pub(crate) fn tls(&self) -> Result<Option<Tls>, Error> {
        let (Some(certificate), Some(key)) = (self.tls_cert.clone(), self.tls_key.clone()) else { return Ok(None) };
        let files = TlsFiles { certificate, key, client_authorities: self.tls_client_ca.clone() };
        Ok(Some(Tls::load(files)?))
    }

    /// The terms on which calls are admitted.
    pub(crate) fn access(&self) -> Result<ClientAccess, Error> {
        let token = match std::env::var(TOKEN) {
            Ok(token) if token.is_empty() => None,
            Ok(token) => Some(BearerToken::new(&token).map_err(|problem| Error::Token { variable: TOKEN, problem })?),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(Error::Token { variable: TOKEN, problem: "the token is not text" });
            }
        };
        let rates = ClientRates {
            max_requests_per_second: self.max_requests_per_second,
            max_weight_per_second: self.max_weight_per_second,
        };
        let config = ClientAccessConfig {
            token_file: self.token_file.clone(),
            token,
            allow_anonymous: self.allow_anonymous,
            rates,
        };
        Ok(ClientAccess::new(config)?)
    }

    /// Returns true if calls are to be answered without a token on addresses that other machines reach.
    pub(crate) fn allows_anonymous(&self) -> bool {
        self.allow_anonymous
    }
}
