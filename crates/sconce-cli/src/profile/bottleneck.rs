//! The bottleneck of a profile, in words with figures.

use std::fmt::Write as _;

use crate::replay::STAGES;
use crate::replay::stage::{CACHE, FINISH, PREPARE, QUEUE, RUN};

/// The figures that decide.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Signs {
    /// Share of each stage in the time of all requests, in the order of the stages.
    pub(crate) shares: [f64; STAGES.len()],
    /// Share of each stage in the time of the slowest hundredth.
    pub(crate) of_slowest: [f64; STAGES.len()],
    /// Share of the time for which the device ran batches.
    pub(crate) utilisation: f64,
    /// Items of a batch on average.
    pub(crate) batch_size: f64,
    /// Share of the requests that were refused or failed.
    pub(crate) failed: f64,
}

/// Utilisation from which on a device is said to be busy: above it waiting times grow steeply.
const BUSY: f64 = 0.8;

/// The bottleneck, and what would help.
pub(crate) fn in_words(signs: &Signs) -> String {
    let (largest, share) = largest_of(&signs.shares);
    if share <= 0.0 {
        return "Nothing was answered, so nothing can be said of where time goes.".to_owned();
    }
    let mut words = match signs.overload() {
        Some(words) => words,
        None => signs.of_stage(largest, &percent(share)),
    };
    let (slow, share) = largest_of(&signs.of_slowest);
    if slow != largest && share > 0.0 {
        let (name, share) = (STAGES[slow], percent(share));
        let _ = write!(words, " In the slowest 1 % of the requests it is {name}: {share} of their time.");
    }
    words
}

impl Signs {
    fn overload(&self) -> Option<String> {
        let Self { utilisation, failed, .. } = *self;
        (failed > 0.01 && utilisation > BUSY).then(|| {
            format!(
                "The load is more than the device can take: it was busy for {} of the time, and {} of the requests were refused. \
                 Fewer requests, another replica or a faster device or precision would help.",
                percent(utilisation),
                percent(failed)
            )
        })
    }

    /// Words about the stage that has the largest share.
    fn of_stage(&self, stage: usize, share: &str) -> String {
        let Self { utilisation, batch_size, .. } = *self;
        let busy = percent(utilisation);
        match stage {
            QUEUE if utilisation > BUSY => format!(
                "The device is the bottleneck: it was busy for {busy} of the time, in batches of {batch_size:.1}, and requests \
                 spent {share} of theirs in its queue. A faster precision or device, or another replica, would help."
            ),
            QUEUE => format!(
                "Requests spend {share} of their time in the queue, although the device was busy for only {busy}: they come in \
                 bursts, or wait while one batch runs. Smaller batches shorten the wait; another replica takes a part of the bursts."
            ),
            RUN => format!(
                "The forward pass is the largest part, {share}, in batches of {batch_size:.1}; the device was busy for {busy}. More \
                 threads, a faster precision or shorter inputs would help, and more replicas would not."
            ),
            PREPARE => format!(
                "Preparing inputs is the largest part, {share}: tokenising takes longer than the model. A cache of prepared inputs \
                 (--cache-inputs) helps if inputs come again; else more processor cores."
            ),
            CACHE => format!(
                "Looking answers up is the largest part, {share}. A tier in memory before a slow one, or none at all, would help."
            ),
            FINISH => format!(
                "Making answers of the network's rows is the largest part, {share}. More processor cores would help."
            ),
            _ => format!(
                "Waiting for a thread of the processor is the largest part, {share}: the cores are busy with other work, or with \
                 this load's own preparing. Fewer --cpu-threads leave more to it."
            ),
        }
    }
}

/// Index of the stage with the largest share, and that share.
fn largest_of(shares: &[f64; STAGES.len()]) -> (usize, f64) {
    let largest = shares.iter().copied().enumerate().max_by(|(_, one), (_, other)| one.total_cmp(other));
    largest.unwrap_or((RUN, 0.0))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::stage::HAND_OFFS;

    fn signs(largest: usize, utilisation: f64, failed: f64) -> Signs {
        let mut shares = [0.02; 6];
        shares[largest] = 0.9;
        Signs { shares, of_slowest: shares, utilisation, batch_size: 3.0, failed }
    }

    #[test]
    fn each_bottleneck_is_named_with_what_would_help() {
        let table = [
            (signs(QUEUE, 0.95, 0.0), "The device is the bottleneck: it was busy for 95 %"),
            (signs(QUEUE, 0.3, 0.0), "although the device was busy for only 30 %"),
            (signs(RUN, 0.3, 0.0), "The forward pass is the largest part, 90 %"),
            (signs(PREPARE, 0.3, 0.0), "--cache-inputs"),
            (signs(CACHE, 0.0, 0.0), "Looking answers up"),
            (signs(FINISH, 0.3, 0.0), "Making answers"),
            (signs(HAND_OFFS, 0.3, 0.0), "Waiting for a thread"),
            (signs(QUEUE, 1.0, 0.4), "The load is more than the device can take"),
        ];
        for (signs, said) in table {
            let words = in_words(&signs);
            assert!(words.contains(said), "{words} lacks {said}");
            assert!(!words.contains("slowest 1 %"), "{words}");
        }
    }

    #[test]
    fn slow_requests_that_have_another_bottleneck_are_told_of() {
        let mut signs = signs(RUN, 0.3, 0.0);
        signs.of_slowest = [0.0, 0.0, 0.8, 0.2, 0.0, 0.0];
        assert!(in_words(&signs).contains("In the slowest 1 % of the requests it is queue: 80 %"));
        signs.shares = [0.0; 6];
        assert!(in_words(&signs).starts_with("Nothing was answered"));
    }
}
