//! Inputs made of good ones by changes: of bytes, and of values within JSON.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

/// Bytes that readers treat in their own ways.
const TOKENS: [&[u8]; 22] = [
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"9223372036854775807",
    b"2147483648",
    b"0.1e-400",
    b"NaN",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"[[[[[[[[",
    b"\"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xc0\x80",
    "\u{fdfa}".as_bytes(),
    b"\r\n",
    b"\0",
    b"../../",
];

pub(crate) struct Mutator {
    random: StdRng,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: u32) -> bool {
        self.random.random_range(0..times) == 0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound)
    }

    pub(crate) fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.choose(&mut self.random).expect("there are some")
    }

    /// A changed JSON text: a value within it is another, or its bytes are changed.
    pub(crate) fn json(&mut self, good: &str) -> Vec<u8> {
        if self.once_in(3) {
            return self.bytes(good.as_bytes());
        }
        let mut value: Value = serde_json::from_str(good).expect("a good input");
        for _ in 0..=self.below(3) {
            let places = count(&value);
            let at = self.below(places);
            let new = self.value(3);
            put(&mut value, at, &mut Some(new), self.once_in(4));
        }
        value.to_string().into_bytes()
    }

    /// Bytes with some changes.
    pub(crate) fn bytes(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(6) {
            self.change(&mut bytes);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = (at + self.below(12)).min(bytes.len());
        match self.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            3 => {
                let token = *self.choose(&TOKENS);
                bytes.splice(at..end, token.iter().copied());
            }
            4 => {
                let new: [u8; 4] = self.random.random();
                bytes.splice(at..at, new);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.random.random_range(0..8);
                }
            }
        }
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 8 } else { 10 }) {
            0 => Value::Null,
            1 => Value::Bool(self.once_in(2)),
            2 => Value::from(self.random.random::<i64>()),
            3 => Value::from(*self.choose(&[0_i64, -1, 1, 2, 7, 255, 65_536, i64::MAX, i64::MIN])),
            4 => Value::from(*self.choose(&[0.5, -0.0, 1e300, -1e-300, f64::MAX])),
            5 => Value::from(*self.choose(&[
                "",
                "text",
                "FP32",
                "BYTES",
                "int8",
                "base64",
                "\u{0}",
                "a\u{301}\u{1F468}",
            ])),
            6 => Value::from("long ".repeat(self.random.random_range(0..400))),
            7 => Value::from(u64::MAX),
            8 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let names = ["name", "text", "data", "parameters", "index", "extra"];
                (0..self.below(3)).map(|_| ((*self.choose(&names)).to_owned(), self.value(depth - 1))).collect()
            }
        }
    }
}

/// Number of values within a value, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(count).sum::<usize>(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// Puts `new` in the place of the value that is the `at`-th from the outside, or takes that away.
fn put(value: &mut Value, mut at: usize, new: &mut Option<Value>, takes_away: bool) {
    if at == 0 {
        if let Some(new) = new.take() {
            *value = new;
        }
        return;
    }
    at -= 1;
    match value {
        Value::Array(values) => {
            for place in 0..values.len() {
                let within = count(&values[place]);
                if at < within {
                    if at == 0 && takes_away {
                        values.remove(place);
                    } else {
                        put(&mut values[place], at, new, takes_away);
                    }
                    return;
                }
                at -= within;
            }
        }
        Value::Object(fields) => {
            for name in fields.keys().cloned().collect::<Vec<_>>() {
                let within = count(&fields[&name]);
                if at < within {
                    if at == 0 && takes_away {
                        fields.remove(&name);
                    } else if let Some(value) = fields.get_mut(&name) {
                        put(value, at, new, takes_away);
                    }
                    return;
                }
                at -= within;
            }
        }
        _ => {}
    }
}
