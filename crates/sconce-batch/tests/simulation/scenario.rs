//! The parameters of a simulation.

use std::ops::RangeInclusive;
use std::time::Duration;

use sconce_batch::{BatchLayout, BatcherConfig, CostLine, Role};

/// Time by which an item counts as later for each step of lower priority.
pub(crate) const AGEING: Duration = Duration::from_millis(100);
/// A device like a GPU: a fixed cost, and a small one for each unit of weight.
pub(crate) const GPU: Device = Device {
    line: CostLine { fixed: 0.005, per_weight: 0.000_005 },
    role: Role::Serves,
    memory: usize::MAX,
    lost: Lost::Never,
    hangs_in: None,
};
/// A device like a CPU: a small fixed cost, and a ten times larger one for each unit of weight.
pub(crate) const CPU: Device = Device { line: CostLine { fixed: 0.000_2, per_weight: 0.000_05 }, ..GPU };

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) arrivals: usize,
    pub(crate) pace: Pace,
    pub(crate) weights: (usize, usize),
    /// Share of items that have a deadline.
    pub(crate) in_a_hurry: f64,
    /// Share of items that are cancelled.
    pub(crate) cancelled: f64,
    /// One item in this many makes its batch fail, and fails again when it runs alone.
    pub(crate) bad_one_in: usize,
    pub(crate) bounds: Bounds,
    pub(crate) max_queue_delay: Duration,
    pub(crate) devices: &'static [Device],
    /// True if queues have an estimate of each device's cost, and so choose among devices.
    pub(crate) chooses: bool,
    /// The queues, each by the layout of its batches.
    pub(crate) queues: &'static [BatchLayout],
    /// The arrival at which the first queue closes.
    pub(crate) closes_at: Option<usize>,
    /// True if the queues are told the time that batches took.
    pub(crate) learns: bool,
}

/// The pace at which items arrive.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// In bursts of ten, at this share of the devices' capacity in full batches.
    Bursts(f64),
    /// At random, this many a second on average.
    Rate(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bounds {
    Narrow,
    None,
}

/// A device's properties and faults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device {
    pub(crate) line: CostLine,
    pub(crate) role: Role,
    /// The heaviest batch that fits its memory.
    pub(crate) memory: usize,
    pub(crate) lost: Lost,
    /// The batch in which it takes a hundred times as long as it should.
    pub(crate) hangs_in: Option<usize>,
}

/// The time at which a device is lost.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lost {
    Never,
    /// In this batch, for ever.
    ForEver(usize),
    /// In one batch of this many, for at most this time.
    Sometimes(u32, Duration),
}

impl Scenario {
    pub(crate) fn config(&self) -> BatcherConfig {
        let Self { bounds, max_queue_delay, .. } = *self;
        match bounds {
            Bounds::Narrow => BatcherConfig {
                max_batch_size: 32,
                max_batch_weight: 1500,
                max_queue_size: 200,
                max_queue_weight: 10_000,
                max_queue_delay,
                priority_ageing: AGEING,
            },
            Bounds::None => BatcherConfig {
                max_queue_size: usize::MAX,
                max_queue_weight: BatcherConfig::MAX_WEIGHT,
                max_queue_delay,
                ..BatcherConfig::default()
            },
        }
    }

    /// Time of a full batch on the first device.
    pub(crate) fn full_batch_cost(&self) -> Duration {
        self.devices[0].run(self.config().max_batch_weight)
    }

    /// Average time between arrivals, in seconds.
    pub(crate) fn mean_gap(&self) -> f64 {
        let (least, most) = self.weights;
        let items = self.config().max_batch_weight as f64 / (least + most) as f64 * 2.0;
        match self.pace {
            Pace::Bursts(load) => self.full_batch_cost().as_secs_f64() / (load * items * self.devices.len() as f64),
            Pace::Rate(rate) => 1.0 / rate,
        }
    }

    /// Returns true if devices are alike and have no faults, so that items run in order of arrival.
    pub(crate) fn keeps_order(&self) -> bool {
        let is_steady = |device: &Device| device.memory == usize::MAX && matches!(device.lost, Lost::Never);
        !self.chooses && self.devices.iter().all(is_steady)
    }

    pub(crate) fn is_bad(&self, item: usize) -> bool {
        item % self.bad_one_in == self.bad_one_in - 1
    }

    pub(crate) fn weight_range(&self) -> RangeInclusive<usize> {
        self.weights.0..=self.weights.1
    }
}

impl Device {
    pub(crate) fn run(&self, weight: usize) -> Duration {
        Duration::from_secs_f64(self.line.at(weight))
    }
}
