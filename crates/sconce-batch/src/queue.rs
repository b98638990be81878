//! The queue in front of one or more devices, as its callers see it: they submit items and await the answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batcher::MAX_DEVICES;
use crate::block_on::block_on_until;
use crate::queue_state::{QueueState, Wake};
use crate::queue_worker::QueueWorker;
use crate::reply::{EntryResult, Job};
use crate::sync::{self, Mutex, WaitGroup, lock};
use crate::{
    Batcher, BatcherConfig, Completion, ConfigError, CostModel, DeviceState, DeviceThread, EntryId, Error, Executor,
    Forecast, Group, Profile, Refused, Standing, Stats, Terms,
};

/// A bounded queue drained by one or more devices.
///
/// Dropping it closes it: queued entries are still answered, then its executors are dropped.
/// [`shutdown`](Self::shutdown) also waits for that.
pub struct Queue<E: Executor> {
    state: Arc<QueueState<E>>,
    /// Clones of it are held by the queue's workers, one on each device, until the queue is closed and empty.
    workers: Mutex<Option<WaitGroup>>,
    own_devices: Mutex<Vec<DeviceThread>>,
}

/// Number, weight and age of the queued items, running batches not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Depth {
    /// Number of queued items.
    pub items: usize,
    /// Their weight.
    pub weight: usize,
    /// Time for which the oldest of them has been queued; `None` if there is none.
    pub oldest_age: Option<Duration>,
    /// Number of items whose callers wait for room in the queue.
    pub waiting_for_room: usize,
}

impl Depth {
    /// The depth of two queues together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            items: self.items + other.items,
            weight: self.weight.saturating_add(other.weight),
            oldest_age: self.oldest_age.max(other.oldest_age),
            waiting_for_room: self.waiting_for_room + other.waiting_for_room,
        }
    }
}

/// Reasons for which a queue cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A configured value is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No executor was given.
    #[error("a queue needs at least one executor")]
    NoExecutor,
    /// More devices than can drain one queue.
    #[error("{devices} devices are to drain one queue; at most {max} can")]
    TooManyDevices {
        /// Number of devices given.
        devices: usize,
        /// Largest number allowed.
        max: usize,
    },
    /// The operating system gave no thread.
    #[error("cannot start a device thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl<E: Executor> Queue<E> {
    /// Makes a queue with a device of its own for each executor; `name` names their threads.
    ///
    /// # Errors
    /// [`SpawnError`] for a bad configuration, for no executor, or if the system gives no thread.
    pub fn spawn(
        name: &str,
        config: BatcherConfig,
        executors: impl IntoIterator<Item = E>,
    ) -> Result<Self, SpawnError> {
        let (mut devices, mut executors_on) = (Vec::new(), Vec::new());
        for executor in executors {
            devices.push(DeviceThread::spawn(name)?);
            executors_on.push(executor);
        }
        let queue = Self::on(config, devices.iter().zip(executors_on))?;
        *lock(&queue.own_devices) = devices;
        Ok(queue)
    }

    /// Makes a queue on devices that it may share with other queues, the preferred one first. The devices count as
    /// alike: an idle one takes the queued entries.
    ///
    /// # Errors
    /// [`SpawnError`] for a bad configuration, for no executor or more than 32.
    pub fn on<'a>(
        config: BatcherConfig,
        executors: impl IntoIterator<Item = (&'a DeviceThread, E)>,
    ) -> Result<Self, SpawnError> {
        Self::placed(config, executors.into_iter().map(|(device, executor)| (device, executor, Profile::default())))
    }

    /// Makes a queue as [`on`](Self::on) does, with the profile of each device: where devices differ, a batch goes to
    /// the one that would complete it first, and an item that one cannot run goes to another.
    ///
    /// # Errors
    /// [`SpawnError`] for a bad configuration, for no executor or more than 32.
    pub fn placed<'a>(
        config: BatcherConfig,
        executors: impl IntoIterator<Item = (&'a DeviceThread, E, Profile)>,
    ) -> Result<Self, SpawnError> {
        let (mut wakers, mut placed, mut profiles) = (Vec::new(), Vec::new(), Vec::new());
        for (device, executor, profile) in executors {
            wakers.push(Arc::clone(device.waker()));
            placed.push(executor);
            profiles.push(profile);
        }
        match placed.len() {
            0 => return Err(SpawnError::NoExecutor),
            devices if devices > MAX_DEVICES => return Err(SpawnError::TooManyDevices { devices, max: MAX_DEVICES }),
            _ => {}
        }
        let batcher = Batcher::on(sync::now(), config, E::LAYOUT, &profiles)?;
        let state = Arc::new(QueueState::new(batcher, wakers.clone()));
        let workers = WaitGroup::new();
        for (device, (waker, executor)) in wakers.iter().zip(placed).enumerate() {
            waker.add(Box::new(QueueWorker::new(Arc::clone(&state), device, executor, workers.clone())));
        }
        Ok(Self { state, workers: Mutex::new(Some(workers)), own_devices: Mutex::default() })
    }

    /// Runs one item as part of a batch, waiting for room if the queue is full.
    ///
    /// Dropping the future cancels the item: if it is still queued it leaves the queue and never runs.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::QueueFull`] and [`Error::QueueTooHeavy`].
    ///
    /// # Panics
    /// If there is a deadline, outside of a tokio runtime with time enabled.
    pub async fn call(&self, item: E::Item, terms: impl Into<Terms>) -> Result<Completion<E::Output>, Error> {
        let terms = terms.into();
        self.before(terms.deadline, async { self.submit(item, terms).await?.await }).await
    }

    /// Runs one item as [`call`](Self::call) does, but refuses it at once when the queue is full.
    ///
    /// # Errors
    /// Any [`Error`].
    ///
    /// # Panics
    /// If there is a deadline, outside of a tokio runtime with time enabled.
    pub async fn try_call(&self, item: E::Item, terms: impl Into<Terms>) -> Result<Completion<E::Output>, Error> {
        let terms = terms.into();
        self.before(terms.deadline, self.try_submit(item, terms)?).await
    }

    /// Runs one item as [`call`](Self::call) does, for a thread that may block. Needs no async runtime, and must not be
    /// called on a runtime's worker threads.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::QueueFull`] and [`Error::QueueTooHeavy`].
    pub fn call_blocking(&self, item: E::Item, terms: impl Into<Terms>) -> Result<Completion<E::Output>, Error> {
        let terms = terms.into();
        let answer = async { self.submit(item, terms).await?.await };
        block_on_until(answer, terms.deadline).unwrap_or_else(|| Err(self.too_late()))
    }

    /// Admits one item, waiting for room in order of arrival; the [`Ticket`] gives the answer. Unlike
    /// [`call`](Self::call) it sets no timer: an item whose deadline has passed is answered when a device looks at it,
    /// or when its turn for room comes.
    ///
    /// # Errors
    /// Any [`Error`] at admission but [`Error::QueueFull`] and [`Error::QueueTooHeavy`].
    pub async fn submit(&self, item: E::Item, terms: impl Into<Terms>) -> Result<Ticket<E>, Error> {
        let (terms, group) = (terms.into(), Group::one(E::weight(&item)));
        match self.offer(item, terms, Standing::Newcomer) {
            Ok(ticket) => Ok(ticket),
            Err(refused) => self.wait_for_room(refused, group, |item| self.offer(item, terms, Standing::Head)).await,
        }
    }

    /// Admits one item or refuses it at once, also where there is room but earlier callers wait for it. The [`Ticket`]
    /// gives the answer.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Executor`].
    pub fn try_submit(&self, item: E::Item, terms: impl Into<Terms>) -> Result<Ticket<E>, Error> {
        self.offer(item, terms.into(), Standing::Newcomer).map_err(|refused| refused.error)
    }

    /// Admits all items together, waiting until there is room for all of them. Gives one [`Ticket`] per item, in the
    /// same order; the items may run in several batches.
    ///
    /// # Errors
    /// Any [`Error`] at admission but [`Error::QueueFull`] and [`Error::QueueTooHeavy`]; then none of the items was
    /// admitted.
    pub async fn submit_many(&self, items: Vec<E::Item>, terms: impl Into<Terms>) -> Result<Vec<Ticket<E>>, Error> {
        let (terms, group) = (terms.into(), items.iter().map(E::weight).collect());
        match self.offer_many(items, terms, Standing::Newcomer) {
            Ok(tickets) => Ok(tickets),
            Err(refused) => {
                self.wait_for_room(refused, group, |items| self.offer_many(items, terms, Standing::Head)).await
            }
        }
    }

    /// Admits items as [`submit_many`](Self::submit_many) does, but refuses them at once when there is not room for all.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Executor`]; then none of the items was admitted.
    pub fn try_submit_many(&self, items: Vec<E::Item>, terms: impl Into<Terms>) -> Result<Vec<Ticket<E>>, Error> {
        self.offer_many(items, terms.into(), Standing::Newcomer).map_err(|refused| refused.error)
    }

    /// The error with which an item of at least this weight would be refused now; `None` if it might be admitted. For
    /// callers that want to know before they make an item that is costly to make. Counts as a refusal.
    #[must_use]
    pub fn refusal(&self, weight: usize, terms: impl Into<Terms>) -> Option<Error> {
        self.group_refusal(Group::one(weight), terms)
    }

    /// The error as of [`refusal`](Self::refusal), for items that are to be admitted together.
    #[must_use]
    pub fn group_refusal(&self, group: Group, terms: impl Into<Terms>) -> Option<Error> {
        self.state.lock().refusal(sync::now(), group, terms.into(), Standing::Newcomer)
    }

    /// Time after which a refused or late caller should retry: until the next batch makes room. `None` until the cost
    /// of a batch is learned.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.state.lock().retry_after(sync::now())
    }

    /// The wait of an item of this weight that arrives now, and the speed of the devices.
    #[must_use]
    pub fn forecast(&self, weight: usize) -> Forecast {
        self.state.lock().forecast(sync::now(), weight)
    }

    /// Returns true if no item is queued; a batch may run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.lock().is_empty()
    }

    /// Number, weight and age of the queued items, running batches not counted. Looks at every queued item.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let batcher = self.state.lock();
        batcher.depth(sync::now())
    }

    /// Time for which one of its devices has run batches of this queue, failed ones and the running one included.
    ///
    /// # Panics
    /// If the queue has no such device.
    #[must_use]
    pub fn busy_on(&self, device: usize) -> Duration {
        self.state.lock().busy_on(sync::now(), device)
    }

    /// Counts of the queue since it was made.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *self.state.lock().stats()
    }

    /// The learned cost of batches on the first device.
    #[must_use]
    pub fn cost(&self) -> CostModel {
        self.cost_on(0)
    }

    /// The learned cost of batches on one of its devices.
    ///
    /// # Panics
    /// If the queue has no such device.
    #[must_use]
    pub fn cost_on(&self, device: usize) -> CostModel {
        *self.state.lock().cost_on(device)
    }

    /// Sets the cost of batches on one of its devices to one that was learned before, for instance in a warm-up.
    ///
    /// # Panics
    /// If the queue has no such device.
    pub fn learned(&self, device: usize, cost: CostModel) {
        self.state.lock().learned(device, cost);
    }

    /// The state of one of its devices: whether it takes batches, and how heavy ones.
    ///
    /// # Panics
    /// If the queue has no such device.
    #[must_use]
    pub fn device_state(&self, device: usize) -> DeviceState {
        self.state.lock().device_state(sync::now(), device)
    }

    /// Refuses new work from now on. Queued entries are still answered.
    pub fn close(&self) {
        self.state.close();
    }

    /// Refuses new work, answers the queued entries, and returns when its executors are dropped. Blocks.
    pub fn shutdown(&self) {
        self.close();
        // The lock is held during the wait, so that a second caller returns no sooner.
        let mut workers = lock(&self.workers);
        if let Some(workers) = workers.take() {
            workers.wait();
        }
        let devices = std::mem::take(&mut *lock(&self.own_devices));
        for device in devices {
            device.join();
        }
    }

    fn offer(&self, item: E::Item, terms: Terms, standing: Standing) -> Result<Ticket<E>, Refused<E::Item>> {
        let weight = E::weight(&item);
        let (reply, answer) = oneshot::channel();
        let (id, wake) = {
            let mut batcher = self.state.lock();
            let now = sync::now();
            match batcher.offer_as(now, Job { item, reply }, weight, terms, standing) {
                Ok(id) => (id, self.whom_to_wake(&mut batcher, now)),
                Err(refused) => return Err(Refused { payload: refused.payload.item, error: refused.error }),
            }
        };
        self.state.wake(wake);
        Ok(self.ticket(answer, id))
    }

    fn offer_many(
        &self,
        items: Vec<E::Item>,
        terms: Terms,
        standing: Standing,
    ) -> Result<Vec<Ticket<E>>, Refused<Vec<E::Item>>> {
        let (mut jobs, mut answers) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        for item in items {
            let (reply, answer) = oneshot::channel();
            let weight = E::weight(&item);
            jobs.push((Job { item, reply }, weight));
            answers.push(answer);
        }
        let (ids, wake) = {
            let mut batcher = self.state.lock();
            let now = sync::now();
            match batcher.offer_many(now, jobs, terms, standing) {
                Ok(ids) => (ids, self.whom_to_wake(&mut batcher, now)),
                Err(Refused { payload, error }) => {
                    let payload = payload.into_iter().map(|(job, _)| job.item).collect();
                    return Err(Refused { payload, error });
                }
            }
        };
        self.state.wake(wake);
        Ok(answers.into_iter().zip(ids).map(|(answer, id)| self.ticket(answer, id)).collect())
    }

    /// Waits in the admission queue until `offer` is no longer refused for want of room.
    async fn wait_for_room<P, T>(
        &self,
        refused: Refused<P>,
        group: Group,
        offer: impl Fn(P) -> Result<T, Refused<P>>,
    ) -> Result<T, Error> {
        let Refused { mut payload, mut error } = refused;
        if !is_full(&error) {
            return Err(error);
        }
        let _place = AdmissionPlace::new(&self.state, group);
        // Only the head of the admission queue waits for room; the others wait to become the head. So one wake-up per
        // freed place is enough, and nobody in the admission queue is overtaken, however heavy.
        let _head = self.state.admission_head.lock().await;
        while is_full(&error) {
            match offer(payload) {
                Ok(admitted) => return Ok(admitted),
                Err(refused) => Refused { payload, error } = refused,
            }
            if is_full(&error) {
                self.state.room.notified().await;
            }
        }
        Err(error)
    }

    fn whom_to_wake(&self, batcher: &mut Batcher<Job<E>>, now: Instant) -> Wake {
        if batcher.is_due(now) { self.state.whom_to_wake(batcher, now, None) } else { Wake::Nobody }
    }

    fn ticket(&self, answer: oneshot::Receiver<EntryResult<E>>, id: EntryId) -> Ticket<E> {
        Ticket { answer, waiting: Some((Arc::downgrade(&self.state), id)) }
    }

    async fn before(
        &self,
        deadline: Option<Instant>,
        answer: impl Future<Output = Result<Completion<E::Output>, Error>>,
    ) -> Result<Completion<E::Output>, Error> {
        match deadline {
            None => answer.await,
            Some(deadline) => {
                let answer = tokio::time::timeout_at(deadline.into(), answer).await;
                answer.unwrap_or_else(|_| Err(self.too_late()))
            }
        }
    }

    fn too_late(&self) -> Error {
        Error::DeadlineExceeded { retry_after: self.retry_after() }
    }
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::QueueFull { .. } | Error::QueueTooHeavy { .. })
}

/// A caller's place in the admission queue. Dropped when the caller is admitted, refused or gone.
struct AdmissionPlace<'a, E: Executor> {
    state: &'a QueueState<E>,
    group: Group,
}

impl<'a, E: Executor> AdmissionPlace<'a, E> {
    fn new(state: &'a QueueState<E>, group: Group) -> Self {
        state.lock().join_admission_queue(group);
        Self { state, group }
    }
}

impl<E: Executor> Drop for AdmissionPlace<'_, E> {
    fn drop(&mut self) {
        self.state.lock().leave_admission_queue(self.group);
    }
}

impl<E: Executor> Drop for Queue<E> {
    fn drop(&mut self) {
        self.close();
    }
}

/// A future of an admitted item's answer. Drop it to cancel the item.
#[must_use = "dropping a ticket cancels the item"]
pub struct Ticket<E: Executor> {
    answer: oneshot::Receiver<EntryResult<E>>,
    /// The queue and the entry to cancel; `None` once answered.
    waiting: Option<(Weak<QueueState<E>>, EntryId)>,
}

impl<E: Executor> Future for Ticket<E> {
    type Output = EntryResult<E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        self.waiting = None;
        // A device thread answers every entry that it takes; a reply dropped unanswered means that the thread itself is
        // gone.
        Poll::Ready(answer.unwrap_or(Err(Error::ShuttingDown)))
    }
}

impl<E: Executor> Drop for Ticket<E> {
    fn drop(&mut self) {
        let Some((state, id)) = self.waiting.take() else { return };
        let Some(state) = state.upgrade() else { return };
        // Taken out under the lock, dropped after it is released.
        let cancelled = state.lock().cancel(id);
        if cancelled.is_some() {
            state.room.notify_one();
        }
    }
}
