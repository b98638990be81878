//! The decision on a model's devices, made before anything is measured.

use std::cmp::Ordering;
use std::fmt;

use sconce_batch::CostLine;
use sconce_models::{Demand, DeviceName, Placement, Precision};

use super::Capability;

/// A device that a model may be placed on, and the model's demand there.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The device's speed and memory.
    pub capability: Capability,
    /// The model's precision and demand on the device, or why it cannot run there.
    pub demand: Result<(Precision, Demand), String>,
}

/// The decision on a model's devices, with the reason for each device.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The placement that was asked for.
    pub placement: Placement,
    /// Weight of the heaviest batch considered.
    pub max_weight: usize,
    /// Every device that was offered, in the order of the offers.
    pub considered: Vec<Considered>,
}

/// The decision on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Considered {
    /// The device.
    pub capability: Capability,
    /// The model's precision and demand on the device, if it can run there.
    pub demand: Option<(Precision, Demand)>,
    /// Estimated cost of a batch on the device; `None` if the model cannot run there or does not fit.
    pub estimate: Option<CostLine>,
    /// Weight of the heaviest batch considered.
    pub max_weight: usize,
    /// The device's part: serves, stands by, or is unused.
    pub verdict: Verdict,
    /// The reason for the verdict.
    pub why: Why,
}

/// A device's part in running a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The device takes batches.
    Serves,
    /// The device takes only batches that no other device can run.
    Standby,
    /// The device takes no batches.
    Unused,
}

/// The reason for a device's [`Verdict`].
#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// The device was asked for by name.
    Asked,
    /// Another device was asked for by name.
    AskedElsewhere,
    /// The device is estimated to be the first to complete batches in a range of weights.
    First {
        /// The smallest weight of the range.
        from: usize,
        /// The largest weight of the range.
        to: usize,
    },
    /// The device is not estimated to be the first to complete any batch.
    NeverFirst,
    /// The model does not fit in the device's memory.
    NoRoom {
        /// Bytes that the model needs with its heaviest batch.
        needed: u64,
        /// Bytes of the device's memory that models may take.
        memory: u64,
    },
    /// The model cannot run on the device, for the given reason.
    CannotRun(String),
}

/// Error of a model that no device can run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// The device that was asked for does not exist.
    #[error("there is no device {device}; there are: {}", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NoDevice {
        /// The device that was asked for.
        device: DeviceName,
        /// The devices that exist.
        known: Vec<DeviceName>,
    },
    /// The model runs on none of the devices that it may be placed on.
    #[error("it runs on none of its devices: {}", reasons.iter().map(|(device, why)| format!("{device}: {why}")).collect::<Vec<_>>().join("; "))]
    Nowhere {
        /// The reason for each device.
        reasons: Vec<(DeviceName, Why)>,
    },
}

/// Decides which of the `offers` take a model's batches, of at most `max_weight`.
///
/// # Errors
/// [`PlacementError`] if the device that was asked for is not among them, or the model runs on none.
pub fn decide(placement: Placement, max_weight: usize, offers: &[Offer]) -> Result<Decision, PlacementError> {
    let estimates: Vec<Result<CostLine, Why>> = offers.iter().map(|offer| estimate(offer, max_weight)).collect();
    let mut considered = Vec::new();
    for (at, Offer { capability, demand }) in offers.iter().cloned().enumerate() {
        let (verdict, why) = match (&estimates[at], placement) {
            (Err(why), _) => (Verdict::Unused, why.clone()),
            (Ok(_), Placement::On(device)) if device == capability.device => (Verdict::Serves, Why::Asked),
            (Ok(_), Placement::On(_)) => (spare(&capability), Why::AskedElsewhere),
            (Ok(_), Placement::Auto) => match first_at(at, &estimates, max_weight) {
                Some((from, to)) => (Verdict::Serves, Why::First { from, to }),
                None => (spare(&capability), Why::NeverFirst),
            },
        };
        let estimate = estimates[at].clone().ok();
        considered.push(Considered { capability, demand: demand.ok(), estimate, max_weight, verdict, why });
    }
    let decision = Decision { placement, max_weight, considered };
    decision.check().map(|()| decision)
}

/// The verdict on a device that does not serve: the CPU, which is always there, stands by in case the others fail.
fn spare(capability: &Capability) -> Verdict {
    if capability.device == DeviceName::CPU { Verdict::Standby } else { Verdict::Unused }
}

/// Estimates the cost of a batch on a device, or tells why the model cannot run there.
fn estimate(offer: &Offer, max_weight: usize) -> Result<CostLine, Why> {
    let Offer { capability, demand } = offer;
    let (precision, demand) = demand.as_ref().map_err(|reason| Why::CannotRun(reason.clone()))?;
    let needed = demand.bytes(max_weight);
    match capability.memory {
        Some(memory) if memory < needed => Err(Why::NoRoom { needed, memory }),
        _ => Ok(CostLine {
            fixed: capability.fixed + demand.weight_bytes as f64 / capability.bandwidth,
            per_weight: demand.flops_per_weight / (capability.flops * capability.speed(*precision)),
        }),
    }
}

/// The range of weights within 1 to `max` at which line `at` is the lowest; among equal lines the first one counts as
/// the lowest.
fn first_at(at: usize, lines: &[Result<CostLine, Why>], max: usize) -> Option<(usize, usize)> {
    let own = *lines[at].as_ref().ok()?;
    let (mut from, mut to) = (1.0_f64, max as f64);
    for (other_at, other) in lines.iter().enumerate().filter(|(other, _)| *other != at) {
        let Ok(other) = other else { continue };
        match own.per_weight.total_cmp(&other.per_weight) {
            Ordering::Less => from = from.max(crossover(own, *other)),
            Ordering::Greater => to = to.min(crossover(own, *other)),
            Ordering::Equal if own.fixed < other.fixed || (own.fixed <= other.fixed && at < other_at) => {}
            Ordering::Equal => return None,
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and a usize, or it saturates"
    )]
    let (from, to) = (from.ceil() as usize, to.floor().max(0.0) as usize);
    (from <= to).then_some((from, to))
}

/// The weight at which two lines of different slopes meet.
fn crossover(one: CostLine, other: CostLine) -> f64 {
    (one.fixed - other.fixed) / (other.per_weight - one.per_weight)
}

impl Considered {
    /// Bytes of the intermediate results of the heaviest batch.
    pub(crate) fn needed_for_a_batch(&self) -> u64 {
        self.demand.map_or(0, |(_, demand)| demand.bytes(self.max_weight).saturating_sub(demand.weight_bytes))
    }
}

impl Decision {
    /// The devices that serve, then those on standby: the order of a model's devices.
    pub fn devices(&self) -> impl Iterator<Item = &Considered> {
        let with = |verdict| self.considered.iter().filter(move |considered| considered.verdict == verdict);
        with(Verdict::Serves).chain(with(Verdict::Standby))
    }

    /// The devices that serve.
    pub fn serving(&self) -> impl Iterator<Item = &Considered> {
        self.considered.iter().filter(|considered| considered.verdict == Verdict::Serves)
    }

    /// The smallest weight at which the device with line `heavy` completes a batch no later than the one with line
    /// `light`; `None` if it does so from weight 1 on, or at no weight up to the heaviest.
    #[must_use]
    pub fn crossover(&self, light: CostLine, heavy: CostLine) -> Option<usize> {
        let lines = [Ok(light), Ok(heavy)];
        first_at(1, &lines, self.max_weight).map(|(from, _)| from).filter(|from| *from > 1)
    }

    fn check(&self) -> Result<(), PlacementError> {
        if self.serving().next().is_some() {
            return Ok(());
        }
        let known: Vec<DeviceName> = self.considered.iter().map(|it| it.capability.device).collect();
        if let Placement::On(device) = self.placement
            && !known.contains(&device)
        {
            return Err(PlacementError::NoDevice { device, known });
        }
        let might = |it: &&Considered| it.verdict == Verdict::Unused && it.why != Why::AskedElsewhere;
        let reasons = self.considered.iter().filter(might).map(|it| (it.capability.device, it.why.clone()));
        Err(PlacementError::Nowhere { reasons: reasons.collect() })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        match self {
            Self::Asked => f.write_str("asked for"),
            Self::AskedElsewhere => f.write_str("another device is asked for"),
            Self::First { from, to } if from == to => write!(f, "first to complete a batch of weight {from}"),
            Self::First { from, to } => write!(f, "first to complete batches of weight {from} to {to}"),
            Self::NeverFirst => f.write_str("never the first to complete a batch"),
            Self::NoRoom { needed, memory } => {
                write!(f, "{:.1} MiB are needed, and there are {:.1}", mebibytes(*needed), mebibytes(*memory))
            }
            Self::CannotRun(reason) => f.write_str(reason),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Serves => "serves",
            Self::Standby => "standby",
            Self::Unused => "unused",
        })
    }
}

#[cfg(test)]
mod tests;
