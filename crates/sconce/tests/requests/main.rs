//! Requests that affect each other: equal ones at the same time, groups of items, and requests during a shutdown.

mod closing;
mod gated;
mod many;
mod same;
