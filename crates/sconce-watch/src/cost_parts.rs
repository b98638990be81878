//! The two parts of a batch's cost a + c · weight: which of them has grown.
//!
//! While the cost is suspicious, the differences d from the reference are explained by the share s of the fixed cost in
//! each batch: d = A·s + C·(1 − s), by least squares. A is the growth of a, C that of c.

use crate::reference::Reference;

/// Factor by which a batch counts less with each that follows it.
const DECAY: f64 = 0.9998;
/// Largest difference of one batch.
const MAX_DIFFERENCE: f64 = 1.0;
/// Least error of a growth: the speed of a machine wanders by so much, whatever the number of batches.
const MIN_ERROR: f64 = 0.02;
/// Ratio of the smaller growth to the larger one below which only the larger one counts, and above which both do, errors
/// considered.
const ONE: f64 = 0.5;
const BOTH: f64 = 0.4;

/// The part of a batch's cost that has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CostPart {
    /// The fixed cost of a batch of any size, a: launches, hand-offs, other work on the same processor.
    Fixed,
    /// The cost by weight, c: computing, memory.
    PerWeight,
    /// Both parts.
    Both,
}

impl CostPart {
    /// The part in one word: `fixed`, `per_weight` or `both`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::PerWeight => "per_weight",
            Self::Both => "both",
        }
    }
}

/// The sums of the regression, and the reference line that gives the share of the fixed cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CostParts {
    fixed: f64,
    per_weight: f64,
    sums: Sums,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    count: f64,
    ss: f64,
    sc: f64,
    cc: f64,
    sd: f64,
    cd: f64,
    dd: f64,
}

impl CostParts {
    /// Fits the line a + c · weight through the frozen references, by least squares of relative errors.
    pub(crate) fn fit<'a>(&mut self, references: impl Iterator<Item = &'a Reference> + Clone) {
        if references.clone().count() == 1 {
            let only = references.clone().next().expect("there is one");
            let slope = only.slope.clamp(0.0, 1.0);
            (self.fixed, self.per_weight) = (only.y.exp() * (1.0 - slope), only.y.exp() * slope / only.x.exp());
            return;
        }
        let (mut uu, mut uv, mut vv, mut u, mut v) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for Reference { x, y, samples, .. } in references {
            let (by_fixed, by_weight, n) = ((-y).exp(), (x - y).exp(), *samples as f64);
            uu += n * by_fixed * by_fixed;
            uv += n * by_fixed * by_weight;
            vv += n * by_weight * by_weight;
            u += n * by_fixed;
            v += n * by_weight;
        }
        let determinant = uu * vv - uv * uv;
        if determinant > 1e-9 * uu * vv {
            self.fixed = ((u * vv - v * uv) / determinant).max(0.0);
            self.per_weight = ((v * uu - u * uv) / determinant).max(0.0);
        }
    }

    /// Takes the difference of a batch's logarithmic time from its reference.
    pub(crate) fn observe(&mut self, weight: usize, difference: f64) {
        let whole = self.fixed + self.per_weight * weight as f64;
        if whole <= 0.0 {
            return;
        }
        let (s, d) = (self.fixed / whole, difference.clamp(-MAX_DIFFERENCE, MAX_DIFFERENCE));
        let c = 1.0 - s;
        let sums = &mut self.sums;
        for (sum, value) in [
            (&mut sums.count, 1.0),
            (&mut sums.ss, s * s),
            (&mut sums.sc, s * c),
            (&mut sums.cc, c * c),
            (&mut sums.sd, s * d),
            (&mut sums.cd, c * d),
            (&mut sums.dd, d * d),
        ] {
            *sum = *sum * DECAY + value;
        }
    }

    /// Forgets all batches, because their cost is as usual.
    pub(crate) fn forget(&mut self) {
        self.sums = Sums::default();
    }

    /// The part that has grown; `None` if the batches are too few, or too much alike, to
    /// tell.
    pub(crate) fn part(&self) -> Option<CostPart> {
        let Sums { count, ss, sc, cc, sd, cd, dd } = self.sums;
        let determinant = ss * cc - sc * sc;
        if count < 16.0 || determinant <= 1e-6 * ss * cc {
            return None;
        }
        let (fixed, per_weight) = ((sd * cc - cd * sc) / determinant, (cd * ss - sd * sc) / determinant);
        let unexplained = (dd - fixed * sd - per_weight * cd).max(0.0) / (count - 2.0);
        let error = (unexplained / determinant * ss.max(cc)).sqrt().max(MIN_ERROR);
        let (smaller, larger) = (fixed.min(per_weight).max(0.0), fixed.max(per_weight));
        if smaller + error < ONE * (larger - error) {
            Some(if fixed > per_weight { CostPart::Fixed } else { CostPart::PerWeight })
        } else if smaller - error > BOTH * (larger + error) {
            Some(CostPart::Both)
        } else {
            None
        }
    }
}
