//! Runs a [`Program`] over a grid of blocks: 32 lanes in lock step, every access checked.
//!
//! Blocks run one after another, and the warps of a block by turns, so a launch gives the same result each time. A
//! kernel that needs two blocks at once (one waits for another) never ends, and is reported as such.
//!
//! | file | job |
//! |---|---|
//! | `block.rs` | the warps of a block, barriers, deadlock |
//! | `warp.rs` | fragments of a warp that have diverged, and which runs next |
//! | `execute.rs` | one instruction: fetch operands, compute, write back |
//! | `integer.rs`, `float.rs`, `convert.rs`, `bits.rs`, `numeric.rs` | arithmetic |
//! | `access.rs`, `copies.rs`, `shared.rs` | memory |
//! | `collective.rs`, `matrix.rs` | operations of several lanes together |

mod access;
mod bits;
mod block;
mod collective;
mod convert;
mod copies;
mod execute;
mod fault;
mod float;
mod integer;
mod lanes;
mod matrix;
pub mod numeric;
mod shared;
mod warp;

pub use fault::{Fault, FaultKind};
pub use shared::SharedChecks;

use block::Block;
use lanes::Lanes;

use crate::device::memory::Memory;
use crate::ptx::Program;

/// A kernel launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Number of blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared_bytes: usize,
    /// The parameters as one block of memory.
    pub parameters: Vec<u8>,
    /// The checks of shared memory that are on.
    pub checks: SharedChecks,
    /// Bound on the warp instructions of the launch.
    pub max_instructions: u64,
}

impl Launch {
    fn threads(&self) -> u32 {
        self.block.iter().product()
    }
}

/// State that the blocks of a launch share while it runs.
struct Machine<'a> {
    program: &'a Program,
    launch: &'a Launch,
    memory: &'a mut Memory,
    constants: Vec<Lanes>,
    /// Warp instructions executed so far.
    executed: u64,
}

/// Runs a launch to its end; returns the number of warp instructions executed.
///
/// # Errors
///
/// The first fault. Writes until then stay in memory.
pub fn run(program: &Program, launch: &Launch, memory: &mut Memory) -> Result<u64, Box<Fault>> {
    let constants = program.constants.iter().map(|value| [*value; 32]).collect();
    let mut machine = Machine { program, launch, memory, constants, executed: 0 };
    let mut block = Block::new(program, launch);
    let [x_blocks, y_blocks, z_blocks] = launch.grid;
    for z in 0..z_blocks {
        for y in 0..y_blocks {
            for x in 0..x_blocks {
                block.start([x, y, z], &machine);
                block.run(&mut machine)?;
            }
        }
    }
    Ok(machine.executed)
}
