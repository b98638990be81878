//! Operations of several lanes or warps: barriers, shuffles, votes, matrix products; and the end of a thread.

use super::{Parts, Reason};
use crate::ptx::operation::{BarrierReduction, MatrixShape, Operation, ShuffleMode, Source, VoteMode};
use crate::ptx::types::Type;

/// Decodes the operation; `None` where the mnemonic belongs to another group.
pub fn decode(parts: &mut Parts) -> Result<Option<Operation>, Reason> {
    let operation = match parts.base {
        "exit" => Operation::Exit,
        "trap" => Operation::Trap { why: "trap" },
        "brkpt" => Operation::Trap { why: "breakpoint" },
        "bar" | "barrier" => barrier(parts)?,
        "shfl" => shuffle(parts)?,
        "vote" => vote(parts)?,
        "match" => {
            let ty = parts.ty()?;
            let (d, agrees) = parts.destination_pair()?;
            let (a, mask) = (parts.source(1, ty)?, parts.source(2, Type::U32)?);
            Operation::Match { all: parts.has("all"), ty, d, agrees, a, mask }
        }
        "redux" => {
            let ty = parts.ty()?;
            let op = parts.find(super::memory::atomic_op).ok_or_else(|| "it names no operation".to_owned())?;
            let (a, mask) = (parts.source(1, ty)?, parts.source(2, Type::U32)?);
            Operation::Reduce { op, ty, d: parts.destination(0)?, a, mask }
        }
        "activemask" => Operation::ActiveMask { d: parts.destination(0)? },
        "elect" => {
            let (d, predicate) = parts.destination_pair()?;
            Operation::Elect { d, predicate, mask: parts.source(1, Type::U32)? }
        }
        "mma" => matrix(parts)?,
        _ => return Ok(None),
    };
    Ok(Some(operation))
}

fn barrier(parts: &mut Parts) -> Result<Operation, Reason> {
    if parts.has("warp") {
        return Ok(Operation::WarpBarrier { mask: parts.source(0, Type::U32)? });
    }
    parts.refuse(&["cluster"])?;
    if parts.has("red") {
        let mode = match parts.suffixes.iter().find(|suffix| matches!(**suffix, "popc" | "and" | "or")) {
            Some(&"popc") => BarrierReduction::Count,
            Some(&"and") => BarrierReduction::And,
            _ => BarrierReduction::Or,
        };
        if parts.operands.len() > 3 {
            return Err("a reducing barrier of a part of the block is not simulated".to_owned());
        }
        let (predicate, negated) = parts.predicate(2)?;
        return Ok(Operation::BarrierReduce {
            id: parts.source(1, Type::U32)?,
            mode,
            d: parts.destination(0)?,
            predicate,
            negated,
        });
    }
    let id = if parts.operands.is_empty() { parts.decoder.immediate(0) } else { parts.source(0, Type::U32)? };
    let threads: Option<Source> = if parts.operands.len() > 1 { Some(parts.source(1, Type::U32)?) } else { None };
    Ok(Operation::Barrier { id, threads, waits: !parts.has("arrive") })
}

fn shuffle(parts: &mut Parts) -> Result<Operation, Reason> {
    if !parts.has("sync") {
        return Err("a shuffle without `.sync` is undefined since compute capability 7.0".to_owned());
    }
    let mode = parts
        .find(|suffix| {
            Some(match suffix {
                "up" => ShuffleMode::Up,
                "down" => ShuffleMode::Down,
                "bfly" => ShuffleMode::Butterfly,
                "idx" => ShuffleMode::Index,
                _ => return None,
            })
        })
        .ok_or_else(|| "it names no mode".to_owned())?;
    let (d, in_range) = parts.destination_pair()?;
    Ok(Operation::Shuffle {
        mode,
        d,
        in_range,
        a: parts.source(1, Type::U32)?,
        b: parts.source(2, Type::U32)?,
        clamp: parts.source(3, Type::U32)?,
        mask: parts.source(4, Type::U32)?,
    })
}

fn vote(parts: &mut Parts) -> Result<Operation, Reason> {
    if !parts.has("sync") {
        return Err("a vote without `.sync` is undefined since compute capability 7.0".to_owned());
    }
    let mode = parts
        .find(|suffix| {
            Some(match suffix {
                "all" => VoteMode::All,
                "any" => VoteMode::Any,
                "uni" => VoteMode::Uniform,
                "ballot" => VoteMode::Ballot,
                _ => return None,
            })
        })
        .ok_or_else(|| "it names no mode".to_owned())?;
    let (predicate, negated) = parts.predicate(1)?;
    Ok(Operation::Vote { mode, d: parts.destination(0)?, predicate, negated, mask: parts.source(2, Type::U32)? })
}

/// `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32`
fn matrix(parts: &mut Parts) -> Result<Operation, Reason> {
    parts.refuse(&["sp", "xor", "and", "block_scale", "sp::ordered_metadata"])?;
    let [d_type, a, b, c_type] = parts.types[..] else { return Err("it names other than four types".to_owned()) };
    let (m, n, k) = parts.find(shape).ok_or_else(|| "it names no shape".to_owned())?;
    if !(parts.has("row") && parts.has("col")) || d_type != c_type {
        return Err("only row · col products with equal accumulators are simulated".to_owned());
    }
    let shape = MatrixShape { m, n, k, a, b, accumulator: c_type, saturate: parts.has("satfinite") };
    let operation = Operation::Mma {
        shape,
        d: parts.destinations(0)?,
        a: parts.sources(1, a)?,
        b: parts.sources(2, b)?,
        c: parts.sources(3, c_type)?,
    };
    let Operation::Mma { d, a, b, c, .. } = &operation else { unreachable!("built as a matrix product just above") };
    let Some(registers) = fragment_registers(&shape) else {
        return Err("this shape with these types is not simulated".to_owned());
    };
    if [d.len(), a.len(), b.len(), c.len()] != registers {
        return Err(format!("fragments of {registers:?} registers are needed"));
    }
    Ok(operation)
}

fn shape(suffix: &str) -> Option<(usize, usize, usize)> {
    let (m, rest) = suffix.strip_prefix('m')?.split_once('n')?;
    let (n, k) = rest.split_once('k')?;
    Some((m.parse().ok()?, n.parse().ok()?, k.parse().ok()?))
}

/// Numbers of registers of D, A, B and C, for the shapes that are simulated.
fn fragment_registers(shape: &MatrixShape) -> Option<[usize; 4]> {
    use Type::{Bf16, F16, F32, S8, S32, Tf32, U8};
    let byte = |ty| matches!(ty, S8 | U8);
    match (shape.m, shape.n, shape.k, shape.a, shape.b, shape.accumulator) {
        (16, 8, 4, Tf32, Tf32, F32) => Some([4, 2, 1, 4]),
        (16, 8, 8, Tf32, Tf32, F32) => Some([4, 4, 2, 4]),
        (16, 8, 8, F16, F16, F32) | (16, 8, 8, Bf16, Bf16, F32) => Some([4, 2, 1, 4]),
        (16, 8, 8, F16, F16, F16) => Some([2, 2, 1, 2]),
        (16, 8, 16, F16, F16, F32) | (16, 8, 16, Bf16, Bf16, F32) => Some([4, 4, 2, 4]),
        (16, 8, 16, F16, F16, F16) => Some([2, 4, 2, 2]),
        (8, 8, 16, a, b, S32) if byte(a) && byte(b) => Some([2, 1, 1, 2]),
        (16, 8, 16, a, b, S32) if byte(a) && byte(b) => Some([4, 2, 1, 4]),
        (16, 8, 32, a, b, S32) if byte(a) && byte(b) => Some([4, 4, 2, 4]),
        _ => None,
    }
}
