//! Integer and floating-point arithmetic, comparisons and selections.

use super::{Parts, Reason};
use crate::ptx::operation::{
    CarryOp, FloatClass, FloatOp, FloatUnaryOp, IntegerOp, IntegerUnaryOp, Operation, Product,
};
use crate::ptx::types::{Rounding, Type};

/// Decodes the operation; `None` where the mnemonic belongs to another group.
pub fn decode(parts: &mut Parts) -> Result<Option<Operation>, Reason> {
    let operation = match parts.base {
        "add" | "sub" | "mul" | "div" | "min" | "max" | "rem" => binary(parts)?,
        "addc" | "subc" | "madc" => carry(parts)?,
        "mad" | "fma" => multiply_add(parts)?,
        "mul24" | "mad24" => return Err("24-bit products are not simulated".to_owned()),
        "sad" => {
            let ty = parts.ty()?;
            Operation::AbsoluteDifference {
                ty,
                d: parts.destination(0)?,
                a: parts.source(1, ty)?,
                b: parts.source(2, ty)?,
                c: parts.source(3, ty)?,
            }
        }
        "abs" | "neg" => sign(parts)?,
        "copysign" => float(parts, FloatOp::CopySign)?,
        "sqrt" => float_unary(parts, FloatUnaryOp::SquareRoot)?,
        "rsqrt" => float_unary(parts, FloatUnaryOp::ReciprocalSquareRoot)?,
        "rcp" => float_unary(parts, FloatUnaryOp::Reciprocal)?,
        "ex2" => float_unary(parts, FloatUnaryOp::Exp2)?,
        "lg2" => float_unary(parts, FloatUnaryOp::Log2)?,
        "sin" => float_unary(parts, FloatUnaryOp::Sine)?,
        "cos" => float_unary(parts, FloatUnaryOp::Cosine)?,
        "tanh" => float_unary(parts, FloatUnaryOp::Tanh)?,
        "setp" => set_predicate(parts)?,
        "set" => set(parts)?,
        "selp" => {
            let ty = parts.ty()?;
            let (predicate, negated) = parts.predicate(3)?;
            let (a, b) = (parts.source(1, ty)?, parts.source(2, ty)?);
            let (a, b) = if negated { (b, a) } else { (a, b) };
            Operation::Select { d: parts.destination(0)?, a, b, predicate }
        }
        "slct" => {
            let (ty, sign) = (parts.ty()?, parts.last_type()?);
            Operation::SelectSign {
                float: sign == Type::F32,
                d: parts.destination(0)?,
                a: parts.source(1, ty)?,
                b: parts.source(2, ty)?,
                c: parts.source(3, sign)?,
            }
        }
        "testp" => {
            let class = match parts.suffixes.first() {
                Some(&"finite") => FloatClass::Finite,
                Some(&"infinite") => FloatClass::Infinite,
                Some(&"number") => FloatClass::Number,
                Some(&"notanumber") => FloatClass::Nan,
                Some(&"normal") => FloatClass::Normal,
                Some(&"subnormal") => FloatClass::Subnormal,
                _ => return Err("it names no class of floats".to_owned()),
            };
            let ty = parts.ty()?;
            Operation::TestFloat { class, ty, d: parts.destination(0)?, a: parts.source(1, ty)? }
        }
        _ => return Ok(None),
    };
    Ok(Some(operation))
}

fn binary(parts: &mut Parts) -> Result<Operation, Reason> {
    let ty = parts.ty()?;
    if ty.is_float() {
        let op = match parts.base {
            "add" => FloatOp::Add,
            "sub" => FloatOp::Sub,
            "mul" => FloatOp::Mul,
            "div" => FloatOp::Div,
            "min" => FloatOp::Min,
            "max" => FloatOp::Max,
            _ => return Err("floats have no remainder".to_owned()),
        };
        return float(parts, op);
    }
    if parts.has("cc") {
        return carry(parts);
    }
    let saturates = parts.has("sat");
    let op = match parts.base {
        "add" if saturates => IntegerOp::AddSaturating,
        "sub" if saturates => IntegerOp::SubSaturating,
        "add" => IntegerOp::Add,
        "sub" => IntegerOp::Sub,
        "mul" if parts.has("wide") => IntegerOp::MulWide,
        "mul" if parts.has("hi") => IntegerOp::MulHigh,
        "mul" => IntegerOp::MulLow,
        "div" => IntegerOp::Div,
        "rem" => IntegerOp::Rem,
        "min" => IntegerOp::Min,
        _ => IntegerOp::Max,
    };
    parts.refuse(&["relu"])?;
    Ok(Operation::Integer { op, ty, d: parts.destination(0)?, a: parts.source(1, ty)?, b: parts.source(2, ty)? })
}

fn carry(parts: &mut Parts) -> Result<Operation, Reason> {
    let ty = parts.ty()?;
    let (op, reads) = match parts.base {
        "add" => (CarryOp::Add, false),
        "addc" => (CarryOp::Add, true),
        "sub" => (CarryOp::Sub, false),
        "subc" => (CarryOp::Sub, true),
        base => (if parts.has("hi") { CarryOp::MulAddHigh } else { CarryOp::MulAddLow }, base == "madc"),
    };
    let zero = parts.decoder.immediate(0);
    Ok(Operation::Carry {
        op,
        ty,
        reads,
        writes: parts.has("cc"),
        flag: parts.decoder.carry(),
        d: parts.destination(0)?,
        a: parts.source(1, ty)?,
        b: parts.source(2, ty)?,
        c: if matches!(op, CarryOp::MulAddLow | CarryOp::MulAddHigh) { parts.source(3, ty)? } else { zero },
    })
}

fn multiply_add(parts: &mut Parts) -> Result<Operation, Reason> {
    let ty = parts.ty()?;
    if ty.is_float() {
        let mode = parts.float_mode();
        if ty == Type::F64 && mode.rounding != Rounding::Nearest {
            return Err("a 64-bit fused product is rounded to nearest alone".to_owned());
        }
        return Ok(Operation::FusedMultiplyAdd {
            ty,
            mode,
            d: parts.destination(0)?,
            a: parts.source(1, ty)?,
            b: parts.source(2, ty)?,
            c: parts.source(3, ty)?,
        });
    }
    if parts.has("cc") {
        return carry(parts);
    }
    parts.refuse(&["sat"])?;
    let product = if parts.has("wide") {
        Product::Wide
    } else if parts.has("hi") {
        Product::High
    } else {
        Product::Low
    };
    Ok(Operation::MultiplyAdd {
        product,
        ty,
        d: parts.destination(0)?,
        a: parts.source(1, ty)?,
        b: parts.source(2, ty)?,
        c: parts.source(3, if product == Product::Wide { Type::U64 } else { ty })?,
    })
}

fn sign(parts: &mut Parts) -> Result<Operation, Reason> {
    let ty = parts.ty()?;
    let negate = parts.base == "neg";
    if ty.is_float() {
        return float_unary(parts, if negate { FloatUnaryOp::Negate } else { FloatUnaryOp::Absolute });
    }
    let op = if negate { IntegerUnaryOp::Negate } else { IntegerUnaryOp::Absolute };
    Ok(Operation::IntegerUnary { op, ty, d: parts.destination(0)?, a: parts.source(1, ty)? })
}

fn float(parts: &mut Parts, op: FloatOp) -> Result<Operation, Reason> {
    parts.refuse(&["xorsign"])?;
    let ty = parts.ty()?;
    let mode = parts.float_mode();
    Ok(Operation::Float { op, ty, mode, d: parts.destination(0)?, a: parts.source(1, ty)?, b: parts.source(2, ty)? })
}

fn float_unary(parts: &mut Parts, op: FloatUnaryOp) -> Result<Operation, Reason> {
    let ty = parts.ty()?;
    let mode = parts.float_mode();
    Ok(Operation::FloatUnary { op, ty, mode, d: parts.destination(0)?, a: parts.source(1, ty)? })
}

fn set_predicate(parts: &mut Parts) -> Result<Operation, Reason> {
    let ty = parts.last_type()?;
    let (d, other) = parts.destination_pair()?;
    Ok(Operation::SetPredicate {
        comparison: parts.comparison()?,
        ty,
        flush: parts.has("ftz"),
        d,
        other,
        a: parts.source(1, ty)?,
        b: parts.source(2, ty)?,
        join: parts.join()?,
    })
}

fn set(parts: &mut Parts) -> Result<Operation, Reason> {
    let (result, ty) = (parts.ty()?, parts.last_type()?);
    Ok(Operation::Set {
        comparison: parts.comparison()?,
        result,
        ty,
        flush: parts.has("ftz"),
        d: parts.destination(0)?,
        a: parts.source(1, ty)?,
        b: parts.source(2, ty)?,
        join: parts.join()?,
    })
}
