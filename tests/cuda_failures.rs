//! Errors of a model whose GPU runs out of memory, or is lost, in the middle of a batch. The simulator injects the
//! failures.
//!
//! A process of its own with a single test, because a device is lost to the whole process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sconce::{DeviceError, Truncation};
use sconce_cudasim_control::Control;
use sconce_models::{
    Backend as _, CudaBackend, Device, Features, ForwardError, LoadError, LoadOptions, LoadedModel, Registry,
};

fn zoo(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zoo").join(model)
}

fn load(device: &Arc<dyn Device>) -> Result<LoadedModel, LoadError> {
    let device = Arc::clone(device);
    Registry::default().load(&zoo("digits-cnn"), &LoadOptions { device, ..LoadOptions::default() })
}

#[test]
fn a_gpu_without_memory_works_on_and_a_lost_one_is_told_as_such() {
    let Some(control) = Control::attach() else {
        assert!(std::env::var_os("SCONCE_EXPECT_GPU").is_none(), "a simulated GPU is expected");
        eprintln!("SKIPPED: failures of a GPU need the simulator");
        return;
    };
    let device = CudaBackend.open(0).expect("the simulator has a device");
    control.fail_allocation(1);
    let error = load(&device).expect_err("its weights have no room");
    assert!(matches!(error, LoadError::OutOfMemory { .. }), "{error}");

    let LoadedModel { mut network, processor, .. } = load(&device).expect("now they have");
    let image = sconce::Array { shape: vec![1, 8, 8], data: sconce::ArrayData::U8(vec![7; 64]) };
    let image: Features = processor.prepare(image.into(), Truncation::Truncate).expect("an image").features;
    let expected = network.forward(std::slice::from_ref(&image)).expect("a batch of one");

    // Fails the 1st, the 4th and the 9th allocation of a batch.
    for allocation in [1, 4, 9] {
        control.fail_allocation(allocation);
        let error = network.forward(std::slice::from_ref(&image)).expect_err("it has no memory");
        assert!(matches!(error, ForwardError::OutOfMemory { .. }), "allocation {allocation}: {error}");
        assert_eq!(network.forward(std::slice::from_ref(&image)).expect("it has memory again"), expected);
    }

    control.lose_device_after_launches(3);
    for _ in 0..2 {
        let error = network.forward(std::slice::from_ref(&image)).expect_err("the device is gone");
        assert!(matches!(error, ForwardError::DeviceLost { .. }), "{error}");
        assert_eq!(error.to_string().lines().count(), 1, "a message for clients has no backtrace: {error}");
    }
    let error = load(&device).expect_err("there is no device to load it on");
    assert!(matches!(error, LoadError::DeviceLost { .. } | LoadError::Device(_)), "{error}");
    let error = CudaBackend.open(0).expect_err("nor can it be opened");
    assert!(matches!(error, DeviceError::Driver { .. } | DeviceError::NoDevice), "{error}");
    // Dropping it does not panic either.
    drop(network);
}
