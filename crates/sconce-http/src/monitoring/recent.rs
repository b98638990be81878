//! The figures of the last minute, as the difference of two snapshots.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sconce::RuntimeMetrics;

/// The time that recent figures cover, once the server has been watched for that long.
const COVERED: Duration = Duration::from_mins(1);
/// Time between two kept snapshots. Each has 112 KiB for each model; a shorter time would keep more of them.
const APART: Duration = Duration::from_secs(10);

/// Snapshots of at most the last minute. They are taken only while someone asks for recent figures, so a server that nobody
/// watches keeps none.
#[derive(Debug, Default)]
pub(super) struct RecentMetrics(Mutex<VecDeque<RuntimeMetrics>>);

impl RecentMetrics {
    /// The figures between a snapshot of about a minute ago and `now`; those since the start, if there is no such snapshot
    /// yet.
    pub(super) fn update(&self, now: &RuntimeMetrics) -> RuntimeMetrics {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |snapshot: &RuntimeMetrics| now.uptime.saturating_sub(snapshot.uptime);
        while kept.front().is_some_and(|oldest| age(oldest) > COVERED + APART) {
            kept.pop_front();
        }
        let recent = kept.front().map_or_else(|| now.clone(), |earlier| now.since(earlier));
        if kept.back().is_none_or(|newest| age(newest) >= APART) {
            kept.push_back(now.clone());
        }
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_figures_cover_about_a_minute_while_they_are_asked_for_and_few_snapshots_are_kept() {
        let zoo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/zoo");
        let mut now = sconce::Runtime::builder().model(zoo.join("digits-cnn")).build().unwrap().metrics();
        let recent = RecentMetrics::default();
        let mut covered = |seconds: u64| {
            now.uptime = Duration::from_secs(seconds);
            recent.update(&now).uptime.as_secs()
        };
        assert_eq!(covered(100), 100, "before there is a snapshot: since the start");
        assert_eq!((covered(101), covered(110)), (1, 10));
        for second in 111..=400 {
            let seconds = covered(second);
            assert!(seconds <= 70 && seconds >= (second - 100).min(60), "{second}: {seconds}");
        }
        assert!(recent.0.lock().unwrap().len() <= 8);
        assert_eq!(covered(4000), 4000, "old snapshots are dropped");
        assert_eq!(recent.0.lock().unwrap().len(), 1);
    }
}
