//! The queue in front of one or more devices: callers come in here and wait for their answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::batcher::MAX_DEVICES;
use crate::block_on::block_on_until;
use crate::lane::QueueLane;
use crate::shared::{Answer, Job, Shared, Wake, lock};
use crate::sync::{self, Mutex, WaitGroup};
use crate::{
    Batcher, BatcherConfig, Completion, ConfigError, CostModel, Device, DeviceState, EntryId, Error, Executor, Group,
    Profile, Refused, Standing, Stats, Terms,
};

/// A bounded queue drained by one or more devices.
///
/// Dropping it closes it: what waits is still answered, then its executors are dropped. [`shutdown`](Self::shutdown) also
/// waits for that.
pub struct Queue<E: Executor> {
    shared: Arc<Shared<E>>,
    /// Held by each device that drains the queue until it is over.
    lanes: Mutex<Option<WaitGroup>>,
    own_devices: Mutex<Vec<Device>>,
}

/// What waits in a queue right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Items that wait.
    pub items: usize,
    /// Their weight.
    pub weight: usize,
}

/// Why a queue could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A configured value is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is nothing to run batches on.
    #[error("a queue needs at least one executor")]
    NoExecutor,
    /// More devices than can drain one queue.
    #[error("{devices} devices are to drain one queue; at most {max} can")]
    TooManyDevices {
        /// How many were given.
        devices: usize,
        /// How many can.
        max: usize,
    },
    /// The operating system gave no thread.
    #[error("cannot start a device thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl<E: Executor> Queue<E> {
    /// A queue with a device of its own for each executor; `name` names their threads.
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
            devices.push(Device::spawn(name)?);
            executors_on.push(executor);
        }
        let queue = Self::on(config, devices.iter().zip(executors_on))?;
        *lock(&queue.own_devices) = devices;
        Ok(queue)
    }

    /// A queue that is drained by devices which it may share with other queues; the one to be preferred comes first. They count
    /// as alike: whoever is idle takes what waits.
    ///
    /// # Errors
    /// [`SpawnError`] for a bad configuration, for no executor or more than 32.
    pub fn on<'a>(
        config: BatcherConfig,
        executors: impl IntoIterator<Item = (&'a Device, E)>,
    ) -> Result<Self, SpawnError> {
        Self::placed(config, executors.into_iter().map(|(device, executor)| (device, executor, Profile::default())))
    }

    /// As [`on`](Self::on), with what is known of each device: where they differ, a batch goes to the one that would complete it
    /// first, and what one cannot run goes to another.
    ///
    /// # Errors
    /// [`SpawnError`] for a bad configuration, for no executor or more than 32.
    pub fn placed<'a>(
        config: BatcherConfig,
        executors: impl IntoIterator<Item = (&'a Device, E, Profile)>,
    ) -> Result<Self, SpawnError> {
        let (mut bells, mut placed, mut profiles) = (Vec::new(), Vec::new(), Vec::new());
        for (device, executor, profile) in executors {
            bells.push(Arc::clone(device.bell()));
            placed.push(executor);
            profiles.push(profile);
        }
        match placed.len() {
            0 => return Err(SpawnError::NoExecutor),
            devices if devices > MAX_DEVICES => return Err(SpawnError::TooManyDevices { devices, max: MAX_DEVICES }),
            _ => {}
        }
        let batcher = Batcher::on(sync::now(), config, E::LAYOUT, &profiles)?;
        let shared = Arc::new(Shared::new(batcher, bells.clone()));
        let lanes = WaitGroup::new();
        for (device, (bell, executor)) in bells.iter().zip(placed).enumerate() {
            bell.add(Box::new(QueueLane::new(Arc::clone(&shared), device, executor, lanes.clone())));
        }
        Ok(Self { shared, lanes: Mutex::new(Some(lanes)), own_devices: Mutex::default() })
    }

    /// Runs one item in whatever batch it falls into, waiting for room if the queue is full.
    ///
    /// Dropping the future cancels the item: if it still waits it leaves the queue and never runs.
    ///
    /// # Errors
    /// Any [`Error`] but the two of a full queue.
    ///
    /// # Panics
    /// With a deadline, outside of a tokio runtime with time enabled.
    pub async fn call(&self, item: E::Item, terms: impl Into<Terms>) -> Result<Completion<E::Output>, Error> {
        let terms = terms.into();
        self.before(terms.deadline, async { self.submit(item, terms).await?.await }).await
    }

    /// As [`call`](Self::call), but refuses at once when the queue is full.
    ///
    /// # Errors
    /// Any [`Error`].
    ///
    /// # Panics
    /// With a deadline, outside of a tokio runtime with time enabled.
    pub async fn try_call(&self, item: E::Item, terms: impl Into<Terms>) -> Result<Completion<E::Output>, Error> {
        let terms = terms.into();
        self.before(terms.deadline, self.try_submit(item, terms)?).await
    }

    /// As [`call`](Self::call), for a thread that may block. Needs no runtime; must not run on one's workers.
    ///
    /// # Errors
    /// Any [`Error`] but the two of a full queue.
    pub fn call_blocking(&self, item: E::Item, terms: impl Into<Terms>) -> Result<Completion<E::Output>, Error> {
        let terms = terms.into();
        let answer = async { self.submit(item, terms).await?.await };
        block_on_until(answer, terms.deadline).unwrap_or_else(|| Err(self.too_late()))
    }

    /// Admits one item, waiting for room in order of arrival. The answer comes from the [`Ticket`]. Unlike [`call`](Self::call) it
    /// sets no timer: an item whose deadline passes is answered when a device looks at it, and so is one that waits for room.
    ///
    /// # Errors
    /// Any [`Error`] at admission but the two of a full queue.
    pub async fn submit(&self, item: E::Item, terms: impl Into<Terms>) -> Result<Ticket<E>, Error> {
        let (terms, group) = (terms.into(), Group::one(E::weight(&item)));
        match self.offer(item, terms, Standing::Newcomer) {
            Ok(ticket) => Ok(ticket),
            Err(refused) => {
                self.wait_for_room(refused, group, |item| self.offer(item, terms, Standing::FirstInLine)).await
            }
        }
    }

    /// Admits one item or refuses it at once, also where there is room but callers that came before wait for it. The answer
    /// comes from the [`Ticket`].
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Executor`].
    pub fn try_submit(&self, item: E::Item, terms: impl Into<Terms>) -> Result<Ticket<E>, Error> {
        self.offer(item, terms.into(), Standing::Newcomer).map_err(|refused| refused.error)
    }

    /// Admits all items together, waiting until there is room for all of them. The answers come from the [`Ticket`]s, in the
    /// order of the items; they may run in several batches.
    ///
    /// # Errors
    /// Any [`Error`] at admission but the two of a full queue; none of the items was admitted then.
    pub async fn submit_many(&self, items: Vec<E::Item>, terms: impl Into<Terms>) -> Result<Vec<Ticket<E>>, Error> {
        let (terms, group) = (terms.into(), items.iter().map(E::weight).collect());
        match self.offer_many(items, terms, Standing::Newcomer) {
            Ok(tickets) => Ok(tickets),
            Err(refused) => {
                self.wait_for_room(refused, group, |items| self.offer_many(items, terms, Standing::FirstInLine)).await
            }
        }
    }

    /// As [`submit_many`](Self::submit_many), but refuses at once when there is not room for all.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Executor`]; none of the items was admitted then.
    pub fn try_submit_many(&self, items: Vec<E::Item>, terms: impl Into<Terms>) -> Result<Vec<Ticket<E>>, Error> {
        self.offer_many(items, terms.into(), Standing::Newcomer).map_err(|refused| refused.error)
    }

    /// Why an item of at least this weight would be refused now; `None` if it might be admitted. For callers to whom an item costs
    /// something to make. Counts as a refusal.
    #[must_use]
    pub fn refusal(&self, weight: usize, terms: impl Into<Terms>) -> Option<Error> {
        self.group_refusal(Group::one(weight), terms)
    }

    /// As [`refusal`](Self::refusal), for items that are to be admitted together.
    #[must_use]
    pub fn group_refusal(&self, group: Group, terms: impl Into<Terms>) -> Option<Error> {
        self.shared.lock().refusal(sync::now(), group, terms.into(), Standing::Newcomer)
    }

    /// When a caller that was refused, or is late, is to come back: when the next batch makes room, as far as it is learned.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.shared.lock().retry_after(sync::now())
    }

    /// What waits right now, running batches not counted.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let batcher = self.shared.lock();
        Depth { items: batcher.len(), weight: batcher.weight() }
    }

    /// What the queue has done since it was made.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *self.shared.lock().stats()
    }

    /// What batches cost on the first device, as far as it is learned.
    #[must_use]
    pub fn cost(&self) -> CostModel {
        self.cost_on(0)
    }

    /// What batches cost on one of its devices, as far as it is learned.
    ///
    /// # Panics
    /// If the queue has no such device.
    #[must_use]
    pub fn cost_on(&self, device: usize) -> CostModel {
        *self.shared.lock().cost_on(device)
    }

    /// Begins with what was learned of a device before, for instance in a warm-up.
    ///
    /// # Panics
    /// If the queue has no such device.
    pub fn learned(&self, device: usize, cost: CostModel) {
        self.shared.lock().learned(device, cost);
    }

    /// Whether one of its devices takes batches.
    ///
    /// # Panics
    /// If the queue has no such device.
    #[must_use]
    pub fn device_state(&self, device: usize) -> DeviceState {
        self.shared.lock().device_state(sync::now(), device)
    }

    /// Refuses new work from now on. What waits is still answered.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Refuses new work, answers what waits, and returns when its executors are gone. Blocks.
    pub fn shutdown(&self) {
        self.close();
        // Locked while it waits: a second caller returns no sooner.
        let mut lanes = lock(&self.lanes);
        if let Some(lanes) = lanes.take() {
            lanes.wait();
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
            let mut batcher = self.shared.lock();
            let now = sync::now();
            match batcher.offer_as(now, Job { item, reply }, weight, terms, standing) {
                Ok(id) => (id, self.whom_to_wake(&mut batcher, now)),
                Err(refused) => return Err(Refused { payload: refused.payload.item, error: refused.error }),
            }
        };
        self.shared.wake(wake);
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
            let mut batcher = self.shared.lock();
            let now = sync::now();
            match batcher.offer_many(now, jobs, terms, standing) {
                Ok(ids) => (ids, self.whom_to_wake(&mut batcher, now)),
                Err(Refused { payload, error }) => {
                    let payload = payload.into_iter().map(|(job, _)| job.item).collect();
                    return Err(Refused { payload, error });
                }
            }
        };
        self.shared.wake(wake);
        Ok(answers.into_iter().zip(ids).map(|(answer, id)| self.ticket(answer, id)).collect())
    }

    /// Waits in line until `offer` is not refused for want of room.
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
        let _place = Place::new(&self.shared, group);
        // Only the first in line waits for room, the others wait for its turn to end. So one wake-up per freed place is enough,
        // and nobody in line is overtaken, however heavy.
        let _turn = self.shared.turnstile.lock().await;
        while is_full(&error) {
            match offer(payload) {
                Ok(admitted) => return Ok(admitted),
                Err(refused) => Refused { payload, error } = refused,
            }
            if is_full(&error) {
                self.shared.room.notified().await;
            }
        }
        Err(error)
    }

    fn whom_to_wake(&self, batcher: &mut Batcher<Job<E>>, now: Instant) -> Wake {
        if batcher.is_due(now) { self.shared.whom_to_wake(batcher, now, None) } else { Wake::Nobody }
    }

    fn ticket(&self, answer: oneshot::Receiver<Answer<E>>, id: EntryId) -> Ticket<E> {
        Ticket { answer, waiting: Some((Arc::downgrade(&self.shared), id)) }
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

/// A place in the line for room. It ends when the caller is admitted, refused or gone.
struct Place<'a, E: Executor> {
    shared: &'a Shared<E>,
    group: Group,
}

impl<'a, E: Executor> Place<'a, E> {
    fn new(shared: &'a Shared<E>, group: Group) -> Self {
        shared.lock().join_line(group);
        Self { shared, group }
    }
}

impl<E: Executor> Drop for Place<'_, E> {
    fn drop(&mut self) {
        self.shared.lock().leave_line(self.group);
    }
}

impl<E: Executor> Drop for Queue<E> {
    fn drop(&mut self) {
        self.close();
    }
}

/// A place in the queue. Await it for the answer; drop it to cancel.
#[must_use = "dropping a ticket cancels the item"]
pub struct Ticket<E: Executor> {
    answer: oneshot::Receiver<Answer<E>>,
    /// Where to cancel; `None` once answered.
    waiting: Option<(Weak<Shared<E>>, EntryId)>,
}

impl<E: Executor> Future for Ticket<E> {
    type Output = Answer<E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        self.waiting = None;
        // A device thread answers all it takes; a reply dropped unanswered means that the thread itself is gone.
        Poll::Ready(answer.unwrap_or(Err(Error::ShuttingDown)))
    }
}

impl<E: Executor> Drop for Ticket<E> {
    fn drop(&mut self) {
        let Some((shared, id)) = self.waiting.take() else { return };
        let Some(shared) = shared.upgrade() else { return };
        // Taken out under the lock, dropped after it.
        let cancelled = shared.lock().cancel(id);
        if cancelled.is_some() {
            shared.room.notify_one();
        }
    }
}
