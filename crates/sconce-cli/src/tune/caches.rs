//! The memory that a cache of answers would take for a load, and the share of the load that it would answer.

use std::collections::HashSet;

use sconce::cache::MemoryConfig;
use sconce::{AnswerCache, Runtime};
use sconce_trace::RequestTrace;

use super::calibrate::Bench;
use crate::error::Error;
use crate::explain::bytes;
use crate::replay::ReplayPlan;

/// The inputs of a load, as a cache sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheDemand {
    pub(crate) inputs: usize,
    /// Inputs that are unlike each other.
    pub(crate) distinct: usize,
    /// Bytes that a cache in memory takes for one answer.
    pub(crate) answer_bytes: u64,
}

impl CacheDemand {
    /// Looks at the contents of a trace; `None` if it has none, or its answers are not cached. One answer is computed, to see
    /// how much a cache takes for it.
    pub(crate) async fn of(trace: &RequestTrace, bench: &Bench<'_>) -> Result<Option<Self>, Error> {
        let contents = || trace.requests().iter().flat_map(|request| &request.inputs);
        let Some(first) = trace.requests().iter().find(|request| !request.inputs.is_empty()) else { return Ok(None) };
        let cache = AnswerCache::builder().memory(MemoryConfig::default()).build().expect("the default is valid");
        let builder = bench.compute.apply(Runtime::builder().batching(bench.batching.clone())).cache(cache);
        let runtime = builder.model(bench.source.clone()).build()?;
        let model = runtime.model(bench.name).expect("the runtime was built with this model");
        let one = ReplayPlan::new(&RequestTrace::new("one request", vec![first.clone()]), &model);
        // An input that fails has no answer, and is cached by nobody.
        let _ = model.infer_many(one.group(0)).await;
        let tiers = runtime.cache().map(|cache| cache.stats().tiers).unwrap_or_default();
        let kept = tiers.first().filter(|tier| tier.puts > 0).map(|tier| tier.written_bytes / tier.puts);
        runtime.shutdown().await;
        let distinct = contents().collect::<HashSet<_>>().len();
        Ok(kept.map(|answer_bytes| Self { inputs: contents().count(), distinct, answer_bytes }))
    }

    /// Bytes of a cache that holds every answer of the load.
    pub(crate) fn bytes(self) -> u64 {
        self.answer_bytes.saturating_mul(self.distinct as u64)
    }

    /// Share of the inputs that such a cache would answer.
    pub(crate) fn hits(self) -> f64 {
        (self.inputs - self.distinct) as f64 / self.inputs.max(1) as f64
    }

    /// The advice in words.
    pub(crate) fn in_words(demand: Option<Self>) -> String {
        match demand {
            None => "Caches: the load has no contents, so nothing can be said of them (record it with --record-trace-contents)."
                .to_owned(),
            Some(demand) if demand.distinct == demand.inputs => {
                "Caches: no input of the load comes again, so a cache of answers would not help.".to_owned()
            }
            Some(demand) => format!(
                "Caches: {:.0} % of the inputs come again; {} of memory hold the answers to all of them (--cache-memory). The \
                 figures above are without a cache.",
                demand.hits() * 100.0,
                bytes(demand.bytes())
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_that_come_again_are_what_a_cache_answers() {
        let demand = CacheDemand { inputs: 8, distinct: 6, answer_bytes: 1 << 20 };
        assert_eq!((demand.bytes(), demand.hits()), (6 << 20, 0.25));
        assert!(CacheDemand::in_words(Some(demand)).contains("25 % of the inputs come again; 6.00 MiB of memory"));
        assert!(CacheDemand::in_words(Some(CacheDemand { inputs: 6, ..demand })).contains("no input of the load"));
        assert!(CacheDemand::in_words(None).contains("--record-trace-contents"));
    }
}
