//! Which devices a model is put on, before anything is measured.

use std::cmp::Ordering;
use std::fmt;

use sconce_batch::CostLine;
use sconce_models::{Demand, DeviceName, Placement, Precision};

use super::Capability;

/// A device with what a model would be on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// What the device can do.
    pub capability: Capability,
    /// What the model would be computed in, and asks there; or why it does not run there at all.
    pub demand: Result<(Precision, Demand), String>,
}

/// Where a model runs, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What was asked for.
    pub placement: Placement,
    /// The heaviest batch that was thought of.
    pub max_weight: usize,
    /// Every device there is, in the order in which they were offered.
    pub considered: Vec<Considered>,
}

/// What is decided of one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Considered {
    /// The device.
    pub capability: Capability,
    /// What the model is computed in and asks there, if it runs there.
    pub demand: Option<(Precision, Demand)>,
    /// What a batch is estimated to cost there.
    pub estimate: Option<CostLine>,
    /// The heaviest batch that was thought of.
    pub max_weight: usize,
    /// Whether it takes batches.
    pub verdict: Verdict,
    /// Why.
    pub why: Why,
}

/// Whether a device takes batches of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Serves,
    /// Only if no other device can.
    Standby,
    /// It does not.
    Unused,
}

/// Why a device takes batches of a model or does not.
#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// It was asked for.
    Asked,
    /// Another device was asked for.
    AskedElsewhere,
    /// Batches from one weight to another are estimated to be complete there first.
    First {
        /// The lightest of them.
        from: usize,
        /// The heaviest.
        to: usize,
    },
    /// No batch is estimated to be complete there first.
    NeverFirst,
    /// The model does not fit.
    NoRoom {
        /// Bytes that the model needs with its heaviest batch.
        needed: u64,
        /// Bytes that there are.
        memory: u64,
    },
    /// The model does not run there.
    CannotRun(String),
}

/// Why a model can be put nowhere.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// The device that was asked for is not there.
    #[error("there is no device {device}; there are: {}", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NoDevice {
        /// What was asked for.
        device: DeviceName,
        /// What there is.
        known: Vec<DeviceName>,
    },
    /// It runs on none of the devices that it may be put on.
    #[error("it runs on none of its devices: {}", reasons.iter().map(|(device, why)| format!("{device}: {why}")).collect::<Vec<_>>().join("; "))]
    Nowhere {
        /// Why not, of each.
        reasons: Vec<(DeviceName, Why)>,
    },
}

/// Decides which of the `offers` take batches of at most `max_weight`.
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

/// What is kept in case the others fail: the CPU, which is always there.
fn spare(capability: &Capability) -> Verdict {
    if capability.device == DeviceName::Cpu { Verdict::Standby } else { Verdict::Unused }
}

/// What a batch would cost, or why there can be none.
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

/// The weights from 1 to `max` at which the line at this place is the lowest; of equal lines the first is.
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

/// The weight at which two lines of unlike slope meet.
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
    /// The devices that take batches, and those on standby after them: the order of a model's devices.
    pub fn devices(&self) -> impl Iterator<Item = &Considered> {
        let with = |verdict| self.considered.iter().filter(move |considered| considered.verdict == verdict);
        with(Verdict::Serves).chain(with(Verdict::Standby))
    }

    /// Devices that take batches.
    pub fn serving(&self) -> impl Iterator<Item = &Considered> {
        self.considered.iter().filter(|considered| considered.verdict == Verdict::Serves)
    }

    /// The weight from which on a batch is complete on the second of two devices first, by their lines; `None` if there is no
    /// such weight within 1 and the heaviest.
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
