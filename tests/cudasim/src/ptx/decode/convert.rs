//! Moves and conversions.

use super::{Operand, Parts, Reason};
use crate::ptx::operation::{Conversion, Operation};
use crate::ptx::types::{Rounding, Space, Special, Type};

/// Decodes the operation; `None` where the mnemonic belongs to another group.
pub fn decode(parts: &mut Parts) -> Result<Option<Operation>, Reason> {
    let operation = match parts.base {
        "mov" => move_(parts)?,
        "cvt" => convert(parts)?,
        "cvta" => {
            let space = parts.find(Space::parse).ok_or_else(|| "it names no state space".to_owned())?;
            let d = parts.destination(0)?;
            let a = parts.source(1, Type::U64)?;
            if parts.has("to") { Operation::FromGeneric { space, d, a } } else { Operation::ToGeneric { space, d, a } }
        }
        "isspacep" => {
            let space = parts.find(Space::parse).ok_or_else(|| "it names no state space".to_owned())?;
            Operation::IsSpace { space, d: parts.destination(0)?, a: parts.source(1, Type::U64)? }
        }
        _ => return Ok(None),
    };
    Ok(Some(operation))
}

fn move_(parts: &mut Parts) -> Result<Operation, Reason> {
    let ty = parts.ty()?;
    match (parts.operand(0)?, parts.operand(1)?) {
        (Operand::List(list), _) => {
            let part_bits = ty.bits() / list.len() as u32;
            Ok(Operation::Unpack { parts: parts.destinations(0)?, part_bits, a: parts.source(1, ty)? })
        }
        (_, Operand::List(list)) => {
            let part_bits = ty.bits() / list.len() as u32;
            Ok(Operation::Pack { d: parts.destination(0)?, part_bits, parts: parts.sources(1, ty)? })
        }
        (_, Operand::Name(name, 0)) if Special::parse(name) == Some(Special::Clock) => {
            Ok(Operation::Clock { d: parts.destination(0)? })
        }
        _ => Ok(Operation::Move { d: parts.destination(0)?, a: parts.source(1, ty)? }),
    }
}

fn convert(parts: &mut Parts) -> Result<Operation, Reason> {
    let [to, from] = parts.types[..] else { return Err("a conversion names two types".to_owned()) };
    parts.refuse(&["rs", "scaled::n2::ue8m0"])?;
    let (rounding, integral) = parts.find(Rounding::parse).unwrap_or_default();
    let conversion = Conversion {
        to,
        from,
        rounding,
        integral,
        saturate: parts.has("sat"),
        relu: parts.has("relu"),
        flush: parts.has("ftz"),
    };
    let d = parts.destination(0)?;
    let a = parts.source(1, from)?;
    if parts.operands.len() > 2 {
        Ok(Operation::ConvertPair { conversion, d, a, b: parts.source(2, from)? })
    } else {
        Ok(Operation::Convert { conversion, d, a })
    }
}
