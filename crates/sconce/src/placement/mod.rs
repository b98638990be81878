//! Where a model runs, and why: pure functions of figures.
//!
//! Before anything is measured, [`decide`] compares what a model asks ([`Demand`](sconce_models::Demand)) with what each device can
//! do ([`Capability`]): a batch of weight w is estimated at a + c·w with
//!
//! ```text
//! a = fixed cost of a batch + bytes of weights / bandwidth        c = FLOPs per unit of weight / sustained FLOP/s
//! ```
//!
//! Weights are read once per batch however small it is, and products are computed while they are read; to add the two rather than
//! take the larger (the roofline of Williams, Waterman and Patterson, CACM 2009) overestimates a batch by at most two, and gives a
//! line that what is learned later replaces term by term. A device serves the weights at which its line is the lowest of all.
//!
//! After warm-up each device's line is learned (`sconce_batch::CostModel`), and who takes which batch is decided batch by batch, the
//! load of each device included (`sconce_batch::choose`).

mod decide;
pub(crate) mod measure;

pub use decide::{Considered, Decision, Offer, PlacementError, Verdict, Why, decide};
pub use sconce_models::Capability;
