//! Waiting for a future on a thread that may block, without a runtime.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use crate::sync::{self, Parker, Unparker};

/// Drives `future` on this thread until it is done; returns `None` if `deadline` passes first.
pub(crate) fn block_on_until<F: Future>(future: F, deadline: Option<Instant>) -> Option<F::Output> {
    let mut future = pin!(future);
    let parker = Parker::new();
    let waker = Waker::from(Arc::new(ThreadWaker(parker.unparker().clone())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        match deadline {
            None => parker.park(),
            Some(deadline) if sync::now() < deadline => parker.park_deadline(deadline),
            Some(_) => return None,
        }
    }
}

struct ThreadWaker(Unparker);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_future_that_another_thread_completes_is_waited_for() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || sender.send(7));
        assert_eq!(block_on_until(receiver, None), Some(Ok(7)));
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(block_on_until(std::future::pending::<()>(), Some(soon)), None);
        assert!(Instant::now() >= soon);
    }
}
