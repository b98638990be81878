//! The committed PTX, and the choice of the version for a device.

use crate::KernelError;

/// A compute capability with committed PTX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PtxVersion {
    /// Turing. No bf16 and no `mma` of the shapes that the kernels use: plain paths.
    Sm75,
    /// Ampere: tensor cores for f16, bf16 and int8.
    Sm80,
    /// Ada and newer.
    Sm89,
}

impl PtxVersion {
    pub(crate) const ALL: [Self; 3] = [Self::Sm75, Self::Sm80, Self::Sm89];

    /// The highest version that runs on a device of this compute capability.
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

    /// True if the PTX has the entry points for tensor cores.
    pub(crate) fn has_tensor_cores(self) -> bool {
        self >= Self::Sm80
    }
}

/// A kernel's PTX for each version.
pub(super) struct PtxSource(&'static [u8], &'static [u8], &'static [u8]);

impl PtxSource {
    /// The PTX of a version. Ends in a 0, as the driver wants it.
    pub(super) fn of(&self, version: PtxVersion) -> &'static [u8] {
        match version {
            PtxVersion::Sm75 => self.0,
            PtxVersion::Sm80 => self.1,
            PtxVersion::Sm89 => self.2,
        }
    }
}

macro_rules! source {
    ($kernel:literal) => {
        PtxSource(
            concat!(include_str!(concat!("../", $kernel, "/ptx/", $kernel, ".sm_75.ptx")), "\0").as_bytes(),
            concat!(include_str!(concat!("../", $kernel, "/ptx/", $kernel, ".sm_80.ptx")), "\0").as_bytes(),
            concat!(include_str!(concat!("../", $kernel, "/ptx/", $kernel, ".sm_89.ptx")), "\0").as_bytes(),
        )
    };
}

pub(super) const ATTENTION: PtxSource = source!("attention");
pub(super) const BIAS_GELU: PtxSource = source!("bias_gelu");
pub(super) const EMBEDDING: PtxSource = source!("embedding");
pub(super) const LINEAR: PtxSource = source!("linear");
pub(super) const POOLING: PtxSource = source!("pooling");
pub(super) const QUANTIZE: PtxSource = source!("quantize");
pub(super) const RESIDUAL_NORM: PtxSource = source!("residual_norm");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_the_highest_that_it_can_run() {
        let version = |major, minor| PtxVersion::for_device(major, minor);
        assert_eq!(version(7, 5), Ok(PtxVersion::Sm75));
        assert_eq!(version(8, 0), Ok(PtxVersion::Sm80));
        assert_eq!(version(8, 6), Ok(PtxVersion::Sm80));
        assert_eq!(version(8, 9), Ok(PtxVersion::Sm89));
        assert_eq!(version(9, 0), Ok(PtxVersion::Sm89));
        assert_eq!(version(12, 0), Ok(PtxVersion::Sm89));
        assert_eq!(version(7, 0), Err(KernelError::OldDevice { major: 7, minor: 0 }));
    }

    #[test]
    fn every_file_is_for_the_capability_in_its_name() {
        for source in [ATTENTION, BIAS_GELU, EMBEDDING, LINEAR, POOLING, QUANTIZE, RESIDUAL_NORM] {
            for version in PtxVersion::ALL {
                let text = std::str::from_utf8(source.of(version)).unwrap();
                let (major, minor) = version.capability();
                assert!(text.contains(&format!(".target sm_{major}{minor}\n")) && text.ends_with('\0'));
            }
        }
    }
}
