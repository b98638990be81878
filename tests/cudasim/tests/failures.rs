//! Injected failures, and counts.

mod support;

use std::mem::MaybeUninit;

use sconce_cudasim::control::*;
use sconce_cudasim::device::error::Status;
use sconce_cudasim::device::settings::Settings;
use sconce_cudasim::device::simulator::rebuild;
use sconce_cudasim::driver::*;
use support::Parameter::Address;
use support::{Machine, get};

fn allocate(bytes: usize) -> Status {
    let mut place = MaybeUninit::uninit();
    cuMemAlloc_v2(Some(&mut place), bytes)
}

#[test]
fn a_machine_without_devices_says_so_from_the_first_call_on() {
    let machine = Machine::new();
    rebuild(Settings { devices: 0, ..Settings::from_env() });
    assert_eq!(cuInit(0), Status::NO_DEVICE);
    let mut count = MaybeUninit::uninit();
    assert_eq!(cuDeviceGetCount(Some(&mut count)), Status::NO_DEVICE);
    drop(machine);
}

#[test]
fn the_nth_allocation_fails_and_the_next_succeeds() {
    let machine = Machine::new();
    cudasim_fail_allocation(3);
    let results: Vec<Status> = (0..5).map(|_| allocate(64)).collect();
    assert_eq!(results[2], Status::OUT_OF_MEMORY);
    assert_eq!(results.iter().filter(|status| **status == Status::SUCCESS).count(), 4);
    drop(machine);
}

#[test]
fn memory_ends_at_the_limit_and_comes_back_with_a_free() {
    let machine = Machine::new();
    cudasim_set_memory_limit(1000);
    assert_eq!(allocate(1001), Status::OUT_OF_MEMORY);
    let address = get(|out| cuMemAlloc_v2(out, 600));
    assert_eq!(allocate(600), Status::OUT_OF_MEMORY);
    let (mut free, mut total) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    assert_eq!(cuMemGetInfo_v2(Some(&mut free), Some(&mut total)), Status::SUCCESS);
    // SAFETY: the call succeeded, so it has written both.
    assert_eq!(unsafe { (free.assume_init(), total.assume_init()) }, (400, 1000));
    assert_eq!(cuMemFree_v2(address), Status::SUCCESS);
    assert_eq!(allocate(600), Status::SUCCESS);
    cudasim_set_memory_limit(usize::MAX);
    assert_eq!(allocate(1 << 20), Status::SUCCESS);
    drop(machine);
}

#[test]
fn a_lost_device_fails_every_call_until_it_is_restored() {
    let machine = Machine::new();
    let kernel = machine.kernel(1, "st.global.u32 [%a0], 1;");
    let array = machine.allocate(4);
    cudasim_lose_device_after_launches(2);
    let results: Vec<Status> = (0..4).map(|_| machine.launch(kernel, 1, 1, 0, &[Address(array)])).collect();
    let lost = Status::DEVICE_UNAVAILABLE;
    assert_eq!(results, [Status::SUCCESS, Status::SUCCESS, lost, lost]);
    assert_eq!(cuCtxSynchronize(), lost);
    assert_eq!(allocate(4), lost);
    assert!(machine.fault().contains("lost"));
    cudasim_restore();
    machine.runs(kernel, 1, 1, 0, &[Address(array)]);
    assert_eq!(machine.fault(), "");
}

#[test]
fn failures_can_be_asked_for_by_the_environment() {
    // `from_env` reads the environment into these settings.
    let machine = Machine::with(|settings| settings.fail_allocation = Some(2));
    assert_eq!([allocate(8), allocate(8), allocate(8)].map(|status| status.0), [0, 2, 0]);
    drop(machine);
    let machine = Machine::with(|settings| settings.lose_device_after = Some(0));
    let kernel = machine.kernel(0, "");
    assert_eq!(machine.launch(kernel, 1, 1, 0, &[]), Status::DEVICE_UNAVAILABLE);
}

#[test]
fn everything_is_counted() {
    let machine = Machine::new();
    let kernel = machine.kernel(1, "st.global.u32 [%a0], 1;");
    cudasim_reset_counts();
    let array = machine.upload(&[0u32; 16]);
    machine.runs(kernel, 2, 64, 0, &[Address(array)]);
    machine.download::<u32>(array, 4);
    let event = get(|out| cuEventCreate(out, 0));
    assert_eq!(cuEventDestroy_v2(event), Status::SUCCESS);
    assert_eq!(cuMemFree_v2(array), Status::SUCCESS);
    let counts = machine.counts();
    assert_eq!((counts.launches, counts.allocations, counts.frees, counts.events), (1, 1, 1, 1));
    assert_eq!((counts.copies_to_device, counts.bytes_to_device), (1, 64));
    assert_eq!((counts.copies_to_host, counts.bytes_to_host), (1, 16));
    assert_eq!(counts.peak_memory, 64);
    // Allocation, copy, launch, synchronisation, copy, two for the event, free.
    assert_eq!(counts.driver_calls, 8);
    // Four warps of eight instructions: tid, ctaid, ntid, product, parameter, store, two ways to end.
    assert!((4 * 6..=4 * 8).contains(&counts.instructions), "{}", counts.instructions);
    let mut read = sconce_cudasim_control::Counts::default();
    // SAFETY: a valid place for them.
    unsafe { cudasim_counts(&raw mut read) };
    assert_eq!(read, counts);
}

#[test]
fn launches_that_no_card_accepts_are_refused() {
    let machine = Machine::new();
    let kernel = machine.kernel(0, "");
    assert_eq!(machine.launch(kernel, 1, 1025, 0, &[]), Status::INVALID_VALUE);
    assert_eq!(machine.launch(kernel, 0, 32, 0, &[]), Status::INVALID_VALUE);
    assert_eq!(machine.launch(kernel, 1, 32, 60_000, &[]), Status::INVALID_VALUE);
    assert_eq!(cuFuncSetAttribute(kernel, 8, 60_000), Status::SUCCESS);
    machine.runs(kernel, 1, 32, 60_000, &[]);
    assert_eq!(cuFuncSetAttribute(kernel, 8, 200_000), Status::INVALID_VALUE);
}

#[test]
fn copies_beyond_an_allocation_are_invalid() {
    let machine = Machine::new();
    let array = machine.allocate(16);
    let values = [0u8; 32];
    assert_eq!(cuMemcpyHtoD_v2(array, values.as_ptr() as usize, 32), Status::INVALID_VALUE);
    assert_eq!(cuMemFree_v2(array + 8), Status::INVALID_VALUE);
}
