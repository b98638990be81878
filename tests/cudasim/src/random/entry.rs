//! The entry points of cuRAND that candle and cudarc call.

use std::ffi::c_int;

use super::draw::{Distribution, Draw, Generator, advance};
use crate::device::error::Status;
use crate::device::host::{Out, put};
use crate::device::simulator::{self, Simulator};
use crate::device::work::Work;

/// `curandStatus_t`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct RandomStatus(pub u32);

impl From<Status> for RandomStatus {
    fn from(status: Status) -> Self {
        Self(match status {
            Status::SUCCESS => 0,
            Status::INVALID_HANDLE => 101,
            Status::OUT_OF_MEMORY => 102,
            Status::INVALID_VALUE => 104,
            Status::UNKNOWN => 999,
            _ => 201,
        })
    }
}

macro_rules! random_entry_points {
    ($($(#[$meta:meta])* fn $name:ident($simulator:ident $(, $argument:ident: $ty:ty)* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $ty),*) -> RandomStatus {
            simulator::call(stringify!($name), |$simulator| $body).into()
        }
    )*};
}

fn draw(
    simulator: &mut Simulator,
    generator: u64,
    to: u64,
    count: usize,
    width: usize,
    distribution: Distribution,
) -> Result<(), Status> {
    let state = simulator.generators.get_mut(&generator).ok_or(Status::INVALID_HANDLE)?;
    let Generator { stream, state: before } = *state;
    state.state = advance(before, count);
    let device = simulator.streams.get(&stream).ok_or(Status::INVALID_HANDLE)?.device;
    let draw = Draw { to, count, width, distribution, state: before };
    simulator.enqueue(stream, Work::Draw { device, draw: draw.into() })
}

random_entry_points! {
    /// Creates a generator; all kinds are the same here.
    fn curandCreateGenerator(simulator, generator: Out<u64>, _kind: c_int) {
        let stream = simulator.stream(0)?;
        let handle = simulator.new_handle();
        simulator.generators.insert(handle, Generator { stream, state: 0 });
        put(generator, handle)
    }

    /// Destroys a generator.
    fn curandDestroyGenerator(simulator, generator: u64) {
        simulator.generators.remove(&generator).map(|_| ()).ok_or(Status::INVALID_HANDLE)
    }

    /// Sets the stream on which a generator writes.
    fn curandSetStream(simulator, generator: u64, stream: u64) {
        let stream = simulator.stream(stream)?;
        simulator.generators.get_mut(&generator).ok_or(Status::INVALID_HANDLE)?.stream = stream;
        Ok(())
    }

    /// Seeds a generator.
    fn curandSetPseudoRandomGeneratorSeed(simulator, generator: u64, seed: u64) {
        simulator.generators.get_mut(&generator).ok_or(Status::INVALID_HANDLE)?.state = seed;
        Ok(())
    }

    /// Skips numbers.
    fn curandSetGeneratorOffset(simulator, generator: u64, offset: u64) {
        let generator = simulator.generators.get_mut(&generator).ok_or(Status::INVALID_HANDLE)?;
        generator.state = advance(generator.state, offset as usize);
        Ok(())
    }

    /// Random 32-bit integers.
    fn curandGenerate(simulator, generator: u64, to: u64, count: usize) {
        draw(simulator, generator, to, count, 4, Distribution::Bits)
    }

    /// Uniform numbers in (0, 1].
    fn curandGenerateUniform(simulator, generator: u64, to: u64, count: usize) {
        draw(simulator, generator, to, count, 4, Distribution::Uniform)
    }

    /// Uniform numbers in (0, 1].
    fn curandGenerateUniformDouble(simulator, generator: u64, to: u64, count: usize) {
        draw(simulator, generator, to, count, 8, Distribution::Uniform)
    }

    /// Normal numbers; their count must be even.
    fn curandGenerateNormal(simulator, generator: u64, to: u64, count: usize, mean: f32, deviation: f32) {
        if !count.is_multiple_of(2) {
            return Err(Status::INVALID_VALUE);
        }
        let distribution = Distribution::Normal { mean: mean.into(), deviation: deviation.into() };
        draw(simulator, generator, to, count, 4, distribution)
    }

    /// Normal numbers; their count must be even.
    fn curandGenerateNormalDouble(simulator, generator: u64, to: u64, count: usize, mean: f64, deviation: f64) {
        if !count.is_multiple_of(2) {
            return Err(Status::INVALID_VALUE);
        }
        draw(simulator, generator, to, count, 8, Distribution::Normal { mean, deviation })
    }
}
