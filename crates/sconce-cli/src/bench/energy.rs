//! The energy that a device takes, in joules: for the CPU by the counters of RAPL that Linux shows
//! (`/sys/class/powercap`), if they may be read; for a GPU by NVML, if this build and the driver have it. Energy that
//! cannot be measured is left out.

use std::fs;
use std::path::{Path, PathBuf};

use sconce::DeviceName;

/// An energy counter of a device.
#[derive(Debug)]
pub(crate) enum EnergyMeter {
    /// The packages of the CPU.
    Rapl(Vec<Package>),
    #[cfg(feature = "cuda")]
    Nvml(Box<nvml::Gpu>),
    Nothing,
}

/// The counter of a CPU package, which begins anew at its maximum.
#[derive(Debug)]
pub(crate) struct Package {
    counter: PathBuf,
    max: f64,
}

const POWERCAP: &str = "/sys/class/powercap";

impl EnergyMeter {
    pub(crate) fn of(device: DeviceName) -> Self {
        if device == DeviceName::CPU {
            return Self::rapl(Path::new(POWERCAP));
        }
        #[cfg(feature = "cuda")]
        if device == DeviceName::cuda(device.ordinal()) {
            return nvml::Gpu::open(device.ordinal()).map_or(Self::Nothing, |gpu| Self::Nvml(Box::new(gpu)));
        }
        Self::Nothing
    }

    fn rapl(powercap: &Path) -> Self {
        let Ok(entries) = fs::read_dir(powercap) else { return Self::Nothing };
        // `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it; AMD's have the same names.
        let is_package = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix("intel-rapl:").is_some_and(|number| !number.contains(':'))
        };
        let packages: Vec<Package> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(is_package)
            .filter_map(|path| Package::open(&path))
            .collect();
        if packages.is_empty() { Self::Nothing } else { Self::Rapl(packages) }
    }

    /// Readings of all counters.
    pub(crate) fn joules(&self) -> Option<Vec<f64>> {
        match self {
            Self::Rapl(packages) => packages.iter().map(Package::joules).collect(),
            #[cfg(feature = "cuda")]
            Self::Nvml(gpu) => gpu.joules().map(|joules| vec![joules]),
            Self::Nothing => None,
        }
    }

    /// Energy taken between two readings; `None` if it is not known.
    pub(crate) fn between(&self, before: Vec<f64>, after: Vec<f64>) -> Option<f64> {
        let wrap = |counter: usize| match self {
            Self::Rapl(packages) => packages.get(counter).map_or(0.0, |package| package.max),
            #[cfg(feature = "cuda")]
            Self::Nvml(_) => 0.0,
            Self::Nothing => 0.0,
        };
        let taken = before.into_iter().zip(after).enumerate();
        let taken = taken.map(
            |(counter, (before, after))| {
                if after < before { after + wrap(counter) - before } else { after - before }
            },
        );
        Some(taken.sum()).filter(|joules| *joules > 0.0)
    }
}

impl Package {
    fn open(path: &Path) -> Option<Self> {
        let counter = path.join("energy_uj");
        microjoules(&counter)?;
        Some(Self { counter, max: microjoules(&path.join("max_energy_range_uj"))? })
    }

    fn joules(&self) -> Option<f64> {
        microjoules(&self.counter)
    }
}

/// Reads a file of microjoules, in joules.
fn microjoules(path: &Path) -> Option<f64> {
    let microjoules: f64 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    Some(microjoules / 1e6)
}

#[cfg(feature = "cuda")]
mod nvml {
    use nvml_wrapper::Nvml;

    /// A GPU as NVML sees it. Opening it loads NVML's library, so that a machine without one needs none.
    #[derive(Debug)]
    pub(crate) struct Gpu {
        nvml: Nvml,
        uuid: String,
    }

    impl Gpu {
        pub(super) fn open(ordinal: usize) -> Option<Self> {
            let nvml = Nvml::init().ok()?;
            // NVML counts all GPUs, CUDA those that CUDA_VISIBLE_DEVICES names.
            let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok().filter(|list| !list.is_empty());
            let name = match visible {
                Some(list) => list.split(',').nth(ordinal)?.trim().to_owned(),
                None => ordinal.to_string(),
            };
            let uuid = match name.parse::<u32>() {
                Ok(index) => nvml.device_by_index(index).ok()?.uuid().ok()?,
                Err(_) => name,
            };
            Some(Self { nvml, uuid })
        }

        pub(super) fn joules(&self) -> Option<f64> {
            let millijoules = self.nvml.device_by_uuid(self.uuid.as_str()).ok()?.total_energy_consumption().ok()?;
            Some(millijoules as f64 / 1e3)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_of_a_cpu_are_added_and_a_counter_that_begins_anew_is_followed() {
        let powercap = tempfile::tempdir().unwrap();
        for (name, energy) in [("intel-rapl:0", "9000000\n"), ("intel-rapl:1", "1000000"), ("intel-rapl:0:0", "5")] {
            let package = powercap.path().join(name);
            fs::create_dir(&package).unwrap();
            fs::write(package.join("energy_uj"), energy).unwrap();
            fs::write(package.join("max_energy_range_uj"), "10000000").unwrap();
        }
        let meter = EnergyMeter::rapl(powercap.path());
        let before = meter.joules().unwrap();
        assert_eq!(before.len(), 2, "parts of a package are not counted twice");
        fs::write(powercap.path().join("intel-rapl:0/energy_uj"), "1000000").unwrap();
        fs::write(powercap.path().join("intel-rapl:1/energy_uj"), "1500000").unwrap();
        assert_eq!(meter.between(before, meter.joules().unwrap()), Some(2.5));
    }

    #[test]
    fn where_nothing_can_be_read_nothing_is_said() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(EnergyMeter::rapl(empty.path()).joules(), None);
        assert_eq!(EnergyMeter::rapl(Path::new("/nonexistent")).joules(), None);
    }
}
