//! Settings of traces and logs in Triton's words. They are set when the process starts, and can only be read.

use tracing::Level;

use crate::error::RequestError;

/// The target of the messages that servers log.
const LOG_TARGET: &str = "sconce";

/// The value of a setting of logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSetting {
    /// True or false.
    Bool(bool),
    /// A level from 0 on.
    Level(u32),
    /// A name.
    Text(&'static str),
}

/// The settings of Triton's traces, which are off. `changes` are the names of settings to change.
///
/// # Errors
/// [`RequestError::FixedSetting`] if there is anything to change.
pub fn trace_settings<'a>(
    changes: impl Iterator<Item = &'a str>,
) -> Result<[(&'static str, &'static str); 4], RequestError> {
    refuse(changes, "traces go to OpenTelemetry, and are set up when the process starts")?;
    Ok([("trace_level", "OFF"), ("trace_rate", "0"), ("trace_count", "0"), ("log_frequency", "0")])
}

/// The levels that are logged. `changes` are the names of settings to change.
///
/// # Errors
/// [`RequestError::FixedSetting`] if there is anything to change.
pub fn log_settings<'a>(
    changes: impl Iterator<Item = &'a str>,
) -> Result<[(&'static str, LogSetting); 6], RequestError> {
    refuse(changes, "the variable RUST_LOG sets the levels when the process starts")?;
    let verbose = u32::from(tracing::enabled!(target: LOG_TARGET, Level::DEBUG))
        + u32::from(tracing::enabled!(target: LOG_TARGET, Level::TRACE));
    Ok([
        ("log_info", LogSetting::Bool(tracing::enabled!(target: LOG_TARGET, Level::INFO))),
        ("log_warning", LogSetting::Bool(tracing::enabled!(target: LOG_TARGET, Level::WARN))),
        ("log_error", LogSetting::Bool(tracing::enabled!(target: LOG_TARGET, Level::ERROR))),
        ("log_verbose_level", LogSetting::Level(verbose)),
        ("log_file", LogSetting::Text("")),
        ("log_format", LogSetting::Text("default")),
    ])
}

fn refuse<'a>(changes: impl Iterator<Item = &'a str>, remedy: &'static str) -> Result<(), RequestError> {
    // The first by name, so that the same request always gets the same error.
    match changes.min() {
        None => Ok(()),
        Some(name) => Err(RequestError::FixedSetting { name: name.to_owned(), remedy }),
    }
}
