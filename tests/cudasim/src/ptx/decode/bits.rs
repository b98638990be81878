//! Logic, shifts, bit fields, byte permutations, and dot products of packed bytes.

use super::{Parts, Reason};
use crate::ptx::operation::{IntegerOp, IntegerUnaryOp, Operation, PermuteMode};
use crate::ptx::types::Type;

/// Decodes the operation; `None` where the mnemonic belongs to another group.
pub fn decode(parts: &mut Parts) -> Result<Option<Operation>, Reason> {
    let operation = match parts.base {
        "and" => integer(parts, IntegerOp::And)?,
        "or" => integer(parts, IntegerOp::Or)?,
        "xor" => integer(parts, IntegerOp::Xor)?,
        "shl" => integer(parts, IntegerOp::ShiftLeft)?,
        "shr" => integer(parts, IntegerOp::ShiftRight)?,
        "not" => unary(parts, IntegerUnaryOp::Not)?,
        "cnot" => unary(parts, IntegerUnaryOp::LogicalNot)?,
        "popc" => unary(parts, IntegerUnaryOp::PopulationCount)?,
        "clz" => unary(parts, IntegerUnaryOp::LeadingZeros)?,
        "brev" => unary(parts, IntegerUnaryOp::Reverse)?,
        "bfind" if parts.has("shiftamt") => unary(parts, IntegerUnaryOp::FindHighestShift)?,
        "bfind" => unary(parts, IntegerUnaryOp::FindHighest)?,
        "lop3" => logic3(parts)?,
        "prmt" => permute(parts)?,
        "bfe" => {
            let ty = parts.ty()?;
            Operation::BitExtract {
                ty,
                d: parts.destination(0)?,
                a: parts.source(1, ty)?,
                start: parts.source(2, Type::U32)?,
                length: parts.source(3, Type::U32)?,
            }
        }
        "bfi" => {
            let ty = parts.ty()?;
            Operation::BitInsert {
                ty,
                d: parts.destination(0)?,
                a: parts.source(1, ty)?,
                b: parts.source(2, ty)?,
                start: parts.source(3, Type::U32)?,
                length: parts.source(4, Type::U32)?,
            }
        }
        "shf" => Operation::FunnelShift {
            right: parts.has("r"),
            clamp: parts.has("clamp"),
            d: parts.destination(0)?,
            a: parts.source(1, Type::U32)?,
            b: parts.source(2, Type::U32)?,
            amount: parts.source(3, Type::U32)?,
        },
        "dp4a" | "dp2a" => Operation::Dot {
            a_type: parts.ty()?,
            b_type: parts.last_type()?,
            high: (parts.base == "dp2a").then(|| parts.has("hi")),
            d: parts.destination(0)?,
            a: parts.source(1, Type::U32)?,
            b: parts.source(2, Type::U32)?,
            c: parts.source(3, Type::U32)?,
        },
        _ => return Ok(None),
    };
    Ok(Some(operation))
}

fn integer(parts: &mut Parts, op: IntegerOp) -> Result<Operation, Reason> {
    let ty = parts.ty()?;
    let b_type = if matches!(op, IntegerOp::ShiftLeft | IntegerOp::ShiftRight) { Type::U32 } else { ty };
    Ok(Operation::Integer { op, ty, d: parts.destination(0)?, a: parts.source(1, ty)?, b: parts.source(2, b_type)? })
}

fn unary(parts: &mut Parts, op: IntegerUnaryOp) -> Result<Operation, Reason> {
    let ty = parts.ty()?;
    Ok(Operation::IntegerUnary { op, ty, d: parts.destination(0)?, a: parts.source(1, ty)? })
}

fn logic3(parts: &mut Parts) -> Result<Operation, Reason> {
    if parts.suffixes != ["b32"] {
        return Err("`lop3` with a predicate is not simulated".to_owned());
    }
    let super::Operand::Number(text, false) = parts.operand(4)? else {
        return Err("the table of `lop3` is no literal".to_owned());
    };
    let table = super::number::integer(text).ok_or_else(|| format!("`{text}` is not a number"))? as u8;
    Ok(Operation::Logic3 {
        d: parts.destination(0)?,
        a: parts.source(1, Type::U32)?,
        b: parts.source(2, Type::U32)?,
        c: parts.source(3, Type::U32)?,
        table,
    })
}

fn permute(parts: &mut Parts) -> Result<Operation, Reason> {
    let mode = parts
        .find(|suffix| {
            Some(match suffix {
                "f4e" => PermuteMode::Forward4,
                "b4e" => PermuteMode::Backward4,
                "rc8" => PermuteMode::Replicate8,
                "ecl" => PermuteMode::ClampLeft,
                "ecr" => PermuteMode::ClampRight,
                "rc16" => PermuteMode::Replicate16,
                _ => return None,
            })
        })
        .unwrap_or(PermuteMode::Index);
    Ok(Operation::Permute {
        mode,
        d: parts.destination(0)?,
        a: parts.source(1, Type::U32)?,
        b: parts.source(2, Type::U32)?,
        selector: parts.source(3, Type::U32)?,
    })
}
