//! Loads, stores, atomics and asynchronous copies.
//!
//! The value of a generic address tells its space: shared and local memory have windows of their own, far below every
//! device address.

use super::Machine;
use super::copies::Copy;
use super::execute::Flow;
use super::fault::FaultKind;
use super::float;
use super::integer;
use super::lanes::{Lanes, lanes_of};
use super::shared::{Meaning, SharedMemory};
use super::warp::Warp;
use crate::ptx::operation::{Address, AtomicOp, DISCARD, FloatMode, FloatOp, IntegerOp, Operation, Source};
use crate::ptx::types::{Space, Type};

const SHARED_WINDOW: u64 = 0x0010_0000_0000;
const LOCAL_WINDOW: u64 = 0x0020_0000_0000;
const WINDOW_BYTES: u64 = 1 << 24;

/// Offset of a space's window in the generic addresses.
pub fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Generic | Space::Global | Space::Parameter | Space::Constant => 0,
    }
}

/// The space that a generic address points into, and the address there.
pub fn space_of(address: u64) -> (Space, u64) {
    for space in [Space::Shared, Space::Local] {
        if let Some(inside) = address.checked_sub(window(space))
            && inside < WINDOW_BYTES
        {
            return (space, inside);
        }
    }
    (Space::Global, address)
}

/// The largest access of one lane: four times 32 bits, or two times 64.
const MAX_BYTES: usize = 32;

impl Machine<'_> {
    /// Executes an operation on memory.
    pub fn access(
        &mut self,
        warp: &mut Warp,
        shared: &mut SharedMemory,
        operation: &Operation,
        mask: u32,
    ) -> Result<Flow, FaultKind> {
        shared.next_instruction();
        match operation {
            Operation::Load { space, ty, volatile, d, address } => {
                self.load(warp, shared, mask, (*space, *ty, *volatile), d, *address)?;
            }
            Operation::Store { space, ty, volatile, address, values } => {
                self.store(warp, shared, mask, (*space, *ty, *volatile), values, *address)?;
            }
            Operation::Atomic { .. } => self.atomic(warp, shared, mask, operation)?,
            Operation::LoadMatrix { transposed, d, address } => {
                if mask != u32::MAX {
                    return Ok(Flow::WaitForLanes);
                }
                let addresses = self.addresses(warp, *address);
                super::matrix::load(warp, shared, *transposed, d, &addresses)?;
            }
            Operation::CopyAsync { bytes, to, from, source_bytes } => {
                self.copy_async(warp, shared, mask, *bytes, (*to, *from), *source_bytes)?;
            }
            Operation::CopyCommit => lanes_of(mask).for_each(|lane| warp.copies.commit(lane)),
            Operation::CopyWait { pending } => {
                for lane in lanes_of(mask) {
                    for copy in warp.copies.wait(lane, *pending) {
                        shared.land_copy(copy.to, &copy.data, warp.accessor(lane))?;
                    }
                }
            }
            other => unreachable!("{other:?} does not touch memory"),
        }
        Ok(Flow::Next)
    }

    fn addresses(&self, warp: &Warp, address: Address) -> Lanes {
        let mut addresses = *self.get(warp, address.base);
        for lane in &mut addresses {
            *lane = lane.wrapping_add_signed(address.offset);
        }
        addresses
    }

    fn load(
        &mut self,
        warp: &mut Warp,
        shared: &mut SharedMemory,
        mask: u32,
        (space, ty, volatile): (Space, Type, bool),
        d: &[u32],
        address: Address,
    ) -> Result<(), FaultKind> {
        let width = ty.bytes();
        let total = width * d.len();
        let addresses = self.addresses(warp, address);
        let mut out = [[0u64; 32]; MAX_BYTES / 4];
        for lane in lanes_of(mask) {
            let data = self.read_lane(warp, shared, lane, (space, addresses[lane]), total, volatile)?;
            for (element, bytes) in data.chunks_exact(width.min(8)).enumerate() {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                out[element][lane] = u64::from_le_bytes(word);
            }
        }
        for (register, value) in d.iter().zip(&out) {
            let value = if ty.is_signed() { integer::extend(ty, value) } else { *value };
            warp.set(*register, mask, &value);
        }
        Ok(())
    }

    /// The bytes that one lane reads.
    #[inline]
    fn read_lane<'m>(
        &'m mut self,
        warp: &'m Warp,
        shared: &'m mut SharedMemory,
        lane: usize,
        (space, address): (Space, u64),
        bytes: usize,
        volatile: bool,
    ) -> Result<&'m [u8], FaultKind> {
        let (space, address) = if space == Space::Generic { space_of(address) } else { (space, address) };
        match space {
            Space::Shared => {
                let meaning = if volatile { Meaning::Volatile } else { Meaning::Plain };
                shared.read(address & 0xffff_ffff, bytes, warp.accessor(lane), meaning)
            }
            Space::Local => {
                let start = local_offset(warp, lane, address, bytes)?;
                Ok(&warp.local[start..start + bytes])
            }
            Space::Parameter => {
                let start = address as usize;
                let parameters = &self.launch.parameters;
                start
                    .checked_add(bytes)
                    .and_then(|end| parameters.get(start..end))
                    .ok_or_else(|| out_of_bounds("parameter", address, bytes, parameters.len()))
            }
            Space::Generic | Space::Global | Space::Constant => {
                check_alignment("global", address, bytes)?;
                self.memory.read(address, bytes)
            }
        }
    }

    fn store(
        &mut self,
        warp: &mut Warp,
        shared: &mut SharedMemory,
        mask: u32,
        (space, ty, volatile): (Space, Type, bool),
        values: &[Source],
        address: Address,
    ) -> Result<(), FaultKind> {
        let width = ty.bytes();
        let total = width * values.len();
        let addresses = self.addresses(warp, address);
        for lane in lanes_of(mask) {
            let mut data = [0; MAX_BYTES];
            for (element, value) in values.iter().enumerate() {
                let word = self.get(warp, *value)[lane].to_le_bytes();
                data[element * width..][..width.min(8)].copy_from_slice(&word[..width.min(8)]);
            }
            let data = &data[..total];
            let (space, address) =
                if space == Space::Generic { space_of(addresses[lane]) } else { (space, addresses[lane]) };
            match space {
                Space::Shared => {
                    let meaning = if volatile { Meaning::Volatile } else { Meaning::Plain };
                    shared.write(address & 0xffff_ffff, data, warp.accessor(lane), meaning)?;
                }
                Space::Local => {
                    let start = local_offset(warp, lane, address, total)?;
                    warp.local[start..start + total].copy_from_slice(data);
                }
                Space::Parameter | Space::Constant => {
                    return Err(out_of_bounds("read-only", address, total, 0));
                }
                Space::Generic | Space::Global => {
                    check_alignment("global", address, total)?;
                    self.memory.write(address, data)?;
                }
            }
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        warp: &mut Warp,
        shared: &mut SharedMemory,
        mask: u32,
        operation: &Operation,
    ) -> Result<(), FaultKind> {
        let Operation::Atomic { space, op, ty, d, address, value, replacement } = operation else {
            unreachable!("called for atomics alone")
        };
        let addresses = self.addresses(warp, *address);
        let (values, replacements) = (*self.get(warp, *value), *self.get(warp, *replacement));
        let bytes = ty.bytes();
        let mut out = [0; 32];
        // Lanes act one after another, lowest first.
        for lane in lanes_of(mask) {
            let (space, address) =
                if *space == Space::Generic { space_of(addresses[lane]) } else { (*space, addresses[lane]) };
            let change = |old| combine(*op, *ty, old, values[lane], replacements[lane]);
            out[lane] = if space == Space::Shared {
                shared.update(address & 0xffff_ffff, bytes, warp.accessor(lane), change)?
            } else {
                check_alignment("global", address, bytes)?;
                let mut word = [0; 8];
                word[..bytes].copy_from_slice(self.memory.read(address, bytes)?);
                let old = u64::from_le_bytes(word);
                self.memory.write(address, &change(old).to_le_bytes()[..bytes])?;
                old
            };
        }
        if *d != DISCARD {
            warp.set(*d, mask, &out);
        }
        Ok(())
    }

    fn copy_async(
        &mut self,
        warp: &mut Warp,
        shared: &mut SharedMemory,
        mask: u32,
        bytes: usize,
        (to, from): (Address, Address),
        source_bytes: Option<Source>,
    ) -> Result<(), FaultKind> {
        let (to, from) = (self.addresses(warp, to), self.addresses(warp, from));
        for lane in lanes_of(mask) {
            let read = source_bytes.map_or(bytes, |source| self.get(warp, source)[lane] as u32 as usize).min(bytes);
            let mut data = vec![0; bytes];
            check_alignment("global", from[lane], bytes)?;
            data[..read].copy_from_slice(self.memory.read(from[lane], read)?);
            let to = to[lane] & 0xffff_ffff;
            shared.start_copy(to, bytes, warp.accessor(lane))?;
            warp.copies.start(Copy { lane, to, data });
        }
        Ok(())
    }
}

fn check_alignment(space: &'static str, address: u64, bytes: usize) -> Result<(), FaultKind> {
    if address.is_multiple_of(bytes as u64) { Ok(()) } else { Err(FaultKind::Misaligned { space, address, bytes }) }
}

fn out_of_bounds(space: &'static str, address: u64, bytes: usize, size: usize) -> FaultKind {
    FaultKind::OutOfBounds { space, address, bytes, near: format!("there are {size} bytes") }
}

fn local_offset(warp: &Warp, lane: usize, address: u64, bytes: usize) -> Result<usize, FaultKind> {
    check_alignment("local", address, bytes)?;
    match (address as usize).checked_add(bytes) {
        Some(end) if end <= warp.local_stride => Ok(lane * warp.local_stride + address as usize),
        _ => Err(out_of_bounds("local", address, bytes, warp.local_stride)),
    }
}

/// The value that an atomic operation leaves in memory.
pub fn combine(op: AtomicOp, ty: Type, old: u64, value: u64, replacement: u64) -> u64 {
    let integer = |op| integer::binary(op, ty, &[old; 32], &[value; 32])[0];
    let low = u64::MAX >> (64 - ty.bits());
    let (current, limit) = (old & low, value & low);
    match op {
        AtomicOp::Add | AtomicOp::Min | AtomicOp::Max if ty.is_float() => {
            let op = match op {
                AtomicOp::Add => FloatOp::Add,
                AtomicOp::Min => FloatOp::Min,
                _ => FloatOp::Max,
            };
            float::binary(op, ty, FloatMode::default(), &[old; 32], &[value; 32])[0]
        }
        AtomicOp::Add => integer(IntegerOp::Add),
        AtomicOp::Min => integer(IntegerOp::Min),
        AtomicOp::Max => integer(IntegerOp::Max),
        AtomicOp::And => old & value,
        AtomicOp::Or => old | value,
        AtomicOp::Xor => old ^ value,
        AtomicOp::Exchange => value,
        AtomicOp::CompareSwap => {
            if current == limit {
                replacement
            } else {
                old
            }
        }
        AtomicOp::Increment => {
            if current >= limit {
                0
            } else {
                current + 1
            }
        }
        AtomicOp::Decrement => {
            if current == 0 || current > limit {
                limit
            } else {
                current - 1
            }
        }
    }
}
