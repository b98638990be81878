//! Numbers of a distribution, drawn in the order of their stream.

use crate::device::memory::Memory;
use crate::device::schedule::StreamId;
use crate::interpreter::FaultKind;

/// A generator.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    /// The stream on which it writes its numbers.
    pub stream: StreamId,
    /// State of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
    pub state: u64,
}

/// The distribution of the numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// In (0, 1].
    Uniform,
    Normal {
        mean: f64,
        deviation: f64,
    },
    /// Uniform bits.
    Bits,
}

/// A draw of numbers that is queued on a stream.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub to: u64,
    pub count: usize,
    /// Bytes of one number.
    pub width: usize,
    pub distribution: Distribution,
    /// State of the generator before the first number.
    pub state: u64,
}

/// The next 64 bits.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// The state after `count` numbers of a draw.
pub fn advance(state: u64, count: usize) -> u64 {
    // A normal number takes two.
    state.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(2 * count as u64))
}

impl Draw {
    /// Writes the numbers.
    pub fn run(&self, memory: &mut Memory) -> Result<(), FaultKind> {
        let mut state = self.state;
        memory.write_with(self.to, self.count * self.width, |data| {
            for place in data.chunks_exact_mut(self.width) {
                let (first, second) = (next(&mut state), next(&mut state));
                let bits = match self.distribution {
                    Distribution::Bits => first,
                    Distribution::Uniform => self.encode(unit(first)),
                    Distribution::Normal { mean, deviation } => {
                        // Box and Muller.
                        let radius = (-2.0 * unit(first).ln()).sqrt();
                        self.encode(mean + deviation * radius * (std::f64::consts::TAU * unit(second)).cos())
                    }
                };
                place.copy_from_slice(&bits.to_le_bytes()[..self.width]);
            }
        })
    }

    fn encode(&self, value: f64) -> u64 {
        if self.width == 8 { value.to_bits() } else { u64::from((value as f32).to_bits()) }
    }
}

/// 53 random bits as a number in (0, 1].
fn unit(bits: u64) -> f64 {
    ((bits >> 11) + 1) as f64 / (1u64 << 53) as f64
}
