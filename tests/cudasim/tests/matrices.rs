//! Matrix instructions from PTX text, and the products of cuBLAS, against plain loops.

mod support;

use std::ffi::c_void;

use half::{bf16, f16};
use sconce_cudasim::blas::*;
use sconce_cudasim::device::error::Status;
use sconce_cudasim::driver::*;
use support::Parameter::Address;
use support::{Machine, get};

/// A 16 × 16 by 16 × 8 product of halves by one warp: A and B come through shared memory by `ldmatrix`, A by `cp.async`.
const TILE: &str = "
    .shared .align 16 .b8 a[512]; .shared .align 16 .b8 b[256];
    mov.u32 %r0, a; mov.u32 %r1, b;
    shl.b32 %r2, %tid, 4; add.u32 %r3, %r0, %r2; cvt.u64.u32 %rd0, %r2; add.s64 %rd1, %a0, %rd0;
    cp.async.cg.shared.global [%r3], [%rd1], 16; cp.async.commit_group;
    setp.ge.u32 %p0, %tid, 16; @%p0 bra $loaded;
    add.u32 %r4, %r1, %r2; add.s64 %rd2, %a1, %rd0; ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%rd2];
    st.shared.v4.u32 [%r4], {%r10, %r11, %r12, %r13};
    $loaded: cp.async.wait_group 0; bar.sync 0;
    and.b32 %r5, %tid, 15; shl.b32 %r5, %r5, 5; shr.u32 %r6, %tid, 4; shl.b32 %r6, %r6, 4;
    add.u32 %r5, %r5, %r6; add.u32 %r5, %r0, %r5;
    ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r20, %r21, %r22, %r23}, [%r5];
    and.b32 %r7, %tid, 15; shl.b32 %r7, %r7, 4; add.u32 %r7, %r1, %r7;
    ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r24, %r25}, [%r7];
    mov.f32 %f0, 0f00000000;
    mma.sync.aligned.m16n8k16.row.col.f32.TYPE.TYPE.f32 {%f4, %f5, %f6, %f7}, {%r20, %r21, %r22, %r23}, {%r24, %r25},
        {%f0, %f0, %f0, %f0};
    shr.u32 %r30, %tid, 2; and.b32 %r31, %tid, 3; shl.b32 %r30, %r30, 5; shl.b32 %r31, %r31, 3;
    add.u32 %r30, %r30, %r31; cvt.u64.u32 %rd3, %r30; add.s64 %rd3, %a2, %rd3;
    st.global.v2.f32 [%rd3], {%f4, %f5}; st.global.v2.f32 [%rd3+256], {%f6, %f7};";

fn a(row: usize, k: usize) -> f32 {
    row as f32 - 0.5 * k as f32
}

fn b(k: usize, column: usize) -> f32 {
    0.25 * k as f32 + column as f32
}

fn product(row: usize, column: usize) -> f32 {
    (0..16).map(|k| a(row, k) * b(k, column)).sum()
}

fn tile<T: Copy>(ty: &str, element: impl Fn(f32) -> T) {
    let machine = Machine::new();
    let kernel = machine.kernel(3, &TILE.replace("TYPE", ty));
    let left: Vec<T> = (0..256).map(|index| element(a(index / 16, index % 16))).collect();
    let right: Vec<T> = (0..128).map(|index| element(b(index / 8, index % 8))).collect();
    let (left, right, out) = (machine.upload(&left), machine.upload(&right), machine.allocate(512));
    machine.runs(kernel, 1, 32, 0, &[Address(left), Address(right), Address(out)]);
    let expected: Vec<f32> = (0..128).map(|index| product(index / 8, index % 8)).collect();
    assert_eq!(machine.download::<f32>(out, 128), expected);
}

#[test]
fn a_tensor_core_product_through_shared_memory_equals_a_plain_loop() {
    tile("f16", f16::from_f32);
    tile("bf16", bf16::from_f32);
}

#[test]
fn a_matrix_instruction_needs_all_lanes() {
    let machine = Machine::new();
    let kernel = machine.kernel(
        0,
        "setp.lt.u32 %p0, %tid, 16; @%p0 bra $end; mov.b32 %r0, 0;
         mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%r1, %r2, %r3, %r4}, {%r0, %r0}, {%r0}, {%r0, %r0, %r0, %r0};
         $end: bar.sync 0;",
    );
    let fault = machine.fault_of(kernel, 1, 32, 0, &[]);
    assert!(fault.contains("wait for each other"), "{fault}");
}

/// Column-major matrices of `rows` × `columns`.
fn matrix(rows: usize, columns: usize, scale: f32) -> Vec<f32> {
    (0..rows * columns).map(|index| (index * 7 % 11) as f32 * scale - 1.0).collect()
}

struct Handle(u64);

impl Handle {
    fn new() -> Self {
        let mut handle = std::mem::MaybeUninit::uninit();
        assert_eq!(cublasCreate_v2(Some(&mut handle)), BlasStatus(0));
        // SAFETY: the call succeeded, so it has written the handle.
        Self(unsafe { handle.assume_init() })
    }
}

fn pointer<T>(value: &T) -> *const c_void {
    std::ptr::from_ref(value).cast()
}

#[test]
fn a_product_of_transposed_matrices_equals_a_plain_loop() {
    let (m, n, k) = (5usize, 3, 9);
    for (turn_a, turn_b) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let machine = Machine::new();
        let handle = Handle::new();
        let (left, right, old) = (matrix(m, k, 0.5), matrix(k, n, 0.25), matrix(m, n, 1.0));
        let (lda, ldb) = (if turn_a == 1 { k } else { m }, if turn_b == 1 { n } else { k });
        let (a, b, c) = (machine.upload(&left), machine.upload(&right), machine.upload(&old));
        let (alpha, beta) = (2f32, 0.5f32);
        let [m32, n32, k32, lda32, ldb32] = [m, n, k, lda, ldb].map(|extent| i32::try_from(extent).unwrap());
        let status = cublasSgemm_v2(
            handle.0,
            turn_a,
            turn_b,
            m32,
            n32,
            k32,
            pointer(&alpha),
            a,
            lda32,
            b,
            ldb32,
            pointer(&beta),
            c,
            m32,
        );
        assert_eq!(status, BlasStatus(0));
        let result = machine.download::<f32>(c, m * n);
        for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
            let sum: f32 = (0..k)
                .map(|depth| {
                    let a = if turn_a == 1 { left[row * lda + depth] } else { left[depth * lda + row] };
                    let b = if turn_b == 1 { right[depth * ldb + column] } else { right[column * ldb + depth] };
                    a * b
                })
                .sum();
            let expected = alpha * sum + beta * old[column * m + row];
            assert!((result[column * m + row] - expected).abs() < 1e-4, "{turn_a}{turn_b} {row} {column}");
        }
        assert_eq!(machine.counts().gemms, 1);
    }
}

#[test]
fn a_batch_of_half_products_is_rounded_once_each() {
    let machine = Machine::new();
    let handle = Handle::new();
    let halves = |scale| matrix(4, 8, scale).into_iter().map(f16::from_f32).collect::<Vec<_>>();
    let (left, right) = (halves(0.37), halves(0.11));
    let (a, b, c) = (machine.upload(&left), machine.upload(&right), machine.allocate(2 * 2 * 16));
    let (alpha, beta) = (1f32, 0f32);
    // Two products of 4 × 4 by 4 × 4: A and B each hold both matrices.
    let status = cublasGemmStridedBatchedEx(
        handle.0,
        0,
        0,
        4,
        4,
        4,
        pointer(&alpha),
        a,
        2,
        4,
        16,
        b,
        2,
        4,
        16,
        pointer(&beta),
        c,
        2,
        4,
        16,
        2,
        68,
        -1,
    );
    assert_eq!(status, BlasStatus(0));
    let result = machine.download::<f16>(c, 32);
    for (batch, row, column) in (0..32).map(|index| (index / 16, index % 4, index % 16 / 4)) {
        let sum: f64 =
            (0..4).map(|k| left[batch * 16 + k * 4 + row].to_f64() * right[batch * 16 + column * 4 + k].to_f64()).sum();
        assert_eq!(result[batch * 16 + column * 4 + row], f16::from_f32(sum as f32), "{batch} {row} {column}");
    }
}

#[test]
fn an_integer_product_is_exact_and_wants_aligned_rows() {
    let machine = Machine::new();
    let handle = Handle::new();
    let left: Vec<i8> = (0..32u8).map(|value| value.cast_signed() - 16).collect();
    let right: Vec<i8> = (0..32u8).map(|value| (value * 5).cast_signed()).collect();
    let (a, b, c) = (machine.upload(&left), machine.upload(&right), machine.allocate(4 * 16));
    let (alpha, beta) = (1i32, 0i32);
    let product = |lda| {
        cublasGemmEx(handle.0, 1, 0, 4, 4, 8, pointer(&alpha), a, 3, lda, b, 3, 8, pointer(&beta), c, 10, 4, 72, -1)
    };
    assert_eq!(product(9), BlasStatus(15));
    assert_eq!(product(8), BlasStatus(0));
    let result = machine.download::<i32>(c, 16);
    for (row, column) in (0..16).map(|index| (index % 4, index / 4)) {
        let expected: i32 = (0..8).map(|k| i32::from(left[row * 8 + k]) * i32::from(right[column * 8 + k])).sum();
        assert_eq!(result[column * 4 + row], expected);
    }
}

#[test]
fn a_product_beyond_an_allocation_is_a_fault() {
    let machine = Machine::new();
    let handle = Handle::new();
    let (a, c) = (machine.upload(&[1f32; 15]), machine.allocate(64));
    let (alpha, beta) = (1f32, 0f32);
    let (alpha, beta) = (pointer(&alpha), pointer(&beta));
    assert_eq!(cublasSgemm_v2(handle.0, 0, 0, 4, 4, 4, alpha, a, 4, a, 4, beta, c, 4), BlasStatus(0));
    assert_eq!(machine.synchronise(), Status::ILLEGAL_ADDRESS);
    assert!(machine.fault().contains("in a gemm 4 x 4 x 4"), "{}", machine.fault());
}

#[test]
fn a_product_waits_on_the_stream_of_its_handle() {
    let machine = Machine::with(|settings| settings.delay_seed = 0);
    let handle = Handle::new();
    let stream = get(|out| cuStreamCreate(out, 1));
    assert_eq!(cublasSetStream_v2(handle.0, stream), BlasStatus(0));
    let (a, c) = (machine.upload(&[1f32; 16]), machine.upload(&[0f32; 16]));
    let (alpha, beta) = (1f32, 0f32);
    let (alpha, beta) = (pointer(&alpha), pointer(&beta));
    assert_eq!(cublasSgemm_v2(handle.0, 0, 0, 4, 4, 4, alpha, a, 4, a, 4, beta, c, 4), BlasStatus(0));
    assert_eq!(machine.download::<f32>(c, 1), [0.0], "the legacy stream does not wait for this one");
    assert_eq!(cuStreamSynchronize(stream), Status::SUCCESS);
    assert_eq!(machine.download::<f32>(c, 1), [4.0]);
}
