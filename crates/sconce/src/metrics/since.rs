//! The figures of the time between two snapshots.

use super::{
    BatchCount, Count, DeviceMetrics, ModelMetrics, PreparedInputMetrics, PreparingMetrics, QueueMetrics,
    RuntimeMetrics, StageLatencies, TierMetrics,
};

impl RuntimeMetrics {
    /// The figures of the time after `earlier`, a snapshot of the same runtime: counts and times are what was added since,
    /// [`uptime`](Self::uptime) is the time that passed, and states, such as the depth of a queue, are the present ones.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
    /// # let runtime = sconce::Runtime::builder().model(zoo.join("tiny-bert-sentiment")).build()?;
    /// let earlier = runtime.metrics();
    /// runtime.model("tiny-bert-sentiment")?.infer("What a wonderful day!").await?;
    ///
    /// let recent = runtime.metrics().since(&earlier);
    /// let per_second = recent.models[0].succeeded as f64 / recent.uptime.as_secs_f64();
    /// let utilisation = recent.models[0].devices[0].busy.as_secs_f64() / recent.uptime.as_secs_f64();
    /// # assert!(per_second > 0.0 && (0.0..=1.0).contains(&utilisation));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let models = self.models.iter().map(|model| {
            // A model that was loaded anew counts from nothing.
            let same = |it: &&ModelMetrics| {
                it.name == model.name && it.version == model.version && it.succeeded <= model.succeeded
            };
            earlier.models.iter().find(same).map_or_else(|| model.clone(), |earlier| model.since(earlier))
        });
        let tiers = self.tiers.iter().map(|tier| {
            let earlier = earlier.tiers.iter().find(|it| it.tier == tier.tier);
            earlier.map_or(*tier, |earlier| tier.since(earlier))
        });
        let prepared_inputs = self.prepared_inputs.map(|it| it.since(earlier.prepared_inputs.as_ref()));
        Self {
            uptime: self.uptime.saturating_sub(earlier.uptime),
            models: models.collect(),
            tiers: tiers.collect(),
            prepared_inputs,
            preparing: PreparingMetrics {
                busy: self.preparing.busy.saturating_sub(earlier.preparing.busy),
                ..self.preparing
            },
            ..*self
        }
    }
}

impl ModelMetrics {
    fn since(&self, earlier: &Self) -> Self {
        Self {
            name: self.name.clone(),
            version: self.version.clone(),
            precision: self.precision,
            decision: self.decision.clone(),
            decisions: self.decisions.clone(),
            succeeded: self.succeeded.saturating_sub(earlier.succeeded),
            failed: self.failed.saturating_sub(earlier.failed),
            errors: counts_since(&self.errors, &earlier.errors),
            answers: counts_since(&self.answers, &earlier.answers),
            answer_precisions: counts_since(&self.answer_precisions, &earlier.answer_precisions),
            refusals: counts_since(&self.refusals, &earlier.refusals),
            latency: self.latency.since(&earlier.latency),
            exemplar: self.exemplar,
            queue: QueueMetrics {
                cancelled: self.queue.cancelled.saturating_sub(earlier.queue.cancelled),
                dropped: self.queue.dropped.saturating_sub(earlier.queue.dropped),
                ..self.queue
            },
            batches: self.batches.iter().zip(&earlier.batches).map(|(now, earlier)| now.since(*earlier)).collect(),
            batched_items: self.batched_items.saturating_sub(earlier.batched_items),
            devices: self.devices.iter().map(|device| device.since(&earlier.devices)).collect(),
            degradations: self.degradations.clone(),
            // Steps and differences are rare: how many there were in the last minute says little.
            ladder: self.ladder.clone(),
            shadow: self.shadow.clone(),
            shadow_dropped: self.shadow_dropped,
        }
    }
}

impl StageLatencies {
    fn since(&self, earlier: &Self) -> Self {
        let mut sums = self.sums;
        sums.iter_mut().zip(earlier.sums).for_each(|(now, earlier)| *now = (*now - earlier).max(0.0));
        Self {
            sums,
            request: self.request.since(&earlier.request),
            cache: self.cache.since(&earlier.cache),
            prepare: self.prepare.since(&earlier.prepare),
            queue: self.queue.since(&earlier.queue),
            run: self.run.since(&earlier.run),
            finish: self.finish.since(&earlier.finish),
            serialise: self.serialise.since(&earlier.serialise),
        }
    }
}

impl DeviceMetrics {
    fn since(&self, earlier: &[Self]) -> Self {
        let same = |it: &&Self| it.name == self.name && it.precision == self.precision;
        let earlier = earlier.iter().find(same).map(|it| it.busy).unwrap_or_default();
        Self { busy: self.busy.saturating_sub(earlier), ..self.clone() }
    }
}

impl BatchCount {
    fn since(self, earlier: Self) -> Self {
        Self { batches: self.batches.saturating_sub(earlier.batches), ..self }
    }
}

impl TierMetrics {
    fn since(self, earlier: &Self) -> Self {
        Self {
            hits: self.hits.saturating_sub(earlier.hits),
            misses: self.misses.saturating_sub(earlier.misses),
            failures: self.failures.saturating_sub(earlier.failures),
            lost: self.lost.saturating_sub(earlier.lost),
            ..self
        }
    }
}

impl PreparedInputMetrics {
    fn since(self, earlier: Option<&Self>) -> Self {
        let (hits, misses) = earlier.map_or((0, 0), |earlier| (earlier.hits, earlier.misses));
        Self { hits: self.hits.saturating_sub(hits), misses: self.misses.saturating_sub(misses), ..self }
    }
}

fn counts_since(now: &[Count], earlier: &[Count]) -> Vec<Count> {
    let since = |it: &Count| {
        let before = earlier.iter().find(|earlier| earlier.name == it.name).map_or(0, |earlier| earlier.count);
        Count { count: it.count.saturating_sub(before), ..*it }
    };
    now.iter().map(since).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::Runtime;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_figures_since_a_snapshot_leave_out_what_was_before_it() {
        let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
        let runtime = Runtime::builder().model(zoo.join("tiny-bert-sentiment")).build().unwrap();
        let model = runtime.model("tiny-bert-sentiment").unwrap();
        model.infer("before").await.unwrap();
        let earlier = runtime.metrics();
        for _ in 0..3 {
            model.infer("after").await.unwrap();
        }
        let recent = runtime.metrics().since(&earlier);
        let recent_model = &recent.models[0];
        assert_eq!((recent_model.succeeded, recent_model.batched_items), (3, 3));
        assert_eq!((recent_model.latency.request.count(), recent_model.latency.run.count()), (3, 3));
        assert_eq!(recent_model.answers[0].count, 3);
        assert_eq!(recent_model.batches.iter().map(|it| it.batches).sum::<u64>(), 3);
        let all = runtime.metrics();
        // The batch before may have ended on its device after its answer was there.
        let busy = recent_model.devices[0].busy;
        assert!(busy <= all.uptime, "{busy:?} of {:?}", all.uptime);
        assert!(recent.uptime < all.uptime && all.models[0].succeeded == 4);
        let mut reloaded = all.clone();
        reloaded.models[0].succeeded = 2;
        assert_eq!(reloaded.since(&all).models[0].succeeded, 2, "a model that was loaded anew counts from nothing");
    }
}
