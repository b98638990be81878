//! A model of a chosen cost: the first ten pixels of an image are its logits, and a batch takes as much processor time as
//! [`Cost`] says.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sconce::{Runtime, RuntimeBuilder};
use sconce_models::{
    Array, ArrayData, Blueprint, Classification, Family, Features, Finishing, ForwardError, Halves, Input, InputError,
    InputKind, InputSpec, LoadError, ModelDirectory, Network, Output, Prepared, Processor, Registry, Target, Task,
    Truncation,
};
use serde::{Deserialize, Serialize};

use super::message::{CLASSES, MODEL};

const INPUT: &str = "image";

/// Processor time of a batch: a part for the batch whatever its size, and a part for each item. The default is none: the
/// model then costs next to nothing.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Processor time of each batch.
    pub batch: Duration,
    /// Processor time of each item.
    pub item: Duration,
}

/// `config.json` of the model.
#[derive(Serialize, Deserialize)]
struct Config {
    model_type: String,
    cost: Cost,
}

/// The builder of a runtime that has only this model; its files are written to `directory`.
///
/// # Errors
/// If the files cannot be written.
pub fn builder(directory: &Path, cost: Cost) -> Result<RuntimeBuilder, std::io::Error> {
    let config = Config { model_type: MODEL.to_owned(), cost };
    std::fs::write(directory.join("config.json"), serde_json::to_vec(&config)?)?;
    let mut registry = Registry::default();
    let read = |directory: &ModelDirectory| -> Result<Box<dyn Blueprint>, LoadError> {
        Ok(Box::new(directory.config::<Config>()?))
    };
    registry.register(Family { model_type: MODEL, summary: "ten pixels", read });
    Ok(Runtime::builder().registry(registry).named_model(MODEL, directory))
}

impl Blueprint for Config {
    fn load(&self, _: &ModelDirectory, _: &Target) -> Result<Halves, LoadError> {
        let labels: Arc<[String]> = (0..CLASSES).map(|class| class.to_string()).collect();
        Ok(Halves {
            input: InputSpec { name: INPUT, kind: InputKind::Image { shape: [1, 8, 8] } },
            task: Task::Classification { labels: Arc::clone(&labels) },
            processor: Arc::new(FirstTen { labels }),
            network: Box::new(FirstTenNetwork { cost: self.cost }),
        })
    }
}

struct FirstTen {
    labels: Arc<[String]>,
}

impl Processor for FirstTen {
    fn prepare(&self, input: Input, _: Truncation) -> Result<Prepared, InputError> {
        match input {
            Input::Array(Array { data: ArrayData::U8(pixels), .. }) => Ok(Prepared {
                features: Features::Values(pixels.into_iter().map(f32::from).collect()),
                truncated: false,
            }),
            _ => Err(InputError::Empty { name: INPUT }),
        }
    }

    fn finish(&self, row: Vec<f32>, _: Finishing<'_>) -> Output {
        Output::Classification(Classification::from_logits(Arc::clone(&self.labels), row))
    }
}

struct FirstTenNetwork {
    cost: Cost,
}

impl Network for FirstTenNetwork {
    fn forward(&mut self, batch: &[Features]) -> Result<Vec<Vec<f32>>, ForwardError> {
        let row = |features: &Features| {
            let Features::Values(values) = features else { unreachable!("the processor prepares values") };
            values[..CLASSES].to_vec()
        };
        let rows = batch.iter().map(row).collect();
        compute(self.cost.batch + self.cost.item.mul_f64(batch.len() as f64));
        Ok(rows)
    }
}

/// Computes until this thread has had `time` of a processor, however often it has to share it.
pub fn compute(time: Duration) {
    let end = (!time.is_zero()).then(|| thread_time() + time);
    while end.is_some_and(|end| thread_time() < end) {
        // Some 10 µs, so that most of the time goes into arithmetic rather than into reading the clock.
        black_box((0..black_box(10_000_u32)).fold(1_u32, |sum, step| sum.wrapping_mul(31) ^ step));
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("less than a second"))
}
