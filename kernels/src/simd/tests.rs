#![expect(clippy::float_cmp, reason = "small whole numbers are exact")]

use super::math::exp;
use super::{Isa, Kernel, Simd, Unary, map};

#[derive(Clone, Copy)]
struct Exp;

impl Unary for Exp {
    #[inline(always)]
    fn of<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        exp(simd, x)
    }
}

struct MapExp<'a>(&'a mut [f32]);

impl Kernel for MapExp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        map(simd, self.0, Exp);
    }
}

#[test]
fn exp_keeps_its_stated_error_and_its_limits() {
    let grid: Vec<f32> = (-870_000..=880_000).map(|step: i32| step as f32 * 1e-4).collect();
    for isa in Isa::available() {
        let mut got = grid.clone();
        isa.run(MapExp(&mut got));
        let error = |(x, y): (&f32, &f32)| (f64::from(*y) / f64::from(*x).exp() - 1.0).abs();
        let worst = grid.iter().zip(&got).map(error).fold(0.0, f64::max);
        assert!(worst <= 3e-7, "{isa}: {worst:.2e}");

        let mut limits = [f32::NEG_INFINITY, -1000.0, 0.0, f32::NAN, f32::INFINITY];
        isa.run(MapExp(&mut limits));
        assert!(limits[0] < 2e-38 && limits[1] < 2e-38, "{isa}: {limits:?}");
        assert!(
            limits[2].to_bits() == 1.0_f32.to_bits() && limits[3].is_nan() && limits[4] > 1e38,
            "{isa}: {limits:?}"
        );
    }
}

/// Checks sums, the largest lane, conversions of bytes and partial loads and stores of one vector.
struct Lanes;

impl Kernel for Lanes {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let numbers: Vec<f32> = (0..S::LANES).map(|lane| lane as f32 - 3.0).collect();
        let vector = simd.load(&numbers);
        assert_eq!((simd.sum(vector), simd.max_lane(vector)), (numbers.iter().sum(), S::LANES as f32 - 4.0));
        let bytes: Vec<i8> = (-3..).take(S::LANES).collect();
        let mut back = vec![9.0; S::LANES];
        simd.store(simd.load_i8(&bytes), &mut back);
        assert_eq!(back, numbers);

        let mut stored = vec![7; S::LANES];
        simd.store_u8(simd.round(simd.add(vector, simd.splat(3.4))), &mut stored);
        assert!(stored.iter().enumerate().all(|(lane, byte)| usize::from(*byte) == lane), "{stored:?}");

        for count in 0..=S::LANES {
            let mut part = vec![f32::NAN; count];
            simd.store_partial(simd.load_partial(&numbers[..count]), &mut part);
            assert_eq!(part, numbers[..count]);
            assert_eq!(simd.sum(simd.load_partial(&numbers[..count])), part.iter().sum::<f32>());
        }
        extreme_dots(simd);
        nan_order(simd);
    }
}

/// The largest products of bytes are summed without saturation.
#[inline(always)]
fn extreme_dots<S: Simd>(simd: S) {
    for weight in [127_i8, -127] {
        let four = i32::from_ne_bytes([S::MAX_U8; 4]);
        let weights = i32::from_ne_bytes([weight.cast_unsigned(); 4]);
        let dots = simd.dot(simd.splat_i32(5), simd.splat_i32(four), simd.splat_i32(weights));
        let exact = 5 + 4 * i32::from(S::MAX_U8) * i32::from(weight);
        assert_eq!(simd.sum(simd.to_f32(dots)), S::LANES as f32 * exact as f32);
    }
}

#[inline(always)]
fn nan_order<S: Simd>(simd: S) {
    let (nan, one) = (simd.splat(f32::NAN), simd.splat(1.0));
    assert!(simd.sum(simd.max(one, nan)).is_nan() && simd.sum(simd.min(one, nan)).is_nan());
    assert_eq!(simd.sum(simd.max(nan, one)), S::LANES as f32);
    assert_eq!(simd.sum(simd.min(nan, one)), S::LANES as f32);
}

#[test]
fn lanes_behave_alike_on_every_instruction_set() {
    for isa in Isa::available() {
        isa.run(Lanes);
    }
}

#[test]
fn the_portable_set_comes_last_and_the_best_first() {
    assert_eq!(Isa::available().last().map(|isa| isa.name()), Some("portable"));
    assert_eq!(Isa::available().first(), Some(&Isa::best()));
}
