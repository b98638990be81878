//! Flags of `sconce serve` for its log and its traces.

/// The log, and traces of requests.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Logs and traces")]
pub(crate) struct TelemetryArgs {
    /// Form of what is written to standard error: text, or json, one object a line
    ///
    /// Warnings and errors are logged, and when a stage has become slower. `RUST_LOG=warn,sconce_server=debug` also logs each
    /// request with its model, time and error; the header traceparent of a request gives its lines a `trace_id`. Inputs and
    /// answers are not logged; the message of an error may repeat an excerpt of what it refuses.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// Send a trace of requests to this OpenTelemetry collector, by OTLP over gRPC; for instance `http://127.0.0.1:4317`
    ///
    /// Each traced request is a span, with one below it for each stage: cache, prepare, queue, run, finish, serialise.
    /// `OTEL_EXPORTER_OTLP_HEADERS` and `OTEL_SERVICE_NAME` count as OpenTelemetry defines them.
    #[arg(long, value_name = "ENDPOINT", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    pub(crate) otlp: Option<String>,

    /// Share of requests that are traced, from 0 to 1; of requests with a header traceparent its caller decides
    #[arg(long, value_name = "SHARE", env = "OTEL_TRACES_SAMPLER_ARG", default_value = "0.01", value_parser = share)]
    pub(crate) otlp_sample_ratio: f64,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

fn share(value: &str) -> Result<f64, String> {
    let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "give a number from 0 (no request) to 1 (all requests), for instance 0.01".to_owned())
}
