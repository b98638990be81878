//! The bell under every order of its loads and stores that the memory model allows (`tests/run schedules`).

use std::sync::Arc;

use super::Device;
use crate::lane::{Lane, Outlook, Taken};
use crate::shared::lock;
use crate::sync::{Mutex, thread};

/// As little of a queue as a bell needs.
#[derive(Default)]
struct Items {
    waiting: usize,
    ran: usize,
    closed: bool,
}

struct Counting(Arc<Mutex<Items>>);

impl Lane for Counting {
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
        let device = Device::spawn("test").unwrap();
        let items = Arc::new(Mutex::new(Items::default()));
        device.bell().add(Box::new(Counting(Arc::clone(&items))));
        let caller = thread::spawn({
            let (items, bell) = (Arc::clone(&items), Arc::clone(device.bell()));
            move || {
                lock(&items).waiting += 1;
                bell.ring();
            }
        });
        lock(&items).waiting += 1;
        device.bell().ring();
        caller.join().unwrap();
        lock(&items).closed = true;
        device.bell().ring();
        device.join();
        assert_eq!(lock(&items).ran, 2);
    });
}
