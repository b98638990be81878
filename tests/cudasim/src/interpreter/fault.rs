//! Faults of a kernel.

use std::fmt;

use thiserror::Error;

/// A mistake that an instruction of a kernel makes.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FaultKind {
    /// An access outside of every allocation.
    #[error("out of bounds: {bytes} bytes at {address:#x} of {space} memory ({near})")]
    OutOfBounds {
        /// The state space.
        space: &'static str,
        /// The first byte.
        address: u64,
        /// Number of bytes.
        bytes: usize,
        /// The closest allocation, in words.
        near: String,
    },
    /// An access to memory that has been freed.
    #[error("use after free: {bytes} bytes at {address:#x}, in an allocation of {allocated} bytes that is freed")]
    UseAfterFree {
        /// The first byte.
        address: u64,
        /// Number of bytes.
        bytes: usize,
        /// Size of the allocation.
        allocated: usize,
    },
    /// An address that is no multiple of the access's size.
    #[error("misaligned: {bytes} bytes at {address:#x} of {space} memory")]
    Misaligned {
        /// The state space.
        space: &'static str,
        /// The first byte.
        address: u64,
        /// Number of bytes.
        bytes: usize,
    },
    /// A read of bytes that nothing has written.
    #[error("uninitialised read: {bytes} bytes at {address:#x} of {space} memory")]
    Uninitialised {
        /// The state space.
        space: &'static str,
        /// The first byte.
        address: u64,
        /// Number of bytes.
        bytes: usize,
    },
    /// Two threads access a byte of shared memory with no barrier between, and one of them writes.
    #[error(
        "race on shared memory at {address:#x}: {what} by thread {other}, then {then} by thread {thread}, with no barrier between"
    )]
    Race {
        /// The byte.
        address: u64,
        /// The kind of the earlier access.
        what: &'static str,
        /// The thread of the earlier access.
        other: u32,
        /// The kind of the later access.
        then: &'static str,
        /// The thread of the later access.
        thread: u32,
    },
    /// An access to shared memory that an asynchronous copy has not reached yet.
    #[error("shared memory at {address:#x} is used before the `cp.async` into it was waited for")]
    CopyInFlight {
        /// The byte.
        address: u64,
    },
    /// Threads that should meet at a barrier do not.
    #[error("barrier divergence: {what}")]
    BarrierDivergence {
        /// The threads that reach the barrier and those that do not.
        what: String,
    },
    /// No thread of the block can go on.
    #[error("deadlock: {what}")]
    Deadlock {
        /// The waits of the threads.
        what: String,
    },
    /// A shuffle reads from a lane that does not take part.
    #[error("lane {lane} shuffles from lane {from}, which does not take part")]
    InactiveLane {
        /// The reading lane.
        lane: u32,
        /// The lane it reads.
        from: u32,
    },
    /// A collective instruction's mask does not contain a lane that executes it.
    #[error("lane {lane} executes a collective instruction whose mask {mask:#010x} does not name it")]
    NotInMask {
        /// The lane.
        lane: u32,
        /// The mask.
        mask: u32,
    },
    /// `trap`, or a failed assertion.
    #[error("{why}")]
    Trap {
        /// The text of the trap or assertion.
        why: String,
    },
    /// The launch executed more instructions than `CUDASIM_MAX_INSTRUCTIONS`.
    #[error("more than {max} warp instructions: an endless loop, or a wait for another block")]
    TooLong {
        /// The limit.
        max: u64,
    },
}

/// A [`FaultKind`] with the place where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The mistake.
    pub kind: FaultKind,
    /// The kernel.
    pub kernel: String,
    /// The text of the instruction; empty for a fault of the whole block.
    pub instruction: String,
    /// The block.
    pub block: [u32; 3],
    /// The warp, if a single one is at fault.
    pub warp: Option<u32>,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        write!(formatter, "{} in kernel `{}`", self.kind, self.kernel)?;
        if !self.instruction.is_empty() {
            write!(formatter, " at `{}`", self.instruction)?;
        }
        write!(formatter, ", block ({x}, {y}, {z})")?;
        if let Some(warp) = self.warp {
            write!(formatter, ", warp {warp}")?;
        }
        Ok(())
    }
}
