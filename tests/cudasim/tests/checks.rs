//! Every check, with a planted fault and its corrected twin.

mod support;

use sconce_cudasim::device::error::Status;
use sconce_cudasim::driver::{cuCtxSynchronize, cuMemFree_v2};
use support::Machine;
use support::Parameter::Address;

/// Runs a kernel whose one parameter is an array of 64 written words; returns its fault.
fn fault(body: &str, threads: u32) -> Option<String> {
    let machine = Machine::new();
    let kernel = machine.kernel(1, body);
    let array = machine.upload(&[1u32; 64]);
    assert_eq!(machine.launch(kernel, 1, threads, 0, &[Address(array)]), Status::SUCCESS);
    (machine.synchronise() != Status::SUCCESS).then(|| machine.fault())
}

/// Checks that the first kernel has a fault that contains all of `names`, and that the second has none.
fn planted(threads: u32, wrong: &str, right: &str, names: &[&str]) {
    let told = fault(wrong, threads).expect("the fault is noticed");
    for name in names.iter().chain(&["kernel `test`"]) {
        assert!(told.contains(name), "`{name}` is missing: {told}");
    }
    assert_eq!(fault(right, threads), None);
}

const ELEMENT: &str = "mul.wide.u32 %rd0, %tid, 4; add.s64 %rd0, %a0, %rd0;";

#[test]
fn a_write_behind_an_allocation_is_named_with_instruction_block_and_warp() {
    planted(
        64,
        &format!("{ELEMENT} st.global.u32 [%rd0+4], %tid;"),
        &format!("{ELEMENT} st.global.u32 [%rd0], %tid;"),
        &["out of bounds", "st.global.u32 [%rd0+4], %tid", "block (0, 0, 0)", "warp 1"],
    );
}

#[test]
fn a_read_before_an_allocation_is_out_of_bounds() {
    planted(
        1,
        "ld.global.u32 %r0, [%a0+-4];",
        "ld.global.u32 %r0, [%a0];",
        &["out of bounds", "4 bytes before an allocation of 256 bytes"],
    );
}

#[test]
fn memory_that_was_freed_is_named_as_such() {
    for frees in [true, false] {
        let machine = Machine::new();
        let kernel = machine.kernel(1, "ld.global.u32 %r0, [%a0];");
        let array = machine.upload(&[1u32; 64]);
        if frees {
            assert_eq!(cuMemFree_v2(array), Status::SUCCESS);
        }
        assert_eq!(machine.launch(kernel, 1, 1, 0, &[Address(array)]), Status::SUCCESS);
        if frees {
            assert_eq!(machine.synchronise(), Status::ILLEGAL_ADDRESS);
            assert!(machine.fault().contains("use after free"), "{}", machine.fault());
        } else {
            assert_eq!(machine.synchronise(), Status::SUCCESS);
        }
    }
}

#[test]
fn a_fault_sticks_until_the_machine_is_restored() {
    let machine = Machine::new();
    let wrong = machine.kernel(1, "st.global.u32 [%a0], %tid;");
    machine.fault_of(wrong, 1, 1, 0, &[Address(64)]);
    assert_eq!(cuCtxSynchronize(), Status::ILLEGAL_ADDRESS);
    assert_eq!(cuMemFree_v2(0), Status::ILLEGAL_ADDRESS);
    sconce_cudasim::control::cudasim_restore();
    assert_eq!(cuCtxSynchronize(), Status::SUCCESS);
}

#[test]
fn an_address_that_is_no_multiple_of_the_access_is_misaligned() {
    planted(
        1,
        "ld.global.v2.u32 {%r0, %r1}, [%a0+4];",
        "ld.global.v2.u32 {%r0, %r1}, [%a0+8];",
        &["misaligned", "8 bytes"],
    );
}

#[test]
fn a_read_of_global_memory_that_nothing_wrote_is_noticed() {
    for writes in [false, true] {
        let machine = Machine::new();
        let kernel = machine.kernel(1, "ld.global.u32 %r0, [%a0+8];");
        let array = machine.allocate(64);
        if writes {
            assert_eq!(sconce_cudasim::driver::cuMemsetD8_v2(array, 0, 64), Status::SUCCESS);
            machine.runs(kernel, 1, 1, 0, &[Address(array)]);
        } else {
            let told = machine.fault_of(kernel, 1, 1, 0, &[Address(array)]);
            assert!(told.contains("uninitialised read: 4 bytes") && told.contains("global"), "{told}");
        }
    }
}

#[test]
fn a_read_of_shared_memory_that_nothing_wrote_is_noticed() {
    planted(
        32,
        ".shared .align 4 .b8 tile[128]; mov.u32 %r0, tile; ld.shared.u32 %r1, [%r0];",
        ".shared .align 4 .b8 tile[128]; mov.u32 %r0, tile; setp.eq.u32 %p0, %tid, 0;
         @%p0 st.shared.u32 [%r0], %tid; bar.sync 0; ld.shared.u32 %r1, [%r0];",
        &["uninitialised read", "shared"],
    );
}

#[test]
fn shared_memory_ends_where_the_block_s_does() {
    planted(
        1,
        ".shared .align 4 .b8 tile[128]; mov.u32 %r0, tile; st.shared.u32 [%r0+128], %tid;",
        ".shared .align 4 .b8 tile[128]; mov.u32 %r0, tile; st.shared.u32 [%r0+124], %tid;",
        &["out of bounds", "shared", "128 bytes"],
    );
}

/// Each thread writes its element and reads its neighbour's in the other warp; `between` may order the two.
fn exchange(between: &str) -> String {
    format!(
        ".shared .align 4 .b8 tile[256]; mov.u32 %r0, tile; shl.b32 %r1, %tid, 2; add.u32 %r1, %r0, %r1;
         st.shared.u32 [%r1], %tid; {between}
         xor.b32 %r2, %tid, 32; shl.b32 %r2, %r2, 2; add.u32 %r2, %r0, %r2; ld.shared.u32 %r3, [%r2];"
    )
}

#[test]
fn a_missing_barrier_between_warps_shows() {
    let told = fault(&exchange(""), 64).expect("the missing barrier is noticed");
    assert!(told.contains("uninitialised") || told.contains("race"), "{told}");
    assert_eq!(fault(&exchange("bar.sync 0;"), 64), None);
}

#[test]
fn a_write_that_overtakes_a_read_is_a_race() {
    // The second warp writes where the first has read.
    let reuse = |between: &str| {
        format!("{} setp.ge.u32 %p0, %tid, 32; {between} @%p0 st.shared.u32 [%r1], 5;", exchange("bar.sync 0;"))
    };
    planted(64, &reuse(""), &reuse("bar.sync 0;"), &["race on shared memory", "a read by thread", "then a write"]);
}

#[test]
fn two_values_for_one_place_are_a_race_and_one_value_is_none() {
    planted(
        32,
        ".shared .align 4 .b8 tile[4]; mov.u32 %r0, tile; st.shared.u32 [%r0], %tid;",
        ".shared .align 4 .b8 tile[4]; mov.u32 %r0, tile; st.shared.u32 [%r0], 7;",
        &["race on shared memory", "a write by thread 0, then a write by thread 1"],
    );
}

#[test]
fn lanes_of_a_warp_need_a_warp_barrier_to_exchange_values() {
    let exchange = |between: &str| {
        format!(
            ".shared .align 4 .b8 tile[128]; mov.u32 %r0, tile; shl.b32 %r1, %tid, 2; add.u32 %r1, %r0, %r1;
             st.shared.u32 [%r1], %tid; {between}
             xor.b32 %r2, %tid, 1; shl.b32 %r2, %r2, 2; add.u32 %r2, %r0, %r2; ld.shared.u32 %r3, [%r2];"
        )
    };
    planted(32, &exchange(""), &exchange("bar.warp.sync -1;"), &["race on shared memory"]);
}

#[test]
fn atomics_on_shared_memory_do_not_race() {
    let count = ".shared .align 4 .b8 sum[4]; mov.u32 %r0, sum; setp.eq.u32 %p0, %tid, 0;
         @%p0 st.shared.u32 [%r0], 0; bar.sync 0; atom.shared.add.u32 %r1, [%r0], 1; bar.sync 0;
         ld.shared.u32 %r2, [%r0]; st.global.u32 [%a0], %r2;";
    assert_eq!(fault(count, 64), None);
    let plain = count.replace(
        "atom.shared.add.u32 %r1, [%r0], 1;",
        "ld.shared.u32 %r1, [%r0]; add.u32 %r1, %r1, 1; st.shared.u32 [%r0], %r1;",
    );
    assert!(fault(&plain, 64).is_some_and(|told| told.contains("race")));
}

#[test]
fn lanes_that_skip_a_barrier_diverge() {
    planted(
        32,
        "setp.lt.u32 %p0, %tid, 16; @%p0 bra $skip; bar.sync 0; $skip: st.global.u32 [%a0], 1;",
        "setp.lt.u32 %p0, %tid, 16; @%p0 bra $skip; add.u32 %r0, %tid, 1; $skip: bar.sync 0; st.global.u32 [%a0], 1;",
        &["barrier divergence"],
    );
}

#[test]
fn a_warp_that_ends_without_the_barrier_of_the_others_diverges() {
    planted(
        64,
        "setp.lt.u32 %p0, %tid, 32; @%p0 bra $skip; bar.sync 0; $skip:",
        "bar.sync 0;",
        &["barrier divergence", "32 threads"],
    );
}

#[test]
fn warps_at_two_different_barriers_diverge() {
    planted(
        64,
        "setp.lt.u32 %p0, %tid, 32; @%p0 bra $other; bar.sync 0; bra.uni $end; $other: bar.sync 0; $end:",
        "setp.lt.u32 %p0, %tid, 32; @%p0 bra $other; $other: bar.sync 0;",
        &["barrier divergence"],
    );
}

#[test]
fn a_barrier_for_more_threads_than_come_is_a_deadlock() {
    planted(64, "bar.sync 1, 96;", "bar.sync 1, 64;", &["deadlock", "barrier 1 for 96 threads"]);
}

#[test]
fn warps_that_wait_at_barriers_of_different_numbers_are_a_deadlock() {
    planted(
        64,
        "setp.lt.u32 %p0, %tid, 32; @%p0 bra $other; bar.sync 1, 64; bra.uni $end; $other: bar.sync 2, 64; $end:",
        "bar.sync 1, 64; bar.sync 2, 64;",
        &["deadlock"],
    );
}

#[test]
fn a_shuffle_that_waits_for_lanes_at_a_barrier_never_ends() {
    planted(
        32,
        "setp.lt.u32 %p0, %tid, 16; @%p0 bra $low; shfl.sync.idx.b32 %r1, %tid, 0, 31, -1; bra.uni $end;
         $low: bar.sync 0; $end:",
        "shfl.sync.idx.b32 %r1, %tid, 0, 31, -1; bar.sync 0;",
        &["lanes of warp 0 wait for each other"],
    );
}

#[test]
fn a_collective_instruction_outside_of_its_mask_is_named() {
    planted(
        32,
        "shfl.sync.idx.b32 %r1, %tid, 0, 31, 0xffff;",
        "setp.ge.u32 %p0, %tid, 16; @%p0 bra $end; shfl.sync.idx.b32 %r1, %tid, 0, 31, 0xffff; $end:",
        &["lane 16", "0x0000ffff"],
    );
}

/// Each thread copies 16 bytes, runs `wait`, and then reads its own bytes.
fn copy(wait: &str) -> String {
    format!(
        ".shared .align 16 .b8 tile[256]; mov.u32 %r0, tile; shl.b32 %r1, %tid, 4; add.u32 %r1, %r0, %r1;
         mul.wide.u32 %rd0, %tid, 16; add.s64 %rd0, %a0, %rd0;
         cp.async.cg.shared.global [%r1], [%rd0], 16; cp.async.commit_group; {wait}
         ld.shared.u32 %r2, [%r1]; st.global.u32 [%rd0], %r2;"
    )
}

#[test]
fn a_copy_that_is_not_waited_for_is_noticed() {
    planted(16, &copy(""), &copy("cp.async.wait_group 0;"), &["before the `cp.async` into it was waited for"]);
    planted(16, &copy("cp.async.wait_group 1;"), &copy("cp.async.wait_all;"), &["cp.async"]);
}

#[test]
fn a_copy_of_another_warp_needs_a_barrier_after_the_wait() {
    let other = |between: &str| {
        format!(
            ".shared .align 16 .b8 tile[256]; mov.u32 %r0, tile; setp.ge.u32 %p0, %tid, 16; @%p0 bra $read;
             shl.b32 %r1, %tid, 4; add.u32 %r1, %r0, %r1; mul.wide.u32 %rd0, %tid, 16; add.s64 %rd0, %a0, %rd0;
             cp.async.ca.shared.global [%r1], [%rd0], 16; cp.async.wait_all;
             $read: {between} setp.lt.u32 %p0, %tid, 32; @%p0 bra $end; ld.shared.u32 %r2, [%r0]; $end:"
        )
    };
    planted(64, &other(""), &other("bar.sync 0;"), &["race on shared memory"]);
}

#[test]
fn an_endless_loop_is_given_up() {
    let machine = Machine::with(|settings| settings.max_instructions = 10_000);
    let kernel = machine.kernel(0, "$again: bra.uni $again;");
    assert_eq!(machine.launch(kernel, 1, 32, 0, &[]), Status::SUCCESS);
    assert_eq!(machine.synchronise(), Status::LAUNCH_TIMEOUT);
    assert!(machine.fault().contains("10000 warp instructions"));
}

#[test]
fn a_lock_that_another_lane_holds_is_released_to_the_waiting_one() {
    // Lanes of one warp take a lock in turn: the holder must get to release it.
    let machine = Machine::new();
    let kernel = machine.kernel(
        1,
        "$again: atom.global.cas.b32 %r0, [%a0], 0, 1; setp.ne.u32 %p0, %r0, 0; @%p0 bra $again;
         ld.global.u32 %r1, [%a0+4]; add.u32 %r1, %r1, 1; st.global.u32 [%a0+4], %r1;
         atom.global.exch.b32 %r2, [%a0], 0;",
    );
    let lock = machine.upload(&[0u32, 0]);
    machine.runs(kernel, 1, 64, 0, &[Address(lock)]);
    assert_eq!(machine.download::<u32>(lock, 2), [0, 64]);
}

#[test]
fn a_failed_assertion_stops_the_kernel() {
    let told = fault("setp.eq.u32 %p0, %tid, 3; @%p0 trap;", 32).expect("the trap is noticed");
    assert!(told.contains("trap"), "{told}");
}

#[test]
fn checks_can_be_switched_off() {
    let machine = Machine::with(|settings| {
        settings.check_races = false;
        settings.check_uninitialised = false;
    });
    let kernel = machine.kernel(0, &exchange(""));
    machine.runs(kernel, 1, 64, 0, &[]);
}
