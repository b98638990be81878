//! Finds gradual slowdowns of a served model, and says since when, in which stage and by how much.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use sconce_watch::{ModelWatch, WatchedStage};
//!
//! let mut watch = ModelWatch::new();
//! let mut now = Instant::now();
//! for second in 0..300 {
//!     let tokenising = Duration::from_micros(if second < 200 { 500 } else { 600 });
//!     for _ in 0..50 {
//!         now += Duration::from_millis(20);
//!         watch.prepared(now, 32, tokenising);
//!     }
//! }
//! let [slower] = &watch.degradations()[..] else { panic!("one stage is slower") };
//! assert_eq!(slower.stage, WatchedStage::Prepare);
//! assert!((slower.ratio() - 1.2).abs() < 0.02);
//! assert!(now - slower.since < Duration::from_secs(103));
//! ```
//!
//! # The path of one sample
//! [`ModelWatch`] gives each stage's samples to a [`DriftWatch`] → the sample is compared with the reference of its
//! condition (its weight, its tier, the load; `reference.rs`) → the differences of about a second are averaged → a
//! CUSUM adds up the averages (`drift.rs`) → a [`Degradation`] begins or ends. For batches, `cost_parts.rs` tells apart
//! the fixed cost and the cost by weight.
//!
//! # Where to add things
//! A stage is a [`DriftWatch`] with its rules in `model.rs`. Everything is pure: `now` and figures are arguments, and
//! nothing sleeps, locks, sends or logs. `tests/` simulates days.

mod cost_parts;
mod drift;
mod model;
mod reference;

pub use cost_parts::CostPart;
pub use drift::{Drift, DriftRules, DriftWatch, Transition};
pub use model::{Degradation, DegradationEvent, ModelWatch, WatchedStage};
pub use reference::Condition;
