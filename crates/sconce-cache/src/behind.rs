//! Writing behind: a bounded queue in front of each tier, and the task that empties it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::config::CacheConfig;
use crate::guard::Guarded;
use crate::replica::Lease;
use crate::stats::{Counter, TierStats};
use crate::{Key, Value};

/// Bytes after which a batch takes no further entry.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// The queue in front of one tier.
pub(crate) struct Behind {
    queue: mpsc::Sender<WriteBehindJob>,
    load: Arc<Load>,
    max_bytes: usize,
    max_value_bytes: usize,
    closed: AtomicBool,
    full: Counter,
    too_large: Counter,
    task: AbortHandle,
}

/// Number and bytes of the entries that are queued or being written.
#[derive(Default)]
struct Load {
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

enum WriteBehindJob {
    Fill(Fill),
    /// Answered when all entries queued before it are written or lost.
    Flush(oneshot::Sender<()>),
}

struct Fill {
    key: Key,
    value: Value,
    /// The lock towards other replicas, released when the value is stored.
    lease: Option<Lease>,
}

impl Behind {
    pub(crate) fn start(tier: Arc<Guarded>, config: &CacheConfig, runtime: &Handle) -> Self {
        let (queue, jobs) = mpsc::channel(config.max_queue_size);
        let load = Arc::new(Load::default());
        let max_value_bytes = tier.config.max_value_bytes;
        let task = runtime.spawn(fill(tier, jobs, Arc::clone(&load), config.max_batch_size)).abort_handle();
        Self {
            queue,
            load,
            max_bytes: config.max_queue_bytes,
            max_value_bytes,
            closed: AtomicBool::new(false),
            full: Counter::default(),
            too_large: Counter::default(),
            task,
        }
    }

    /// Queues an entry, or counts the reason why not.
    pub(crate) fn put(&self, key: Key, value: Value, lease: Option<Lease>) {
        let bytes = value.encoded().len();
        if bytes > self.max_value_bytes {
            return self.too_large.add(1);
        }
        let queued = self.load.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.load.entries.fetch_add(1, Ordering::Relaxed);
        let room = queued + bytes <= self.max_bytes && !self.closed.load(Ordering::Relaxed);
        if !room || self.queue.try_send(WriteBehindJob::Fill(Fill { key, value, lease })).is_err() {
            self.load.take(1, bytes);
            self.full.add(1);
        }
    }

    /// Waits until all entries queued before are written or lost.
    pub(crate) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(WriteBehindJob::Flush(done)).await.is_ok() {
            wait.await.ok();
        }
    }

    /// Takes no more entries, writes the queued ones for at most `deadline`, and returns the number that were not written.
    pub(crate) async fn close(&self, deadline: Duration) -> usize {
        self.closed.store(true, Ordering::Relaxed);
        tokio::time::timeout(deadline, self.flush()).await.ok();
        self.task.abort();
        // Entries that came during the flush count too.
        self.load.entries.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, stats: &mut TierStats) {
        stats.lost.queue_full = self.full.get();
        stats.lost.too_large = self.too_large.get();
    }
}

impl Load {
    fn take(&self, entries: usize, bytes: usize) {
        self.entries.fetch_sub(entries, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Writes the queued entries, in batches of what has come so far, until the queue is closed.
async fn fill(tier: Arc<Guarded>, mut jobs: mpsc::Receiver<WriteBehindJob>, load: Arc<Load>, max_batch_size: usize) {
    let mut came = Vec::with_capacity(max_batch_size);
    while jobs.recv_many(&mut came, max_batch_size).await > 0 {
        let mut batch = WriteBatch::default();
        for job in came.drain(..) {
            match job {
                WriteBehindJob::Fill(fill) => {
                    batch.add(fill);
                    if batch.bytes >= MAX_BATCH_BYTES {
                        std::mem::take(&mut batch).write(&tier, &load).await;
                    }
                }
                WriteBehindJob::Flush(done) => {
                    std::mem::take(&mut batch).write(&tier, &load).await;
                    // The caller that waited may have gone.
                    done.send(()).ok();
                }
            }
        }
        batch.write(&tier, &load).await;
    }
}

#[derive(Default)]
struct WriteBatch {
    entries: Vec<(Key, Value)>,
    leases: Vec<Lease>,
    bytes: usize,
}

impl WriteBatch {
    fn add(&mut self, Fill { key, value, lease }: Fill) {
        self.bytes += value.encoded().len();
        self.entries.push((key, value));
        self.leases.extend(lease);
    }

    async fn write(self, tier: &Guarded, load: &Load) {
        if !self.entries.is_empty() {
            tier.put_many(&self.entries).await;
            load.take(self.entries.len(), self.bytes);
        }
        drop(self.leases);
    }
}
