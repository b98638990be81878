//! The log, on standard error, because standard output is for answers.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;
use crate::error::Error;

/// The target of what this program says to people.
pub(crate) const TARGET: &str = "sconce_cli";

static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Returns true if standard error is for JSON alone.
pub(crate) fn is_json() -> bool {
    IS_JSON.load(Ordering::Relaxed)
}

/// Begins to log what `RUST_LOG` says: else warnings and errors, and in JSON also what is otherwise said in words.
pub(crate) fn start(format: LogFormat) -> Result<(), Error> {
    let directives = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) if !directives.is_empty() => directives,
        _ => "warn".to_owned(),
    };
    let filter = EnvFilter::try_new(&directives)
        .map_err(|cause| Error::LogFilter { value: directives, message: cause.to_string() })?;
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.with_env_filter(filter).init(),
        LogFormat::Json => {
            IS_JSON.store(true, Ordering::Relaxed);
            let said = format!("{TARGET}=info").parse().expect("a target and a level");
            subscriber.with_env_filter(filter.add_directive(said)).json().flatten_event(true).init();
        }
    }
    Ok(())
}
