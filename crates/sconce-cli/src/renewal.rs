//! Reads certificates and tokens anew when their files change, and on SIGHUP.

use std::convert::Infallible;
use std::time::Duration;

use sconce_grpc::{ClientAccess, Tls};

use crate::error::Error;
use crate::say::say;

/// Time between two looks at the files. They are small: reading them costs less than being told of changes would.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Renews certificates and tokens for as long as the future is polled.
pub(crate) async fn renew(tls: Option<Tls>, access: ClientAccess) -> Result<Infallible, Error> {
    if tls.is_none() && access.token_file().is_none() {
        return std::future::pending().await;
    }
    let mut hangups = Hangups::new().map_err(Error::Signals)?;
    let (mut certificate, mut tokens) = (Report::new("the certificate"), Report::new("the tokens"));
    loop {
        let is_asked = tokio::select! {
            () = hangups.next() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let (tls, access) = (tls.clone(), access.clone());
        let look = move || {
            let certificate = tls.map(|tls| tls.refresh().map_err(|error| error.to_string()));
            let has_file = access.token_file().is_some();
            (certificate, has_file.then(|| access.refresh().map_err(|error| error.to_string())))
        };
        let looked = tokio::task::spawn_blocking(look).await;
        let (of_certificate, of_tokens) = looked.unwrap_or_else(|cause| std::panic::resume_unwind(cause.into_panic()));
        for (report, outcome) in [(&mut certificate, of_certificate), (&mut tokens, of_tokens)] {
            if let Some(line) = outcome.and_then(|outcome| report.line(outcome, is_asked)) {
                say!("{line}");
            }
        }
    }
}

/// The lines about one kind of file, each told once.
struct Report {
    name: &'static str,
    told: Option<String>,
}

impl Report {
    fn new(name: &'static str) -> Self {
        Self { name, told: None }
    }

    /// The line about a look at the files; `None` if there is nothing new. A signal always has an answer.
    fn line(&mut self, outcome: Result<bool, String>, is_asked: bool) -> Option<String> {
        let name = self.name;
        match outcome {
            Ok(false) => {
                self.told = None;
                is_asked.then(|| format!("read anew: {name}, unchanged"))
            }
            Ok(true) => {
                self.told = None;
                Some(format!("read anew: {name}"))
            }
            Err(error) => {
                let is_new = self.told.as_ref() != Some(&error);
                self.told = Some(error.clone());
                (is_new || is_asked).then(|| format!("warning: not read anew: {name}: {error}"))
            }
        }
    }
}

#[cfg(unix)]
struct Hangups(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Hangups {
    fn new() -> std::io::Result<Self> {
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).map(Self)
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}

#[cfg(not(unix))]
struct Hangups;

#[cfg(not(unix))]
impl Hangups {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_told_once_and_a_signal_always_has_an_answer() {
        let mut report = Report::new("the certificate");
        assert_eq!(report.line(Ok(false), false), None);
        assert_eq!(report.line(Ok(false), true).as_deref(), Some("read anew: the certificate, unchanged"));
        assert_eq!(report.line(Ok(true), false).as_deref(), Some("read anew: the certificate"));
        let failed = |report: &mut Report, is_asked| report.line(Err("no".to_owned()), is_asked);
        let line = Some("warning: not read anew: the certificate: no".to_owned());
        assert_eq!((failed(&mut report, false), failed(&mut report, false)), (line.clone(), None));
        assert_eq!(failed(&mut report, true), line);
        assert_eq!(report.line(Ok(false), false), None);
        assert_eq!(failed(&mut report, false), line, "it was mended in between");
    }
}
