//! Settings of traces and logs in Triton's words. They are set when the process starts, and can only be read here.

use std::collections::HashMap;

use tonic::Status;
use tracing::Level;

use crate::proto::log_settings_response::SettingValue as LogSetting;
use crate::proto::log_settings_response::setting_value::ParameterChoice;
use crate::proto::trace_setting_response::SettingValue as TraceSetting;
use crate::proto::{LogSettingsResponse, TraceSettingResponse};

/// The target of the messages that the server logs.
const LOG_TARGET: &str = "sconce";

/// The settings of Triton's traces, which are off.
pub(crate) fn traces<V>(changes: &HashMap<String, V>) -> Result<TraceSettingResponse, Status> {
    refuse(
        changes,
        "traces are not written to files; spans are exported by `tracing` and set up when the process starts",
    )?;
    let settings = [("trace_level", "OFF"), ("trace_rate", "0"), ("trace_count", "0"), ("log_frequency", "0")];
    let setting = |(name, value): (&str, &str)| (name.to_owned(), TraceSetting { value: vec![value.to_owned()] });
    Ok(TraceSettingResponse { settings: settings.into_iter().map(setting).collect() })
}

/// The levels that are logged.
pub(crate) fn logs<V>(changes: &HashMap<String, V>) -> Result<LogSettingsResponse, Status> {
    refuse(changes, "the variable RUST_LOG sets levels when the process starts")?;
    let verbose = u32::from(tracing::enabled!(target: LOG_TARGET, Level::DEBUG))
        + u32::from(tracing::enabled!(target: LOG_TARGET, Level::TRACE));
    let settings = [
        ("log_info", ParameterChoice::BoolParam(tracing::enabled!(target: LOG_TARGET, Level::INFO))),
        ("log_warning", ParameterChoice::BoolParam(tracing::enabled!(target: LOG_TARGET, Level::WARN))),
        ("log_error", ParameterChoice::BoolParam(tracing::enabled!(target: LOG_TARGET, Level::ERROR))),
        ("log_verbose_level", ParameterChoice::Uint32Param(verbose)),
        ("log_file", ParameterChoice::StringParam(String::new())),
        ("log_format", ParameterChoice::StringParam("default".to_owned())),
    ];
    let setting = |(name, choice): (&str, _)| (name.to_owned(), LogSetting { parameter_choice: Some(choice) });
    Ok(LogSettingsResponse { settings: settings.into_iter().map(setting).collect() })
}

fn refuse<V>(changes: &HashMap<String, V>, remedy: &str) -> Result<(), Status> {
    match changes.keys().min() {
        None => Ok(()),
        Some(name) => Err(Status::unimplemented(format!(
            "setting '{}' cannot be changed while the server runs: {remedy}",
            sconce::models::excerpt(name)
        ))),
    }
}
