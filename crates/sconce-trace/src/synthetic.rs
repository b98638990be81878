//! Traces that are made up: arrivals of a known kind, the same in every run with the same seed.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution as _, LogNormal};

use crate::{RecordedInput, RecordedRequest, RequestTrace, TraceSettingError};

/// A trace of requests of one item each that is made up.
#[derive(Debug, Clone, PartialEq)]
pub struct Synthetic {
    /// The times of arrival.
    pub arrivals: ArrivalProcess,
    /// The sizes, or the texts.
    pub lengths: Lengths,
    /// The time in which requests arrive.
    pub length: Duration,
    /// The seed of all that is random.
    pub seed: u64,
}

/// The way in which requests arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ArrivalProcess {
    /// At random and independently.
    Poisson {
        /// Requests per second on average.
        rate: f64,
    },
    /// At random while a burst lasts, and none between bursts: an interrupted Poisson process. Bursts and pauses have
    /// exponential lengths.
    Bursts {
        /// Requests per second on average, pauses included.
        rate: f64,
        /// Average length of a burst.
        on: Duration,
        /// Average length of a pause.
        off: Duration,
    },
    /// Evenly spaced.
    Even {
        /// Requests per second.
        rate: f64,
    },
}

/// The sizes of requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Lengths {
    /// All the same weight.
    Fixed(u32),
    /// Every weight between two bounds is as likely.
    Uniform {
        /// The smallest.
        min: u32,
        /// The largest.
        max: u32,
    },
    /// Weights whose logarithm is normal, as lengths of texts are about.
    LogNormal {
        /// The weight that half of the requests are below.
        median: u32,
        /// Standard deviation of the logarithm; 0.8 is usual for texts.
        sigma: f64,
        /// The largest: heavier ones have this weight.
        max: u32,
    },
    /// Weights drawn from a list, each as likely.
    Drawn(Vec<u32>),
    /// Texts drawn from a list, each as likely; their weights are left open.
    Texts(Arc<[String]>),
}

impl Synthetic {
    /// The most requests that are made up.
    pub const MAX_REQUESTS: f64 = 1e7;

    /// Makes the trace. It has at least one request.
    ///
    /// # Errors
    /// [`TraceSettingError`] for a rate, a length or a size that is out of bounds.
    pub fn trace(&self) -> Result<RequestTrace, TraceSettingError> {
        self.check()?;
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut requests = Vec::new();
        let mut clock = ArrivalClock::new(self.arrivals);
        loop {
            let at = clock.next(&mut rng);
            if at >= self.length && !requests.is_empty() {
                break;
            }
            requests.push(self.request(at.min(self.length), &mut rng));
        }
        Ok(RequestTrace::new(self.origin(), requests))
    }

    fn check(&self) -> Result<(), TraceSettingError> {
        let rate = self.arrivals.rate();
        if !rate.is_finite() || rate <= 0.0 {
            return Err(TraceSettingError::new("rate", &rate, "a number of requests per second above 0"));
        }
        if self.length.is_zero() || self.length > RequestTrace::MAX_LENGTH {
            return Err(TraceSettingError::new("length", &format!("{:?}", self.length), "above 0 and at most a year"));
        }
        if rate * self.length.as_secs_f64() > Self::MAX_REQUESTS {
            let allowed =
                format!("at most {} in {:?}, or there are too many requests", Self::MAX_REQUESTS, self.length);
            return Err(TraceSettingError::new("rate", &rate, allowed));
        }
        if let ArrivalProcess::Bursts { on, .. } = self.arrivals
            && on.is_zero()
        {
            return Err(TraceSettingError::new("on", &"0", "above 0"));
        }
        match &self.lengths {
            Lengths::Uniform { min, max } if min > max => {
                Err(TraceSettingError::new("min", &min, format!("at most max, {max}")))
            }
            Lengths::LogNormal { sigma, .. } if !(0.0..=10.0).contains(sigma) => {
                Err(TraceSettingError::new("sigma", &sigma, "from 0 to 10"))
            }
            Lengths::LogNormal { median: 0, .. } => Err(TraceSettingError::new("median", &0, "at least 1")),
            Lengths::Drawn(weights) if weights.is_empty() => {
                Err(TraceSettingError::new("weights", &"empty", "a list of at least one"))
            }
            Lengths::Texts(texts) if texts.is_empty() => {
                Err(TraceSettingError::new("texts", &"empty", "a list of at least one"))
            }
            _ => Ok(()),
        }
    }

    fn request(&self, at: Duration, rng: &mut StdRng) -> RecordedRequest {
        let weight = match &self.lengths {
            Lengths::Fixed(weight) => *weight,
            Lengths::Uniform { min, max } => rng.random_range(*min..=*max),
            Lengths::LogNormal { median, sigma, max } => {
                let normal = LogNormal::new(f64::from(*median).ln(), *sigma).expect("the deviation is checked");
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "positive, and it saturates"
                )]
                let weight = normal.sample(rng).round() as u32;
                weight.clamp(1, (*max).max(1))
            }
            Lengths::Drawn(weights) => weights[rng.random_range(0..weights.len())],
            Lengths::Texts(texts) => {
                let text = RecordedInput::Text(texts[rng.random_range(0..texts.len())].clone());
                return RecordedRequest { at, items: 1, inputs: vec![text], ..RecordedRequest::default() };
            }
        };
        RecordedRequest::one(at, weight)
    }

    fn origin(&self) -> String {
        let Self { arrivals, length, seed, .. } = self;
        let rate = arrivals.rate();
        let kind = match arrivals {
            ArrivalProcess::Poisson { .. } => "at random".to_owned(),
            ArrivalProcess::Bursts { on, off, .. } => format!("in bursts of {on:?} with pauses of {off:?}"),
            ArrivalProcess::Even { .. } => "evenly spaced".to_owned(),
        };
        format!("made up: {rate} requests/s {kind} for {length:?}, seed {seed}")
    }
}

impl ArrivalProcess {
    /// Requests per second on average.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let (Self::Poisson { rate } | Self::Bursts { rate, .. } | Self::Even { rate }) = self;
        *rate
    }
}

/// The times of arrivals, one after the other.
struct ArrivalClock {
    process: ArrivalProcess,
    /// Seconds since the beginning.
    now: f64,
    /// End of the present burst.
    burst_end: f64,
}

impl ArrivalClock {
    fn new(process: ArrivalProcess) -> Self {
        Self { process, now: 0.0, burst_end: 0.0 }
    }

    fn next(&mut self, rng: &mut StdRng) -> Duration {
        let mut exponential = |mean: f64| -(1.0 - rng.random::<f64>()).ln() * mean;
        match self.process {
            ArrivalProcess::Poisson { rate } => self.now += exponential(1.0 / rate),
            ArrivalProcess::Even { rate } => self.now += 1.0 / rate,
            ArrivalProcess::Bursts { rate, on, off } => {
                let (on, off) = (on.as_secs_f64(), off.as_secs_f64());
                let gap = on / (rate * (on + off));
                let mut next = self.now + exponential(gap);
                while next > self.burst_end {
                    // The process forgets: it begins anew with each burst.
                    let start = if self.burst_end == 0.0 { 0.0 } else { self.burst_end + exponential(off) };
                    self.burst_end = start + exponential(on);
                    next = start + exponential(gap);
                }
                self.now = next;
            }
        }
        let exact = Duration::try_from_secs_f64(self.now).unwrap_or(Duration::MAX);
        // Whole microseconds, as files have them.
        Duration::new(exact.as_secs(), exact.subsec_micros() * 1000)
    }
}
