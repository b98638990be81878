//! Small kernels from text to result, over the entry points that a program calls.

mod support;

use sconce_cudasim::device::error::Status;
use support::{Machine, Parameter::Address};

/// `%rd0` becomes the address of element `%gid` of the array at `%a0`, four bytes wide.
const ELEMENT: &str = "mul.wide.u32 %rd0, %gid, 4; add.s64 %rd0, %a0, %rd0;";

#[test]
fn every_thread_of_a_grid_writes_its_own_element() {
    let machine = Machine::new();
    let kernel = machine.kernel(1, &format!("{ELEMENT} st.global.u32 [%rd0], %gid;"));
    let out = machine.allocate(4 * 96);
    machine.runs(kernel, 3, 32, 0, &[Address(out)]);
    assert_eq!(machine.download::<u32>(out, 96), (0..96).collect::<Vec<_>>());
}

#[test]
fn divergent_lanes_take_both_sides_and_meet_again() {
    let machine = Machine::new();
    let kernel = machine.kernel(
        1,
        &format!(
            "{ELEMENT} and.b32 %r0, %gid, 1; setp.eq.u32 %p0, %r0, 0; @%p0 bra $even;
             mov.u32 %r1, 100; bra.uni $join;
             $even: mov.u32 %r1, 200;
             $join: activemask.b32 %r2; popc.b32 %r2, %r2; add.u32 %r1, %r1, %r2; st.global.u32 [%rd0], %r1;"
        ),
    );
    let out = machine.allocate(4 * 32);
    machine.runs(kernel, 1, 32, 0, &[Address(out)]);
    let expected: Vec<u32> = (0..32).map(|lane| if lane % 2 == 0 { 232 } else { 132 }).collect();
    assert_eq!(machine.download::<u32>(out, 32), expected);
}

#[test]
fn a_loop_runs_as_often_as_each_lane_asks() {
    let machine = Machine::new();
    let kernel = machine.kernel(
        1,
        &format!(
            "{ELEMENT} mov.u32 %r0, 0; mov.u32 %r1, 0;
             $again: setp.ge.u32 %p0, %r0, %gid; @%p0 bra $done;
             add.u32 %r1, %r1, 3; add.u32 %r0, %r0, 1; bra.uni $again;
             $done: st.global.u32 [%rd0], %r1;"
        ),
    );
    let out = machine.allocate(4 * 64);
    machine.runs(kernel, 1, 64, 0, &[Address(out)]);
    assert_eq!(machine.download::<u32>(out, 64), (0..64).map(|thread| 3 * thread).collect::<Vec<_>>());
}

#[test]
fn a_block_exchanges_values_through_shared_memory() {
    let machine = Machine::new();
    let kernel = machine.kernel(
        1,
        &format!(
            ".shared .align 4 .b8 tile[512];
             mov.u32 %r0, tile; shl.b32 %r1, %tid, 2; add.u32 %r1, %r0, %r1; st.shared.u32 [%r1], %tid;
             bar.sync 0;
             sub.u32 %r2, 127, %tid; shl.b32 %r2, %r2, 2; add.u32 %r2, %r0, %r2; ld.shared.u32 %r3, [%r2];
             {ELEMENT} st.global.u32 [%rd0], %r3;"
        ),
    );
    let out = machine.allocate(4 * 128);
    machine.runs(kernel, 1, 128, 0, &[Address(out)]);
    assert_eq!(machine.download::<u32>(out, 128), (0..128).rev().collect::<Vec<_>>());
}

#[test]
fn a_warp_sums_with_shuffles_and_votes() {
    let machine = Machine::new();
    let kernel = machine.kernel(
        1,
        &format!(
            "mov.u32 %r0, %tid;
             shfl.sync.bfly.b32 %r1, %r0, 16, 31, -1; add.u32 %r0, %r0, %r1;
             shfl.sync.bfly.b32 %r1, %r0, 8, 31, -1; add.u32 %r0, %r0, %r1;
             shfl.sync.bfly.b32 %r1, %r0, 4, 31, -1; add.u32 %r0, %r0, %r1;
             shfl.sync.bfly.b32 %r1, %r0, 2, 31, -1; add.u32 %r0, %r0, %r1;
             shfl.sync.bfly.b32 %r1, %r0, 1, 31, -1; add.u32 %r0, %r0, %r1;
             setp.lt.u32 %p0, %tid, 3; vote.sync.ballot.b32 %r2, %p0, -1;
             add.u32 %r0, %r0, %r2; {ELEMENT} st.global.u32 [%rd0], %r0;"
        ),
    );
    let out = machine.allocate(4 * 32);
    machine.runs(kernel, 1, 32, 0, &[Address(out)]);
    assert_eq!(machine.download::<u32>(out, 32), vec![496 + 7; 32]);
}

#[test]
fn atomics_of_many_threads_all_count() {
    let machine = Machine::new();
    let kernel = machine.kernel(1, "atom.global.add.u32 %r0, [%a0], 2; red.global.max.u32 [%a0+4], %gid;");
    let out = machine.upload(&[0u32, 0]);
    machine.runs(kernel, 4, 96, 0, &[Address(out)]);
    assert_eq!(machine.download::<u32>(out, 2), [2 * 4 * 96, 4 * 96 - 1]);
}

#[test]
fn a_device_function_is_called_with_its_parameters() {
    let machine = Machine::new();
    let text = support::kernel_text(
        80,
        1,
        &format!(
            "{{ .param .b32 in; .param .b32 out; st.param.b32 [in], %gid; call.uni (out), square, (in);
             ld.param.b32 %r1, [out]; }} {ELEMENT} st.global.u32 [%rd0], %r1;"
        ),
    );
    let function = ".func (.param .b32 result) square(.param .b32 value)
        { .reg .b32 %r<3>; .reg .pred %p; ld.param.u32 %r1, [value]; setp.gt.u32 %p, %r1, 20; @%p bra $large;
          mul.lo.u32 %r2, %r1, %r1; st.param.b32 [result], %r2; ret;
          $large: st.param.b32 [result], 7; ret; }";
    let text = text.replace(".visible", &format!("{function}\n.visible"));
    let kernel = machine.function(&text, "test");
    let out = machine.allocate(4 * 32);
    machine.runs(kernel, 1, 32, 0, &[Address(out)]);
    let expected: Vec<u32> = (0..32).map(|value| if value > 20 { 7 } else { value * value }).collect();
    assert_eq!(machine.download::<u32>(out, 32), expected);
}

#[test]
fn vectors_of_four_are_loaded_and_stored() {
    let machine = Machine::new();
    let kernel = machine.kernel(
        2,
        "mul.wide.u32 %rd0, %tid, 16; add.s64 %rd1, %a0, %rd0; add.s64 %rd2, %a1, %rd0;
         ld.global.nc.v4.f32 {%f0, %f1, %f2, %f3}, [%rd1]; st.global.v4.f32 [%rd2], {%f3, %f2, %f1, %f0};",
    );
    let values: Vec<f32> = (0..128u16).map(f32::from).collect();
    let (from, to) = (machine.upload(&values), machine.allocate(512));
    machine.runs(kernel, 1, 32, 0, &[Address(from), Address(to)]);
    let expected: Vec<f32> = values.chunks(4).flat_map(|four| four.iter().rev().copied()).collect();
    assert_eq!(machine.download::<f32>(to, 128), expected);
}

#[test]
fn an_indexed_branch_reaches_each_of_its_targets() {
    let machine = Machine::new();
    let kernel = machine.kernel(
        1,
        &format!(
            "{ELEMENT} rem.u32 %r0, %gid, 3; brx.idx %r0, $table;
             $table: .branchtargets $zero, $one, $two;
             $zero: mov.u32 %r1, 10; bra.uni $end;
             $one: mov.u32 %r1, 11; bra.uni $end;
             $two: mov.u32 %r1, 12;
             $end: st.global.u32 [%rd0], %r1;"
        )
        .replace(
            "brx.idx %r0, $table;\n             $table: .branchtargets $zero, $one, $two;",
            "$table: .branchtargets $zero, $one, $two; brx.idx %r0, $table;",
        ),
    );
    let out = machine.allocate(4 * 32);
    machine.runs(kernel, 1, 32, 0, &[Address(out)]);
    assert_eq!(machine.download::<u32>(out, 32), (0..32).map(|value| 10 + value % 3).collect::<Vec<_>>());
}

#[test]
fn variables_of_a_module_start_with_their_values() {
    let machine = Machine::new();
    let text = support::kernel_text(
        80,
        1,
        &format!(
            "mov.u64 %rd1, table; mul.wide.u32 %rd2, %tid, 4; add.s64 %rd1, %rd1, %rd2; ld.const.u32 %r0, [%rd1];
             {ELEMENT} st.global.u32 [%rd0], %r0;"
        ),
    );
    let text = text.replace(".visible", ".const .align 4 .u32 table[4] = {3, 1, 4, 1};\n.visible");
    let kernel = machine.function(&text, "test");
    let out = machine.allocate(16);
    machine.runs(kernel, 1, 4, 0, &[Address(out)]);
    assert_eq!(machine.download::<u32>(out, 4), [3, 1, 4, 1]);
}

#[test]
fn an_unknown_instruction_is_named_with_its_kernel() {
    let machine = Machine::new();
    let text = std::ffi::CString::new(support::kernel_text(80, 0, "frobnicate.u32 %r0, %r1;")).unwrap();
    let module = support::get(|out| sconce_cudasim::driver::cuModuleLoadData(out, text.as_ptr()));
    let mut function = std::mem::MaybeUninit::uninit();
    let status = sconce_cudasim::driver::cuModuleGetFunction(Some(&mut function), module, c"test".as_ptr());
    assert_eq!(status, Status::INVALID_PTX);
    let fault = machine.fault();
    assert!(fault.contains("`test`") && fault.contains("frobnicate.u32 %r0, %r1"), "{fault}");
}

#[test]
fn ptx_for_a_newer_card_is_refused() {
    let machine = Machine::with(|settings| settings.compute_capability = 75);
    let text = std::ffi::CString::new(support::kernel_text(80, 0, "")).unwrap();
    let mut module = std::mem::MaybeUninit::uninit();
    let status = sconce_cudasim::driver::cuModuleLoadData(Some(&mut module), text.as_ptr());
    assert_eq!(status, Status::NO_BINARY);
    drop(machine);
}
