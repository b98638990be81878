//! A BERT on a GPU that is out of memory or lost, by failures that the simulator injects; and the setting `cuda_graphs`.
//!
//! One test in a process of its own, because a lost device is lost to the whole process.

#![cfg(feature = "cuda")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use sconce_cudasim_control::Control;
use sconce_models::{
    Backend as _, CudaBackend, Device, Features, ForwardError, LoadError, LoadOptions, LoadedModel, Precision,
    Registry, Truncation,
};

fn load(directory: &Path, device: &Arc<dyn Device>) -> Result<LoadedModel, LoadError> {
    let (device, precision) = (Arc::clone(device), Some(Precision::F16));
    Registry::default().load(directory, &LoadOptions { device, precision })
}

fn features(model: &LoadedModel, text: &str) -> Features {
    model.processor.prepare(text.into(), Truncation::Truncate).expect("a good text").features
}

#[test]
fn it_works_on_without_memory_and_is_told_as_lost_and_records_batches_if_its_directory_says_so() {
    let Some(control) = Control::attach() else {
        assert!(std::env::var_os("SCONCE_EXPECT_GPU").is_none(), "a simulated GPU is expected");
        println!("SKIPPED: failures of a GPU need the simulator");
        return;
    };
    let device = CudaBackend.open(0).expect("the simulator has a device");
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo/encoder-mini");
    for allocation in [1, 5] {
        control.fail_allocation(allocation);
        let error = load(&zoo, &device).expect_err("its weights have no room");
        assert!(matches!(error, LoadError::OutOfMemory { .. }), "{error}");
    }
    control.fail_allocation(0);

    let recorded = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(zoo.join(file), recorded.path().join(file)).unwrap();
    }
    fs::write(recorded.path().join("sconce.toml"), "[model]\ncuda_graphs = true").unwrap();
    let mut recorded = load(recorded.path(), &device).unwrap();
    let mut model = load(&zoo, &device).unwrap();
    let batch = [features(&model, "a sconce holds candles"), features(&model, "light on a wall")];

    control.fail_allocation(1);
    let error = model.network.forward(&batch).expect_err("the batch has no room");
    assert!(matches!(error, ForwardError::OutOfMemory { .. }), "{error}");
    let expected = model.network.forward(&batch).expect("now it has");
    for launches_of_graphs in [0, 1, 1] {
        control.reset_counts();
        let rows = recorded.network.forward(&batch).unwrap();
        assert_eq!(control.counts().graph_launches, launches_of_graphs);
        let gaps = rows.iter().flatten().zip(expected.iter().flatten()).map(|(a, b)| (a - b).abs());
        assert!(gaps.into_iter().all(|gap| gap < 5e-3));
    }

    control.lose_device_after_launches(3);
    for _ in 0..2 {
        let error = model.network.forward(&batch).expect_err("the device is gone");
        assert!(matches!(error, ForwardError::DeviceLost { .. }), "{error}");
    }
    let error = load(&zoo, &device).expect_err("nothing can be loaded on it");
    assert!(matches!(error, LoadError::DeviceLost { .. }), "{error}");
    // Dropping networks of a lost device must not panic.
    drop((model, recorded));
}
