use super::*;

fn device(major: u32, minor: u32) -> CudaDevice {
    CudaDevice {
        ordinal: 0,
        name: "Test".to_owned(),
        compute_capability: Version { major, minor },
        total_memory: 1 << 30,
        free_memory: None,
    }
}

#[test]
fn a_device_or_a_driver_that_is_too_old_is_refused_with_what_is_needed() {
    let driver = |major, minor| Version { major, minor };
    assert_eq!(device(8, 0).check(driver(12, 4)), Ok(()));
    assert_eq!(device(12, 1).check(driver(14, 2)), Ok(()));
    let old = device(7, 0).check(driver(13, 0)).unwrap_err();
    assert_eq!(old.to_string(), "cuda:0 (Test) has compute capability 7.0; 7.5 or higher is needed");
    assert_eq!(device(7, 5).check(driver(13, 0)), Ok(()));
    let old = device(7, 5).check_for_candle().unwrap_err();
    assert_eq!(old.to_string(), "cuda:0 (Test) has compute capability 7.5; 8.0 or higher is needed");
    assert_eq!((device(8, 0).check_for_candle(), check_for_candle(&Device::Cpu)), (Ok(()), Ok(())));
    let old = device(8, 9).check(driver(12, 3)).unwrap_err();
    assert_eq!(old.to_string(), "the driver supports CUDA 12.3; 12.4 or higher is needed: update NVIDIA's driver");
}

#[test]
fn what_is_not_there_is_a_typed_error_and_never_a_panic() {
    let first = cuda_devices().map(|devices| devices.len());
    match (&first, cuda_driver()) {
        (Ok(count), Ok(_)) => assert!(*count > 0),
        (Err(DeviceError::NoDevice), Ok(_)) => {}
        (Err(none), Err(no_driver)) => assert_eq!(*none, no_driver),
        other => panic!("{other:?}"),
    }
    if cfg!(not(feature = "cuda")) {
        assert_eq!(first, Err(DeviceError::NotBuilt));
    }
    let far = open_cuda(usize::MAX).unwrap_err();
    match first {
        Ok(count) => assert_eq!(far, DeviceError::UnknownOrdinal { ordinal: usize::MAX, count }),
        Err(none) => assert_eq!(far, none),
    }
}

#[test]
fn a_device_that_is_open_is_not_opened_again() {
    match (open_cuda(0), open_cuda(0)) {
        (Ok(first), Ok(second)) => assert!(first.same_device(&second)),
        (first, second) => assert_eq!(first.unwrap_err(), second.unwrap_err()),
    }
}

#[cfg(feature = "cuda")]
#[test]
fn errors_of_candle_say_what_has_become_of_the_device() {
    use candle_core::cuda_backend::CudaError;
    use cudarc::cublas::result::CublasError;
    use cudarc::cublas::sys::cublasStatus_t as Cublas;
    use cudarc::driver::DriverError;
    use cudarc::driver::sys::CUresult as Status;

    let driver = |status| Error::from(CudaError::Cuda(DriverError(status)));
    let cublas = |status| Error::from(CudaError::Cublas(CublasError(status)));
    let table = [
        (driver(Status::CUDA_ERROR_OUT_OF_MEMORY), Some(DeviceFailure::OutOfMemory)),
        (driver(Status::CUDA_ERROR_OUT_OF_MEMORY).context("a batch").bt(), Some(DeviceFailure::OutOfMemory)),
        (cublas(Cublas::CUBLAS_STATUS_ALLOC_FAILED), Some(DeviceFailure::OutOfMemory)),
        (driver(Status::CUDA_ERROR_ILLEGAL_ADDRESS), Some(DeviceFailure::Lost)),
        (driver(Status::CUDA_ERROR_LAUNCH_FAILED), Some(DeviceFailure::Lost)),
        (cublas(Cublas::CUBLAS_STATUS_EXECUTION_FAILED), Some(DeviceFailure::Lost)),
        (driver(Status::CUDA_ERROR_INVALID_VALUE), None),
        (CudaError::MissingKernel { module_name: "fill".to_owned() }.into(), None),
        (Error::Msg("no device is at fault".to_owned()), None),
    ];
    for (error, expected) in table {
        assert_eq!(failure(&error), expected, "{error}");
    }
}
