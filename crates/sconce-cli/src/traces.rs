//! Traces of requests, sent to an OpenTelemetry collector.

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

use crate::args::TelemetryArgs;
use crate::error::Error;
use crate::say::say;

/// The exporter of traces, if they are exported. Spans wait in a bounded queue for a thread of its own, and are dropped where
/// the collector does not take them in time.
pub(crate) struct TraceExport(Option<SdkTracerProvider>);

impl TraceExport {
    /// Begins to trace requests, if there is a collector. Must be called within tokio.
    pub(crate) fn start(args: &TelemetryArgs) -> Result<Self, Error> {
        let Some(endpoint) = args.otlp.as_deref().filter(|endpoint| !endpoint.is_empty()) else {
            return Ok(Self(None));
        };
        let wrong = |reason: String| Error::Collector { endpoint: endpoint.to_owned(), reason };
        if !endpoint.starts_with("http://") {
            let reason =
                "it must begin with http://; to send traces elsewhere in secret, run a collector on this machine";
            return Err(wrong(reason.to_owned()));
        }
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        let exporter = exporter.map_err(|cause| wrong(cause.to_string()))?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("sconce");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(args.otlp_sample_ratio))))
            .with_resource(resource.build())
            .build();
        sconce_server::record_traces(BoxedTracer::new(Box::new(provider.tracer("sconce"))));
        Ok(Self(Some(provider)))
    }

    /// Sends what waits.
    pub(crate) async fn end(self) {
        let Self(Some(provider)) = self else { return };
        let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(cause)) = ended {
            say!("warning: the last traces were not sent: {cause}");
        }
    }
}
