//! A device's memory: allocations that mark each written byte, at addresses that are never used twice.
//!
//! Device addresses are not host addresses: a host that dereferences one crashes, as it would with a card.

use std::collections::BTreeMap;

use crate::interpreter::FaultKind;

/// Content of unwritten bytes: NaN as a float, far out of bounds as an index.
const POISON: u8 = 0xff;
/// Alignment of allocations, as on a card.
const ALIGNMENT: u64 = 512;
/// Number of freed allocations that are remembered, so that a use after free can name its allocation.
const MAX_REMEMBERED: usize = 1 << 16;
/// Start of the first device's memory; each device has a terabyte of addresses.
const FIRST_ADDRESS: u64 = 0x0600_0000_0000;
const DEVICE_STRIDE: u64 = 1 << 40;

/// One allocation.
#[derive(Debug)]
struct Allocation {
    start: u64,
    bytes: Box<[u8]>,
    /// One bit per byte, set once the byte has been written.
    written: Box<[u64]>,
    /// Number of bytes not yet written.
    unwritten: usize,
}

impl Allocation {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// True if all bytes of a range have been written.
    #[inline]
    fn is_written(&self, offset: usize, bytes: usize) -> bool {
        if self.unwritten == 0 {
            return true;
        }
        words(offset, bytes).all(|(word, mask)| self.written[word] & mask == mask)
    }

    #[inline]
    fn mark_written(&mut self, offset: usize, bytes: usize) {
        if self.unwritten == 0 {
            return;
        }
        for (word, mask) in words(offset, bytes) {
            self.unwritten -= (mask & !self.written[word]).count_ones() as usize;
            self.written[word] |= mask;
        }
    }

    fn mark_unwritten(&mut self, offset: usize, bytes: usize) {
        for (word, mask) in words(offset, bytes) {
            self.unwritten += (mask & self.written[word]).count_ones() as usize;
            self.written[word] &= !mask;
        }
    }
}

/// The words of a bitmap that a range of bits touches, each with the bits that belong to it.
fn words(offset: usize, bits: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = offset + bits;
    (offset / 64..end.div_ceil(64)).map(move |word| {
        let low = offset.saturating_sub(word * 64);
        let high = (end - word * 64).min(64);
        (word, (u64::MAX >> (64 - (high - low))) << low)
    })
}

/// The memory of one device.
#[derive(Debug)]
pub struct Memory {
    /// Live allocations, ordered by address.
    allocations: Vec<Allocation>,
    freed: BTreeMap<u64, u64>,
    next: u64,
    last_hit: usize,
    check_uninitialised: bool,
    /// Bytes of allocations as the host sees them: grows at the allocating call, shrinks at the freeing call.
    pub used: usize,
    /// Largest value that `used` has had.
    pub peak: usize,
}

impl Memory {
    /// The memory of device number `device`.
    pub fn new(device: usize, check_uninitialised: bool) -> Self {
        Self {
            allocations: Vec::new(),
            freed: BTreeMap::new(),
            next: FIRST_ADDRESS + device as u64 * DEVICE_STRIDE,
            last_hit: 0,
            check_uninitialised,
            used: 0,
            peak: 0,
        }
    }

    /// Reserves a new address for `bytes`, which [`Self::map`] makes usable. The bytes do not count as used yet.
    pub fn reserve(&mut self, bytes: usize) -> u64 {
        let start = self.next;
        // At least one unmapped stretch lies between neighbours.
        self.next = (start + bytes as u64 + 1).next_multiple_of(ALIGNMENT) + ALIGNMENT;
        start
    }

    /// Makes a reserved range usable; its bytes are unwritten.
    pub fn map(&mut self, start: u64, bytes: usize) {
        let at = self.allocations.partition_point(|allocation| allocation.start < start);
        self.freed.remove(&start);
        let allocation = Allocation {
            start,
            bytes: vec![POISON; bytes].into(),
            written: vec![0; bytes.div_ceil(64)].into(),
            unwritten: bytes,
        };
        self.allocations.insert(at, allocation);
    }

    /// Ends the allocation at `start`; returns its size, or `None` where there is none.
    pub fn unmap(&mut self, start: u64) -> Option<usize> {
        let at = self.allocations.binary_search_by_key(&start, |allocation| allocation.start).ok()?;
        let allocation = self.allocations.remove(at);
        self.freed.insert(start, allocation.end());
        if self.freed.len() > MAX_REMEMBERED {
            self.freed.pop_first();
        }
        Some(allocation.bytes.len())
    }

    /// Size of the live allocation that starts at `start`.
    pub fn size_of(&self, start: u64) -> Option<usize> {
        let at = self.allocations.binary_search_by_key(&start, |allocation| allocation.start).ok()?;
        Some(self.allocations[at].bytes.len())
    }

    /// Number of live allocations.
    pub fn live(&self) -> usize {
        self.allocations.len()
    }

    /// Checks that a range lies inside of one allocation.
    pub fn check(&mut self, address: u64, bytes: usize) -> Result<(), FaultKind> {
        if bytes == 0 { Ok(()) } else { self.locate(address, bytes).map(|_| ()) }
    }

    /// Reads a range.
    #[inline]
    pub fn read(&mut self, address: u64, bytes: usize) -> Result<&[u8], FaultKind> {
        if bytes == 0 {
            return Ok(&[]);
        }
        let (at, offset) = self.locate(address, bytes)?;
        let allocation = &self.allocations[at];
        if self.check_uninitialised && !allocation.is_written(offset, bytes) {
            return Err(FaultKind::Uninitialised { space: "global", address, bytes });
        }
        Ok(&allocation.bytes[offset..offset + bytes])
    }

    /// Writes a range.
    #[inline]
    pub fn write(&mut self, address: u64, data: &[u8]) -> Result<(), FaultKind> {
        self.write_with(address, data.len(), |bytes| bytes.copy_from_slice(data))
    }

    /// Lets `fill` write all of a range.
    #[inline]
    pub fn write_with(&mut self, address: u64, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), FaultKind> {
        if bytes == 0 {
            return Ok(());
        }
        let (at, offset) = self.locate(address, bytes)?;
        let allocation = &mut self.allocations[at];
        allocation.mark_written(offset, bytes);
        fill(&mut allocation.bytes[offset..offset + bytes]);
        Ok(())
    }

    /// Copies a range; bytes that were never written stay marked as such.
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), FaultKind> {
        if bytes == 0 {
            return Ok(());
        }
        let (at, offset) = self.locate(from, bytes)?;
        let source = &self.allocations[at];
        let data = source.bytes[offset..offset + bytes].to_vec();
        let gaps: Vec<usize> = if source.is_written(offset, bytes) {
            Vec::new()
        } else {
            (0..bytes).filter(|byte| !source.is_written(offset + byte, 1)).collect()
        };
        self.write(to, &data)?;
        let (at, offset) = self.locate(to, bytes)?;
        for byte in gaps {
            self.allocations[at].mark_unwritten(offset + byte, 1);
        }
        Ok(())
    }

    /// Index of the allocation that holds a range, and the range's offset in it.
    #[inline]
    fn locate(&mut self, address: u64, bytes: usize) -> Result<(usize, usize), FaultKind> {
        let inside = |allocation: &Allocation| {
            address >= allocation.start && address.checked_add(bytes as u64).is_some_and(|end| end <= allocation.end())
        };
        if let Some(allocation) = self.allocations.get(self.last_hit)
            && inside(allocation)
        {
            return Ok((self.last_hit, (address - allocation.start) as usize));
        }
        let after = self.allocations.partition_point(|allocation| allocation.start <= address);
        match after.checked_sub(1).map(|at| &self.allocations[at]) {
            Some(allocation) if inside(allocation) => {
                self.last_hit = after - 1;
                Ok((after - 1, (address - allocation.start) as usize))
            }
            _ => Err(self.describe_miss(address, bytes, after)),
        }
    }

    fn describe_miss(&self, address: u64, bytes: usize, after: usize) -> FaultKind {
        if let Some((start, end)) = self.freed.range(..=address).next_back()
            && address < *end
        {
            return FaultKind::UseAfterFree { address, bytes, allocated: (end - start) as usize };
        }
        let near = match (after.checked_sub(1).map(|at| &self.allocations[at]), self.allocations.get(after)) {
            (Some(before), Some(next)) if next.start - address < address.saturating_sub(before.end()) => {
                format!("{} bytes before an allocation of {} bytes", next.start - address, next.bytes.len())
            }
            (Some(before), _) if address < before.end() => {
                format!("it starts at byte {} of an allocation of {} bytes", address - before.start, before.bytes.len())
            }
            (Some(before), _) => {
                format!("{} bytes after an allocation of {} bytes", address - before.end(), before.bytes.len())
            }
            (None, Some(next)) => {
                format!("{} bytes before an allocation of {} bytes", next.start - address, next.bytes.len())
            }
            (None, None) => "nothing is allocated".to_owned(),
        };
        FaultKind::OutOfBounds { space: "global", address, bytes, near }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> (Memory, u64) {
        let mut memory = Memory::new(0, true);
        let start = memory.reserve(100);
        memory.map(start, 100);
        (memory, start)
    }

    #[test]
    fn what_is_written_can_be_read_and_nothing_else() {
        let (mut memory, start) = memory();
        memory.write(start + 4, &[1, 2, 3, 4]).unwrap();
        assert_eq!(memory.read(start + 4, 4).unwrap(), [1, 2, 3, 4]);
        assert!(matches!(memory.read(start + 5, 4), Err(FaultKind::Uninitialised { .. })));
        memory.write_with(start, 100, |bytes| bytes.fill(0)).unwrap();
        assert_eq!(memory.allocations[0].unwritten, 0);
        assert_eq!(memory.read(start + 5, 4).unwrap(), [0; 4]);
    }

    #[test]
    fn an_access_across_the_end_or_after_a_free_is_named() {
        let (mut memory, start) = memory();
        assert!(matches!(memory.write(start + 98, &[0; 4]), Err(FaultKind::OutOfBounds { .. })));
        assert!(matches!(memory.write(start + 100, &[0; 4]), Err(FaultKind::OutOfBounds { .. })));
        assert_eq!(memory.unmap(start), Some(100));
        assert!(matches!(memory.write(start, &[0; 4]), Err(FaultKind::UseAfterFree { allocated: 100, .. })));
        assert_eq!(memory.unmap(start), None);
    }

    #[test]
    fn addresses_are_never_used_twice() {
        let (mut memory, first) = memory();
        memory.unmap(first);
        let second = memory.reserve(100);
        assert!(second > first + 100);
    }

    #[test]
    fn a_copy_carries_the_unwritten_marks_along() {
        let (mut memory, from) = memory();
        let to = memory.reserve(8);
        memory.map(to, 8);
        memory.write(to, &[9; 8]).unwrap();
        memory.write(from, &[1, 2, 3, 4]).unwrap();
        memory.copy(to, from, 8).unwrap();
        assert_eq!(memory.read(to, 4).unwrap(), [1, 2, 3, 4]);
        assert!(memory.read(to + 4, 1).is_err());
    }
}
