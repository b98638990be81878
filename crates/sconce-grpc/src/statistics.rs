//! A model's requests in the words of `ModelStatistics`.

use std::time::UNIX_EPOCH;

use sconce::{BatchItems, Model, Total};

use crate::proto::{InferBatchStatistics, InferStatistics, ModelStatistics, StatisticDuration};

/// The figures of a model since it was loaded.
pub(crate) fn of(model: &Model) -> ModelStatistics {
    let stats = model.request_stats();
    let since_1970 = stats.last.and_then(|last| last.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let batches = stats.by_batch_size.iter().map(|(size, items)| (*size, *items));
    ModelStatistics {
        name: model.name().to_owned(),
        version: model.version().to_string(),
        last_inference: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        inference_count: stats.by_batch_size.values().map(|items| items.items).sum(),
        execution_count: batches.clone().map(|(size, items)| items.batches(size).count).sum(),
        inference_stats: Some(InferStatistics {
            success: Some(duration(stats.succeeded)),
            fail: Some(duration(stats.failed)),
            queue: Some(duration(stats.queue)),
            compute_input: Some(duration(stats.prepare)),
            compute_infer: Some(duration(stats.run)),
            compute_output: Some(duration(stats.rest)),
            cache_hit: Some(duration(stats.cached)),
        }),
        batch_stats: batches.map(|(size, items)| of_size(size, items)).collect(),
    }
}

fn of_size(size: usize, items: BatchItems) -> InferBatchStatistics {
    InferBatchStatistics {
        batch_size: size as u64,
        compute_input: Some(duration(items.batches_prepared(size))),
        compute_infer: Some(duration(items.batches(size))),
        compute_output: Some(duration(items.batches_finished(size))),
    }
}

fn duration(Total { count, time }: Total) -> StatisticDuration {
    StatisticDuration { count, ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) }
}
