//! Settings of traces and logs as protobuf carries them.

use std::collections::HashMap;

use sconce_server::{LogSetting, log_settings, trace_settings};
use tonic::Status;

use crate::proto::log_settings_response::setting_value::ParameterChoice;
use crate::proto::{LogSettingsResponse, TraceSettingResponse, log_settings_response, trace_setting_response};
use crate::status::status;

pub(crate) fn traces<V>(changes: &HashMap<String, V>) -> Result<TraceSettingResponse, Status> {
    let settings = trace_settings(changes.keys().map(String::as_str)).map_err(status)?;
    let value = |value: &str| trace_setting_response::SettingValue { value: vec![value.to_owned()] };
    Ok(TraceSettingResponse {
        settings: settings.into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect(),
    })
}

pub(crate) fn logs<V>(changes: &HashMap<String, V>) -> Result<LogSettingsResponse, Status> {
    let settings = log_settings(changes.keys().map(String::as_str)).map_err(status)?;
    let value = |setting| {
        let choice = match setting {
            LogSetting::Bool(value) => ParameterChoice::BoolParam(value),
            LogSetting::Level(level) => ParameterChoice::Uint32Param(level),
            LogSetting::Text(text) => ParameterChoice::StringParam(text.to_owned()),
        };
        log_settings_response::SettingValue { parameter_choice: Some(choice) }
    };
    Ok(LogSettingsResponse {
        settings: settings.into_iter().map(|(name, setting)| (name.to_owned(), value(setting))).collect(),
    })
}
