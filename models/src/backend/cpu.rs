//! The CPU: the kernels of `sconce-kernels`, and candle's operations for encoders that the kernels lack.

use std::sync::Arc;

use sconce_kernels::device::DeviceError;
use sconce_kernels::encoder::EncoderSpec;
use sconce_kernels::{Isa, Team};
use serde_json::Value;

use super::{Backend, Capability, Compute, Device, DeviceListing, EncoderOrder, ListedDevice};
use crate::encoder::{PackedEncoder, TensorEncoder};
use crate::{DeviceName, EncoderEngine, LoadError, Precision};

/// Operations per second that one core sustains in f32, by instruction set. AVX2 has a peak of 88 GFLOP/s on a core at
/// about 2.7 GHz (two fused multiply-adds of eight lanes per cycle), of which whole forward passes reach 83 %, measured
/// on two cores of Zen 3. AVX-512 has twice the lanes and a lower clock: 1.6 times as much. NEON has half the lanes.
/// Without any of them the compiler uses SSE2, with two instructions for each multiply-add.
fn flops(isa: Isa) -> f64 {
    match isa.name() {
        name if name.starts_with("avx512") => 115e9,
        name if name.starts_with("avx") => 72e9,
        name if name.starts_with("neon") => 36e9,
        _ => 12e9,
    }
}

/// Bytes per second that one core reads from memory, and that a socket reads at most: common values of servers with four
/// channels of DDR4.
const BANDWIDTH: (f64, f64) = (10e9, 60e9);
/// Seconds to wake the device's thread and its helpers: between the 75 µs measured on an idle machine (ARCHITECTURE.md)
/// and about half of that on a busy one.
const FIXED: f64 = 50e-6;
/// Speed of int8 as a multiple of f32 (measured: 1.7 to 2.1). `q8_0` and `q4k` save memory, not time.
const INT8_SPEED: f64 = 1.8;

/// The processor's cores as one device.
#[derive(Debug, Clone, Default)]
pub struct CpuBackend {
    team: Arc<Team>,
}

impl CpuBackend {
    /// The CPU, computing on the threads of `team`.
    #[must_use]
    pub fn new(team: Arc<Team>) -> Self {
        Self { team }
    }

    pub(super) fn device(&self) -> Arc<dyn Device> {
        Arc::new(Cpu { team: Arc::clone(&self.team) })
    }
}

impl Backend for CpuBackend {
    fn kind(&self) -> &'static str {
        DeviceName::CPU.kind()
    }

    fn list(&self) -> Result<Vec<Capability>, DeviceError> {
        Ok(vec![self.device().capability()])
    }

    fn listing(&self) -> DeviceListing {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (threads, isa) = (self.team.threads().get(), Isa::best().name());
        let facts = [("cores", cores.into()), ("threads", threads.into()), ("instruction_set", isa.into())];
        let cpu = ListedDevice {
            device: DeviceName::CPU,
            name: format!("{cores} cores, {threads} threads a batch"),
            architecture: isa.to_owned(),
            memory: None,
            free_memory: None,
            facts: facts.map(|(key, fact): (&str, Value)| (key.to_owned(), fact)).into_iter().collect(),
        };
        DeviceListing { devices: vec![cpu], ..DeviceListing::default() }
    }

    fn open(&self, ordinal: usize) -> Result<Arc<dyn Device>, DeviceError> {
        match ordinal {
            0 => Ok(self.device()),
            _ => Err(DeviceError::UnknownKind { device: DeviceName::new(self.kind(), ordinal).to_string() }),
        }
    }
}

#[derive(Debug)]
struct Cpu {
    team: Arc<Team>,
}

impl Device for Cpu {
    fn capability(&self) -> Capability {
        capability(self.team.threads().get(), Isa::best())
    }

    fn class(&self) -> String {
        format!("cpu {}", Isa::best().name())
    }

    fn compute(&self) -> Result<Compute, DeviceError> {
        Ok(Compute::Kernels(Arc::clone(&self.team)))
    }

    fn encoder_precisions(&self, spec: &EncoderSpec) -> Vec<Precision> {
        PackedEncoder::precisions(spec)
    }

    fn encoder(&self, order: &EncoderOrder<'_>) -> Result<Box<dyn EncoderEngine>, LoadError> {
        let EncoderOrder { weights, precision, .. } = order;
        Ok(match weights.spec().fused() {
            Ok(fused) => Box::new(PackedEncoder::load(weights, fused, *precision, &self.team)?),
            Err(_) => Box::new(TensorEncoder::load(weights, &super::TensorDevice::cpu(), &self.team)?),
        })
    }
}

fn capability(threads: usize, isa: Isa) -> Capability {
    let (of_core, of_socket) = BANDWIDTH;
    Capability {
        device: DeviceName::CPU,
        description: format!("{threads} threads, {}", isa.name()),
        flops: flops(isa) * threads as f64,
        speeds: vec![(Precision::Int8, INT8_SPEED)],
        bandwidth: (of_core * threads as f64).min(of_socket),
        fixed: FIXED,
        // The operating system shares out memory; the runtime's configuration may set a bound.
        memory: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_are_faster_but_share_the_memory() {
        let cpu = |threads| capability(threads, Isa::best());
        assert!((cpu(4).flops / cpu(1).flops - 4.0).abs() < 1e-9);
        assert!(cpu(64).bandwidth < 7.0 * cpu(1).bandwidth);
    }

    #[test]
    fn the_class_of_a_cpu_names_its_instructions() {
        let device = CpuBackend::default().open(0).unwrap();
        assert_eq!(device.class(), format!("cpu {}", Isa::best().name()));
        assert_eq!(device.capability().device, DeviceName::CPU);
        assert!(CpuBackend::default().open(1).is_err());
    }
}
