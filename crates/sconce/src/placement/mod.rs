//! Placement of models on devices, decided by pure functions of figures.
//!
//! Before anything is measured, [`decide`] compares a model's [`Demand`](sconce_models::Demand) with each device's
//! [`Capability`]: a batch of weight w is estimated to take a + c·w seconds with
//!
//! ```text
//! a = fixed cost of a batch + bytes of weights / bandwidth        c = FLOPs per unit of weight / sustained FLOP/s
//! ```
//!
//! Weights are read once per batch, however small it is, and products are computed while they are read. Adding the two
//! times, rather than taking the larger (the roofline of Williams, Waterman and Patterson, CACM 2009), overestimates a
//! batch by a factor of at most two, and gives a line that the learned cost later replaces term by term. A device
//! serves the weights at which its line is the lowest of all.
//!
//! After warm-up each device's line is learned (`sconce_batch::CostModel`), and the device of each batch is chosen when
//! the batch is formed, with the load of each device (`sconce_batch::choose`).

mod decide;
pub(crate) mod measure;

pub use decide::{Considered, Decision, Offer, PlacementError, Verdict, Why, decide};
pub use sconce_models::Capability;
