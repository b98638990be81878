//! Work runs late: a program that forgets to wait is found out, and its corrected twin is not.

mod support;

use std::ffi::c_void;

use sconce_cudasim::device::error::Status;
use sconce_cudasim::driver::*;
use support::Parameter::{Address, U32};
use support::{Machine, get};

const NON_BLOCKING: u32 = 1;
/// Seeds of the tests of random orders.
const SEEDS: std::ops::Range<u64> = 0..24;

/// `out[i] = in[i] + b` for 32 elements, with parameters in, out, b.
const ADD: &str = "mul.wide.u32 %rd0, %tid, 4; add.s64 %rd1, %a0, %rd0; add.s64 %rd2, %a1, %rd0;
    cvt.u32.u64 %r1, %a2; ld.global.u32 %r0, [%rd1]; add.u32 %r0, %r0, %r1; st.global.u32 [%rd2], %r0;";

fn stream() -> u64 {
    get(|out| cuStreamCreate(out, NON_BLOCKING))
}

/// Pinned host memory of 32 words.
struct Pinned(usize);

impl Pinned {
    fn new() -> Self {
        let pinned = Self(get(|out| cuMemHostAlloc(out, 128, 0)));
        pinned.fill(0);
        pinned
    }

    fn fill(&self, value: u32) {
        // SAFETY: 32 words were allocated, and no reference to them is alive.
        unsafe { std::slice::from_raw_parts_mut(self.0 as *mut u32, 32) }.fill(value);
    }

    fn first(&self) -> u32 {
        // SAFETY: 32 words were allocated and written; the simulator writes them only within its calls.
        unsafe { std::ptr::read_volatile(self.0 as *const u32) }
    }
}

#[test]
fn a_copy_to_pinned_memory_lands_when_the_host_has_waited() {
    for seed in SEEDS {
        let machine = Machine::with(|settings| settings.delay_seed = seed);
        let (stream, pinned) = (stream(), Pinned::new());
        let array = machine.upload(&[7u32; 32]);
        assert_eq!(cuMemcpyDtoHAsync_v2(pinned.0, array, 128, stream), Status::SUCCESS);
        assert_ne!(pinned.first(), 7, "seed {seed}: read without waiting");
        assert_eq!(cuStreamSynchronize(stream), Status::SUCCESS);
        assert_eq!(pinned.first(), 7);
    }
}

#[test]
fn a_copy_to_pageable_memory_is_complete_when_the_call_returns() {
    let machine = Machine::new();
    let stream = stream();
    let array = machine.upload(&[7u32; 32]);
    let mut values = [0u32; 32];
    assert_eq!(cuMemcpyDtoHAsync_v2(values.as_mut_ptr() as usize, array, 128, stream), Status::SUCCESS);
    assert_eq!(values, [7; 32]);
}

/// The value that a kernel sees in pinned memory which the host changes after the copy was put on the stream.
fn pinned_upload(waits: bool, seed: u64) -> u32 {
    let machine = Machine::with(|settings| settings.delay_seed = seed);
    let (stream, pinned) = (stream(), Pinned::new());
    pinned.fill(1);
    let array = machine.allocate(128);
    assert_eq!(cuMemcpyHtoDAsync_v2(array, pinned.0, 128, stream), Status::SUCCESS);
    if waits {
        assert_eq!(cuStreamSynchronize(stream), Status::SUCCESS);
    }
    pinned.fill(2);
    assert_eq!(cuStreamSynchronize(stream), Status::SUCCESS);
    machine.download::<u32>(array, 1)[0]
}

#[test]
fn pinned_memory_that_is_changed_before_the_copy_ran_shows() {
    assert!(SEEDS.map(|seed| pinned_upload(false, seed)).any(|seen| seen == 2));
    assert!(SEEDS.map(|seed| pinned_upload(true, seed)).all(|seen| seen == 1));
}

#[test]
fn pageable_memory_may_be_changed_at_once() {
    for seed in SEEDS {
        let machine = Machine::with(|settings| settings.delay_seed = seed);
        let stream = stream();
        let array = machine.allocate(128);
        let mut values = [1u32; 32];
        assert_eq!(cuMemcpyHtoDAsync_v2(array, values.as_ptr() as usize, 128, stream), Status::SUCCESS);
        values.fill(2);
        assert_eq!(cuStreamSynchronize(stream), Status::SUCCESS);
        assert_eq!(machine.download::<u32>(array, 32), [1; 32]);
        assert_eq!(values[0], 2);
    }
}

/// One stream writes, another reads; with `orders` the second waits for an event of the first.
fn two_streams(orders: bool, seed: u64) -> u32 {
    let machine = Machine::with(|settings| settings.delay_seed = seed);
    let add = machine.kernel(3, ADD);
    let (first, second) = (stream(), stream());
    let array = machine.upload(&[1u32; 32]);
    let (between, out) = (machine.upload(&[0u32; 32]), machine.allocate(128));
    let step = |stream, from, to| {
        let parameters = [Address(from), Address(to), U32(10)];
        assert_eq!(machine.launch_on(stream, add, 1, 32, 0, &parameters), Status::SUCCESS);
    };
    step(first, array, between);
    if orders {
        let event = get(|out| cuEventCreate(out, 2));
        assert_eq!(cuEventRecord(event, first), Status::SUCCESS);
        assert_eq!(cuStreamWaitEvent(second, event, 0), Status::SUCCESS);
    }
    step(second, between, out);
    assert_eq!(cuStreamSynchronize(second), Status::SUCCESS);
    machine.download::<u32>(out, 1)[0]
}

#[test]
fn streams_that_are_not_ordered_by_an_event_show_it() {
    let seen: Vec<u32> = SEEDS.map(|seed| two_streams(false, seed)).collect();
    assert!(seen.contains(&10), "no seed runs the second stream first: {seen:?}");
    assert!(seen[1..].contains(&21), "no seed runs the first stream first: {seen:?}");
    assert!(SEEDS.map(|seed| two_streams(true, seed)).all(|seen| seen == 21));
}

#[test]
fn one_seed_gives_one_order() {
    for seed in SEEDS {
        assert_eq!(two_streams(false, seed), two_streams(false, seed));
    }
}

#[test]
fn memory_that_another_stream_frees_too_early_shows() {
    let early = |waits: bool, seed| {
        let machine = Machine::with(|settings| settings.delay_seed = seed);
        let add = machine.kernel(3, ADD);
        let (user, freer) = (stream(), stream());
        let out = machine.allocate(128);
        let array = get(|out| cuMemAllocAsync(out, 128, user));
        assert_eq!(cuMemsetD8Async(array, 0, 128, user), Status::SUCCESS);
        machine.launch_on(user, add, 1, 32, 0, &[Address(array), Address(out), U32(1)]);
        if waits {
            assert_eq!(cuStreamSynchronize(user), Status::SUCCESS);
        }
        cuMemFreeAsync(array, freer);
        cuStreamSynchronize(freer);
        cuStreamSynchronize(user);
        machine.fault()
    };
    assert!(SEEDS.map(|seed| early(false, seed)).any(|fault| fault.contains("use after free")));
    assert!(SEEDS.map(|seed| early(true, seed)).all(|fault| fault.is_empty()));
}

#[test]
fn the_legacy_stream_waits_for_blocking_streams_and_they_for_it() {
    for seed in SEEDS {
        let machine = Machine::with(|settings| settings.delay_seed = seed);
        let add = machine.kernel(3, ADD);
        let blocking = get(|out| cuStreamCreate(out, 0));
        let array = machine.upload(&[0u32; 32]);
        for stream in [blocking, 0, blocking, 2, 0] {
            let parameters = [Address(array), Address(array), U32(1)];
            assert_eq!(machine.launch_on(stream, add, 1, 32, 0, &parameters), Status::SUCCESS);
        }
        // Stream 2, the thread's own, is not ordered with `blocking`, but both are with the legacy stream.
        assert_eq!(cuStreamSynchronize(0), Status::SUCCESS);
        assert_eq!(machine.download::<u32>(array, 1), [5]);
    }
}

#[test]
fn asking_often_enough_whether_work_is_complete_ends() {
    for seed in SEEDS {
        let machine = Machine::with(|settings| settings.delay_seed = seed);
        let (stream, pinned) = (stream(), Pinned::new());
        let array = machine.upload(&[3u32; 32]);
        let event = get(|out| cuEventCreate(out, 2));
        cuMemcpyDtoHAsync_v2(pinned.0, array, 128, stream);
        cuEventRecord(event, stream);
        let asked = (0..1000).take_while(|_| cuEventQuery(event) == Status::NOT_READY).count();
        assert!(asked < 1000);
        assert_eq!(pinned.first(), 3);
    }
}

extern "C" fn note(argument: *mut c_void) {
    // SAFETY: the test passes a word that outlives the stream's work.
    unsafe { *argument.cast::<u32>() += 1 };
}

#[test]
fn a_host_function_runs_in_the_order_of_its_stream() {
    let machine = Machine::with(|settings| settings.delay_seed = 0);
    let stream = stream();
    let mut called = 0u32;
    assert_eq!(cuLaunchHostFunc(stream, note, std::ptr::from_mut(&mut called).cast()), Status::SUCCESS);
    assert_eq!(cuStreamSynchronize(stream), Status::SUCCESS);
    assert_eq!(called, 1);
    drop(machine);
}

#[test]
fn a_graph_runs_what_was_captured_each_time_and_counts_it() {
    let machine = Machine::new();
    let add = machine.kernel(3, ADD);
    let stream = stream();
    let array = machine.upload(&[0u32; 32]);
    assert_eq!(cuStreamBeginCapture_v2(stream, 0), Status::SUCCESS);
    for _ in 0..3 {
        machine.launch_on(stream, add, 1, 32, 0, &[Address(array), Address(array), U32(1)]);
    }
    assert_eq!(get(|out| cuStreamIsCapturing(stream, out)), 1);
    let graph = get(|out| cuStreamEndCapture(stream, out));
    let exec = get(|out| cuGraphInstantiateWithFlags(out, graph, 0));
    assert_eq!(machine.counts().launches, 0, "a capture runs nothing");
    for _ in 0..2 {
        assert_eq!(cuGraphLaunch(exec, stream), Status::SUCCESS);
    }
    assert_eq!(cuStreamSynchronize(stream), Status::SUCCESS);
    assert_eq!(machine.download::<u32>(array, 1), [6]);
    assert_eq!((machine.counts().launches, machine.counts().graph_launches), (6, 2));
    assert_eq!(cuGraphExecDestroy(exec), Status::SUCCESS);
    assert_eq!(cuGraphDestroy(graph), Status::SUCCESS);
    assert_eq!(cuGraphLaunch(exec, stream), Status::INVALID_HANDLE);
}

#[test]
fn a_graph_allocates_and_frees_its_memory_at_each_run() {
    let machine = Machine::new();
    let add = machine.kernel(3, ADD);
    let stream = stream();
    let array = machine.upload(&[5u32; 32]);
    let out = machine.allocate(128);
    assert_eq!(cuStreamBeginCapture_v2(stream, 0), Status::SUCCESS);
    let between = get(|out| cuMemAllocAsync(out, 128, stream));
    machine.launch_on(stream, add, 1, 32, 0, &[Address(array), Address(between), U32(1)]);
    machine.launch_on(stream, add, 1, 32, 0, &[Address(between), Address(out), U32(1)]);
    assert_eq!(cuMemFreeAsync(between, stream), Status::SUCCESS);
    let graph = get(|out| cuStreamEndCapture(stream, out));
    let exec = get(|out| cuGraphInstantiateWithFlags(out, graph, 0));
    let before = machine.counts();
    for _ in 0..3 {
        assert_eq!(cuGraphLaunch(exec, stream), Status::SUCCESS);
        assert_eq!(cuStreamSynchronize(stream), Status::SUCCESS, "{}", machine.fault());
    }
    assert_eq!(machine.download::<u32>(out, 1), [7]);
    let after = machine.counts();
    assert_eq!((after.allocations - before.allocations, after.frees - before.frees), (3, 3));
}

#[test]
fn waiting_within_a_capture_breaks_it() {
    let machine = Machine::new();
    let stream = stream();
    assert_eq!(cuStreamBeginCapture_v2(stream, 0), Status::SUCCESS);
    assert_eq!(cuStreamSynchronize(stream), Status::CAPTURE_UNSUPPORTED);
    let mut graph = std::mem::MaybeUninit::uninit();
    assert_eq!(cuStreamEndCapture(stream, Some(&mut graph)), Status::CAPTURE_INVALIDATED);
    assert_eq!(cuStreamSynchronize(stream), Status::SUCCESS);
    drop(machine);
}

#[test]
fn a_second_stream_joins_a_capture_by_an_event_and_must_be_joined_again() {
    for joins in [true, false] {
        let machine = Machine::new();
        let add = machine.kernel(3, ADD);
        let (main, side) = (stream(), stream());
        let array = machine.upload(&[0u32; 32]);
        let [fork, join] = [(); 2].map(|()| get(|out| cuEventCreate(out, 2)));
        assert_eq!(cuStreamBeginCapture_v2(main, 0), Status::SUCCESS);
        cuEventRecord(fork, main);
        cuStreamWaitEvent(side, fork, 0);
        machine.launch_on(side, add, 1, 32, 0, &[Address(array), Address(array), U32(4)]);
        if joins {
            cuEventRecord(join, side);
            cuStreamWaitEvent(main, join, 0);
            let graph = get(|out| cuStreamEndCapture(main, out));
            let exec = get(|out| cuGraphInstantiateWithFlags(out, graph, 0));
            assert_eq!(cuGraphLaunch(exec, main), Status::SUCCESS);
            assert_eq!(machine.synchronise(), Status::SUCCESS);
            assert_eq!(machine.download::<u32>(array, 1), [4]);
        } else {
            let mut graph = std::mem::MaybeUninit::uninit();
            assert_eq!(cuStreamEndCapture(main, Some(&mut graph)), Status::CAPTURE_UNJOINED);
        }
    }
}
