//! Loads, stores, atomics, asynchronous copies.

use super::{Operand, Parts, Reason};
use crate::ptx::number;
use crate::ptx::operation::{AtomicOp, DISCARD, Operation, Source};
use crate::ptx::types::{Space, Type};

/// Decodes the operation; `None` where the mnemonic belongs to another group.
pub fn decode(parts: &mut Parts) -> Result<Option<Operation>, Reason> {
    let operation = match parts.base {
        "ld" | "ldu" => {
            let ty = parts.last_type()?;
            let (address, named) = parts.address(1)?;
            let volatile = parts.has("volatile") || parts.has("relaxed") || parts.has("acquire");
            Operation::Load { space: space(parts, named), ty, volatile, d: parts.destinations(0)?, address }
        }
        "st" => {
            let ty = parts.last_type()?;
            let (address, named) = parts.address(0)?;
            let volatile = parts.has("volatile") || parts.has("relaxed") || parts.has("release");
            Operation::Store { space: space(parts, named), ty, volatile, address, values: parts.sources(1, ty)? }
        }
        "atom" | "red" => atomic(parts)?,
        "prefetch" | "prefetchu" | "discard" | "applypriority" => Operation::Prefetch,
        "membar" | "fence" | "nanosleep" | "nop" | "griddepcontrol" | "setmaxnreg" => Operation::Nop,
        "cp" => copy_async(parts)?,
        "ldmatrix" => {
            parts.refuse(&["m16n16", "b8x16", "m8n16"])?;
            let (address, _) = parts.address(1)?;
            Operation::LoadMatrix { transposed: parts.has("trans"), d: parts.destinations(0)?, address }
        }
        _ => return Ok(None),
    };
    Ok(Some(operation))
}

/// The space of an access, named by its suffix; but a parameter of an inlined call is in local memory.
fn space(parts: &Parts, named: Option<Space>) -> Space {
    match (parts.find(Space::parse), named) {
        (Some(Space::Parameter), Some(Space::Local)) => Space::Local,
        (Some(space), _) => space,
        (None, _) => Space::Generic,
    }
}

pub(super) fn atomic_op(suffix: &str) -> Option<AtomicOp> {
    Some(match suffix {
        "add" => AtomicOp::Add,
        "min" => AtomicOp::Min,
        "max" => AtomicOp::Max,
        "and" => AtomicOp::And,
        "or" => AtomicOp::Or,
        "xor" => AtomicOp::Xor,
        "exch" => AtomicOp::Exchange,
        "cas" => AtomicOp::CompareSwap,
        "inc" => AtomicOp::Increment,
        "dec" => AtomicOp::Decrement,
        _ => return None,
    })
}

fn atomic(parts: &mut Parts) -> Result<Operation, Reason> {
    let ty = parts.last_type()?;
    let op = parts.find(atomic_op).ok_or_else(|| "it names no atomic operation".to_owned())?;
    let is_reduction = parts.base == "red";
    let first = usize::from(!is_reduction);
    if matches!(parts.operand(first + 1)?, Operand::List(_)) {
        return Err("atomics on vectors are not simulated".to_owned());
    }
    let (address, named) = parts.address(first)?;
    let value = parts.source(first + 1, ty)?;
    Ok(Operation::Atomic {
        space: space(parts, named),
        op,
        ty,
        d: if is_reduction { DISCARD } else { parts.destination(0)? },
        address,
        value,
        replacement: if op == AtomicOp::CompareSwap { parts.source(first + 2, ty)? } else { value },
    })
}

fn literal(parts: &Parts, index: usize) -> Result<usize, Reason> {
    match parts.operand(index)? {
        Operand::Number(text, false) => {
            number::integer(text).map(|value| value as usize).ok_or_else(|| format!("`{text}` is not a number"))
        }
        _ => Err(format!("operand {index} is no literal")),
    }
}

fn copy_async(parts: &mut Parts) -> Result<Operation, Reason> {
    if !parts.has("async") || parts.has("bulk") || parts.has("mbarrier") {
        return Err("only `cp.async` without barriers or bulk is simulated".to_owned());
    }
    if parts.has("commit_group") {
        return Ok(Operation::CopyCommit);
    }
    if parts.has("wait_all") {
        return Ok(Operation::CopyWait { pending: None });
    }
    if parts.has("wait_group") {
        return Ok(Operation::CopyWait { pending: Some(literal(parts, 0)?) });
    }
    let bytes = literal(parts, 2)?;
    let allowed: &[usize] = if parts.has("cg") { &[16] } else { &[4, 8, 16] };
    if !allowed.contains(&bytes) {
        return Err(format!("a copy of {bytes} bytes; allowed are {allowed:?}"));
    }
    let source_bytes: Option<Source> = if parts.operands.len() > 3 { Some(parts.source(3, Type::U32)?) } else { None };
    Ok(Operation::CopyAsync { bytes, to: parts.address(0)?.0, from: parts.address(1)?.0, source_bytes })
}
