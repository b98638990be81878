//! One instruction from its mnemonic and named operands to an [`Operation`].
//!
//! An instruction that is not fully understood is an error; none is taken for a simpler one.

mod arithmetic;
mod bits;
mod collective;
mod convert;
mod memory;

use super::number;
use super::operation::{Address, DISCARD, FloatMode, Operation, Register, Source};
use super::statement::{Call, Operand};
use super::types::{Comparison, Join, Rounding, Space, Special, Type};

/// The reason why an instruction could not be decoded.
pub type Reason = String;

/// Resolves names while instructions are decoded.
pub trait Decoder {
    /// A register that no name refers to.
    fn new_register(&mut self) -> Register;
    /// The register called `name`; `_` discards.
    fn register(&mut self, name: &str) -> Result<Register, Reason>;
    /// The register that holds the carry flag.
    fn carry(&mut self) -> Register;
    /// A register that the hardware sets.
    fn special(&mut self, special: Special) -> Source;
    /// A constant.
    fn immediate(&mut self, value: u64) -> Source;
    /// A register, or the address of a variable and its space.
    fn named(&mut self, name: &str, offset: i64) -> Result<(Source, Option<Space>), Reason>;

    /// The value of an operand that is read as `ty`.
    fn source(&mut self, operand: &Operand, ty: Type) -> Result<Source, Reason> {
        match operand {
            Operand::Number(text, negative) => {
                let value = number::literal(text, *negative, ty).ok_or_else(|| format!("`{text}` is not a number"))?;
                Ok(self.immediate(value))
            }
            Operand::Name("WARP_SZ", 0) => Ok(self.immediate(32)),
            Operand::Name(name, offset) => match Special::parse(name) {
                Some(special) if *offset == 0 => Ok(self.special(special)),
                _ => Ok(self.named(name, *offset)?.0),
            },
            _ => Err("an operand is neither a register nor a literal".to_owned()),
        }
    }
}

/// The parts of an instruction while it is decoded.
pub struct Parts<'c, 'd> {
    base: &'c str,
    suffixes: Vec<&'c str>,
    types: Vec<Type>,
    operands: &'c [Operand<'c>],
    decoder: &'d mut dyn Decoder,
}

/// Decodes one instruction.
pub fn decode(call: &Call, decoder: &mut dyn Decoder) -> Result<Operation, Reason> {
    let mut words = call.mnemonic.split('.');
    let base = words.next().unwrap_or_default();
    let suffixes: Vec<&str> = words.collect();
    let types: Vec<Type> = suffixes.iter().filter_map(|suffix| Type::parse(suffix)).collect();
    if types.contains(&Type::B128) {
        return Err("registers of 128 bits are not simulated".to_owned());
    }
    let mut parts = Parts { base, suffixes, types, operands: &call.operands, decoder };
    let found = match arithmetic::decode(&mut parts)? {
        Some(operation) => Some(operation),
        None => match bits::decode(&mut parts)? {
            Some(operation) => Some(operation),
            None => match convert::decode(&mut parts)? {
                Some(operation) => Some(operation),
                None => match memory::decode(&mut parts)? {
                    Some(operation) => Some(operation),
                    None => collective::decode(&mut parts)?,
                },
            },
        },
    };
    found.ok_or_else(|| "the simulator does not know this instruction".to_owned())
}

impl<'c> Parts<'c, '_> {
    fn has(&self, suffix: &str) -> bool {
        self.suffixes.contains(&suffix)
    }

    /// The first type among the suffixes.
    fn ty(&self) -> Result<Type, Reason> {
        self.types.first().copied().ok_or_else(|| "it names no type".to_owned())
    }

    /// The last type among the suffixes.
    fn last_type(&self) -> Result<Type, Reason> {
        self.types.last().copied().ok_or_else(|| "it names no type".to_owned())
    }

    fn find<T>(&self, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.suffixes.iter().find_map(|suffix| parse(suffix))
    }

    fn operand(&self, index: usize) -> Result<&'c Operand<'c>, Reason> {
        self.operands.get(index).ok_or_else(|| format!("operand {index} is missing"))
    }

    /// Operand `index` as a value of type `ty`.
    fn source(&mut self, index: usize, ty: Type) -> Result<Source, Reason> {
        let operand = self.operand(index)?;
        self.decoder.source(operand, ty)
    }

    /// Operand `index` as a predicate, and true if it is negated.
    fn predicate(&mut self, index: usize) -> Result<(Source, bool), Reason> {
        match self.operand(index)? {
            Operand::Not(name) => Ok((Source::register(self.decoder.register(name)?), true)),
            other => Ok((self.decoder.source(other, Type::Predicate)?, false)),
        }
    }

    /// Operand `index` as the register to write.
    fn destination(&mut self, index: usize) -> Result<Register, Reason> {
        let operand = self.operand(index)?;
        self.register_of(operand)
    }

    fn register_of(&mut self, operand: &Operand) -> Result<Register, Reason> {
        match operand {
            Operand::Name(name, 0) => self.decoder.register(name),
            _ => Err("the destination is no register".to_owned()),
        }
    }

    /// The registers to write of a destination `d` or `d|p`.
    fn destination_pair(&mut self) -> Result<(Register, Register), Reason> {
        match self.operand(0)? {
            Operand::Pair(first, second) => Ok((self.register_of(first)?, self.register_of(second)?)),
            other => Ok((self.register_of(other)?, DISCARD)),
        }
    }

    /// Operand `index` as registers to write: one, or a list in braces.
    fn destinations(&mut self, index: usize) -> Result<Box<[Register]>, Reason> {
        match self.operand(index)? {
            Operand::List(list) => list.iter().map(|operand| self.register_of(operand)).collect(),
            other => Ok(Box::new([self.register_of(other)?])),
        }
    }

    /// Operand `index` as values: one, or a list in braces.
    fn sources(&mut self, index: usize, ty: Type) -> Result<Box<[Source]>, Reason> {
        match self.operand(index)? {
            Operand::List(list) => list.iter().map(|operand| self.decoder.source(operand, ty)).collect(),
            other => Ok(Box::new([self.decoder.source(other, ty)?])),
        }
    }

    /// Operand `index` as an address, and the space of the variable that it names.
    fn address(&mut self, index: usize) -> Result<(Address, Option<Space>), Reason> {
        match self.operand(index)? {
            Operand::Address(base, offset) => match base.as_ref() {
                Operand::Name(name, 0) => {
                    let (base, space) = self.decoder.named(name, 0)?;
                    Ok((Address { base, offset: *offset }, space))
                }
                other => Ok((Address { base: self.decoder.source(other, Type::U64)?, offset: *offset }, None)),
            },
            _ => Err(format!("operand {index} is no address")),
        }
    }

    fn float_mode(&self) -> FloatMode {
        FloatMode {
            rounding: self.find(Rounding::parse).map_or(Rounding::Nearest, |(rounding, _)| rounding),
            flush: self.has("ftz"),
            saturate: self.has("sat"),
            relu: self.has("relu"),
            propagate_nan: self.has("NaN"),
        }
    }

    fn comparison(&self) -> Result<Comparison, Reason> {
        self.find(Comparison::parse).ok_or_else(|| "it names no comparison".to_owned())
    }

    /// The boolean operation and predicate that a comparison is joined with.
    fn join(&mut self) -> Result<Option<(Join, Source, bool)>, Reason> {
        match self.find(Join::parse) {
            None => Ok(None),
            Some(join) => {
                let (predicate, negated) = self.predicate(3)?;
                Ok(Some((join, predicate, negated)))
            }
        }
    }

    /// Refuses suffixes that change the meaning in a way that is not simulated.
    fn refuse(&self, suffixes: &[&str]) -> Result<(), Reason> {
        match suffixes.iter().find(|suffix| self.has(suffix)) {
            Some(suffix) => Err(format!("`.{suffix}` is not simulated")),
            None => Ok(()),
        }
    }
}
