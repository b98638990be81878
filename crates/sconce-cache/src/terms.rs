//! What callers of one computation ask differently.

/// What a caller of a computation asks beside its value: how long it would wait for it, say. Callers with unlike terms share a
/// computation as long as it goes well. Of two terms the greater is the better: where a leader ends without a value, the caller with
/// the best terms is the next to try.
///
/// ```
/// use sconce_cache::Terms;
///
/// /// Seconds that a caller waits.
/// #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
/// struct Patience(u32);
///
/// enum Trouble {
///     TooSlow,
///     Broken,
/// }
///
/// impl Terms<Trouble> for Patience {
///     fn would_get(&self, error: &Trouble, leader: &Self) -> bool {
///         match error {
///             Trouble::TooSlow => self <= leader,
///             Trouble::Broken => true,
///         }
///     }
/// }
/// ```
pub trait Terms<E>: Ord + Copy + Send + Sync + 'static {
    /// Whether a caller on these terms would get the error that a leader on its own terms just got.
    fn would_get(&self, error: &E, leader: &Self) -> bool;
}

/// No terms: an error of one is an error of all.
impl<E> Terms<E> for () {
    fn would_get(&self, _: &E, (): &Self) -> bool {
        true
    }
}
