//! The terms on which callers share one computation.

/// The terms of a caller of a computation: the time that it would wait for the value, say. Callers with different terms
/// share a computation as long as it succeeds. The greater of two terms is the better: if a leader ends without a
/// value, the caller with the best terms leads next.
///
/// ```
/// use sconce_cache::FlightTerms;
///
/// /// Seconds that a caller waits.
/// #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
/// struct Patience(u32);
///
/// enum Fault {
///     TooSlow,
///     Broken,
/// }
///
/// impl FlightTerms<Fault> for Patience {
///     fn would_get(&self, error: &Fault, leader: &Self) -> bool {
///         match error {
///             Fault::TooSlow => self <= leader,
///             Fault::Broken => true,
///         }
///     }
/// }
/// ```
pub trait FlightTerms<E>: Ord + Copy + Send + Sync + 'static {
    /// Returns true if a caller on these terms would get the error that a leader got on its terms, `leader`.
    fn would_get(&self, error: &E, leader: &Self) -> bool;
}

/// No terms: every caller would get the error that one gets.
impl<E> FlightTerms<E> for () {
    fn would_get(&self, _: &E, (): &Self) -> bool {
        true
    }
}
