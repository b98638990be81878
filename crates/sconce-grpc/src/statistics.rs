//! A model's requests in the words of `ModelStatistics`.

use std::time::UNIX_EPOCH;

use sconce::{Model, Total};

use crate::proto::{InferBatchStatistics, InferStatistics, ModelStatistics, StatisticDuration};

/// The figures of a model since it was loaded.
pub(crate) fn of(model: &Model) -> ModelStatistics {
    let stats = model.request_stats();
    let since_1970 = stats.last.and_then(|last| last.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let batches = |(size, items): (&usize, &sconce::BatchItems)| (*size, items.batches(*size));
    let batches: Vec<(usize, Total)> = stats.by_batch_size.iter().map(batches).collect();
    ModelStatistics {
        name: model.name().to_owned(),
        version: model.version().to_string(),
        last_inference: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        inference_count: stats.by_batch_size.values().map(|items| items.items).sum(),
        execution_count: batches.iter().map(|(_, total)| total.count).sum(),
        inference_stats: Some(InferStatistics {
            success: Some(duration(stats.succeeded)),
            fail: Some(duration(stats.failed)),
            queue: Some(duration(stats.queue)),
            compute_input: Some(duration(stats.prepare)),
            compute_infer: Some(duration(stats.run)),
            compute_output: Some(duration(stats.rest)),
            cache_hit: Some(duration(stats.cached)),
        }),
        batch_stats: batches.into_iter().map(|(size, total)| of_size(size, total)).collect(),
    }
}

fn of_size(size: usize, total: Total) -> InferBatchStatistics {
    InferBatchStatistics { batch_size: size as u64, compute_infer: Some(duration(total)) }
}

fn duration(Total { count, time }: Total) -> StatisticDuration {
    StatisticDuration { count, ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) }
}
