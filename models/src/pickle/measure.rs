//! The size of what a pickle builds, found without building it. Candle's reader copies whatever is taken from the memo
//! and drops nested objects by recursion, so a file of a few bytes could fill the memory, and one of a few megabytes
//! overflow the stack.

use std::collections::HashMap;

/// Most objects inside one another. A table of tensors has about ten.
const MAX_DEPTH: u32 = 64;
/// Most objects that are built or copied, and 16 bytes of text count as one. A table of 1,000 tensors has about 100,000.
const MAX_OBJECTS: u64 = 4 << 20;

/// An object on the stack of the pickle's machine.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// 1 for an object that holds no other.
    depth: u32,
    /// Objects, this one and all within it.
    objects: u64,
}

const ONE: Size = Size { depth: 1, objects: 1 };

/// Checks that a pickle is whole, of known operations, and small.
///
/// # Errors
/// A message that says what is wrong.
pub(super) fn check(pickle: &[u8]) -> Result<(), String> {
    let mut machine = Machine { rest: pickle, stack: Vec::new(), memo: HashMap::new(), objects: 0 };
    while machine.step()? {}
    Ok(())
}

struct Machine<'a> {
    rest: &'a [u8],
    /// `None` is a mark.
    stack: Vec<Option<Size>>,
    memo: HashMap<u32, Size>,
    /// Objects that were built or copied so far.
    objects: u64,
}

impl Machine<'_> {
    /// Takes one operation; false if it is the last. The operations are those of Python's `pickletools` that candle reads.
    fn step(&mut self) -> Result<bool, String> {
        match self.take(1)?[0] {
            // The version of the protocol.
            0x80 => {
                self.take(1)?;
            }
            b'c' => {
                let text = self.line()? + self.line()?;
                self.push(text)?;
            }
            b'X' => {
                let length = self.number(4)? as usize;
                self.take(length)?;
                self.push(length)?;
            }
            b'K' => self.skip(1)?,
            b'M' => self.skip(2)?,
            b'J' => self.skip(4)?,
            b'G' => self.skip(8)?,
            0x8a => {
                let bytes = self.number(1)? as usize;
                if bytes > 8 {
                    return Err(format!("a whole number has {bytes} bytes; at most 8 are read"));
                }
                self.skip(bytes)?;
            }
            b')' | b']' | b'}' | b'N' | 0x88 | 0x89 => self.push(0)?,
            b'(' => self.stack.push(None),
            b'Q' | 0x85 => self.wrap(1)?,
            0x86 | b'R' | b'b' | 0x81 => self.wrap(2)?,
            0x87 => self.wrap(3)?,
            b't' | b'd' => {
                let within = self.since_mark()?;
                self.put(around(ONE, &within))?;
            }
            b'a' => self.add(1)?,
            b's' => self.add(2)?,
            b'e' | b'u' => {
                let within = self.since_mark()?;
                let holder = self.pop()?;
                self.put(around(holder, &within))?;
            }
            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            b'.' => return Ok(false),
            other => return Err(format!("operation {other:#04x} is not known")),
        }
        Ok(true)
    }

    fn take(&mut self, bytes: usize) -> Result<&[u8], String> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or("it is cut short")?;
        self.rest = rest;
        Ok(taken)
    }

    /// A little-endian number of at most four bytes.
    fn number(&mut self, bytes: usize) -> Result<u32, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// Takes a line and gives its length.
    fn line(&mut self) -> Result<usize, String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or("it is cut short")?;
        self.take(end + 1).map(<[u8]>::len)
    }

    /// Takes a number's bytes and puts the number on the stack.
    fn skip(&mut self, bytes: usize) -> Result<(), String> {
        self.take(bytes)?;
        self.push(0)
    }

    /// Puts a new object on the stack, with a text of so many bytes.
    fn push(&mut self, text: usize) -> Result<(), String> {
        self.count(Size { objects: 1 + text as u64 / 16, ..ONE })
    }

    /// Puts an object on the stack that was built or copied.
    fn count(&mut self, size: Size) -> Result<(), String> {
        self.objects = self.objects.saturating_add(size.objects);
        if self.objects > MAX_OBJECTS {
            return Err(format!("it builds more than {MAX_OBJECTS} objects"));
        }
        self.put(size)
    }

    /// Puts an object on the stack whose parts are counted.
    fn put(&mut self, size: Size) -> Result<(), String> {
        if size.depth > MAX_DEPTH {
            return Err(format!("its objects are nested more than {MAX_DEPTH} deep"));
        }
        self.stack.push(Some(size));
        Ok(())
    }

    fn pop(&mut self) -> Result<Size, String> {
        self.stack.pop().flatten().ok_or_else(|| "an operation lacks an object".to_owned())
    }

    fn since_mark(&mut self) -> Result<Vec<Size>, String> {
        let mark = self.stack.iter().rposition(Option::is_none).ok_or("an operation lacks a mark")?;
        Ok(self.stack.drain(mark..).flatten().collect())
    }

    /// Replaces the last objects by one that holds them.
    fn wrap(&mut self, count: usize) -> Result<(), String> {
        let within = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        self.objects += 1;
        self.put(around(ONE, &within))
    }

    /// Puts the last objects into the one before them.
    fn add(&mut self, count: usize) -> Result<(), String> {
        let within = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        let holder = self.pop()?;
        self.put(around(holder, &within))
    }

    fn recall(&mut self, bytes: usize) -> Result<(), String> {
        let number = self.number(bytes)?;
        let size = *self.memo.get(&number).ok_or_else(|| format!("it lacks an object of number {number}"))?;
        self.count(size)
    }

    /// Copies the last object into the memo.
    fn remember(&mut self, bytes: usize) -> Result<(), String> {
        let number = self.number(bytes)?;
        let size = self.pop()?;
        self.count(size)?;
        self.memo.insert(number, size);
        Ok(())
    }
}

/// The size of an object once others are within it.
fn around(holder: Size, within: &[Size]) -> Size {
    let deepest = within.iter().map(|size| size.depth).max().unwrap_or(0);
    let objects = within.iter().fold(holder.objects, |sum, size| sum.saturating_add(size.objects));
    Size { depth: holder.depth.max(deepest.saturating_add(1)), objects }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pickle: &[u8]) -> String {
        check(pickle).unwrap_err()
    }

    #[test]
    fn objects_that_are_nested_deeply_are_refused_before_they_are_built() {
        let tuples = [&b"\x80\x02)"[..], &vec![0x85; 3_000_000], b"."].concat();
        let lists = [&b"\x80\x02]"[..], &vec![b']'; 100_000], &vec![b'a'; 100_000], b"."].concat();
        for pickle in [tuples, lists] {
            assert_eq!(refusal(&pickle), "its objects are nested more than 64 deep");
        }
        let as_deep = [&b"\x80\x02)"[..], &[0x85; 63], b"."].concat();
        assert_eq!(check(&as_deep), Ok(()));
    }

    #[test]
    fn objects_that_double_each_time_are_refused_before_they_are_built() {
        let mut pickle = b"\x80\x02X\x03\0\0\0lol\x85".to_vec();
        for number in 0..60 {
            pickle.extend([b'q', number, b'h', number, 0x86]);
        }
        assert!(refusal(&pickle).contains("builds more than 4194304 objects"));
    }

    #[test]
    fn a_pickle_that_is_cut_or_of_unknown_operations_is_refused() {
        for (pickle, part) in [
            (&b""[..], "cut short"),
            (b"\x80\x02X\xff\xff\xff\xff", "cut short"),
            (b"ccollections\n", "cut short"),
            (b"\x8a\x09123456789.", "9 bytes"),
            (b"a.", "lacks an object"),
            (b"t.", "lacks a mark"),
            (b"h\x01.", "number 1"),
            (b"\xff.", "0xff is not known"),
        ] {
            assert!(refusal(pickle).contains(part), "{pickle:?}: {}", refusal(pickle));
        }
    }
}
