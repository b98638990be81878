//! Requests that meet: the same at the same time, several together, and those that come too late.

mod closing;
mod gated;
mod many;
mod same;
