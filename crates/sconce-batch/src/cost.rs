//! The cost of a batch, learned from the batches that ran: latency = a + c · weight.
//!
//! The line is fitted by least squares in which older batches count for less. Other batching systems profile it offline
//! (Clipper, NSDI 2017; Nexus, SOSP 2019); here it follows the device. The margin follows the 99th percentile of the
//! time that batches took beyond the line (stochastic approximation, Robbins and Monro 1951).

use std::time::Duration;

/// Factor by which a batch counts less with each batch that follows it: 70 batches later it counts half.
const DECAY: f64 = 0.99;
/// Number of batches before which the cost is unknown.
const MIN_OBSERVATIONS: u32 = 8;
/// Largest multiple of its prediction that a batch counts as. So one stall does not spoil the line, while a device that has
/// really become slower is learned within a few batches.
const MAX_SURPRISE: f64 = 4.0;
/// Share of batches that the margin covers.
const MARGIN_QUANTILE: f64 = 0.99;

/// The learned cost of a batch. Its fields hold seconds, its methods take and give [`Duration`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CostModel {
    observations: u32,
    // Sums over the batches, decayed by `DECAY`.
    ones: f64,
    weights: f64,
    runs: f64,
    weights_squared: f64,
    weights_times_runs: f64,
    /// Average of the absolute difference between a batch's time and the line.
    mean_deviation: f64,
    /// The 99th percentile of the time beyond the line.
    margin: f64,
    line: CostLine,
}

/// The line a + c · weight, in seconds. Not in [`Duration`]s, because a unit of weight may cost less than a nanosecond.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CostLine {
    /// `a`: the fixed cost of a batch of any size, in seconds.
    pub fixed: f64,
    /// `c`: the cost that each unit of weight adds, in seconds.
    pub per_weight: f64,
}

impl CostLine {
    /// Cost of a batch of `weight`, in seconds.
    #[must_use]
    pub fn at(self, weight: usize) -> f64 {
        self.fixed + self.per_weight * weight as f64
    }
}

impl CostModel {
    /// Learns from a batch of `weight` that took `run`.
    pub fn observe(&mut self, weight: usize, run: Duration) {
        let mut run = run.as_secs_f64();
        if self.is_known() {
            let predicted = self.line.at(weight);
            run = run.min(predicted * MAX_SURPRISE);
            self.observe_deviation(run - predicted);
        }
        let weight = weight as f64;
        for (sum, value) in [
            (&mut self.ones, 1.0),
            (&mut self.weights, weight),
            (&mut self.runs, run),
            (&mut self.weights_squared, weight * weight),
            (&mut self.weights_times_runs, weight * run),
        ] {
            *sum = *sum * DECAY + value;
        }
        self.observations = self.observations.saturating_add(1);
        self.line = self.fit();
    }

    /// Returns true once enough batches ran to predict.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.observations >= MIN_OBSERVATIONS
    }

    /// Average time of a batch of `weight`; `None` until the cost is known.
    #[must_use]
    pub fn predict(&self, weight: usize) -> Option<Duration> {
        self.known(self.line.at(weight))
    }

    /// Time that 99 of 100 batches of `weight` do not exceed, but at most twice their average; `None` until the cost is
    /// known.
    ///
    /// On a busy processor the margin can be many times the cost. Were all of it counted, no batch would be small enough and
    /// no item early enough, though most of them would be in time.
    #[must_use]
    pub fn predict_with_margin(&self, weight: usize) -> Option<Duration> {
        let run = self.line.at(weight);
        self.known(run + self.margin.min(run))
    }

    /// Weight of the largest batch that takes no longer than `time`, its margin included as in
    /// [`predict_with_margin`](Self::predict_with_margin); `None` until the cost is known.
    #[must_use]
    pub fn weight_within(&self, time: Duration) -> Option<usize> {
        let time = time.as_secs_f64();
        self.is_known().then(|| self.weight_of((time - self.margin).max(time / 2.0)))
    }

    /// Weight of the largest batch for items that have `time` from arrival to deadline. It takes half of that, margin
    /// included, so that an item that just missed a batch makes the next; but at least twice the fixed cost, if that
    /// leaves a quarter of the time: a smaller batch spends more on its fixed cost than on its items.
    pub(crate) fn weight_for(&self, time: Duration) -> Option<usize> {
        let time = time.as_secs_f64();
        let (half, worthwhile) = ((time / 2.0 - self.margin).max(time / 4.0), (2.0 * self.line.fixed).min(0.75 * time));
        self.is_known().then(|| self.weight_of(half.max(worthwhile)))
    }

    /// Time as of [`predict_with_margin`](Self::predict_with_margin), for items that have `time` from arrival to
    /// deadline. The margin counts for at most half of the time that the average batch leaves, so that the other half
    /// is there for waiting. Otherwise no batch of a busy device could be in time.
    pub(crate) fn predict_within(&self, weight: usize, time: Option<Duration>) -> Option<Duration> {
        let run = self.line.at(weight);
        let spare = time.map_or(f64::INFINITY, |time| (time.as_secs_f64() - run).max(0.0));
        self.known(run + self.margin.min(run).min(spare / 2.0))
    }

    /// Weight of the batch that takes `run` seconds on average.
    fn weight_of(&self, run: f64) -> usize {
        /// Added so that a weight that fits exactly is not lost to rounding.
        const TOLERANCE: f64 = 0.01;
        if self.line.per_weight <= 0.0 {
            // As far as is known every weight costs the same; the next heavier batch will correct that.
            return usize::MAX;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and it saturates")]
        let weight = ((run - self.line.fixed).max(0.0) / self.line.per_weight + TOLERANCE) as usize;
        weight
    }

    /// The line; `None` until the cost is known.
    #[must_use]
    pub fn line(&self) -> Option<CostLine> {
        self.is_known().then_some(self.line)
    }

    /// `a`: the fixed cost of a batch of any size.
    #[must_use]
    pub fn fixed(&self) -> Option<Duration> {
        self.known(self.line.fixed)
    }

    /// `c`: the cost that each unit of weight adds.
    #[must_use]
    pub fn per_weight(&self) -> Option<Duration> {
        self.known(self.line.per_weight)
    }

    /// The 99th percentile of the time that batches took beyond their prediction.
    #[must_use]
    pub fn margin(&self) -> Option<Duration> {
        self.known(self.margin)
    }

    /// Weight that costs as much as the fixed cost of a batch; infinite if weight costs nothing.
    pub(crate) fn fixed_in_weight(&self) -> Option<f64> {
        self.is_known().then(|| self.line.fixed / self.line.per_weight)
    }

    fn known(&self, seconds: f64) -> Option<Duration> {
        self.is_known().then(|| crate::saturate::seconds(seconds))
    }

    /// Fits the line by least squares; neither part becomes negative. If all batches weigh the same, the two parts cannot be
    /// told apart, and the whole cost counts as fixed.
    fn fit(&self) -> CostLine {
        let (mean_weight, mean_run) = (self.weights / self.ones, self.runs / self.ones);
        let variance = self.weights_squared / self.ones - mean_weight * mean_weight;
        let covariance = self.weights_times_runs / self.ones - mean_weight * mean_run;
        let told_apart = variance > 1e-6 * mean_weight * mean_weight;
        let per_weight = if told_apart { (covariance / variance).max(0.0) } else { 0.0 };
        let fixed = mean_run - per_weight * mean_weight;
        if fixed < 0.0 {
            return CostLine { fixed: 0.0, per_weight: mean_run / mean_weight };
        }
        CostLine { fixed, per_weight }
    }

    fn observe_deviation(&mut self, deviation: f64) {
        self.mean_deviation += (deviation.abs() - self.mean_deviation) / 20.0;
        let above = if deviation > self.margin { MARGIN_QUANTILE } else { MARGIN_QUANTILE - 1.0 };
        self.margin = (self.margin + self.mean_deviation * above).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: f64) -> Duration {
        Duration::from_secs_f64(value / 1000.0)
    }

    fn learned(batches: impl IntoIterator<Item = (usize, f64)>) -> CostModel {
        let mut cost = CostModel::default();
        batches.into_iter().for_each(|(weight, run_ms)| cost.observe(weight, ms(run_ms)));
        cost
    }

    fn assert_close(found: Option<Duration>, expected_ms: f64) {
        let found = found.expect("the cost is known").as_secs_f64() * 1000.0;
        assert!((found - expected_ms).abs() <= 0.02 * expected_ms.max(0.1), "{found} ms, expected {expected_ms} ms");
    }

    #[test]
    fn a_line_is_found_from_batches_of_several_weights() {
        let cost = learned((0..50).map(|batch| (1 + batch % 32, 5.0 + 0.25 * (1 + batch % 32) as f64)));
        assert_close(cost.fixed(), 5.0);
        assert_close(cost.per_weight(), 0.25);
        assert_close(cost.predict(100), 30.0);
        assert_close(cost.margin(), 0.0);
    }

    #[test]
    fn nothing_is_predicted_from_a_few_batches() {
        let cost = learned([(1, 5.0); 7]);
        assert_eq!((cost.predict(1), cost.fixed(), cost.margin()), (None, None, None));
        assert!(learned([(1, 5.0); 8]).predict(1).is_some());
    }

    #[test]
    fn batches_of_one_weight_are_predicted_too() {
        let cost = learned([(8, 7.0); 20]);
        assert_close(cost.predict(8), 7.0);
    }

    #[test]
    fn neither_part_of_the_cost_is_negative() {
        let falling = learned((0..50).map(|batch| (1 + batch % 10, 10.0 - (batch % 10) as f64 / 2.0)));
        assert_eq!(falling.per_weight(), Some(Duration::ZERO));
        let steep = learned((0..50).map(|batch| (10 + batch % 10, 1.0 + (batch % 10) as f64)));
        assert_eq!(steep.fixed(), Some(Duration::ZERO));
    }

    #[test]
    fn one_stall_is_forgiven_and_a_slower_device_is_learned() {
        let mut cost = learned((0..100).map(|batch| (1 + batch % 8, 5.0 + (1 + batch % 8) as f64)));
        cost.observe(4, Duration::from_mins(1));
        assert!(cost.predict(4).unwrap() < ms(11.0), "{:?}", cost.predict(4));
        for batch in 0..300 {
            let weight = 1 + batch % 8;
            cost.observe(weight, ms(50.0 + 10.0 * weight as f64));
        }
        let slower = cost.predict(4).unwrap();
        assert!(slower > ms(75.0) && slower < ms(95.0), "{slower:?}");
    }

    #[test]
    fn the_margin_covers_what_all_but_a_few_batches_take_beyond_the_line() {
        // Deviations spread evenly over 0 to 2 ms, in a fixed shuffled order.
        let runs =
            (0..5000_u32).map(|batch| (1 + batch as usize % 8, 5.0 + 2.0 * f64::from(batch * 7919 % 1000) / 1000.0));
        let cost = learned(runs);
        let covered = cost.predict_with_margin(4).unwrap();
        assert!(covered > ms(6.8) && covered < ms(8.5), "{covered:?}");
    }

    #[test]
    fn a_steep_line_goes_through_nothing_and_the_mean() {
        // Through these two the line would start at -10 ms.
        let cost = learned((0..50).map(|batch| if batch % 2 == 0 { (10, 5.0) } else { (20, 20.0) }));
        assert_eq!(cost.fixed(), Some(Duration::ZERO));
        let (expected, found) = (12.5 / 15.0, cost.line().unwrap().per_weight * 1e3);
        assert!((found - expected).abs() < 0.01 * expected, "{found}, not {expected}");
    }

    #[test]
    fn weights_that_hardly_differ_tell_nothing_of_what_weight_costs() {
        let cost = learned((0..50).map(|batch| (100_000 + batch % 2, 10.0 + (batch % 2) as f64)));
        assert_eq!(cost.per_weight(), Some(Duration::ZERO));
        assert_close(cost.fixed(), 10.5);
        assert_eq!(cost.weight_within(ms(1.0)), Some(usize::MAX), "a heavier batch will tell");
    }

    /// A cost of 5 ms + 1 ms · weight, with this margin.
    fn with_margin(margin_ms: f64) -> CostModel {
        let mut cost = learned((0..50).map(|batch| (1 + batch % 8, 6.0 + (batch % 8) as f64)));
        cost.margin = margin_ms / 1000.0;
        cost
    }

    #[test]
    fn a_margin_counts_for_no_more_than_the_run() {
        assert_close(with_margin(2.0).predict_with_margin(5), 12.0);
        assert_close(with_margin(60.0).predict_with_margin(5), 20.0);
        assert_eq!(with_margin(2.0).weight_within(ms(22.0)), Some(15));
        assert_eq!(with_margin(60.0).weight_within(ms(22.0)), Some(6), "11 ms and as much again");
        assert_eq!(with_margin(60.0).weight_within(ms(4.0)), Some(0));
    }

    #[test]
    fn a_batch_takes_half_of_the_time_but_is_worth_its_while() {
        assert_eq!(with_margin(0.0).weight_for(ms(100.0)), Some(45), "half of it");
        assert_eq!(with_margin(10.0).weight_for(ms(100.0)), Some(35), "with the margin");
        assert_eq!(with_margin(90.0).weight_for(ms(100.0)), Some(20), "a quarter, however large the margin");
        assert_eq!(with_margin(90.0).weight_for(ms(20.0)), Some(5), "twice the fixed cost");
        assert_eq!(with_margin(90.0).weight_for(ms(12.0)), Some(4), "three quarters of the time");
        assert_eq!(CostModel::default().weight_for(ms(100.0)), None);
    }

    #[test]
    fn a_margin_leaves_half_of_the_spare_time_for_waiting() {
        let within = |margin, time| with_margin(margin).predict_within(15, time);
        assert_close(within(2.0, Some(ms(100.0))), 22.0);
        assert_close(within(60.0, Some(ms(100.0))), 40.0);
        assert_close(within(60.0, Some(ms(26.0))), 23.0);
        assert_close(within(60.0, Some(ms(10.0))), 20.0);
        assert_close(within(60.0, None), 40.0);
    }
}
