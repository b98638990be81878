//! The device waker under every order of its loads and stores that the memory model allows (`tests/run schedules`).

use std::sync::Arc;

use super::DeviceThread;
use crate::queue_handle::{Outlook, QueueHandle, Taken};
use crate::sync::{Mutex, lock, thread};

/// The least of a queue that a waker needs: counts of items.
#[derive(Default)]
struct Items {
    waiting: usize,
    ran: usize,
    closed: bool,
}

struct Counting(Arc<Mutex<Items>>);

impl QueueHandle for Counting {
    fn outlook(&self) -> Outlook {
        unreachable!("it is the only queue of its device")
    }

    fn take(&mut self) -> Taken {
        let mut items = lock(&self.0);
        match items.waiting {
            0 if items.closed => Taken::Over,
            0 => Taken::Nothing,
            _ => {
                items.waiting -= 1;
                Taken::Batch { leaves_work: items.waiting > 0 }
            }
        }
    }

    fn run(&mut self) {
        lock(&self.0).ran += 1;
    }

    fn stop_lingering(&self) {}

    fn end(self: Box<Self>) {}
}

#[test]
fn whatever_comes_while_a_device_falls_asleep_wakes_it() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let device = DeviceThread::spawn("test").unwrap();
        let items = Arc::new(Mutex::new(Items::default()));
        device.waker().add(Box::new(Counting(Arc::clone(&items))));
        let caller = thread::spawn({
            let (items, waker) = (Arc::clone(&items), Arc::clone(device.waker()));
            move || {
                lock(&items).waiting += 1;
                waker.wake();
            }
        });
        lock(&items).waiting += 1;
        device.waker().wake();
        caller.join().unwrap();
        lock(&items).closed = true;
        device.waker().wake();
        device.join();
        assert_eq!(lock(&items).ran, 2);
    });
}
