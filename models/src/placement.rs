//! Placement: the operator's choice of a model's device.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::DeviceName;
use crate::device::question;

/// The operator's choice of a model's device. Written `auto`, `cpu` or `cuda:N`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Placement {
    /// The devices that complete a batch first: estimated from the model's size at first, measured later. Different
    /// batches of one model may run on different devices.
    #[default]
    Auto,
    /// This device, and the CPU only if the device cannot run a batch.
    On(DeviceName),
}

/// The error for a name that no placement has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "device '{name}' is not known; give auto, cpu, or cuda:N with the number of a GPU (`cuda:0` is the first){}",
    question(name)
)]
pub struct UnknownPlacement {
    /// The name that was given.
    pub name: String,
}

impl From<DeviceName> for Placement {
    fn from(device: DeviceName) -> Self {
        Self::On(device)
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::On(device) => device.fmt(f),
        }
    }
}

impl FromStr for Placement {
    type Err = UnknownPlacement;

    fn from_str(name: &str) -> Result<Self, UnknownPlacement> {
        if name.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        name.parse().map(Self::On).map_err(|_| UnknownPlacement { name: name.to_owned() })
    }
}

impl TryFrom<String> for Placement {
    type Error = UnknownPlacement;

    fn try_from(name: String) -> Result<Self, UnknownPlacement> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_are_read_as_they_are_written() {
        for name in ["auto", "cpu", "cuda:0", "cuda:7"] {
            assert_eq!(name.parse::<Placement>().unwrap().to_string(), name);
        }
        assert_eq!("cuda:7".parse(), Ok(Placement::On(DeviceName::cuda(7))));
        assert_eq!(("AUTO".parse(), "CPU".parse()), (Ok(Placement::Auto), Ok(Placement::On(DeviceName::CPU))));
    }

    #[test]
    fn an_unknown_one_is_refused_with_those_there_are() {
        for name in ["", "gpu", "cuda", "cuda:-1", "tpu"] {
            let refused = name.parse::<Placement>().unwrap_err().to_string();
            assert!(
                refused.starts_with(&format!("device '{name}' is not known; give auto, cpu, or cuda:N")),
                "{refused}"
            );
        }
    }
}
