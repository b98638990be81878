//! A block's shared memory, with a shadow of the last accesses to each byte.
//!
//! Time is a counter that grows with each instruction on shared memory. Two accesses to a byte by different threads, one
//! of them a write, are ordered if a barrier lies between them: a barrier of the block for threads of different warps,
//! that or `bar.warp.sync` for lanes of one warp. A collective instruction such as a shuffle does not order memory.
//!
//! Simplified: a barrier of a part of the block counts as one of the whole block, which can hide a race, never invent one.

use super::fault::FaultKind;

/// The thread that accesses memory, and the time when its warp last met at a barrier.
#[derive(Clone, Copy, Debug)]
pub struct Accessor {
    pub thread: u32,
    /// Time of the last `bar.warp.sync` of its warp.
    pub warp_time: u32,
}

/// Kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Plain,
    /// An access that the program itself orders between lanes of a warp.
    Volatile,
    /// An access that never races with other atomics.
    Atomic,
}

/// The shadow of one byte. Times before the block's start mean "not yet".
#[derive(Clone, Copy, Debug, Default)]
struct Shadow {
    written: u32,
    read: u32,
    writer: u16,
    /// The thread that read, one lane of several of its warp, or one thread of several warps: see `readers`.
    reader: u16,
    readers: Readers,
    last_write: Write,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Readers {
    #[default]
    One,
    Warp,
    Block,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Write {
    #[default]
    Plain,
    Atomic,
    /// An asynchronous copy to the byte is in flight.
    InFlight,
}

/// The checks that are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedChecks {
    pub races: bool,
    pub uninitialised: bool,
}

/// Shared memory of the running block.
#[derive(Debug)]
pub struct SharedMemory {
    bytes: Vec<u8>,
    shadow: Vec<Shadow>,
    checks: SharedChecks,
    now: u32,
    block_start: u32,
    barrier: u32,
}

/// Content of unwritten shared memory: NaN as a float, far out of bounds as an index.
const POISON: u8 = 0xff;

impl SharedMemory {
    /// `bytes` of shared memory.
    pub fn new(bytes: usize, checks: SharedChecks) -> Self {
        Self {
            bytes: vec![POISON; bytes],
            shadow: vec![Shadow::default(); bytes],
            checks,
            now: 1,
            block_start: 1,
            barrier: 1,
        }
    }

    /// Starts a new block: nothing is written.
    pub fn start_block(&mut self) {
        self.bytes.fill(POISON);
        self.now += 1;
        self.block_start = self.now;
        self.barrier = self.now;
    }

    /// Notes a barrier of the block.
    pub fn block_barrier(&mut self) {
        self.now += 1;
        self.barrier = self.now;
    }

    /// Notes a barrier of a warp; returns the time to keep for its lanes.
    pub fn warp_barrier(&mut self) -> u32 {
        self.now += 1;
        self.now
    }

    /// Starts the next instruction: all accesses of its lanes happen at one time.
    pub fn next_instruction(&mut self) {
        self.now += 1;
    }

    /// Reads `bytes` at `address`.
    #[inline]
    pub fn read(&mut self, address: u64, bytes: usize, by: Accessor, meaning: Meaning) -> Result<&[u8], FaultKind> {
        let range = self.range(address, bytes)?;
        for at in range.clone() {
            self.note_read(at, by, meaning, (address, bytes))?;
        }
        Ok(&self.bytes[range])
    }

    /// Writes `data` at `address`.
    #[inline]
    pub fn write(&mut self, address: u64, data: &[u8], by: Accessor, meaning: Meaning) -> Result<(), FaultKind> {
        let range = self.range(address, data.len())?;
        for (at, byte) in range.clone().zip(data) {
            self.note_write(at, *byte, by, meaning)?;
        }
        self.bytes[range].copy_from_slice(data);
        Ok(())
    }

    /// Checks that an asynchronous copy to `address` is allowed and marks its bytes as in flight.
    pub fn start_copy(&mut self, address: u64, bytes: usize, by: Accessor) -> Result<(), FaultKind> {
        let range = self.range(address, bytes)?;
        for at in range {
            self.note_write(at, POISON, by, Meaning::Plain)?;
            self.shadow[at].last_write = Write::InFlight;
            self.bytes[at] = POISON;
        }
        Ok(())
    }

    /// Lands an asynchronous copy that its thread has waited for.
    pub fn land_copy(&mut self, address: u64, data: &[u8], by: Accessor) -> Result<(), FaultKind> {
        let range = self.range(address, data.len())?;
        for at in range.clone() {
            self.shadow[at].last_write = Write::Plain;
            self.shadow[at].written = self.now;
            self.shadow[at].writer = by.thread as u16;
        }
        self.bytes[range].copy_from_slice(data);
        Ok(())
    }

    fn range(&self, address: u64, bytes: usize) -> Result<std::ops::Range<usize>, FaultKind> {
        if !address.is_multiple_of(bytes as u64) {
            return Err(FaultKind::Misaligned { space: "shared", address, bytes });
        }
        let start = address as usize;
        match start.checked_add(bytes) {
            Some(end) if end <= self.bytes.len() => Ok(start..end),
            _ => Err(FaultKind::OutOfBounds {
                space: "shared",
                address,
                bytes,
                near: format!("the block has {} bytes", self.bytes.len()),
            }),
        }
    }

    /// True if an access by `other` at `time` is ordered before the current access of `by`.
    fn ordered(&self, other: u32, time: u32, by: Accessor, meaning: Meaning) -> bool {
        other == by.thread
            || time < self.barrier
            || other / 32 == by.thread / 32 && (time < by.warp_time || meaning == Meaning::Volatile)
    }

    #[inline]
    fn note_read(&mut self, at: usize, by: Accessor, meaning: Meaning, whole: (u64, usize)) -> Result<(), FaultKind> {
        let shadow = self.shadow[at];
        if shadow.written < self.block_start {
            if self.checks.uninitialised {
                return Err(FaultKind::Uninitialised { space: "shared", address: whole.0, bytes: whole.1 });
            }
        } else if shadow.last_write == Write::InFlight {
            return Err(FaultKind::CopyInFlight { address: at as u64 });
        } else if self.checks.races && !self.ordered(u32::from(shadow.writer), shadow.written, by, meaning) {
            return Err(race(at, ("a write", u32::from(shadow.writer)), ("a read", by.thread)));
        }
        let (old, thread) = (shadow, by.thread as u16);
        let shadow = &mut self.shadow[at];
        if old.read < self.barrier.max(self.block_start) {
            shadow.readers = Readers::One;
            shadow.reader = thread;
        } else if old.reader != thread {
            let same_warp = old.reader / 32 == thread / 32;
            shadow.readers = match old.readers {
                Readers::One if same_warp && old.read < by.warp_time => Readers::One,
                Readers::One | Readers::Warp if same_warp => Readers::Warp,
                _ => Readers::Block,
            };
            shadow.reader = thread;
        }
        shadow.read = self.now;
        Ok(())
    }

    #[inline]
    fn note_write(&mut self, at: usize, byte: u8, by: Accessor, meaning: Meaning) -> Result<(), FaultKind> {
        let old = self.shadow[at];
        let atomic = meaning == Meaning::Atomic;
        if old.written >= self.block_start {
            if old.last_write == Write::InFlight {
                return Err(FaultKind::CopyInFlight { address: at as u64 });
            }
            let writer = u32::from(old.writer);
            let excused = atomic && old.last_write == Write::Atomic
                // Lanes of one instruction that write the same value.
                || old.written == self.now && writer / 32 == by.thread / 32 && self.bytes[at] == byte;
            if self.checks.races && !excused {
                let meaning = if old.written == self.now { Meaning::Plain } else { meaning };
                if !self.ordered(writer, old.written, by, meaning) {
                    return Err(race(at, ("a write", writer), ("a write", by.thread)));
                }
            }
        }
        if self.checks.races && old.read >= self.barrier {
            let reader = u32::from(old.reader);
            let in_order = match old.readers {
                Readers::One => self.ordered(reader, old.read, by, meaning),
                // At least one of the lanes is not the accessing one.
                Readers::Warp => {
                    reader / 32 == by.thread / 32 && (old.read < by.warp_time || meaning == Meaning::Volatile)
                }
                Readers::Block => false,
            };
            if !in_order {
                return Err(race(at, ("a read", reader), ("a write", by.thread)));
            }
        }
        let shadow = &mut self.shadow[at];
        shadow.written = self.now;
        shadow.writer = by.thread as u16;
        shadow.last_write = if atomic { Write::Atomic } else { Write::Plain };
        Ok(())
    }

    /// Reads, changes and writes back as one atomic step; atomics do not race with each other.
    pub fn update(
        &mut self,
        address: u64,
        bytes: usize,
        by: Accessor,
        change: impl FnOnce(u64) -> u64,
    ) -> Result<u64, FaultKind> {
        let range = self.range(address, bytes)?;
        if self.checks.uninitialised && self.shadow[range.start].written < self.block_start {
            return Err(FaultKind::Uninitialised { space: "shared", address, bytes });
        }
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&self.bytes[range.clone()]);
        let old = u64::from_le_bytes(word);
        let new = change(old).to_le_bytes();
        for (at, byte) in range.clone().zip(new) {
            self.note_write(at, byte, by, Meaning::Atomic)?;
        }
        self.bytes[range].copy_from_slice(&new[..bytes]);
        Ok(old)
    }
}

fn race(at: usize, earlier: (&'static str, u32), later: (&'static str, u32)) -> FaultKind {
    FaultKind::Race { address: at as u64, what: earlier.0, other: earlier.1, then: later.0, thread: later.1 }
}
