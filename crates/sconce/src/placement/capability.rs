//! What devices can do, estimated from what they tell of themselves. Once batches have run, what was learned takes its place.

use sconce_models::{CudaDevice, DeviceName, Isa, Precision};

/// What a device can do. All figures are estimates.
#[derive(Debug, Clone, PartialEq)]
pub struct Capability {
    /// Its name.
    pub device: DeviceName,
    /// What it is, in the words of a listing.
    pub description: String,
    /// Floating-point operations a second in f32, as products of a model's size sustain.
    pub flops: f64,
    /// Bytes a second that weights are read with.
    pub bandwidth: f64,
    /// Seconds that a batch costs however small it is.
    pub fixed: f64,
    /// Bytes that models may take; `None`: no bound is known.
    pub memory: Option<u64>,
}

/// What the CPU tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuFigures {
    /// Threads that compute a batch.
    pub threads: usize,
    /// Their instructions.
    pub isa: Isa,
}

/// f32 that one core sustains, by what an instruction takes. With AVX2: 88 GFLOP/s of peak on a core at 2.7 GHz or so (two
/// fused multiply-adds of eight lanes a cycle), of which whole forward passes reach 83 %, measured on two cores of Zen 3.
/// AVX-512 has twice the lanes and a lower clock: 1.6 times that. NEON has half the lanes. Without any of them the compiler uses
/// SSE2, with two instructions for each multiply-add.
fn cpu_flops(isa: Isa) -> f64 {
    match isa.name() {
        name if name.starts_with("avx512") => 115e9,
        name if name.starts_with("avx") => 72e9,
        name if name.starts_with("neon") => 36e9,
        _ => 12e9,
    }
}

/// What one core reads from memory in a second, and what a socket does at most: common to servers with four channels of DDR4.
const CPU_BANDWIDTH: (f64, f64) = (10e9, 60e9);
/// To wake the device's thread and its helpers, about 75 µs where they sleep (measured, ARCHITECTURE.md), and half of that where
/// the machine is busy anyway.
const CPU_FIXED: f64 = 50e-6;

/// Some 125 launches and 80 small copies of a forward pass through candle's operations at 3 to 5 µs each, one wait for the end,
/// one copy back. An engine with fewer launches costs less; it is learned within eight batches.
const GPU_FIXED: f64 = 700e-6;
/// What products of a model's size reach of a GPU's peak without tensor cores.
const GPU_FLOPS_REACHED: f64 = 0.5;
/// What reading weights reaches of the peak of the memory.
const GPU_BANDWIDTH_REACHED: f64 = 0.75;
/// What of a GPU's free memory models are given, unless told: the rest is for the libraries and for what is cut into pieces.
const GPU_MEMORY_SHARE: f64 = 0.9;

impl Capability {
    /// Of the CPU.
    #[must_use]
    pub fn of_cpu(figures: CpuFigures) -> Self {
        let CpuFigures { threads, isa } = figures;
        let (of_core, of_socket) = CPU_BANDWIDTH;
        Self {
            device: DeviceName::Cpu,
            description: format!("{threads} threads, {}", isa.name()),
            flops: cpu_flops(isa) * threads as f64,
            bandwidth: (of_core * threads as f64).min(of_socket),
            fixed: CPU_FIXED,
            // The operating system's to share out, unless somebody sets a bound.
            memory: None,
        }
    }

    /// Of a GPU: cores per multiprocessor by compute capability ("CUDA C++ Programming Guide", throughput of native arithmetic
    /// instructions) × 2 operations × clock; the memory moves data twice a clock over its bus.
    #[must_use]
    pub fn of_gpu(gpu: &CudaDevice) -> Self {
        // Where the driver tells no clock: those of an NVIDIA T4, the smallest that serves models.
        let or = |value: u32, default: f64| if value == 0 { default } else { f64::from(value) };
        let (clock, memory_clock) = (or(gpu.clock_khz, 1.59e6) * 1e3, or(gpu.memory_clock_khz, 5.0e6) * 1e3);
        let bus_bytes = or(gpu.memory_bus_bits, 256.0) / 8.0;
        let version = gpu.compute_capability;
        let cores = match (version.major, version.minor) {
            (..=7, _) | (8, 0) => 64.0,
            _ => 128.0,
        } * f64::from(gpu.multiprocessors.max(1));
        let free = gpu.free_memory.unwrap_or(gpu.total_memory) as f64 * GPU_MEMORY_SHARE;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of a memory that there is")]
        let memory = Some(free as u64);
        Self {
            device: DeviceName::Cuda { ordinal: gpu.ordinal },
            description: format!("{}, compute capability {version}, {} SMs", gpu.name, gpu.multiprocessors),
            flops: cores * 2.0 * clock * GPU_FLOPS_REACHED,
            bandwidth: 2.0 * memory_clock * bus_bytes * GPU_BANDWIDTH_REACHED,
            fixed: GPU_FIXED,
            memory,
        }
    }

    /// How much faster products are in a precision than in f32. On the CPU int8 is 1.8 times as fast (measured, 1.7 to 2.1), and
    /// blocks of weights alone save memory, not time. On a GPU f32 is what is estimated; what tensor cores add is learned.
    #[must_use]
    pub fn speed(&self, precision: Precision) -> f64 {
        match (self.device, precision) {
            (DeviceName::Cpu, Precision::Int8) => 1.8,
            _ => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use sconce_models::Version;

    use super::*;

    fn gpu(major: u32, minor: u32, multiprocessors: u32, mhz: u32, memory_mhz: u32, bus: u32) -> Capability {
        Capability::of_gpu(&CudaDevice {
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
        // Capability, SMs, MHz, memory MHz, bus; peak TFLOP/s and GB/s of the data sheet.
        let table = [
            ("T4", gpu(7, 5, 40, 1590, 5001, 256), 8.1, 320.0),
            ("A100", gpu(8, 0, 108, 1410, 1215, 5120), 19.5, 1555.0),
            ("A10", gpu(8, 6, 72, 1695, 6251, 384), 31.2, 600.0),
            ("L4", gpu(8, 9, 58, 2040, 6251, 192), 30.3, 300.0),
            ("H100 SXM", gpu(9, 0, 132, 1980, 2619, 5120), 66.9, 3350.0),
        ];
        for (name, Capability { flops, bandwidth, .. }, tera, giga) in table {
            let ratio = flops / (tera * 1e12 * GPU_FLOPS_REACHED);
            assert!((0.97..1.03).contains(&ratio), "{name}: {flops:e} FLOP/s");
            let ratio = bandwidth / (giga * 1e9 * GPU_BANDWIDTH_REACHED);
            assert!((0.97..1.03).contains(&ratio), "{name}: {bandwidth:e} B/s");
        }
        assert_eq!(gpu(9, 0, 1, 1, 1, 1).memory, Some(9 << 30), "of what is free, not of what there is");
    }

    #[test]
    fn a_driver_that_tells_no_clocks_gives_an_estimate_all_the_same() {
        let silent = gpu(8, 0, 108, 0, 0, 0);
        assert!(silent.flops > 1e12 && silent.bandwidth > 1e11, "{silent:?}");
    }

    #[test]
    fn more_threads_are_faster_but_share_the_memory() {
        let cpu = |threads| Capability::of_cpu(CpuFigures { threads, isa: Isa::best() });
        assert!((cpu(4).flops / cpu(1).flops - 4.0).abs() < 1e-9);
        assert!(cpu(64).bandwidth < 7.0 * cpu(1).bandwidth);
    }
}
