//! The vocabulary of PTX: types, state spaces, rounding modes, comparisons.

/// The type of an operand, named by the suffix of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    B8,
    B16,
    B32,
    B64,
    B128,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    F32,
    F64,
    Tf32,
    E4m3x2,
    E5m2x2,
    Predicate,
}

impl Type {
    /// The type that a suffix such as `u32` names.
    pub fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "s8" => Self::S8,
            "s16" => Self::S16,
            "s32" => Self::S32,
            "s64" => Self::S64,
            "b8" => Self::B8,
            "b16" => Self::B16,
            "b32" => Self::B32,
            "b64" => Self::B64,
            "b128" => Self::B128,
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::Bf16,
            "bf16x2" => Self::Bf16x2,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "tf32" => Self::Tf32,
            "e4m3x2" => Self::E4m3x2,
            "e5m2x2" => Self::E5m2x2,
            "pred" => Self::Predicate,
            _ => return None,
        })
    }

    /// Width of a register of this type in bits.
    pub fn bits(self) -> u32 {
        match self {
            Self::Predicate => 1,
            Self::U8 | Self::S8 | Self::B8 => 8,
            Self::U16 | Self::S16 | Self::B16 | Self::F16 | Self::Bf16 | Self::E4m3x2 | Self::E5m2x2 => 16,
            Self::U32 | Self::S32 | Self::B32 | Self::F32 | Self::Tf32 | Self::F16x2 | Self::Bf16x2 => 32,
            Self::U64 | Self::S64 | Self::B64 | Self::F64 => 64,
            Self::B128 => 128,
        }
    }

    /// Width in memory in bytes.
    pub fn bytes(self) -> usize {
        self.bits().div_ceil(8) as usize
    }

    /// True if an integer of this type has a sign.
    pub fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    /// True for the floating-point types, packed ones included.
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::F16
                | Self::F16x2
                | Self::Bf16
                | Self::Bf16x2
                | Self::F32
                | Self::F64
                | Self::Tf32
                | Self::E4m3x2
                | Self::E5m2x2
        )
    }

    /// The type of one half of a packed pair; the type itself otherwise.
    pub fn element(self) -> Self {
        match self {
            Self::F16x2 => Self::F16,
            Self::Bf16x2 => Self::Bf16,
            other => other,
        }
    }

    /// True if two values share one register.
    pub fn is_packed(self) -> bool {
        matches!(self, Self::F16x2 | Self::Bf16x2 | Self::E4m3x2 | Self::E5m2x2)
    }
}

/// The state space that an address points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Any of the others, told apart by the value of the address.
    Generic,
    Global,
    Shared,
    Local,
    Parameter,
    Constant,
}

impl Space {
    /// The space that a suffix such as `shared` names.
    pub fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "global" => Self::Global,
            "shared" | "shared::cta" => Self::Shared,
            "local" => Self::Local,
            "param" | "param::entry" | "param::func" => Self::Parameter,
            "const" => Self::Constant,
            _ => return None,
        })
    }
}

/// Rounding of a result that does not fit its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even: `.rn`.
    #[default]
    Nearest,
    /// To nearest, ties away from zero: `.rna`.
    NearestAway,
    /// Towards zero: `.rz`.
    Zero,
    /// Towards minus infinity: `.rm`.
    Down,
    /// Towards plus infinity: `.rp`.
    Up,
}

impl Rounding {
    /// The mode named by a suffix such as `rn` or `rni`, and true if it rounds to an integer.
    pub fn parse(suffix: &str) -> Option<(Self, bool)> {
        Some(match suffix {
            "rn" => (Self::Nearest, false),
            "rna" => (Self::NearestAway, false),
            "rz" => (Self::Zero, false),
            "rm" => (Self::Down, false),
            "rp" => (Self::Up, false),
            "rni" => (Self::Nearest, true),
            "rzi" => (Self::Zero, true),
            "rmi" => (Self::Down, true),
            "rpi" => (Self::Up, true),
            _ => return None,
        })
    }
}

/// A comparison; the unordered ones also hold if an operand is a NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    EqualUnordered,
    NotEqualUnordered,
    LessUnordered,
    LessEqualUnordered,
    GreaterUnordered,
    GreaterEqualUnordered,
    /// Neither operand is a NaN.
    Number,
    /// One of the operands is a NaN.
    Nan,
}

impl Comparison {
    /// The comparison that a suffix such as `lt` names.
    pub fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "eq" => Self::Equal,
            "ne" => Self::NotEqual,
            "lt" | "lo" => Self::Less,
            "le" | "ls" => Self::LessEqual,
            "gt" | "hi" => Self::Greater,
            "ge" | "hs" => Self::GreaterEqual,
            "equ" => Self::EqualUnordered,
            "neu" => Self::NotEqualUnordered,
            "ltu" => Self::LessUnordered,
            "leu" => Self::LessEqualUnordered,
            "gtu" => Self::GreaterUnordered,
            "geu" => Self::GreaterEqualUnordered,
            "num" => Self::Number,
            "nan" => Self::Nan,
            _ => return None,
        })
    }
}

/// The operation that joins a comparison with a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    And,
    Or,
    Xor,
}

impl Join {
    /// The operation that a suffix such as `and` names.
    pub fn parse(suffix: &str) -> Option<Self> {
        Some(match suffix {
            "and" => Self::And,
            "or" => Self::Or,
            "xor" => Self::Xor,
            _ => return None,
        })
    }
}

/// A register that the hardware sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    ThreadIndex(u8),
    BlockSize(u8),
    BlockIndex(u8),
    GridSize(u8),
    Lane,
    Warp,
    Warps,
    LanesBelow,
    LanesUpTo,
    LanesAbove,
    LanesFrom,
    LaneBit,
    DynamicSharedBytes,
    TotalSharedBytes,
    /// An identifier that is always zero here, as there is one multiprocessor and one grid.
    Zero,
    /// The number of instructions that the warp has executed.
    Clock,
}

impl Special {
    /// The register that a name such as `%tid.x` stands for.
    pub fn parse(name: &str) -> Option<Self> {
        let (base, part) = name.split_once('.').unwrap_or((name, "x"));
        let axis = match part {
            "x" => 0,
            "y" => 1,
            "z" => 2,
            _ => return None,
        };
        Some(match base {
            "%tid" => Self::ThreadIndex(axis),
            "%ntid" => Self::BlockSize(axis),
            "%ctaid" => Self::BlockIndex(axis),
            "%nctaid" => Self::GridSize(axis),
            "%laneid" => Self::Lane,
            "%warpid" => Self::Warp,
            "%nwarpid" => Self::Warps,
            "%lanemask_lt" => Self::LanesBelow,
            "%lanemask_le" => Self::LanesUpTo,
            "%lanemask_gt" => Self::LanesAbove,
            "%lanemask_ge" => Self::LanesFrom,
            "%lanemask_eq" => Self::LaneBit,
            "%dynamic_smem_size" => Self::DynamicSharedBytes,
            "%total_smem_size" => Self::TotalSharedBytes,
            "%smid" | "%gridid" => Self::Zero,
            "%clock" | "%clock64" | "%globaltimer" | "%globaltimer_lo" => Self::Clock,
            _ => return None,
        })
    }
}
