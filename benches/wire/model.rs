//! A model of a chosen cost: the first ten pixels of an image are its logits, and a batch takes as much processor time as
//! [`Cost`] says.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sconce::{Runtime, RuntimeBuilder};
use sconce_models::{
    Array, ArrayData, Classification, Demand, DeviceName, Family, Features, ForwardError, Input, InputError, InputKind,
    InputSpec, LoadError, LoadedModel, ModelDirectory, Network, Output, Precision, Prepared, Processor, Registry,
    Signature, Target, Task, Truncation,
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
    let precisions: fn(&_) -> &'static [Precision] = |_| &[Precision::F32];
    let demand: fn(&_, _) -> _ =
        |_, _| Ok(Demand { weight_bytes: 0, flops_per_weight: 10.0, bytes_per_weight: 256, unit: "item" });
    registry.register(Family { model_type: MODEL, summary: "ten pixels", precisions, demand, load });
    Ok(Runtime::builder().registry(registry).named_model(MODEL, directory))
}

fn load(directory: &ModelDirectory, target: &Target) -> Result<LoadedModel, LoadError> {
    let labels: Arc<[String]> = (0..CLASSES).map(|class| class.to_string()).collect();
    let Config { cost, .. } = directory.config()?;
    Ok(LoadedModel {
        signature: Signature {
            model_type: MODEL.to_owned(),
            input: InputSpec { name: INPUT, kind: InputKind::Image { shape: [1, 8, 8] } },
            task: Task::Classification { labels: Arc::clone(&labels) },
            precision: target.precision,
            device: DeviceName::of(&target.device),
            parameters: 0,
        },
        processor: Arc::new(FirstTen { labels }),
        network: Box::new(FirstTenNetwork { cost }),
        settings: directory.settings(&[])?,
    })
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

    fn finish(&self, row: Vec<f32>) -> Output {
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
