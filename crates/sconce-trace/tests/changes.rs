//! Traces that are made of others, and traces that are made up.

use std::sync::Arc;
use std::time::Duration;

use sconce_trace::{ArrivalProcess, Lengths, RecordedInput, RecordedRequest, RequestTrace, Synthetic};

const SECOND: Duration = Duration::from_secs(1);

fn trace(arrivals_ms: &[u64]) -> RequestTrace {
    let requests = arrivals_ms.iter().map(|ms| RecordedRequest::one(Duration::from_millis(*ms), 10)).collect();
    RequestTrace::new("a test", requests)
}

fn arrivals_ms(trace: &RequestTrace) -> Vec<u128> {
    trace.requests().iter().map(|request| request.at.as_millis()).collect()
}

fn made_up(arrivals: ArrivalProcess, lengths: Lengths) -> Synthetic {
    Synthetic { arrivals, lengths, length: 100 * SECOND, seed: 7 }
}

#[test]
fn a_trace_can_be_made_faster_or_given_a_rate() {
    let trace = trace(&[0, 1000, 4000]);
    assert_eq!(arrivals_ms(&trace.scaled(2.0).unwrap()), [0, 500, 2000]);
    assert!((trace.rate() - 0.5).abs() < 1e-9);
    let faster = trace.with_rate(10.0).unwrap();
    assert!((faster.rate() - 10.0).abs() < 1e-6, "{}", faster.rate());
    for factor in [0.0, -1.0, f64::NAN, 1e-9] {
        assert!(trace.scaled(factor).unwrap_err().to_string().contains("factor is"), "{factor}");
    }
    let at_once = self::trace(&[5, 5]).with_rate(3.0).unwrap_err().to_string();
    assert!(at_once.contains("all requests of the trace arrive at once"), "{at_once}");
}

#[test]
fn a_window_counts_from_its_beginning_and_the_busiest_has_the_most_requests() {
    let trace = trace(&[0, 3000, 3100, 3200, 6000]);
    assert_eq!(arrivals_ms(&trace.window(3 * SECOND, 3 * SECOND)), [0, 100, 200]);
    assert_eq!(arrivals_ms(&trace.window(7 * SECOND, SECOND)), [0_u128; 0]);
    assert_eq!(arrivals_ms(&trace.busiest(SECOND)), [0, 100, 200]);
    assert_eq!(trace.busiest(100 * SECOND).len(), 5);
}

#[test]
fn replicas_take_turns() {
    let trace = trace(&[0, 1, 2, 3, 4]);
    assert_eq!(arrivals_ms(&trace.share(2).unwrap()), [0, 2, 4]);
    assert!(trace.share(0).unwrap_err().to_string().contains("replicas is 0, but must be at least 1"));
}

#[test]
fn the_requests_to_one_model_are_those_that_name_it_or_none() {
    let named = |name: Option<&str>| RecordedRequest { model: name.map(Arc::from), ..RecordedRequest::one(SECOND, 1) };
    let trace = RequestTrace::new("a test", vec![named(Some("a")), named(Some("b")), named(None)]);
    assert_eq!(trace.of_model("a").len(), 2);
    assert_eq!(trace.models().iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn random_arrivals_have_their_rate_and_the_same_seed_gives_the_same_trace() {
    let bursts = ArrivalProcess::Bursts { rate: 50.0, on: SECOND / 4, off: SECOND / 4 };
    for arrivals in [ArrivalProcess::Poisson { rate: 50.0 }, bursts, ArrivalProcess::Even { rate: 50.0 }] {
        let synthetic = made_up(arrivals, Lengths::Fixed(3));
        let trace = synthetic.trace().unwrap();
        assert!((trace.rate() / 50.0 - 1.0).abs() < 0.15, "{arrivals:?}: {}", trace.rate());
        assert_eq!(trace, synthetic.trace().unwrap());
        assert_ne!(trace.requests()[1].at, Synthetic { seed: 8, ..synthetic }.trace().unwrap().requests()[0].at);
    }
}

#[test]
fn bursts_leave_more_seconds_empty_than_random_arrivals() {
    let empty = |arrivals| {
        let trace = made_up(arrivals, Lengths::Fixed(1)).trace().unwrap();
        let seconds: std::collections::HashSet<u64> = trace.requests().iter().map(|it| it.at.as_secs()).collect();
        100 - seconds.len()
    };
    assert_eq!(empty(ArrivalProcess::Poisson { rate: 20.0 }), 0);
    assert!(empty(ArrivalProcess::Bursts { rate: 20.0, on: SECOND, off: 4 * SECOND }) > 30);
}

#[test]
fn sizes_come_from_their_distribution() {
    let weights = |lengths| {
        let trace = made_up(ArrivalProcess::Even { rate: 100.0 }, lengths).trace().unwrap();
        let mut weights: Vec<u32> = trace.requests().iter().filter_map(|request| request.weight).collect();
        weights.sort_unstable();
        weights
    };
    let uniform = weights(Lengths::Uniform { min: 8, max: 16 });
    assert_eq!((uniform.first(), uniform.last()), (Some(&8), Some(&16)));
    let log_normal = weights(Lengths::LogNormal { median: 40, sigma: 0.8, max: 512 });
    let median = log_normal[log_normal.len() / 2];
    assert!((36..=44).contains(&median) && *log_normal.last().unwrap() <= 512, "{median}");
    let drawn = weights(Lengths::Drawn(vec![5, 9]));
    assert_eq!((drawn.first(), drawn.last()), (Some(&5), Some(&9)));
    let texts = Lengths::Texts(["a".to_owned(), "b".to_owned()].into());
    let trace = made_up(ArrivalProcess::Even { rate: 10.0 }, texts).trace().unwrap();
    assert!(
        trace.requests().iter().any(|it| it.inputs == [RecordedInput::Text("b".to_owned())] && it.weight.is_none())
    );
    assert_eq!(trace.mean_item_weight(), None);
}

#[test]
fn settings_out_of_bounds_are_refused_with_what_is_allowed() {
    let poisson = |rate| ArrivalProcess::Poisson { rate };
    let fixed = Lengths::Fixed(1);
    let table = [
        (made_up(poisson(0.0), fixed.clone()), "rate is 0, but must be a number of requests per second above 0"),
        (made_up(poisson(f64::NAN), fixed.clone()), "rate is NaN"),
        (made_up(poisson(1e9), fixed.clone()), "rate is 1000000000, but must be at most 10000000 in 100s"),
        (Synthetic { length: Duration::ZERO, ..made_up(poisson(1.0), fixed.clone()) }, "length is 0ns"),
        (made_up(ArrivalProcess::Bursts { rate: 1.0, on: Duration::ZERO, off: SECOND }, fixed), "on is 0"),
        (made_up(poisson(1.0), Lengths::Uniform { min: 2, max: 1 }), "min is 2, but must be at most max, 1"),
        (made_up(poisson(1.0), Lengths::LogNormal { median: 1, sigma: 99.0, max: 1 }), "sigma is 99"),
        (made_up(poisson(1.0), Lengths::Drawn(vec![])), "weights is empty"),
        (made_up(poisson(1.0), Lengths::Texts([].into())), "texts is empty"),
    ];
    for (synthetic, said) in table {
        let error = synthetic.trace().unwrap_err().to_string();
        assert!(error.contains(said), "{error} lacks {said}");
    }
}
