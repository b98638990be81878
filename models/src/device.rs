//! Names of devices.

use std::fmt;
use std::str::FromStr;

/// The name of a device: its kind and its number. The default is the CPU.
///
/// Other unambiguous spellings are read as well: `CPU`, `cpu:0`, `cuda1`. Only `cpu` and `cuda` are read from text;
/// devices of other kinds are named by [`new`](Self::new).
///
/// ```
/// use sconce_models::DeviceName;
///
/// assert_eq!("cuda:1".parse(), Ok(DeviceName::cuda(1)));
/// assert_eq!(DeviceName::cuda(1).to_string(), "cuda:1");
/// assert!("gpu".parse::<DeviceName>().is_err(), "there may be several");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    kind: &'static str,
    ordinal: usize,
}

/// The error for a name that is not read as a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "device '{name}' is not known; give cpu, or cuda:N with the number of a GPU (`cuda:0` is the first){}",
    question(name)
)]
pub struct UnknownDevice {
    /// The name that was given.
    pub name: String,
}

/// The end of the message: `; did you mean cuda:0?`, or nothing.
pub(crate) fn question(name: &str) -> String {
    let plain = name.to_ascii_lowercase();
    let number = ["cuda", "gpu", "nvidia", "rocm", "hip"].into_iter().find_map(|kind| plain.strip_prefix(kind));
    let number = number.map(|rest| rest.strip_prefix(':').unwrap_or(rest));
    match number.map(|number| if number.is_empty() { Some(0) } else { ordinal(number) }) {
        Some(Some(ordinal)) => format!("; did you mean cuda:{ordinal}?"),
        _ => String::new(),
    }
}

/// The number of a device. Only digits are allowed; Rust would read `+1` as well.
fn ordinal(digits: &str) -> Option<usize> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

impl DeviceName {
    /// The CPU, named `cpu`: all cores as one device.
    pub const CPU: Self = Self { kind: "cpu", ordinal: 0 };

    /// An NVIDIA GPU, named `cuda:N`, by its number among the GPUs of `CUDA_VISIBLE_DEVICES`.
    #[must_use]
    pub const fn cuda(ordinal: usize) -> Self {
        Self::new("cuda", ordinal)
    }

    /// A device by its number, from the [`Backend`](crate::Backend) of this kind.
    #[must_use]
    pub const fn new(kind: &'static str, ordinal: usize) -> Self {
        Self { kind, ordinal }
    }

    /// The kind: `cpu`, `cuda`, or that of another backend.
    #[must_use]
    pub fn kind(self) -> &'static str {
        self.kind
    }

    /// The number among the devices of its kind, from 0.
    #[must_use]
    pub fn ordinal(self) -> usize {
        self.ordinal
    }
}

impl Default for DeviceName {
    fn default() -> Self {
        Self::CPU
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CPU => f.write_str("cpu"),
            Self { kind, ordinal } => write!(f, "{kind}:{ordinal}"),
        }
    }
}

impl FromStr for DeviceName {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Self, UnknownDevice> {
        let plain = name.to_ascii_lowercase();
        let cuda = plain.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match (plain.as_str(), cuda.and_then(ordinal)) {
            ("cpu" | "cpu:0", _) => Ok(Self::CPU),
            (_, Some(ordinal)) => Ok(Self::cuda(ordinal)),
            _ => Err(UnknownDevice { name: name.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_refused_with_those_there_are() {
        for name in ["cpu", "cuda:0", "cuda:17"] {
            assert_eq!(name.parse::<DeviceName>().unwrap().to_string(), name);
        }
        let table = [
            ("", ""),
            ("gpu", "; did you mean cuda:0?"),
            ("GPU:1", "; did you mean cuda:1?"),
            ("cuda", "; did you mean cuda:0?"),
            ("cuda:", "; did you mean cuda:0?"),
            ("cuda:-1", ""),
            ("cuda:+1", ""),
            ("cuda:x", ""),
            ("cuda:99999999999999999999", ""),
            ("metal:0", ""),
        ];
        for (name, question) in table {
            let refused = name.parse::<DeviceName>().unwrap_err().to_string();
            assert!(refused.starts_with(&format!("device '{name}' is not known; give cpu, or cuda:N")), "{refused}");
            assert!(refused.ends_with(&format!("is the first){question}")), "{refused}");
        }
    }

    #[test]
    fn another_spelling_that_can_mean_one_device_alone_is_that_device() {
        for name in ["CPU", "Cpu", "cpu:0"] {
            assert_eq!(name.parse(), Ok(DeviceName::CPU), "{name}");
        }
        for name in ["cuda1", "CUDA:1", "Cuda1"] {
            assert_eq!(name.parse(), Ok(DeviceName::cuda(1)), "{name}");
        }
    }
}
