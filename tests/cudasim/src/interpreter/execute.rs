//! One instruction for the active lanes of a warp.

use super::fault::FaultKind;
use super::lanes::{ALL, Lanes, lanes_of, map, map3, true_lanes};
use super::shared::SharedMemory;
use super::warp::{Waiting, Warp};
use super::{Machine, access, bits, convert, float, integer};
use crate::ptx::operation::{DISCARD, Operation, Register, Source};
use crate::ptx::types::Space;

/// The next step of the active lanes.
pub enum Flow {
    Next,
    Jump(usize),
    /// Groups of lanes, each with its own target.
    Scatter(Vec<(usize, u32)>),
    Exit,
    /// A wait until other lanes arrive.
    WaitForLanes,
    /// A `bar.warp.sync` that all lanes of the warp have reached.
    WarpSync,
    /// `bar.arrive` at a barrier.
    Arrive(u32),
    /// A barrier of the block, and the destination of a reduction.
    Barrier(Waiting, Register),
}

impl Warp {
    /// Writes the lanes `mask` of a register.
    #[inline]
    pub fn set(&mut self, register: Register, mask: u32, value: &Lanes) {
        if register == DISCARD {
            return;
        }
        let slot = &mut self.registers[register as usize];
        if mask == ALL {
            *slot = *value;
        } else {
            for lane in 0..32 {
                if mask >> lane & 1 == 1 {
                    slot[lane] = value[lane];
                }
            }
        }
    }
}

impl Machine<'_> {
    /// The value of a source.
    #[inline]
    pub fn get<'v>(&'v self, warp: &'v Warp, source: Source) -> &'v Lanes {
        match source.resolve() {
            Ok(register) => &warp.registers[register],
            Err(constant) => &self.constants[constant],
        }
    }

    /// The value of a source that is the same in all active lanes.
    pub fn uniform(&self, warp: &Warp, source: Source, mask: u32) -> u32 {
        self.get(warp, source)[mask.trailing_zeros() as usize & 31] as u32
    }

    /// Executes `operation` for the lanes of `mask`.
    pub fn execute(
        &mut self,
        warp: &mut Warp,
        shared: &mut SharedMemory,
        operation: &Operation,
        mask: u32,
    ) -> Result<Flow, FaultKind> {
        if let Some((register, value)) = self.compute(warp, operation, mask) {
            warp.set(register, mask, &value);
            return Ok(Flow::Next);
        }
        match operation {
            Operation::Load { .. }
            | Operation::Store { .. }
            | Operation::Atomic { .. }
            | Operation::CopyAsync { .. }
            | Operation::CopyCommit
            | Operation::CopyWait { .. }
            | Operation::LoadMatrix { .. } => self.access(warp, shared, operation, mask),
            Operation::Shuffle { .. }
            | Operation::Vote { .. }
            | Operation::Match { .. }
            | Operation::Reduce { .. }
            | Operation::Elect { .. }
            | Operation::WarpBarrier { .. }
            | Operation::Mma { .. } => self.collective(warp, operation, mask),
            _ => self.control(warp, operation, mask),
        }
    }

    /// Executes jumps, barriers, the end of a thread, and operations that write several registers.
    fn control(&mut self, warp: &mut Warp, operation: &Operation, mask: u32) -> Result<Flow, FaultKind> {
        match operation {
            Operation::Branch { target } => Ok(Flow::Jump(*target)),
            Operation::BranchIndexed { index, targets } => {
                let index = self.get(warp, *index);
                let mut scattered: Vec<(usize, u32)> = Vec::new();
                for lane in lanes_of(mask) {
                    let Some(target) = targets.get(index[lane] as u32 as usize) else {
                        return Err(FaultKind::Trap { why: format!("branch index {} is out of range", index[lane]) });
                    };
                    match scattered.iter_mut().find(|(known, _)| known == target) {
                        Some((_, lanes)) => *lanes |= 1 << lane,
                        None => scattered.push((*target, 1 << lane)),
                    }
                }
                Ok(Flow::Scatter(scattered))
            }
            Operation::Exit => Ok(Flow::Exit),
            Operation::Trap { why } => Err(FaultKind::Trap { why: (*why).to_owned() }),
            Operation::Barrier { id, threads, waits } => {
                let barrier = self.uniform(warp, *id, mask);
                let threads = threads.map(|threads| self.uniform(warp, threads, mask));
                if *waits {
                    Ok(Flow::Barrier(Waiting { barrier, threads, at: 0, reduction: None }, DISCARD))
                } else {
                    Ok(Flow::Arrive(barrier))
                }
            }
            Operation::BarrierReduce { id, mode, d, predicate, negated } => {
                let barrier = self.uniform(warp, *id, mask);
                let holds = true_lanes(self.get(warp, *predicate), mask);
                let holds = if *negated { mask & !holds } else { holds };
                let reduction = Some((*mode, holds));
                Ok(Flow::Barrier(Waiting { barrier, threads: None, at: 0, reduction }, *d))
            }
            Operation::Unpack { parts, part_bits, a } => {
                let whole = *self.get(warp, *a);
                for (index, register) in parts.iter().enumerate() {
                    let value = bits::part(&whole, part_bits * index as u32, *part_bits);
                    warp.set(*register, mask, &value);
                }
                Ok(Flow::Next)
            }
            Operation::Carry { op, ty, reads, writes, flag, d, a, b, c } => {
                let carry_in = if *reads { warp.registers[*flag as usize] } else { [0; 32] };
                let operands = [self.get(warp, *a), self.get(warp, *b), self.get(warp, *c)];
                let (value, carry_out) = integer::carry(*op, *ty, operands, &carry_in);
                warp.set(*d, mask, &value);
                if *writes {
                    warp.set(*flag, mask, &carry_out);
                }
                Ok(Flow::Next)
            }
            Operation::SetPredicate { comparison, ty, flush, d, other, a, b, join } => {
                let (result, second) =
                    convert::compare(*comparison, *ty, *flush, self.get(warp, *a), self.get(warp, *b));
                let second = second.unwrap_or_else(|| map(&result, |holds: u64| holds ^ 1));
                let [result, second] = [result, second].map(|value| match join {
                    None => value,
                    Some((join, predicate, negated)) => {
                        convert::join(*join, &value, self.get(warp, *predicate), *negated)
                    }
                });
                warp.set(*d, mask, &result);
                warp.set(*other, mask, &second);
                Ok(Flow::Next)
            }
            Operation::Nop | Operation::Prefetch => Ok(Flow::Next),
            other => unreachable!("{other:?} is executed elsewhere"),
        }
    }

    /// The result of an operation that writes one register from registers alone.
    #[inline]
    fn compute(&self, warp: &Warp, operation: &Operation, mask: u32) -> Option<(Register, Lanes)> {
        let get = |source: &Source| self.get(warp, *source);
        Some(match operation {
            Operation::Move { d, a } => (*d, *get(a)),
            Operation::Integer { op, ty, d, a, b } => (*d, integer::binary(*op, *ty, get(a), get(b))),
            Operation::IntegerUnary { op, ty, d, a } => (*d, integer::unary(*op, *ty, get(a))),
            Operation::MultiplyAdd { product, ty, d, a, b, c } => {
                (*d, integer::multiply_add(*product, *ty, get(a), get(b), get(c)))
            }
            Operation::AbsoluteDifference { ty, d, a, b, c } => {
                (*d, integer::absolute_difference(*ty, get(a), get(b), get(c)))
            }
            Operation::Float { op, ty, mode, d, a, b } => (*d, float::binary(*op, *ty, *mode, get(a), get(b))),
            Operation::FloatUnary { op, ty, mode, d, a } => (*d, float::unary(*op, *ty, *mode, get(a))),
            Operation::FusedMultiplyAdd { ty, mode, d, a, b, c } => {
                (*d, float::fused_multiply_add(*ty, *mode, get(a), get(b), get(c)))
            }
            Operation::SetPredicate { comparison, ty, flush, d, other: DISCARD, a, b, join: None } => {
                (*d, convert::compare(*comparison, *ty, *flush, get(a), get(b)).0)
            }
            Operation::Set { comparison, result, ty, flush, d, a, b, join } => {
                let (low, high) = convert::compare(*comparison, *ty, *flush, get(a), get(b));
                let joined = |value: Lanes| match join {
                    None => value,
                    Some((join, predicate, negated)) => convert::join(*join, &value, get(predicate), *negated),
                };
                let value = convert::set_value(*result);
                let out = match high {
                    None => map(&joined(low), |holds: u64| if holds & 1 == 1 { value } else { 0 }),
                    Some(high) => map3(&joined(low), &joined(high), &low, |low: u64, high: u64, _: u64| {
                        (if low & 1 == 1 { value & 0xffff } else { 0 })
                            | (if high & 1 == 1 { value & 0xffff_0000 } else { 0 })
                    }),
                };
                (*d, out)
            }
            Operation::Select { d, a, b, predicate } => (
                *d,
                map3(get(a), get(b), get(predicate), |a: u64, b: u64, holds: u64| if holds & 1 == 1 { a } else { b }),
            ),
            Operation::SelectSign { float, d, a, b, c } => {
                let float = *float;
                let out = map3(get(a), get(b), get(c), |a: u64, b: u64, sign: u32| {
                    let first = if float { f32::from_bits(sign) >= 0.0 } else { sign.cast_signed() >= 0 };
                    if first { a } else { b }
                });
                (*d, out)
            }
            Operation::TestFloat { class, ty, d, a } => (*d, float::test(*class, *ty, get(a))),
            Operation::Convert { conversion, d, a } => (*d, convert::convert(*conversion, get(a))),
            Operation::ConvertPair { conversion, d, a, b } => (*d, convert::convert_pair(*conversion, get(a), get(b))),
            Operation::Logic3 { d, a, b, c, table } => (*d, bits::logic3(*table, get(a), get(b), get(c))),
            Operation::Permute { mode, d, a, b, selector } => (*d, bits::permute(*mode, get(a), get(b), get(selector))),
            Operation::BitExtract { ty, d, a, start, length } => {
                (*d, bits::extract(*ty, get(a), get(start), get(length)))
            }
            Operation::BitInsert { ty, d, a, b, start, length } => {
                (*d, bits::insert(*ty, [get(a), get(b), get(start), get(length)]))
            }
            Operation::FunnelShift { right, clamp, d, a, b, amount } => {
                (*d, bits::funnel_shift(*right, *clamp, get(a), get(b), get(amount)))
            }
            Operation::Dot { a_type, b_type, high: None, d, a, b, c } => {
                (*d, bits::dot4(*a_type, *b_type, get(a), get(b), get(c)))
            }
            Operation::Dot { a_type, b_type, high: Some(high), d, a, b, c } => {
                (*d, bits::dot2(*a_type, *b_type, *high, get(a), get(b), get(c)))
            }
            Operation::Pack { d, part_bits, parts } => {
                let mut out = [0; 32];
                for (index, part) in parts.iter().enumerate() {
                    let part = bits::part(get(part), 0, *part_bits);
                    for (out, part) in out.iter_mut().zip(part) {
                        *out |= part << (part_bits * index as u32);
                    }
                }
                (*d, out)
            }
            Operation::Clock { d } => (*d, [self.executed; 32]),
            Operation::ActiveMask { d } => (*d, [u64::from(mask); 32]),
            Operation::ToGeneric { space, d, a } => {
                let base = access::window(*space);
                (*d, map(get(a), |address: u64| address.wrapping_add(base)))
            }
            Operation::FromGeneric { space, d, a } => {
                let base = access::window(*space);
                (*d, map(get(a), |address: u64| address.wrapping_sub(base)))
            }
            Operation::IsSpace { space, d, a } => {
                let space = if *space == Space::Constant { Space::Global } else { *space };
                (*d, map(get(a), |address: u64| u8::from(access::space_of(address).0 == space)))
            }
            _ => return None,
        })
    }
}
