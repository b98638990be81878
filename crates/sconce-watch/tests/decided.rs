//! Batches compared with the line that a decision rests on, in virtual time.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sconce_watch::{DegradationEvent, ModelWatch, WatchedStage};

const FIXED: f64 = 2e-3;
const PER_WEIGHT: f64 = 20e-6;

/// Ten batches a second, of any weight and a fifth of noise, at `factor` of the line's time; returns the events on the line with their second.
fn run(watch: &mut ModelWatch, random: &mut StdRng, from: Instant, seconds: u64, factor: f64) -> Vec<(u64, bool)> {
    let mut events = Vec::new();
    for tenth in 0..seconds * 10 {
        let weight = random.random_range(1..2000);
        let noise = random.random_range(0.8..1.2);
        let time = Duration::from_secs_f64((FIXED + PER_WEIGHT * weight as f64) * factor * noise);
        let now = from + Duration::from_millis(100 * tenth);
        for event in watch.ran(now, 0, weight, time).into_iter().flatten() {
            let (DegradationEvent::Began(it) | DegradationEvent::Ended(it)) = event;
            if it.stage == WatchedStage::Decision {
                events.push((tenth / 10, matches!(event, DegradationEvent::Began(_))));
            }
        }
    }
    events
}

#[test]
fn a_machine_as_fast_as_decided_on_is_quiet_and_a_slower_one_is_told_until_it_is_as_before() {
    let (began, random) = (Instant::now(), &mut StdRng::seed_from_u64(7));
    let hour = |hours: u64| began + Duration::from_secs(3600 * hours);
    let watch = &mut ModelWatch::new().decided_on(0, FIXED, PER_WEIGHT);
    for (at, factor) in [0.5, 1.0, 1.15].into_iter().enumerate() {
        assert_eq!(run(watch, random, hour(at as u64), 3600, factor), [], "{factor}");
    }
    let slower = run(watch, random, hour(3), 600, 1.5);
    assert!(matches!(slower[..], [(second, true)] if second < 60), "{slower:?}");
    let degradation = watch.degradations().into_iter().find(|it| it.stage == WatchedStage::Decision).unwrap();
    assert!((1.4..1.6).contains(&degradation.ratio()), "{}", degradation.ratio());
    let mended = run(watch, random, hour(4), 600, 1.0);
    assert!(matches!(mended[..], [(second, false)] if second < 60), "{mended:?}");
}

#[test]
fn a_model_that_was_slow_from_the_beginning_is_told_and_one_without_a_decision_is_not() {
    let random = &mut StdRng::seed_from_u64(8);
    let decided = run(&mut ModelWatch::new().decided_on(0, FIXED, PER_WEIGHT), random, Instant::now(), 120, 2.0);
    assert!(matches!(decided[..], [(second, true)] if second < 30), "{decided:?}");
    assert_eq!(run(&mut ModelWatch::new(), random, Instant::now(), 120, 2.0), []);
}
