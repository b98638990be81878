//! The PTX that is committed, and which of it a device gets.

use crate::KernelError;

/// A compute capability that there is PTX for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// Turing. No bf16 and no `mma` of the shapes that the kernels use: plain paths.
    Sm75,
    /// Ampere: tensor cores for f16, bf16 and int8.
    Sm80,
    /// Ada and newer.
    Sm89,
}

impl Version {
    pub(crate) const ALL: [Self; 3] = [Self::Sm75, Self::Sm80, Self::Sm89];

    /// The highest that runs on a device of this compute capability.
    ///
    /// # Errors
    /// [`KernelError::OldDevice`] below 7.5.
    pub(crate) fn for_device(major: i32, minor: i32) -> Result<Self, KernelError> {
        let best = Self::ALL.into_iter().rev().find(|version| version.capability() <= (major, minor));
        best.ok_or(KernelError::OldDevice { major, minor })
    }

    fn capability(self) -> (i32, i32) {
        match self {
            Self::Sm75 => (7, 5),
            Self::Sm80 => (8, 0),
            Self::Sm89 => (8, 9),
        }
    }

    /// Whether the entry points for tensor cores are in it.
    pub(crate) fn has_tensor_cores(self) -> bool {
        self >= Self::Sm80
    }
}

/// A kernel's PTX for each version.
pub(super) struct Source(&'static [u8], &'static [u8], &'static [u8]);

impl Source {
    /// Ends in a 0, as the driver wants it.
    pub(super) fn of(&self, version: Version) -> &'static [u8] {
        match version {
            Version::Sm75 => self.0,
            Version::Sm80 => self.1,
            Version::Sm89 => self.2,
        }
    }
}

macro_rules! source {
    ($kernel:literal) => {
        Source(
            concat!(include_str!(concat!("../", $kernel, "/ptx/", $kernel, ".sm_75.ptx")), "\0").as_bytes(),
            concat!(include_str!(concat!("../", $kernel, "/ptx/", $kernel, ".sm_80.ptx")), "\0").as_bytes(),
            concat!(include_str!(concat!("../", $kernel, "/ptx/", $kernel, ".sm_89.ptx")), "\0").as_bytes(),
        )
    };
}

pub(super) const ATTENTION: Source = source!("attention");
pub(super) const BIAS_GELU: Source = source!("bias_gelu");
pub(super) const EMBEDDING: Source = source!("embedding");
pub(super) const LINEAR: Source = source!("linear");
pub(super) const POOLING: Source = source!("pooling");
pub(super) const QUANTIZE: Source = source!("quantize");
pub(super) const RESIDUAL_NORM: Source = source!("residual_norm");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_the_highest_that_it_can_run() {
        let version = |major, minor| Version::for_device(major, minor);
        assert_eq!(version(7, 5), Ok(Version::Sm75));
        assert_eq!(version(8, 0), Ok(Version::Sm80));
        assert_eq!(version(8, 6), Ok(Version::Sm80));
        assert_eq!(version(8, 9), Ok(Version::Sm89));
        assert_eq!(version(9, 0), Ok(Version::Sm89));
        assert_eq!(version(12, 0), Ok(Version::Sm89));
        assert_eq!(version(7, 0), Err(KernelError::OldDevice { major: 7, minor: 0 }));
    }

    #[test]
    fn every_file_is_for_the_capability_in_its_name() {
        for source in [ATTENTION, BIAS_GELU, EMBEDDING, LINEAR, POOLING, QUANTIZE, RESIDUAL_NORM] {
            for version in Version::ALL {
                let text = std::str::from_utf8(source.of(version)).unwrap();
                let (major, minor) = version.capability();
                assert!(text.contains(&format!(".target sm_{major}{minor}\n")) && text.ends_with('\0'));
            }
        }
    }
}
