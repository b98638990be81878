//! `OpenTelemetry` spans of requests, made of their answers' times after the answers are written: nothing is recorded before.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use sconce::{Answer, Model, Timing};

use crate::arrival::Arrival;

static TRACER: OnceLock<BoxedTracer> = OnceLock::new();

/// Records a span of each request that a server of this process answers, and below it one of each stage. The tracer samples.
/// The first call counts.
///
/// A span's parent is the one that the request's header `traceparent` names. The spans of stages are those of the request's
/// slowest item, one after the other.
pub fn record_traces(tracer: BoxedTracer) {
    // An error means that there is a tracer already.
    let _ = TRACER.set(tracer);
}

/// A request that has ended.
pub(crate) struct EndedRequest<'a> {
    pub(crate) model: &'a Model,
    pub(crate) arrival: &'a Arrival,
    /// The time at which its items were submitted.
    pub(crate) submitted: Instant,
    /// The answers, and the time at which they were given; else the error.
    pub(crate) outcome: Result<(&'a [Answer], Instant), &'a str>,
}

impl EndedRequest<'_> {
    /// Records the spans of the request, which ends now, if there is a tracer and it samples the request.
    pub(crate) fn record(&self) {
        if let Some(tracer) = TRACER.get() {
            self.record_by(tracer);
        }
    }

    fn record_by(&self, tracer: &BoxedTracer) {
        let clock = Clock { now: Instant::now(), time: SystemTime::now() };
        let attributes = match self.outcome {
            Ok((answers, _)) => attributes(self.model.name(), answers),
            Err(_) => vec![KeyValue::new("sconce.model", self.model.name().to_owned())],
        };
        let span = tracer
            .span_builder(format!("infer {}", self.model.name()))
            .with_kind(SpanKind::Server)
            .with_start_time(clock.at(self.arrival.at))
            .with_attributes(attributes);
        let mut span = tracer.build_with_context(span, &self.parent());
        if !span.is_recording() {
            return;
        }
        match self.outcome {
            Ok((answers, given)) => {
                let trace_id = u128::from_be_bytes(span.span_context().trace_id().to_bytes());
                self.model.record_exemplar(trace_id, clock.now.saturating_duration_since(self.submitted));
                let context = Context::new().with_remote_span_context(span.span_context().clone());
                for (stage, start, took) in stages(answers, self.submitted, given, clock.now) {
                    let start = clock.at(start);
                    let stage = tracer.span_builder(stage).with_start_time(start);
                    tracer.build_with_context(stage, &context).end_with_timestamp(start + took);
                }
            }
            Err(message) => span.set_status(Status::error(message.to_owned())),
        }
        span.end_with_timestamp(clock.time);
    }

    /// The context in which the request's caller made it.
    fn parent(&self) -> Context {
        let Some(trace) = self.arrival.trace else { return Context::new() };
        let flags = if trace.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let (trace_id, span_id) = (TraceId::from(trace.trace_id), SpanId::from(trace.span_id));
        Context::new().with_remote_span_context(SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE))
    }
}

fn attributes(model: &str, answers: &[Answer]) -> Vec<KeyValue> {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let mut attributes = vec![
        KeyValue::new("sconce.model", model.to_owned()),
        KeyValue::new("sconce.items", number(answers.len())),
        KeyValue::new("sconce.tokens", number(answers.iter().filter_map(|answer| answer.tokens).sum())),
    ];
    if let Some(slowest) = slowest(answers) {
        attributes.extend([
            KeyValue::new("sconce.precision", slowest.precision.name()),
            KeyValue::new("sconce.device", slowest.device.to_string()),
            KeyValue::new("sconce.source", slowest.source.name()),
            KeyValue::new("sconce.batch_size", number(slowest.timing.batch_size)),
        ]);
    }
    attributes
}

/// The stages of the slowest item, each with its beginning and its time; stages that it did not take are left out.
fn stages(
    answers: &[Answer],
    submitted: Instant,
    given: Instant,
    ended: Instant,
) -> impl Iterator<Item = (&'static str, Instant, Duration)> {
    let Timing { cache, prepare, queue_wait, run, finish, .. } =
        slowest(answers).map(|answer| answer.timing).unwrap_or_default();
    let mut start = submitted;
    let before = [("cache", cache), ("prepare", prepare), ("queue", queue_wait), ("run", run), ("finish", finish)];
    let before = before.map(|(stage, took)| {
        let begun = start;
        start += took;
        (stage, begun, took)
    });
    let serialise = ("serialise", given, ended.saturating_duration_since(given));
    before.into_iter().chain([serialise]).filter(|(_, _, took)| !took.is_zero())
}

fn slowest(answers: &[Answer]) -> Option<&Answer> {
    answers.iter().max_by_key(|Answer { timing, .. }| timing.cache + timing.prepare + timing.queue_wait + timing.run)
}

/// A moment by both clocks: the one that measures, and the one that tells the time of day.
#[derive(Clone, Copy)]
struct Clock {
    now: Instant,
    time: SystemTime,
}

impl Clock {
    fn at(self, moment: Instant) -> SystemTime {
        let ago = self.now.saturating_duration_since(moment);
        self.time.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}
