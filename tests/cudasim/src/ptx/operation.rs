//! Instructions with all names resolved, as the interpreter executes them.

use std::sync::Arc;

use super::types::{Comparison, Join, Rounding, Space, Special, Type};

/// A register of a warp: one 64-bit value for each lane.
pub type Register = u32;

/// The register whose writes are discarded: `_`.
pub const DISCARD: Register = u32::MAX;

/// A value to read: a register, or an entry of [`Program::constants`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(u32);

impl Source {
    const CONSTANT: u32 = 1 << 31;

    /// The value of a register.
    pub fn register(register: Register) -> Self {
        Self(register)
    }

    /// The value of a constant.
    pub fn constant(index: usize) -> Self {
        Self(index as u32 | Self::CONSTANT)
    }

    /// `Ok` with the number of a register, `Err` with the index of a constant.
    #[inline]
    pub fn resolve(self) -> Result<usize, usize> {
        if self.0 & Self::CONSTANT == 0 { Ok(self.0 as usize) } else { Err((self.0 & !Self::CONSTANT) as usize) }
    }
}

/// An entry point, ready to run.
#[derive(Debug)]
pub struct Program {
    pub name: String,
    pub instructions: Vec<Instruction>,
    /// The text that instructions refer to in messages.
    pub source: Arc<str>,
    pub constants: Vec<u64>,
    /// Registers that hold a special value from the start of a warp.
    pub specials: Vec<(Register, Special)>,
    pub registers: usize,
    /// Offset and size of each parameter.
    pub parameters: Vec<(usize, usize)>,
    pub parameter_bytes: usize,
    pub static_shared_bytes: usize,
    /// Offset of dynamic shared memory.
    pub dynamic_shared_start: usize,
    /// Bytes of each thread's local memory.
    pub local_bytes: usize,
    pub max_threads: u32,
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// The predicate that must hold, and true if it is negated.
    pub guard: Option<(Register, bool)>,
    pub operation: Operation,
    /// Start and end of its text in [`Program::source`].
    pub text: (u32, u32),
}

/// A memory operand.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub base: Source,
    pub offset: i64,
}

/// Integer operations of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegerOp {
    Add,
    Sub,
    AddSaturating,
    SubSaturating,
    MulLow,
    MulHigh,
    MulWide,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

/// Integer operations of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntegerUnaryOp {
    Not,
    LogicalNot,
    Negate,
    Absolute,
    PopulationCount,
    LeadingZeros,
    Reverse,
    FindHighest,
    FindHighestShift,
}

/// The part of a product that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Low,
    High,
    Wide,
}

/// Arithmetic with the carry flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarryOp {
    Add,
    Sub,
    MulAddLow,
    MulAddHigh,
}

/// Floating-point operations of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatOp {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    CopySign,
}

/// Floating-point operations of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatUnaryOp {
    Negate,
    Absolute,
    SquareRoot,
    ReciprocalSquareRoot,
    Reciprocal,
    Exp2,
    Log2,
    Sine,
    Cosine,
    Tanh,
}

/// Rounding and clamping of a floating-point result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloatMode {
    pub rounding: Rounding,
    /// Subnormal f32 inputs and results become zero: `.ftz`.
    pub flush: bool,
    /// The result is clamped to 0..=1: `.sat`.
    pub saturate: bool,
    /// Negative results become zero: `.relu`.
    pub relu: bool,
    /// A NaN operand of min or max is the result: `.NaN`.
    pub propagate_nan: bool,
}

/// The class that `testp` tests for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatClass {
    Finite,
    Infinite,
    Number,
    Nan,
    Normal,
    Subnormal,
}

/// A conversion's rounding, to a float's grid or to an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    pub to: Type,
    pub from: Type,
    pub rounding: Rounding,
    /// True to round to an integral value: `.rni` and the like.
    pub integral: bool,
    pub saturate: bool,
    pub relu: bool,
    pub flush: bool,
}

/// Read-modify-write operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareSwap,
    Increment,
    Decrement,
}

/// The lane that a shuffle reads from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

/// The result of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

/// The way in which `prmt` selects bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PermuteMode {
    Index,
    Forward4,
    Backward4,
    Replicate8,
    ClampLeft,
    ClampRight,
    Replicate16,
}

/// The element types and shape of a matrix instruction: D (m×n) = A (m×k) · B (k×n) + C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixShape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Type,
    pub b: Type,
    /// Type of C and of D.
    pub accumulator: Type,
    /// Integer accumulation saturates: `.satfinite`.
    pub saturate: bool,
}

/// An instruction's operation. Fields are named as in the PTX manual: `d` is written, `a`, `b`, `c` are read.
#[derive(Clone, Debug)]
pub enum Operation {
    Nop,
    Exit,
    Trap {
        why: &'static str,
    },
    Branch {
        target: usize,
    },
    BranchIndexed {
        index: Source,
        targets: Box<[usize]>,
    },
    /// `bar.sync` and `bar.arrive`; without `threads` the whole block takes part.
    Barrier {
        id: Source,
        threads: Option<Source>,
        waits: bool,
    },
    /// `bar.red`: a barrier that combines a predicate of every thread.
    BarrierReduce {
        id: Source,
        mode: BarrierReduction,
        d: Register,
        predicate: Source,
        negated: bool,
    },
    WarpBarrier {
        mask: Source,
    },
    Move {
        d: Register,
        a: Source,
    },
    Clock {
        d: Register,
    },
    Pack {
        d: Register,
        part_bits: u32,
        parts: Box<[Source]>,
    },
    Unpack {
        parts: Box<[Register]>,
        part_bits: u32,
        a: Source,
    },
    Integer {
        op: IntegerOp,
        ty: Type,
        d: Register,
        a: Source,
        b: Source,
    },
    IntegerUnary {
        op: IntegerUnaryOp,
        ty: Type,
        d: Register,
        a: Source,
    },
    MultiplyAdd {
        product: Product,
        ty: Type,
        d: Register,
        a: Source,
        b: Source,
        c: Source,
    },
    Carry {
        op: CarryOp,
        ty: Type,
        reads: bool,
        writes: bool,
        flag: Register,
        d: Register,
        a: Source,
        b: Source,
        c: Source,
    },
    AbsoluteDifference {
        ty: Type,
        d: Register,
        a: Source,
        b: Source,
        c: Source,
    },
    Float {
        op: FloatOp,
        ty: Type,
        mode: FloatMode,
        d: Register,
        a: Source,
        b: Source,
    },
    FloatUnary {
        op: FloatUnaryOp,
        ty: Type,
        mode: FloatMode,
        d: Register,
        a: Source,
    },
    FusedMultiplyAdd {
        ty: Type,
        mode: FloatMode,
        d: Register,
        a: Source,
        b: Source,
        c: Source,
    },
    /// `setp`: `d` is the result, `other` its complement (or the second half of a packed comparison).
    SetPredicate {
        comparison: Comparison,
        ty: Type,
        flush: bool,
        d: Register,
        other: Register,
        a: Source,
        b: Source,
        join: Option<(Join, Source, bool)>,
    },
    /// `set`: all ones or 1.0 where the comparison holds.
    Set {
        comparison: Comparison,
        result: Type,
        ty: Type,
        flush: bool,
        d: Register,
        a: Source,
        b: Source,
        join: Option<(Join, Source, bool)>,
    },
    Select {
        d: Register,
        a: Source,
        b: Source,
        predicate: Source,
    },
    /// `slct`: `a` where `c` is not negative.
    SelectSign {
        float: bool,
        d: Register,
        a: Source,
        b: Source,
        c: Source,
    },
    TestFloat {
        class: FloatClass,
        ty: Type,
        d: Register,
        a: Source,
    },
    Convert {
        conversion: Conversion,
        d: Register,
        a: Source,
    },
    /// Packs two values into one register: `a` above, `b` below.
    ConvertPair {
        conversion: Conversion,
        d: Register,
        a: Source,
        b: Source,
    },
    Logic3 {
        d: Register,
        a: Source,
        b: Source,
        c: Source,
        table: u8,
    },
    Permute {
        mode: PermuteMode,
        d: Register,
        a: Source,
        b: Source,
        selector: Source,
    },
    BitExtract {
        ty: Type,
        d: Register,
        a: Source,
        start: Source,
        length: Source,
    },
    BitInsert {
        ty: Type,
        d: Register,
        a: Source,
        b: Source,
        start: Source,
        length: Source,
    },
    FunnelShift {
        right: bool,
        clamp: bool,
        d: Register,
        a: Source,
        b: Source,
        amount: Source,
    },
    /// `dp4a` and, with `high` set, `dp2a` on the lower or upper half of `b`.
    Dot {
        a_type: Type,
        b_type: Type,
        high: Option<bool>,
        d: Register,
        a: Source,
        b: Source,
        c: Source,
    },
    Load {
        space: Space,
        ty: Type,
        volatile: bool,
        d: Box<[Register]>,
        address: Address,
    },
    Store {
        space: Space,
        ty: Type,
        volatile: bool,
        address: Address,
        values: Box<[Source]>,
    },
    Atomic {
        space: Space,
        op: AtomicOp,
        ty: Type,
        d: Register,
        address: Address,
        value: Source,
        replacement: Source,
    },
    /// A prefetch, which checks the address and reads nothing.
    Prefetch,
    ToGeneric {
        space: Space,
        d: Register,
        a: Source,
    },
    FromGeneric {
        space: Space,
        d: Register,
        a: Source,
    },
    IsSpace {
        space: Space,
        d: Register,
        a: Source,
    },
    Shuffle {
        mode: ShuffleMode,
        d: Register,
        in_range: Register,
        a: Source,
        b: Source,
        clamp: Source,
        mask: Source,
    },
    Vote {
        mode: VoteMode,
        d: Register,
        predicate: Source,
        negated: bool,
        mask: Source,
    },
    /// `match`: the lanes with an equal value; with `all`, true if every lane's is equal.
    Match {
        all: bool,
        ty: Type,
        d: Register,
        agrees: Register,
        a: Source,
        mask: Source,
    },
    Reduce {
        op: AtomicOp,
        ty: Type,
        d: Register,
        a: Source,
        mask: Source,
    },
    ActiveMask {
        d: Register,
    },
    /// `elect.sync`: one lane of the mask.
    Elect {
        d: Register,
        predicate: Register,
        mask: Source,
    },
    LoadMatrix {
        transposed: bool,
        d: Box<[Register]>,
        address: Address,
    },
    Mma {
        shape: MatrixShape,
        d: Box<[Register]>,
        a: Box<[Source]>,
        b: Box<[Source]>,
        c: Box<[Source]>,
    },
    CopyAsync {
        bytes: usize,
        to: Address,
        from: Address,
        /// Number of bytes read; the rest of the destination becomes zero.
        source_bytes: Option<Source>,
    },
    CopyCommit,
    /// Waits until at most `pending` groups are in flight; none, and no uncommitted copy, with `None`.
    CopyWait {
        pending: Option<usize>,
    },
}

/// The value that `bar.red` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierReduction {
    Count,
    And,
    Or,
}
