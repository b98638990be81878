//! Shared by the tests of the launchers: a device for each version of the PTX, and the allowed errors.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::ptx::PtxVersion;
use super::{Buffer, Element, Gpu, Matrix, QuantizedMatrix, View};
use crate::aligned::Number;
use crate::device::{DeviceError, cuda_devices};

/// Runs `check` with each version of the PTX that the first device can run (all of them where its compute capability is
/// 8.9 or higher) and whose code is not that of the next lower version. Without a device it says so and checks nothing.
pub(crate) fn each_gpu(check: impl Fn(&Gpu)) {
    for gpu in gpus().iter() {
        gpu.bind().unwrap();
        check(gpu);
    }
}

/// Runs `check` with a function that opens a device of its own, for each version.
pub(crate) fn each_new_gpu(check: impl Fn(&dyn Fn() -> Gpu)) {
    // Locked throughout: the simulator lets no thread allocate while another one records.
    for gpu in gpus().iter() {
        check(&|| Gpu::with_version(0, Some(gpu.version())).unwrap());
    }
}

/// Devices shared by all tests, one test at a time, so that the driver compiles each version once.
fn gpus() -> MutexGuard<'static, Vec<Gpu>> {
    static GPUS: OnceLock<Mutex<Vec<Gpu>>> = OnceLock::new();
    let open = || {
        if let Err(error @ (DeviceError::NoDriver { .. } | DeviceError::NoDevice)) = cuda_devices() {
            assert!(std::env::var_os("SCONCE_EXPECT_GPU").is_none(), "a GPU is expected, but {error}");
            println!("SKIPPED: {error}");
            return Mutex::default();
        }
        let best = Gpu::open(0).expect("there is a device").version();
        let versions = PtxVersion::with_code_of_its_own().filter(|version| *version <= best);
        Mutex::new(versions.map(|version| Gpu::with_version(0, Some(version)).unwrap()).collect())
    };
    GPUS.get_or_init(open).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Values as the device will see them: rounded to the element.
pub(crate) fn rounded(element: Element, values: &[f32]) -> Vec<f32> {
    let round = |value: &f32| match element {
        Element::F32 => *value,
        Element::F16 => half::f16::from_f32(*value).to_f32(),
        Element::Bf16 => half::bf16::from_f32(*value).to_f32(),
    };
    values.iter().map(round).collect()
}

/// The allowed error as a part of the larger of 1 and the expected value.
pub(crate) fn tolerance(element: Element) -> f64 {
    match element {
        Element::F32 => 1e-5,
        Element::F16 => 2e-3,
        Element::Bf16 => 1e-2,
    }
}

/// Compares each number; `case` is named where one is wrong.
pub(crate) fn assert_near(got: &[f32], expected: &[f64], element: Element, case: &dyn std::fmt::Debug) {
    assert_within(got, expected, tolerance(element), &(element, case));
}

/// [`assert_near`] with another tolerance.
pub(crate) fn assert_within(got: &[f32], expected: &[f64], tolerance: f64, case: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), expected.len(), "{case:?}");
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - expected).abs() / expected.abs().max(1.0);
        assert!(error <= tolerance, "{case:?} at {at}: {got} for {expected}");
    }
}

impl Gpu {
    /// Uninitialised memory for a matrix.
    pub(crate) fn room(&self, rows: usize, columns: usize, element: Element) -> Buffer {
        self.allocate(rows * columns * element.size()).unwrap()
    }

    /// Reads numbers from the device, once all queued work is done.
    pub(crate) fn read<T: Number>(&self, from: View<'_, T>) -> Vec<T> {
        let mut to = self.pinned(from.len()).unwrap();
        self.copy_out(from, &mut to, from.len()).unwrap();
        self.wait().unwrap();
        to.to_vec()
    }

    /// Reads a matrix as f32.
    pub(crate) fn download(&self, matrix: Matrix<'_>, buffer: &Buffer) -> Vec<f32> {
        let count = matrix.rows() * matrix.columns();
        if matrix.element() == Element::F32 {
            return self.read(buffer.view(0, count));
        }
        let bits: Vec<u16> = self.read(buffer.view(0, count));
        let widen = |bits: u16| match matrix.element() {
            Element::F16 => half::f16::from_bits(bits).to_f32(),
            _ => half::bf16::from_bits(bits).to_f32(),
        };
        bits.into_iter().map(widen).collect()
    }
}

/// Room for quantised rows.
pub(crate) struct QuantizedRoom {
    values: Buffer,
    scales: Buffer,
    zeros: Buffer,
    rows: usize,
    columns: usize,
}

impl QuantizedRoom {
    pub(crate) fn new(gpu: &Gpu, rows: usize, columns: usize) -> Self {
        let room = |bytes| gpu.allocate(bytes).unwrap();
        let values = room(rows * QuantizedMatrix::stride(columns));
        Self { values, scales: room(rows * 4), zeros: room(rows * 4), rows, columns }
    }

    pub(crate) fn matrix(&self) -> QuantizedMatrix<'_> {
        let Self { rows, columns, .. } = *self;
        QuantizedMatrix {
            values: self.values.view(0, rows * QuantizedMatrix::stride(columns)),
            scales: self.scales.view(0, rows),
            zeros: self.zeros.view(0, rows),
            columns,
        }
    }

    /// Compares every row with the reference for these numbers. Where `exact` is false, a byte may be off by one: the
    /// device then quantised numbers that it had computed itself.
    pub(crate) fn assert_holds(&self, gpu: &Gpu, x: &[f32], exact: bool, case: &dyn std::fmt::Debug) {
        let stride = QuantizedMatrix::stride(self.columns);
        let QuantizedMatrix { values, scales, zeros, .. } = self.matrix();
        let (values, scales, zeros) = (gpu.read(values), gpu.read(scales), gpu.read(zeros));
        let slack = i32::from(!exact);
        for (row, x) in x.chunks_exact(self.columns).enumerate() {
            let (bytes, scale, zero) = crate::quantize::reference::quantize_row(x, 255);
            assert!((scales[row] - scale).abs() <= slack as f32 * 1e-4 * scale, "{case:?}: {} {scale}", scales[row]);
            assert!((zeros[row] + 128 - zero).abs() <= slack, "{case:?}: {} {zero}", zeros[row]);
            let got = &values[row * stride..][..stride];
            for (got, byte) in got.iter().zip(&bytes) {
                assert!((i32::from(*got) + 128 - i32::from(*byte)).abs() <= slack, "{case:?}: {got} {byte}");
            }
            assert!(got[self.columns..].iter().all(|byte| *byte == 0), "{case:?}: {got:?}");
        }
    }
}
