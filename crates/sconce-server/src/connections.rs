//! The open connections, and the choice of those that make room for new ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::limits::ServerLimits;
use crate::request_bytes::{RequestBytes, Unread};

/// One in this many connections is replaced at a time, so that in a flood not every new connection searches all of them.
const REPLACED_PART: usize = 64;
/// Time for the first call of a new connection, a few round trips; after it such connections are the first to be replaced.
const TIME_TO_CALL: Duration = Duration::from_millis(250);
/// Time for a replaced connection to close, which has no answers to wait for.
const MAX_REPLACING_TIME: Duration = Duration::from_secs(1);
/// Time for a peer to close its connection after GOAWAY.
const MAX_LEAVING_TIME: Duration = Duration::from_secs(2);

/// All connections of a server, bounded in number.
pub(crate) struct Connections {
    max: usize,
    permits: Arc<Semaphore>,
    bytes: Arc<RequestBytes>,
    present: Mutex<Present>,
}

#[derive(Default)]
struct Present {
    next: u64,
    by_number: HashMap<u64, Arc<Connection>>,
}

/// One connection: its activity, and the means to end it.
pub(crate) struct Connection {
    began: Instant,
    has_spoken: AtomicBool,
    has_called: AtomicBool,
    /// Microseconds from `began` to the last beginning or end of a call.
    last_call: AtomicU64,
    /// Calls whose head was received.
    begun: AtomicU64,
    /// Calls whose head was received and that are not over.
    open: AtomicUsize,
    /// Calls that were received completely and are not answered.
    computing: AtomicUsize,
    replaced: Notify,
    /// True once the peer was told to make no further calls.
    is_leaving: watch::Sender<bool>,
    unread: Unread,
}

/// Activity of a connection, in the order of replacement: the least active first, and of equals the one idle for longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Activity {
    /// The peer never sent as many bytes as HTTP/2's preface has, nor a whole request.
    Silent { since: Instant },
    /// The peer never made a call.
    Uncalled { since: Instant },
    /// The peer made calls, and none is being computed.
    Idle { since: Instant },
    /// A call is being computed.
    Busy,
}

/// The next step for a connection whose time may be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing before then.
    Nothing { until: Instant },
    /// Send GOAWAY to the peer.
    Tell,
    /// End the connection at once.
    End,
}

impl Activity {
    /// The step for a connection of this activity. `told` is the time at which GOAWAY was sent, if it was.
    pub(crate) fn due(self, now: Instant, told: Option<Instant>, limits: &ServerLimits) -> Due {
        let (until, step) = match (self, told) {
            (Self::Busy, None) => (now + limits.max_idle_time, Due::Tell),
            (Self::Busy, Some(_)) => (now + MAX_LEAVING_TIME, Due::End),
            (Self::Silent { since }, _) => (since + limits.max_handshake_time, Due::End),
            (_, Some(told)) => (told + MAX_LEAVING_TIME, Due::End),
            (Self::Uncalled { since } | Self::Idle { since }, None) => (since + limits.max_idle_time, Due::Tell),
        };
        if until > now { Due::Nothing { until } } else { step }
    }
}

/// Indices into `activities` of the connections to replace: at most `max`, and none that is busy.
fn to_replace(now: Instant, activities: &[Activity], max: usize) -> Vec<usize> {
    // A good client that has just connected has not made a call yet either.
    let had_time = |since: Instant| now.saturating_duration_since(since) >= TIME_TO_CALL;
    let rank = |activity: Activity| match activity {
        Activity::Silent { since } | Activity::Uncalled { since } if had_time(since) => (0, activity),
        Activity::Silent { .. } | Activity::Uncalled { .. } => (1, activity),
        Activity::Idle { .. } | Activity::Busy => (2, activity),
    };
    let mut candidates: Vec<_> = activities
        .iter()
        .zip(0..)
        .filter(|(activity, _)| **activity != Activity::Busy)
        .map(|(activity, at)| (rank(*activity), at))
        .collect();
    let max = max.min(candidates.len());
    if max > 0 && max < candidates.len() {
        candidates.select_nth_unstable(max - 1);
    }
    candidates[..max].iter().map(|(_, at)| *at).collect()
}

impl Connections {
    /// Allows at most `max` connections, whose unread answers count among `bytes`.
    pub(crate) fn new(max: usize, bytes: Arc<RequestBytes>) -> Self {
        let permits = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
        Self { max, permits, bytes, present: Mutex::default() }
    }

    /// The largest number of connections.
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Takes a permit for a new connection, if need be that of another one; `None` if all of them are busy.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let permits = Arc::clone(&self.permits);
        let permit = match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if self.replace() == 0 => return None,
            Err(_) => tokio::time::timeout(MAX_REPLACING_TIME, permits.acquire_owned()).await.ok()?.ok()?,
        };
        let connection = Arc::new(Connection::new(Instant::now(), &self.bytes));
        let mut present = self.lock();
        let number = present.next;
        present.next += 1;
        present.by_number.insert(number, Arc::clone(&connection));
        Some(ConnectionPermit { connections: Arc::clone(self), number, connection, _permit: permit })
    }

    /// Ends the least active connections to make room, and returns their number.
    pub(crate) fn replace(&self) -> usize {
        let present = self.lock();
        let present: Vec<_> = present.by_number.values().collect();
        let activities: Vec<_> = present.iter().map(|connection| connection.activity()).collect();
        let replaced = to_replace(Instant::now(), &activities, (activities.len() / REPLACED_PART).max(1));
        for &at in &replaced {
            present[at].replaced.notify_one();
        }
        replaced.len()
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's permit out of the bounded number, given back on drop.
pub(crate) struct ConnectionPermit {
    connections: Arc<Connections>,
    number: u64,
    pub(crate) connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.lock().by_number.remove(&self.number);
    }
}

impl Connection {
    fn new(began: Instant, bytes: &Arc<RequestBytes>) -> Self {
        Self {
            began,
            has_spoken: AtomicBool::new(false),
            has_called: AtomicBool::new(false),
            last_call: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            computing: AtomicUsize::new(0),
            replaced: Notify::new(),
            is_leaving: watch::Sender::new(false),
            unread: Unread::new(bytes, began),
        }
    }

    pub(crate) fn activity(&self) -> Activity {
        let since = self.began + Duration::from_micros(self.last_call.load(Ordering::Relaxed));
        if self.computing.load(Ordering::Relaxed) > 0 {
            Activity::Busy
        } else if self.has_called.load(Ordering::Relaxed) {
            Activity::Idle { since }
        } else if self.has_spoken.load(Ordering::Relaxed) {
            Activity::Uncalled { since }
        } else {
            Activity::Silent { since }
        }
    }

    /// Notes that as many bytes as HTTP/2's preface has were received.
    pub(crate) fn spoke(&self) {
        self.has_spoken.store(true, Ordering::Relaxed);
    }

    /// Notes that bytes were sent.
    pub(crate) fn sent(&self, bytes: usize) {
        self.unread.sent(bytes, Instant::now());
    }

    /// Tells the calls that stay open that they must end, as the peer was told to make no further ones.
    pub(crate) fn leave(&self) {
        self.is_leaving.send_replace(true);
    }

    /// Waits until this connection must end: another one takes its place, or others need the room of its unread answers.
    pub(crate) async fn gives_way(&self) {
        tokio::select! {
            () = self.replaced.notified() => {}
            () = self.unread.gives_way() => {}
        }
    }

    /// Notes that a call begins; it ends when the returned [`Call`] is dropped.
    pub(crate) fn begin_call(self: &Arc<Self>) -> Arc<Call> {
        self.called();
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Arc::new(Call { connection: Arc::clone(self), came_whole: AtomicBool::new(false) })
    }

    /// Calls whose head was received so far.
    pub(crate) fn calls(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Returns true while there is a call whose head was received.
    pub(crate) fn has_open_call(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    fn called(&self) {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_call.store(micros, Ordering::Relaxed);
    }
}

/// A call that is not answered yet.
pub struct Call {
    connection: Arc<Connection>,
    came_whole: AtomicBool,
}

impl Call {
    /// Begins a call for one message of a stream, which came whole.
    #[must_use]
    pub fn of_message(&self) -> Arc<Self> {
        let call = self.connection.begin_call();
        call.came_whole();
        call
    }

    /// Resolves when the server shuts down or the connection was idle for too long: a stream must end then.
    pub fn leaving(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut is_leaving = self.connection.is_leaving.subscribe();
        async move {
            // An error means that the connection has ended.
            let _ = is_leaving.wait_for(|is_leaving| *is_leaving).await;
        }
    }

    /// Notes that there is an answer of this many bytes.
    pub fn answered(&self, bytes: usize) {
        self.connection.unread.owe(bytes, Instant::now());
    }

    /// Notes that the whole request was received: until it is answered, its connection is not replaced.
    pub fn came_whole(&self) {
        if !self.came_whole.swap(true, Ordering::Relaxed) {
            self.connection.computing.fetch_add(1, Ordering::Relaxed);
            self.connection.has_called.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if *self.came_whole.get_mut() {
            self.connection.computing.fetch_sub(1, Ordering::Relaxed);
        }
        self.connection.open.fetch_sub(1, Ordering::Relaxed);
        self.connection.called();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silent_connections_are_replaced_first_then_those_without_calls_then_the_longest_idle_and_never_a_busy_one() {
        let start = Instant::now();
        let at = |seconds| start + seconds * SECOND;
        let activities = [
            Activity::Idle { since: at(1) },
            Activity::Busy,
            Activity::Uncalled { since: at(3) },
            Activity::Silent { since: at(5) },
            Activity::Silent { since: at(4) },
            Activity::Idle { since: at(0) },
        ];
        let replaced = |max| {
            let mut replaced = to_replace(at(60), &activities, max);
            replaced.sort_unstable();
            replaced
        };
        assert!(replaced(0).is_empty());
        assert_eq!(replaced(1), [4]);
        assert_eq!(replaced(2), [3, 4]);
        assert_eq!(replaced(3), [2, 3, 4]);
        assert_eq!(replaced(4), [2, 3, 4, 5]);
        assert_eq!(replaced(9), [0, 2, 3, 4, 5]);
    }

    #[test]
    fn a_connection_that_has_just_come_has_time_for_its_first_call() {
        let start = Instant::now();
        let activities = [
            Activity::Silent { since: start + TIME_TO_CALL },
            Activity::Uncalled { since: start },
            Activity::Idle { since: start },
        ];
        assert_eq!(to_replace(start + TIME_TO_CALL, &activities, 1), [1]);
        assert_eq!(to_replace(start + TIME_TO_CALL / 2, &activities, 1), [0], "all are new");
    }

    #[test]
    fn a_connection_has_time_to_speak_and_time_to_idle_and_is_told_before_it_ends() {
        let limits =
            ServerLimits { max_handshake_time: 10 * SECOND, max_idle_time: 300 * SECOND, ..ServerLimits::default() };
        let start = Instant::now();
        let due = |activity: Activity, seconds, told: Option<u32>| {
            activity.due(start + seconds * SECOND, told.map(|told| start + told * SECOND), &limits)
        };
        let nothing = |seconds| Due::Nothing { until: start + seconds * SECOND };
        let (silent, idle) = (Activity::Silent { since: start }, Activity::Idle { since: start });
        assert_eq!((due(silent, 9, None), due(silent, 10, None)), (nothing(10), Due::End));
        assert_eq!((due(idle, 299, None), due(idle, 300, None)), (nothing(300), Due::Tell));
        assert_eq!((due(idle, 301, Some(300)), due(idle, 302, Some(300))), (nothing(302), Due::End));
        assert_eq!((due(Activity::Busy, 900, None), due(Activity::Busy, 900, Some(1))), (nothing(1200), nothing(902)));
        assert_eq!(due(Activity::Uncalled { since: start }, 300, None), Due::Tell);
    }

    #[tokio::test]
    async fn at_the_bound_a_place_is_taken_from_another_connection_unless_all_compute() {
        let connections = Arc::new(Connections::new(2, Arc::new(RequestBytes::new(1 << 20))));
        let first = connections.acquire().await.unwrap();
        let second = connections.acquire().await.unwrap();
        first.connection.spoke();
        let call = first.connection.begin_call();
        call.came_whole();
        let leaves = async {
            second.connection.gives_way().await;
            let connection = Arc::clone(&second.connection);
            drop(second);
            connection
        };
        let (third, silent) = tokio::join!(connections.acquire(), leaves);
        assert!(matches!(silent.activity(), Activity::Silent { .. }));
        let third = third.expect("the silent one's place");
        let other_call = third.connection.begin_call();
        other_call.came_whole();
        assert!(connections.acquire().await.is_none(), "both compute");
        drop(call);
        assert!(matches!(first.connection.activity(), Activity::Idle { .. }));
    }
}
