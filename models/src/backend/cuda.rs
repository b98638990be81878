//! CUDA devices: the kernels of `sconce-kernels` for encoders of the sizes that they take, candle's operations for all else.
//! Without the cargo feature `cuda` there are no such devices, and listing or opening one is [`DeviceError::NotBuilt`].

use std::sync::Arc;

use sconce_kernels::device::{
    CudaDevice, DeviceError, Version, check_for_candle, cuda_device, cuda_devices, cuda_driver, open_cuda,
};
#[cfg(feature = "cuda")]
use sconce_kernels::{Team, encoder::EncoderSpec};
use serde_json::{Map, Value, json};

#[cfg(feature = "cuda")]
use super::EncoderOrder;
use super::{Backend, Capability, Compute, Device, DeviceListing, ListedDevice, TensorDevice};
use crate::DeviceName;
#[cfg(feature = "cuda")]
use crate::encoder::{CudaTextEncoder, TensorEncoder};
#[cfg(feature = "cuda")]
use crate::{EncoderEngine, LoadError, Precision};

/// Fixed cost of a batch in seconds: a forward pass of candle's operations makes about 125 launches and 80 small copies
/// of 3 to 5 µs each, one wait for the end and one copy back. Engines with fewer launches cost less, which is learned
/// within eight batches.
const FIXED: f64 = 700e-6;
/// Share of a GPU's peak without tensor cores that products of a model's size reach.
const FLOPS_REACHED: f64 = 0.5;
/// Share of the memory's peak bandwidth that reading weights reaches.
const BANDWIDTH_REACHED: f64 = 0.75;
/// Share of a GPU's free memory that models get by default; the rest is for CUDA's libraries and for fragmentation.
const MEMORY_SHARE: f64 = 0.9;

/// NVIDIA's GPUs.
#[derive(Debug, Clone, Copy, Default)]
pub struct CudaBackend;

impl Backend for CudaBackend {
    fn kind(&self) -> &'static str {
        DeviceName::cuda(0).kind()
    }

    fn list(&self) -> Result<Vec<Capability>, DeviceError> {
        Ok(cuda_devices()?.iter().map(capability).collect())
    }

    fn listing(&self) -> DeviceListing {
        match cuda_devices().and_then(|devices| Ok((cuda_driver()?, devices))) {
            Ok((driver, devices)) => listing(driver, &devices),
            Err(none) => DeviceListing::none("no GPU", &none),
        }
    }

    fn open(&self, ordinal: usize) -> Result<Arc<dyn Device>, DeviceError> {
        let tensors = TensorDevice::from(open_cuda(ordinal)?);
        Ok(Arc::new(Cuda { told: cuda_device(ordinal)?, tensors }))
    }
}

#[derive(Debug)]
struct Cuda {
    told: CudaDevice,
    tensors: TensorDevice,
}

impl Device for Cuda {
    fn capability(&self) -> Capability {
        capability(&self.told)
    }

    fn class(&self) -> String {
        let CudaDevice { name, compute_capability, .. } = &self.told;
        format!("cuda {compute_capability} {name}")
    }

    fn compute(&self) -> Result<Compute, DeviceError> {
        check_for_candle(self.tensors.as_candle())?;
        Ok(Compute::Tensors(self.tensors.clone()))
    }

    #[cfg(feature = "cuda")]
    fn encoder_precisions(&self, spec: &EncoderSpec) -> Vec<Precision> {
        let precisions = CudaTextEncoder::precisions(spec);
        if precisions.is_empty() { vec![Precision::F32] } else { precisions }
    }

    #[cfg(feature = "cuda")]
    fn encoder(&self, order: &EncoderOrder<'_>) -> Result<Box<dyn EncoderEngine>, LoadError> {
        let EncoderOrder { weights, precision, settings } = order;
        let graphs = settings.cuda_graphs == Some(true);
        if CudaTextEncoder::precisions(weights.spec()).is_empty() {
            return Ok(Box::new(TensorEncoder::load(weights, &self.compute()?.tensors(), &Arc::new(Team::alone()))?));
        }
        Ok(Box::new(CudaTextEncoder::load(weights, *precision, self.told.ordinal, graphs)?))
    }
}

/// Lists the GPUs that a driver of this version has, and says which of them cannot be used.
fn listing(driver: Version, gpus: &[CudaDevice]) -> DeviceListing {
    let mut remarks = vec![format!("CUDA driver {driver}")];
    remarks.extend(gpus.iter().filter_map(|gpu| match (gpu.check(driver), gpu.check_for_candle()) {
        (Err(error), _) => Some(format!("NOT USABLE: {error}")),
        (Ok(()), Err(error)) => Some(format!("ENCODERS ONLY: for other models, {error}")),
        (Ok(()), Ok(())) => None,
    }));
    DeviceListing { devices: gpus.iter().map(|gpu| listed(driver, gpu)).collect(), remarks, error: None }
}

fn listed(driver: Version, gpu: &CudaDevice) -> ListedDevice {
    let facts = [
        ("name", json!(gpu.name)),
        ("compute_capability", json!(gpu.compute_capability.to_string())),
        ("total_memory", json!(gpu.total_memory)),
        ("free_memory", json!(gpu.free_memory)),
        ("driver", json!(driver.to_string())),
    ];
    let error = gpu.check(driver).err().map(|error| ("error", json!(error.to_string())));
    ListedDevice {
        device: DeviceName::cuda(gpu.ordinal),
        name: gpu.name.clone(),
        architecture: format!("compute capability {}", gpu.compute_capability),
        memory: Some(gpu.total_memory as u64),
        free_memory: gpu.free_memory.map(|free| free as u64),
        facts: facts.into_iter().chain(error).map(|(key, fact)| (key.to_owned(), fact)).collect::<Map<_, Value>>(),
    }
}

/// Estimates a GPU: operations are cores per multiprocessor by compute capability ("CUDA C++ Programming Guide",
/// throughput of native arithmetic instructions) × multiprocessors × 2 × clock; the memory moves data twice per clock
/// over its bus.
fn capability(gpu: &CudaDevice) -> Capability {
    // The defaults, for drivers that report no clocks, are those of an NVIDIA T4, the smallest GPU that serves models.
    let or = |value: u32, default: f64| if value == 0 { default } else { f64::from(value) };
    let (clock, memory_clock) = (or(gpu.clock_khz, 1.59e6) * 1e3, or(gpu.memory_clock_khz, 5.0e6) * 1e3);
    let bus_bytes = or(gpu.memory_bus_bits, 256.0) / 8.0;
    let version = gpu.compute_capability;
    let cores = match (version.major, version.minor) {
        (..=7, _) | (8, 0) => 64.0,
        _ => 128.0,
    } * f64::from(gpu.multiprocessors.max(1));
    let free = gpu.free_memory.unwrap_or(gpu.total_memory) as f64 * MEMORY_SHARE;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of a memory that there is")]
    let memory = Some(free as u64);
    Capability {
        device: DeviceName::cuda(gpu.ordinal),
        description: format!("{}, compute capability {version}, {} SMs", gpu.name, gpu.multiprocessors),
        flops: cores * 2.0 * clock * FLOPS_REACHED,
        // The speed of tensor cores is learned, not estimated.
        speeds: Vec::new(),
        bandwidth: 2.0 * memory_clock * bus_bytes * BANDWIDTH_REACHED,
        fixed: FIXED,
        memory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(major: u32, minor: u32, multiprocessors: u32, mhz: u32, memory_mhz: u32, bus: u32) -> Capability {
        capability(&CudaDevice {
            ordinal: 0,
            name: "Test".to_owned(),
            compute_capability: Version { major, minor },
            total_memory: 16 << 30,
            free_memory: Some(10 << 30),
            multiprocessors,
            clock_khz: mhz * 1000,
            memory_clock_khz: memory_mhz * 1000,
            memory_bus_bits: bus,
        })
    }

    #[test]
    fn gpus_are_estimated_at_half_of_the_peak_that_their_sheets_say() {
        // Compute capability, SMs, MHz, memory MHz, bus bits; peak TFLOP/s and GB/s of the data sheet.
        let table = [
            ("T4", gpu(7, 5, 40, 1590, 5001, 256), 8.1, 320.0),
            ("A100", gpu(8, 0, 108, 1410, 1215, 5120), 19.5, 1555.0),
            ("A10", gpu(8, 6, 72, 1695, 6251, 384), 31.2, 600.0),
            ("L4", gpu(8, 9, 58, 2040, 6251, 192), 30.3, 300.0),
            ("H100 SXM", gpu(9, 0, 132, 1980, 2619, 5120), 66.9, 3350.0),
        ];
        for (name, Capability { flops, bandwidth, .. }, tera, giga) in table {
            let ratio = flops / (tera * 1e12 * FLOPS_REACHED);
            assert!((0.97..1.03).contains(&ratio), "{name}: {flops:e} FLOP/s");
            let ratio = bandwidth / (giga * 1e9 * BANDWIDTH_REACHED);
            assert!((0.97..1.03).contains(&ratio), "{name}: {bandwidth:e} B/s");
        }
        assert_eq!(gpu(9, 0, 1, 1, 1, 1).memory, Some(9 << 30), "of what is free, not of what there is");
    }

    #[test]
    fn a_gpu_is_listed_with_its_memory_and_one_that_cannot_be_used_with_the_reason() {
        let device = |ordinal, major, free_memory| CudaDevice {
            ordinal,
            name: "NVIDIA Test".to_owned(),
            compute_capability: Version { major, minor: 0 },
            total_memory: 3 << 29,
            free_memory,
            multiprocessors: 108,
            clock_khz: 1_410_000,
            memory_clock_khz: 1_215_000,
            memory_bus_bits: 5120,
        };
        let driver = Version { major: 13, minor: 0 };
        let DeviceListing { devices, remarks, error } =
            listing(driver, &[device(0, 9, Some(1 << 30)), device(1, 6, None)]);
        let reason = "cuda:1 (NVIDIA Test) has compute capability 6.0; 7.5 or higher is needed";
        assert_eq!(remarks, ["CUDA driver 13.0".to_owned(), format!("NOT USABLE: {reason}")]);
        assert_eq!(error, None);
        assert_eq!((devices[0].memory, devices[0].free_memory), (Some(3 << 29), Some(1 << 30)));
        assert_eq!((devices[1].device, devices[1].free_memory), (DeviceName::cuda(1), None));
        assert_eq!(devices[0].architecture, "compute capability 9.0");
        let (usable, other) = (&devices[0].facts, &devices[1].facts);
        assert_eq!((&usable["free_memory"], &usable["driver"]), (&json!(1_u64 << 30), &json!("13.0")));
        assert_eq!((usable.get("error"), other.get("error")), (None, Some(&json!(reason))));
        assert_eq!(other["free_memory"], Value::Null);
    }

    #[test]
    fn a_driver_that_tells_no_clocks_gives_an_estimate_all_the_same() {
        let silent = gpu(8, 0, 108, 0, 0, 0);
        assert!(silent.flops > 1e12 && silent.bandwidth > 1e11, "{silent:?}");
    }
}
