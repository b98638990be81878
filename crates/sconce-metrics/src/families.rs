//! The families of metrics: name, help, type, unit and labels of each.

use std::fmt::Error;
use std::time::{Duration, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use sconce::{Count, ModelMetrics, RuntimeMetrics};

/// Upper bounds of the buckets of durations, in µs: 1, 2.5 and 5 of each power of ten from 10 µs to 50 s.
pub(crate) const BOUNDS_US: [u64; 21] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000,
];

/// A snapshot that is written when it is collected.
#[derive(Debug)]
pub(crate) struct Families(pub(crate) RuntimeMetrics);

/// A figure of a model.
type Figure = fn(&ModelMetrics) -> f64;

/// The labels of one metric.
type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let out = &mut encoder;
        self.durations(out)?;
        self.requests(out)?;
        self.decisions(out)?;
        self.queues(out)?;
        self.batches(out)?;
        self.devices(out)?;
        self.caches(out)?;
        self.degradations(out)?;
        self.precisions(out)?;
        self.shadows(out)?;
        self.process(out)
    }
}

impl Families {
    fn models(&self) -> impl Iterator<Item = (&str, &ModelMetrics)> {
        self.0.models.iter().map(|model| (model.name.as_str(), model))
    }

    fn durations(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let help = "Time of answered requests by stage; the stage request is the whole";
        let bounds = BOUNDS_US.map(Duration::from_micros);
        let kind = MetricType::Histogram;
        let mut family = out.encode_descriptor("sconce_request_duration", help, Some(&Unit::Seconds), kind)?;
        for (model, metrics) in self.models() {
            for (stage, latency, sum) in metrics.latency.stages() {
                let below = latency.counts_below(&bounds);
                let (count, within) = (latency.count(), below.iter().sum::<u64>());
                let bounds = bounds.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
                let buckets: Vec<_> = bounds.zip(below.into_iter().chain([count - within])).collect();
                let labels = [("model", model), ("version", &*metrics.version), ("stage", stage)];
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    fn requests(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let outcomes = self.models().flat_map(|(model, metrics)| {
            let outcomes = [("succeeded", metrics.succeeded), ("failed", metrics.failed)];
            outcomes.map(|(outcome, count)| {
                (vec![("model", model), ("version", &*metrics.version), ("outcome", outcome)], count)
            })
        });
        counters(out, "sconce_requests", "Requests that ended", None, outcomes)?;
        let errors = self.counts("kind", |metrics| &metrics.errors);
        counters(out, "sconce_request_errors", "Failed requests by kind of error", None, errors)?;
        let refusals = self.counts("reason", |metrics| &metrics.refusals);
        counters(out, "sconce_refused_items", "Items that were refused, by reason", None, refusals)?;
        let answers = self.counts("source", |metrics| &metrics.answers);
        counters(out, "sconce_answers", "Answered items by source: computed, shared, or a tier", None, answers)
    }

    fn decisions(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let decisions = || {
            self.models().flat_map(|(model, metrics)| {
                metrics.decisions.iter().map(move |it| {
                    let (version, precision) = (("version", &*metrics.version), ("precision", it.precision));
                    (vec![("model", model), version, precision, ("decision", &*it.id)], it)
                })
            })
        };
        let precisions = self.models().map(|(model, metrics)| {
            let decision = metrics.decision.as_ref().map_or("", |decision| &*decision.id);
            let labels = [("model", model), ("version", &*metrics.version), ("precision", metrics.precision)];
            ([&labels[..], &[("decision", decision)]].concat(), 1.0)
        });
        let help = "Precision of each model, with the decision record that allows it";
        gauges(out, "sconce_model_precision", help, None, precisions)?;
        let expires = decisions().filter_map(|(labels, it)| Some((labels, it.expires? as f64)));
        let help = "Unix time of the last second at which a decision record counts";
        gauges(out, "sconce_decision_expires", help, Some(&Unit::Seconds), expires)?;
        let ratios = decisions().filter_map(|(labels, it)| Some((labels, it.cost_ratio?)));
        let help = "Learned time of a usual batch, as a multiple of what the decision record rests on";
        gauges(out, "sconce_decision_cost_ratio", help, None, ratios)
    }

    fn queues(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let figures: [(&str, &str, Option<&Unit>, Figure); 4] = [
            ("sconce_queue_depth", "Queued items", None, |it| it.queue.items as f64),
            ("sconce_queue_weight", "Weight of the queued items", None, |it| it.queue.weight as f64),
            ("sconce_queue_oldest_age", "Time for which the oldest item has been queued", Some(&Unit::Seconds), |it| {
                it.queue.oldest_age.as_secs_f64()
            }),
            ("sconce_queue_waiting_for_room", "Items whose callers wait for room in the queue", None, |it| {
                it.queue.waiting_for_room as f64
            }),
        ];
        for (name, help, unit, figure) in figures {
            gauges(out, name, help, unit, self.each(figure))?;
        }
        let left = self.models().flat_map(|(model, metrics)| {
            let left = [("cancelled", metrics.queue.cancelled), ("dropped", metrics.queue.dropped)];
            left.map(|(reason, count)| {
                (vec![("model", model), ("version", &*metrics.version), ("reason", reason)], count)
            })
        });
        counters(out, "sconce_queue_left_items", "Items that left the queue without running", None, left)
    }

    fn batches(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let help = "Number of items of each batch";
        let mut family = out.encode_descriptor("sconce_batch_size", help, None, MetricType::Histogram)?;
        for (model, metrics) in self.models() {
            let bound = |size: Option<u64>| size.map_or(f64::INFINITY, |size| size as f64);
            let buckets: Vec<_> = metrics.batches.iter().map(|it| (bound(it.max_size), it.batches)).collect();
            let count = metrics.batches.iter().map(|it| it.batches).sum();
            let sum = metrics.batched_items as f64;
            family
                .encode_family(&[("model", model), ("version", &*metrics.version)])?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn devices(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let devices = || {
            self.models().flat_map(|(model, metrics)| {
                metrics.devices.iter().map(move |device| {
                    let (version, precision) = (("version", &*metrics.version), ("precision", device.precision));
                    (vec![("model", model), version, ("device", &*device.name), precision], device)
                })
            })
        };
        let busy = devices().map(|(labels, device)| (labels, device.busy.as_secs_f64()));
        let help = "Time for which a device ran batches; its rate is the utilisation";
        counters(out, "sconce_device_busy", help, Some(&Unit::Seconds), busy)?;
        let available = devices().map(|(labels, device)| (labels, f64::from(u8::from(device.available))));
        gauges(out, "sconce_device_available", "1 unless the device is lost", None, available)?;
        let fixed = devices().filter_map(|(labels, device)| Some((labels, device.fixed_cost?)));
        let help = "Learned time of a batch without its weight";
        gauges(out, "sconce_batch_fixed_cost", help, Some(&Unit::Seconds), fixed)?;
        let per_weight = devices().filter_map(|(labels, device)| Some((labels, device.cost_per_weight?)));
        let help = "Learned time that a unit of weight adds to a batch";
        gauges(out, "sconce_batch_weight_cost", help, Some(&Unit::Seconds), per_weight)
    }

    fn caches(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let tiers = self.0.tiers.iter().flat_map(|tier| {
            let results = [("hit", tier.hits), ("miss", tier.misses), ("failure", tier.failures)];
            results.map(|(result, count)| (vec![("tier", tier.tier), ("result", result)], count))
        });
        let prepared = self.0.prepared_inputs.iter().flat_map(|it| {
            [("hit", it.hits), ("miss", it.misses)]
                .map(|(result, count)| (vec![("tier", "prepared_inputs"), ("result", result)], count))
        });
        let help = "Lookups in each tier of the cache, by result";
        counters(out, "sconce_cache_lookups", help, None, tiers.chain(prepared))?;
        let lost = self.0.tiers.iter().map(|tier| (vec![("tier", tier.tier)], tier.lost));
        counters(out, "sconce_cache_lost_entries", "Entries that a tier did not store", None, lost)?;
        let bytes = self.0.tiers.iter().filter_map(|tier| Some((vec![("tier", tier.tier)], tier.held_bytes? as f64)));
        let inputs = self.0.prepared_inputs.iter();
        let inputs = inputs.map(|it| (vec![("tier", "prepared_inputs")], it.held_bytes as f64));
        let help = "Memory that a tier of the cache holds";
        gauges(out, "sconce_cache_held", help, Some(&Unit::Bytes), bytes.chain(inputs))
    }

    fn degradations(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let degradations = || {
            self.models().flat_map(|(model, metrics)| {
                metrics.degradations.iter().map(move |it| {
                    let device = it.device.as_deref().unwrap_or_default();
                    let precision = ("precision", it.precision.unwrap_or_default());
                    let version = ("version", &*metrics.version);
                    (vec![("model", model), version, ("stage", it.stage), ("device", device), precision], it)
                })
            })
        };
        let help = "Stages that are worse than they were: the present figure as a multiple of the usual one";
        let ratios = degradations().map(|(labels, it)| (labels, it.ratio));
        gauges(out, "sconce_degradation", help, Some(&Unit::Ratios), ratios)?;
        let since = degradations()
            .map(|(labels, it)| (labels, it.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()));
        let help = "Estimated beginning of each degradation, as Unix time";
        gauges(out, "sconce_degradation_since_timestamp", help, Some(&Unit::Seconds), since)
    }

    fn precisions(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let answers = self.counts("precision", |metrics| &metrics.answer_precisions);
        let help = "Answered items by the precision that made them";
        counters(out, "sconce_precision_answers", help, None, answers)?;
        let ladders = || self.models().filter_map(|(model, metrics)| Some((model, metrics, metrics.ladder.as_ref()?)));
        let active = ladders().flat_map(|(model, metrics, ladder)| {
            ladder.precisions.iter().map(move |precision| {
                let labels = vec![("model", model), ("version", &*metrics.version), ("precision", *precision)];
                (labels, f64::from(u8::from(*precision == metrics.precision)))
            })
        });
        let help = "1 for the precision that a model with several answers in, 0 for the others";
        gauges(out, "sconce_active_precision", help, None, active)?;
        let steps = ladders().flat_map(|(model, metrics, ladder)| {
            [("down", ladder.steps_down), ("up", ladder.steps_up)].map(|(direction, count)| {
                (vec![("model", model), ("version", &*metrics.version), ("direction", direction)], count)
            })
        });
        counters(out, "sconce_ladder_steps", "Steps to a lower or a higher precision", None, steps)
    }

    fn shadows(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let shadows = || {
            self.models().flat_map(|(model, metrics)| {
                metrics.shadow.iter().map(move |it| {
                    (vec![("model", model), ("version", &*metrics.version), ("precision", it.precision)], it)
                })
            })
        };
        let checks = shadows().flat_map(|(labels, it)| {
            [("alike", it.alike), ("different", it.different)]
                .map(|(result, count)| ([&labels[..], &[("result", result)]].concat(), count))
        });
        let help = "Answers in a lower precision that were compared with those in f32";
        counters(out, "sconce_shadow_checks", help, None, checks)?;
        let checked = self.models().filter(|(_, metrics)| !metrics.shadow.is_empty());
        let dropped = checked
            .map(|(model, metrics)| (vec![("model", model), ("version", &*metrics.version)], metrics.shadow_dropped));
        let help = "Answers that were not compared because the machine was busy";
        counters(out, "sconce_shadow_dropped", help, None, dropped)?;
        let alarms = shadows().map(|(labels, it)| (labels, f64::from(u8::from(it.alarm))));
        let help = "1 if answers in a precision differ from those in f32 by more than is allowed";
        gauges(out, "sconce_shadow_alarm", help, None, alarms)
    }

    fn process(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let RuntimeMetrics { uptime, in_flight, preparing, resident_bytes, .. } = &self.0;
        let in_flight = ConstGauge::new(*in_flight as f64);
        bare(out, "sconce_in_flight_requests", "Servers' requests that are not answered", None, &in_flight)?;
        let threads = ConstGauge::new(preparing.threads as f64);
        bare(out, "sconce_prepare_threads", "Threads that may prepare long inputs at a time", None, &threads)?;
        let help = "Time for which threads prepared long inputs; its rate by sconce_prepare_threads is the utilisation";
        let busy = ConstCounter::new(preparing.busy.as_secs_f64());
        bare(out, "sconce_prepare_busy", help, Some(&Unit::Seconds), &busy)?;
        let uptime = ConstGauge::new(uptime.as_secs_f64());
        bare(out, "sconce_uptime", "Time since the runtime was built", Some(&Unit::Seconds), &uptime)?;
        if let Some(bytes) = resident_bytes {
            let bytes = ConstGauge::new(*bytes as f64);
            bare(out, "process_resident_memory", "Resident memory of the process", Some(&Unit::Bytes), &bytes)?;
        }
        Ok(())
    }

    fn each(&self, figure: Figure) -> impl Iterator<Item = (Labels<'_>, f64)> {
        self.models()
            .map(move |(model, metrics)| (vec![("model", model), ("version", &*metrics.version)], figure(metrics)))
    }

    fn counts<'a>(
        &'a self,
        label: &'static str,
        counts: fn(&ModelMetrics) -> &[Count],
    ) -> impl Iterator<Item = (Labels<'a>, u64)> {
        self.models().flat_map(move |(model, metrics)| {
            counts(metrics)
                .iter()
                .map(move |it| (vec![("model", model), ("version", &*metrics.version), (label, it.name)], it.count))
        })
    }
}

fn counters<'a, N>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    counts: impl Iterator<Item = (Labels<'a>, N)>,
) -> Result<(), Error>
where
    ConstCounter<N>: EncodeMetric,
{
    let mut family = out.encode_descriptor(name, help, unit, MetricType::Counter)?;
    for (labels, count) in counts {
        ConstCounter::new(count).encode(family.encode_family(&labels.as_slice())?)?;
    }
    Ok(())
}

fn gauges<'a>(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    figures: impl Iterator<Item = (Labels<'a>, f64)>,
) -> Result<(), Error> {
    let mut family = out.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, figure) in figures {
        ConstGauge::new(figure).encode(family.encode_family(&labels.as_slice())?)?;
    }
    Ok(())
}

/// A family of one metric without labels.
fn bare(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> Result<(), Error> {
    metric.encode(out.encode_descriptor(name, help, unit, metric.metric_type())?)
}
