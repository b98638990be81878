//! The choice between measured candidates, and the reason why every other lost, in words with figures.
//!
//! A candidate may serve if the upper end of its drop's interval is within the policy's bound; the reference's precision may
//! always, other weights never. Of those the ones within the SLO compete by cost, and the more accurate wins a tie. If none
//! keeps the SLO, the policy's fallback serves.

use std::cmp::Ordering;

use crate::report::{figure, money};
use crate::{DecidedCandidate, Measured, Policy, ServingCandidate, ServingVerdict};

/// Costs that differ by no more than this share are equal: rounds of one candidate differ by as much.
const MAX_TIE: f64 = 0.01;

/// Decides between candidates, of which the first is the reference. Returns them in their order.
///
/// # Panics
/// If there is no candidate.
#[must_use]
pub fn choose(policy: &Policy, measured: Vec<(ServingCandidate, Measured)>) -> Vec<DecidedCandidate> {
    let contest = Contest::new(policy, &measured);
    let chosen = contest.chosen();
    let verdict = |(at, entrant): (usize, &Entrant<'_>)| {
        if at == chosen {
            (ServingVerdict::Chosen, contest.why_chosen(entrant))
        } else if entrant.may_serve {
            (ServingVerdict::Allowed, contest.why_not_chosen(entrant, &contest.entrants[chosen]))
        } else {
            (ServingVerdict::Refused, contest.why_refused(entrant))
        }
    };
    let verdicts: Vec<(ServingVerdict, String)> = contest.entrants.iter().enumerate().map(verdict).collect();
    let decided =
        |((candidate, measured), (verdict, reason))| DecidedCandidate { candidate, measured, verdict, reason };
    measured.into_iter().zip(verdicts).map(decided).collect()
}

/// Marks the candidates of which no other is both cheaper and more accurate, nor one of the two and equal in the other.
#[must_use]
pub fn pareto(candidates: &[DecidedCandidate]) -> Vec<bool> {
    let beats = |one: &Measured, other: &Measured| {
        let (cheaper, better) =
            (one.cost_per_million <= other.cost_per_million, one.accuracy.value >= other.accuracy.value);
        let equal = one.cost_per_million >= other.cost_per_million && one.accuracy.value <= other.accuracy.value;
        cheaper && better && !equal
    };
    let beaten = |it: &DecidedCandidate| candidates.iter().any(|other| beats(&other.measured, &it.measured));
    candidates.iter().map(|it| !beaten(it)).collect()
}

/// Candidates before the bounds of a policy.
struct Contest<'a> {
    policy: &'a Policy,
    /// The reference's metric.
    reference: f64,
    /// The largest drop that the policy allows.
    max_drop: f64,
    entrants: Vec<Entrant<'a>>,
}

struct Entrant<'a> {
    candidate: &'a ServingCandidate,
    measured: &'a Measured,
    may_serve: bool,
    keeps_slo: bool,
}

impl<'a> Contest<'a> {
    fn new(policy: &'a Policy, measured: &'a [(ServingCandidate, Measured)]) -> Self {
        let (first, figures) = measured.first().expect("at least the reference");
        let reference = figures.accuracy.value;
        let max_drop = policy.max_drop.of(reference);
        let entrant = |(candidate, measured): &'a (ServingCandidate, Measured)| Entrant {
            candidate,
            measured,
            may_serve: candidate.variant.is_none()
                && (candidate.precision == first.precision || measured.drop.high <= max_drop),
            keeps_slo: measured.latency_p99_ms.value <= policy.slo_p99_ms,
        };
        Self { policy, reference, max_drop, entrants: measured.iter().map(entrant).collect() }
    }

    /// Index of the candidate that should serve.
    fn chosen(&self) -> usize {
        let of = |keep: &dyn Fn(&Entrant<'_>) -> bool| -> Vec<usize> {
            (0..self.entrants.len()).filter(|at| self.entrants[*at].may_serve && keep(&self.entrants[*at])).collect()
        };
        let cost = |at: &usize| self.entrants[*at].measured.cost_per_million;
        let fit = of(&|entrant| entrant.keeps_slo);
        let cheapest = fit.iter().map(&cost).fold(f64::INFINITY, f64::min);
        let tied = fit.into_iter().filter(|at| cost(at) <= cheapest * (1.0 + MAX_TIE));
        let better = |a: &usize, b: &usize| {
            let accuracy = |at: &usize| self.entrants[*at].measured.accuracy.value;
            accuracy(b).total_cmp(&accuracy(a)).then(cost(a).total_cmp(&cost(b)))
        };
        if let Some(best) = tied.min_by(better) {
            return best;
        }
        let faster = |a: &usize, b: &usize| -> Ordering {
            let p99 = |at: &usize| self.entrants[*at].measured.latency_p99_ms.value;
            p99(a).total_cmp(&p99(b))
        };
        let fallback = of(&|entrant| entrant.candidate.precision == self.policy.fallback);
        fallback.into_iter().min_by(faster).or_else(|| of(&|_| true).into_iter().min_by(faster)).unwrap_or(0)
    }

    fn why_chosen(&self, it: &Entrant<'_>) -> String {
        let Self { policy, .. } = self;
        if !it.keeps_slo {
            return format!(
                "the fallback, though its p99 is {} ms: no candidate that may serve is within {} ms",
                figure(it.measured.latency_p99_ms.value),
                figure(policy.slo_p99_ms)
            );
        }
        let fit = self.entrants.iter().filter(|entrant| entrant.may_serve && entrant.keeps_slo).count();
        let rivals = match fit {
            1 => "the only candidate that may serve within the SLO".to_owned(),
            _ => format!("the cheapest of the {fit} candidates that may serve within the SLO"),
        };
        format!(
            "{rivals}: {} a million, p99 {} ms of {} ms, {}",
            money(it.measured.cost_per_million),
            figure(it.measured.latency_p99_ms.value),
            figure(policy.slo_p99_ms),
            self.lost(it)
        )
    }

    fn why_not_chosen(&self, it: &Entrant<'_>, chosen: &Entrant<'_>) -> String {
        if !it.keeps_slo {
            let (p99, slo) = (figure(it.measured.latency_p99_ms.value), figure(self.policy.slo_p99_ms));
            return format!("too slow: p99 {p99} ms, and the policy asks for {slo} ms");
        }
        let (cost, least) = (it.measured.cost_per_million, chosen.measured.cost_per_million);
        if cost <= least * (1.0 + MAX_TIE) {
            let (accuracy, best) = (it.measured.accuracy.value, chosen.measured.accuracy.value);
            let (cost, least) = (money(cost), money(least));
            if accuracy < best {
                return format!(
                    "as cheap at {cost} a million, but less accurate: {accuracy:.4}, the chosen one {best:.4}"
                );
            }
            return format!("as good, at {cost} a million against {least}");
        }
        let more = 100.0 * (cost / least - 1.0);
        format!("costs more: {} a million, {more:.0} % above the {} of the chosen one", money(cost), money(least))
    }

    fn why_refused(&self, it: &Entrant<'_>) -> String {
        let (drop, allowed) = (&it.measured.drop, self.max_drop);
        let (metric, found, reference) = (self.policy.metric, it.measured.accuracy.value, self.reference);
        let confidence = 100.0 * self.policy.max_drop.confidence;
        if drop.low > allowed {
            return format!(
                "loses too much accuracy: {metric} {found:.4} instead of {reference:.4}, at least {:.4} less at {confidence} % \
                 confidence, and {allowed:.4} is allowed",
                drop.low
            );
        }
        // A figure that is no number proves nothing.
        if drop.high.is_nan() || drop.high > allowed {
            return format!(
                "may lose too much accuracy: {metric} {found:.4} instead of {reference:.4}, up to {:.4} less at {confidence} % \
                 confidence, and {allowed:.4} is allowed; more examples would tell",
                drop.high
            );
        }
        let name = it.candidate.variant.as_deref().unwrap_or_default();
        format!(
            "accurate enough, but '{name}' has other weights than the model: to serve it, decide on its own directory"
        )
    }

    /// The loss of accuracy in words.
    fn lost(&self, it: &Entrant<'_>) -> String {
        let (metric, drop) = (self.policy.metric, it.measured.drop);
        if drop.low == 0.0 && drop.high == 0.0 {
            return format!("the reference's {metric} of {:.4}", it.measured.accuracy.value);
        }
        if drop.high <= 0.0 {
            return format!("no {metric} lost");
        }
        format!("at most {:.4} of {metric} lost, and {:.4} is allowed", drop.high, self.max_drop)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{CostOfBatch, Estimate, Likeness};

    /// Accuracy, upper end of the drop, p99 in ms, items a second.
    type Figures = (f64, f64, f64, f64);

    pub(crate) fn policy() -> Policy {
        "owner = 'search'\napprover = 'cto@example.com'\nexpires = 2027-06-30\nmetric = 'spearman'\n\
         max_drop = { absolute = 0.005 }\nslo_p99_ms = 50\nprice_per_hour = { cpu = 0.36 }"
            .parse()
            .expect("a policy")
    }

    pub(crate) fn measured(
        precision: &str,
        (accuracy, drop, p99, throughput): Figures,
    ) -> (ServingCandidate, Measured) {
        let candidate = ServingCandidate {
            variant: precision.strip_prefix('+').map(str::to_owned),
            precision: if precision.starts_with('+') { "f32" } else { precision }.to_owned(),
            device: "cpu".to_owned(),
            max_batch_size: 32,
            max_batch_weight: 8192,
        };
        let measured = Measured {
            accuracy: Estimate::exact(accuracy),
            drop: Estimate { value: drop - 0.001, low: drop - 0.002, high: drop },
            also: Vec::new(),
            likeness: Likeness { mean: 1.0, p01: 1.0, least: 1.0 },
            latency_p50_ms: Estimate::exact(p99 / 2.0),
            latency_p99_ms: Estimate::exact(p99),
            throughput: Estimate::exact(throughput),
            memory_bytes: 90 << 20,
            cost_per_million: 0.36 / 3600.0 / throughput * 1e6,
            cost: CostOfBatch::default(),
        };
        (candidate, measured)
    }

    /// The verdicts and reasons on f32 and others.
    fn decided(others: &[(&str, Figures)]) -> Vec<DecidedCandidate> {
        let f32 = measured("f32", (0.867, 0.0, 20.0, 100.0));
        choose(&policy(), [f32].into_iter().chain(others.iter().map(|(name, it)| measured(name, *it))).collect())
    }

    fn verdicts(decided: &[DecidedCandidate]) -> Vec<ServingVerdict> {
        decided.iter().map(|it| it.verdict).collect()
    }

    #[test]
    fn the_cheapest_that_is_accurate_and_fast_enough_is_chosen() {
        use ServingVerdict::{Allowed, Chosen, Refused};
        let decided = decided(&[
            ("int8", (0.8665, 0.003, 8.0, 250.0)),
            ("q8_0", (0.8668, 0.002, 60.0, 400.0)),
            ("q4k", (0.85, 0.03, 9.0, 500.0)),
        ]);
        assert_eq!(verdicts(&decided), [Allowed, Chosen, Allowed, Refused]);
        let reasons: Vec<&str> = decided.iter().map(|it| it.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "costs more: 1.00 a million, 150 % above the 0.400 of the chosen one",
                "the cheapest of the 2 candidates that may serve within the SLO: 0.400 a million, p99 8.00 ms of 50.0 ms, \
             at most 0.0030 of spearman lost, and 0.0050 is allowed",
                "too slow: p99 60.0 ms, and the policy asks for 50.0 ms",
                "loses too much accuracy: spearman 0.8500 instead of 0.8670, at least 0.0280 less at 95 % confidence, \
             and 0.0050 is allowed",
            ]
        );
    }

    #[test]
    fn a_drop_that_the_data_cannot_exclude_is_refused() {
        let possible = decided(&[("int8", (0.866, 0.0051, 8.0, 250.0))]);
        assert_eq!(verdicts(&possible), [ServingVerdict::Chosen, ServingVerdict::Refused]);
        assert!(possible[1].reason.starts_with("may lose too much accuracy"), "{}", possible[1].reason);
        assert!(possible[0].reason.starts_with("the only candidate that may serve"), "{}", possible[0].reason);
        let unknown = decided(&[("int8", (f64::NAN, f64::NAN, 8.0, 250.0))]);
        assert_eq!(verdicts(&unknown), [ServingVerdict::Chosen, ServingVerdict::Refused], "no number is no proof");
    }

    #[test]
    fn other_weights_are_measured_and_never_allowed() {
        let decided = decided(&[("+pruned", (0.868, 0.001, 8.0, 900.0)), ("+q4", (0.7, 0.18, 8.0, 900.0))]);
        assert_eq!(verdicts(&decided), [ServingVerdict::Chosen, ServingVerdict::Refused, ServingVerdict::Refused]);
        assert!(decided[1].reason.contains("'pruned' has other weights"), "{}", decided[1].reason);
        assert!(decided[2].reason.starts_with("loses too much accuracy"), "{}", decided[2].reason);
    }

    #[test]
    fn the_more_accurate_wins_a_tie_of_costs() {
        let decided = decided(&[("int8", (0.866, 0.003, 8.0, 252.0)), ("q8_0", (0.8668, 0.002, 9.0, 250.0))]);
        assert_eq!(verdicts(&decided), [ServingVerdict::Allowed, ServingVerdict::Allowed, ServingVerdict::Chosen]);
        assert!(
            decided[1].reason.starts_with("as cheap at 0.397 a million, but less accurate"),
            "{}",
            decided[1].reason
        );
    }

    #[test]
    fn the_fallback_serves_if_none_keeps_the_slo() {
        let slow = measured("f32", (0.867, 0.0, 90.0, 100.0));
        let slower = measured("f32", (0.867, 0.0, 95.0, 120.0));
        let quick = measured("int8", (0.866, 0.003, 70.0, 300.0));
        let decided = choose(&policy(), vec![slow.clone(), slower, quick.clone()]);
        assert_eq!(verdicts(&decided), [ServingVerdict::Chosen, ServingVerdict::Allowed, ServingVerdict::Allowed]);
        assert!(decided[0].reason.starts_with("the fallback, though its p99 is 90.0 ms"), "{}", decided[0].reason);
        let int8 = Policy { fallback: "int8".to_owned(), ..policy() };
        assert_eq!(verdicts(&choose(&int8, vec![slow, quick])), [ServingVerdict::Allowed, ServingVerdict::Chosen]);
    }

    #[test]
    fn a_candidate_that_another_beats_in_both_is_off_the_front() {
        let decided = decided(&[
            ("int8", (0.866, 0.003, 8.0, 250.0)),
            ("q8_0", (0.865, 0.003, 8.0, 200.0)),
            ("q4k", (0.85, 0.03, 9.0, 500.0)),
        ]);
        assert_eq!(pareto(&decided), [true, true, false, true]);
    }
}
