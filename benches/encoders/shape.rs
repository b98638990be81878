//! Numbers of texts and tokens of a batch.

use std::fmt;
use std::str::FromStr;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

/// The shape of a batch of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BatchShape {
    Uniform {
        texts: usize,
        tokens: usize,
    },
    /// 32 texts of 8 to 128 tokens, evenly spread, in shuffled order.
    Mixed,
}

impl BatchShape {
    pub(crate) const ALL: [Self; 7] = [
        Self::Uniform { texts: 1, tokens: 16 },
        Self::Uniform { texts: 1, tokens: 128 },
        Self::Uniform { texts: 8, tokens: 16 },
        Self::Uniform { texts: 8, tokens: 64 },
        Self::Uniform { texts: 32, tokens: 32 },
        Self::Uniform { texts: 8, tokens: 128 },
        Self::Mixed,
    ];

    pub(crate) fn texts(self) -> usize {
        match self {
            Self::Uniform { texts, .. } => texts,
            Self::Mixed => 32,
        }
    }

    /// The tokens of each text.
    pub(crate) fn lengths(self, rng: &mut StdRng) -> Vec<usize> {
        match self {
            Self::Uniform { texts, tokens } => vec![tokens; texts],
            Self::Mixed => {
                let last = self.texts() - 1;
                let mut lengths: Vec<usize> = (0..=last).map(|text| 8 + text * 120 / last).collect();
                lengths.shuffle(rng);
                lengths
            }
        }
    }
}

impl fmt::Display for BatchShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform { texts, tokens } => write!(f, "{texts}x{tokens}"),
            Self::Mixed => f.write_str("mixed"),
        }
    }
}

impl FromStr for BatchShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uniform = || {
            let (texts, tokens) = text.split_once('x')?;
            let positive = |number: &str| number.parse().ok().filter(|number| *number > 0);
            Some(Self::Uniform { texts: positive(texts)?, tokens: positive(tokens)? })
        };
        match text {
            "mixed" => Ok(Self::Mixed),
            _ => uniform().ok_or_else(|| "a shape is TEXTSxTOKENS, such as 8x64, or 'mixed'".to_owned()),
        }
    }
}
