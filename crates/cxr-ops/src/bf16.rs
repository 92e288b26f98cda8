//! Products of bf16 numbers, summed in single precision.
//!
//! A bf16 is the upper half of an `f32`: its exponent, and seven bits of its fraction. Two of them fit in the
//! place of one, and processors with AVX512-BF16 multiply and add up both at once: twice the
//! rate of single precision. Without that instruction the same sums are made of shifts and single multiply-adds,
//! at single precision's rate.

use std::cell::Cell;

use crate::simd::Vectors;

/// The numbers that the products of a training step are made of.
///
/// It says nothing about parameters, statistics, sums and losses, which are always single. On the CPU only the dense
/// layers of [`grouped`](crate::grouped) look at it, in training, for those of their convolutions in which
/// it pays; every other operation is single. On a CUDA device it is what a DenseNet's activations are, in
/// evaluation too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// `f32`.
    #[default]
    Single,
    /// The factors of a product are rounded to bf16, to nearest, ties to even.
    Bf16,
}

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::Single) };
}

impl Precision {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Single, Self::Bf16];

    /// What operations called on this thread use: single, unless [`Self::scope`] says otherwise.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Calls `f`; operations that it calls on this thread use this precision, in their backward pass
    /// too, wherever that is called.
    ///
    /// ```
    /// use cxr_ops::Precision;
    ///
    /// Precision::Bf16.scope(|| assert_eq!(Precision::current(), Precision::Bf16));
    /// assert_eq!(Precision::current(), Precision::Single);
    /// ```
    pub fn scope<T>(self, f: impl FnOnce() -> T) -> T {
        struct Restore(Precision);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(self));
        f()
    }

    /// `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether this processor multiplies such numbers faster than single ones.
    pub fn is_fast(self) -> bool {
        match self {
            Self::Single => false,
            Self::Bf16 => has_instruction(),
        }
    }
}

/// The bits of each value with those of its bf16 in the upper half; the lower half is of no meaning. A NaN
/// stays one.
#[inline(always)]
fn rounded<S: Vectors>(simd: S, values: S::f32s) -> S::u32s {
    let bits = simd.transmute_u32s_f32s(values);
    let last = simd.and_u32s(
        simd.wrapping_dyn_shr_u32s(bits, simd.splat_u32s(16)),
        simd.splat_u32s(1),
    );
    let rounded = simd.add_u32s(bits, simd.add_u32s(simd.splat_u32s(0x7fff), last));
    // Sets a bit of the fraction: its upper half alone may have none.
    let nan = simd.or_u32s(bits, simd.splat_u32s(0x0040_0000));
    simd.select_u32s(simd.equal_f32s(values, values), rounded, nan)
}

/// A way to add up products of pairs on the vectors of an instruction set.
pub(crate) trait PairProducts: Copy {
    type Vectors: Vectors;

    fn vectors(self) -> Self::Vectors;

    /// As [`Vectors::within`].
    fn within<T>(self, f: impl FnOnce() -> T) -> T;

    /// Rounds: lane by lane, `low` goes to the lower half. The native instruction takes numbers below the
    /// least normal one (1.2e-38) for 0.
    fn pair(self, low: F32s<Self>, high: F32s<Self>) -> U32s<Self>;

    /// `sum + a.low·b.low + a.high·b.high`, lane by lane.
    fn add(self, a: U32s<Self>, b: U32s<Self>, sum: F32s<Self>) -> F32s<Self>;
}

pub(crate) type U32s<P> = <<P as PairProducts>::Vectors as pulp::Simd>::u32s;
pub(crate) type F32s<P> = <<P as PairProducts>::Vectors as pulp::Simd>::f32s;

/// Work for a [`PairProducts`].
pub(crate) trait PairKernel {
    fn run<P: PairProducts>(self, products: P);
}

/// By shifts and single multiply-adds, on any vectors.
#[derive(Clone, Copy)]
pub(crate) struct Emulated<S>(pub(crate) S);

impl<S: Vectors> PairProducts for Emulated<S> {
    type Vectors = S;

    #[inline(always)]
    fn vectors(self) -> S {
        self.0
    }

    #[inline(always)]
    fn within<T>(self, f: impl FnOnce() -> T) -> T {
        self.0.within(f)
    }

    #[inline(always)]
    fn pair(self, low: S::f32s, high: S::f32s) -> S::u32s {
        let simd = self.0;
        let half = simd.splat_u32s(16);
        let low = simd.wrapping_dyn_shr_u32s(rounded(simd, low), half);
        let upper = simd.splat_u32s(0xffff_0000);
        simd.or_u32s(low, simd.and_u32s(rounded(simd, high), upper))
    }

    #[inline(always)]
    fn add(self, a: S::u32s, b: S::u32s, sum: S::f32s) -> S::f32s {
        let simd = self.0;
        let (half, upper) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
        let low_a = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(a, half));
        let low_b = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(b, half));
        let high_a = simd.transmute_f32s_u32s(simd.and_u32s(a, upper));
        let high_b = simd.transmute_f32s_u32s(simd.and_u32s(b, upper));
        simd.mul_add_e_f32s(high_a, high_b, simd.mul_add_e_f32s(low_a, low_b, sum))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use native::Native;

#[cfg(target_arch = "x86_64")]
fn has_instruction() -> bool {
    Native::is_available()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_instruction() -> bool {
    false
}

/// By the instruction made for it.
#[cfg(target_arch = "x86_64")]
mod native {
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_permutexvar_epi16,
    };

    use pulp::x86::V4;
    use pulp::{f32x16, u32x16};

    use super::PairProducts;

    pulp::simd_type!({
        /// Proof that the processor has what `V4` needs, and AVX512-BF16.
        pub(crate) struct WithBf16 {
            pub(crate) sse: f!("sse"),
            pub(crate) sse2: f!("sse2"),
            pub(crate) fxsr: f!("fxsr"),
            pub(crate) sse3: f!("sse3"),
            pub(crate) ssse3: f!("ssse3"),
            pub(crate) sse4_1: f!("sse4.1"),
            pub(crate) sse4_2: f!("sse4.2"),
            pub(crate) popcnt: f!("popcnt"),
            pub(crate) avx: f!("avx"),
            pub(crate) avx2: f!("avx2"),
            pub(crate) bmi1: f!("bmi1"),
            pub(crate) bmi2: f!("bmi2"),
            pub(crate) fma: f!("fma"),
            pub(crate) lzcnt: f!("lzcnt"),
            pub(crate) avx512f: f!("avx512f"),
            pub(crate) avx512bw: f!("avx512bw"),
            pub(crate) avx512cd: f!("avx512cd"),
            pub(crate) avx512dq: f!("avx512dq"),
            pub(crate) avx512vl: f!("avx512vl"),
            pub(crate) avx512bf16: f!("avx512bf16"),
        }
    });

    #[derive(Clone, Copy)]
    pub(crate) struct Native {
        vectors: V4,
        proof: WithBf16,
    }

    impl Native {
        pub(crate) fn is_available() -> bool {
            Self::try_new().is_some()
        }

        pub(crate) fn try_new() -> Option<Self> {
            Some(Self {
                vectors: V4::try_new()?,
                proof: WithBf16::try_new()?,
            })
        }
    }

    /// Where a vector of 16 low and then 16 high halves has those of each lane.
    const INTERLEAVED: [u16; 32] = {
        let mut from = [0; 32];
        let mut lane = 0;
        while lane < 16 {
            from[2 * lane as usize] = lane;
            from[2 * lane as usize + 1] = 16 + lane;
            lane += 1;
        }
        from
    };

    impl PairProducts for Native {
        type Vectors = V4;

        #[inline(always)]
        fn vectors(self) -> V4 {
            self.vectors
        }

        #[inline(always)]
        fn within<T>(self, f: impl FnOnce() -> T) -> T {
            self.proof.vectorize(f)
        }

        #[inline(always)]
        fn pair(self, low: f32x16, high: f32x16) -> u32x16 {
            // SAFETY: all vectors are 64 bytes of which every value is valid, and `self` exists only on
            // processors with both instructions. The gain: 2 instead of 15 operations for every
            // pair, a fiftieth of a training step (docs/performance.md).
            unsafe {
                let (low, high) = (
                    std::mem::transmute::<f32x16, __m512>(low),
                    std::mem::transmute::<f32x16, __m512>(high),
                );
                let halves =
                    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                let places = std::mem::transmute::<[u16; 32], __m512i>(INTERLEAVED);
                std::mem::transmute::<__m512i, u32x16>(_mm512_permutexvar_epi16(places, halves))
            }
        }

        #[inline(always)]
        fn add(self, a: u32x16, b: u32x16, sum: f32x16) -> f32x16 {
            // SAFETY: the three vectors are 64 bytes of which every value is valid, and `self` exists only on
            // processors with the instruction. The gain: pulp does not have it, and without it a
            // training step in bf16 is no faster than in single precision (docs/performance.md).
            unsafe {
                let (a, b) = (
                    std::mem::transmute::<u32x16, __m512bh>(a),
                    std::mem::transmute::<u32x16, __m512bh>(b),
                );
                let sum = std::mem::transmute::<f32x16, __m512>(sum);
                std::mem::transmute::<__m512, f32x16>(_mm512_dpbf16_ps(sum, a, b))
            }
        }
    }
}

/// Two bf16, `low` in the lower half, rounded one bit after the other: what the vectors are held to.
#[cfg(test)]
pub(crate) fn pair(low: f32, high: f32) -> u32 {
    let rounded = |value: f32| {
        let bits = value.to_bits();
        if value.is_nan() {
            return bits >> 16 | 0x40;
        }
        let (kept, dropped) = (bits >> 16, bits & 0xffff);
        let is_up = dropped > 0x8000 || dropped == 0x8000 && kept % 2 == 1;
        kept + u32::from(is_up)
    };
    rounded(low) | rounded(high) << 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{InstructionSet, with_vectors};
    use pulp::Simd;

    #[test]
    fn rounding_is_to_nearest_with_ties_to_even() {
        let upper = |value: f32| pair(0., value) >> 16;
        for (value, expected) in [
            (1., 0x3f80),
            (-2., 0xc000),
            (0., 0),
            (-0., 0x8000),
            // 1 + 2⁻⁸ lies half way between 1 and 1 + 2⁻⁷, and is rounded to the even one.
            (1. + 1. / 256., 0x3f80),
            (1. + 3. / 256., 0x3f82),
            (1. + 1. / 256. + 1. / 65_536., 0x3f81),
            (f32::INFINITY, 0x7f80),
            (f32::MAX, 0x7f80),
            (f32::NEG_INFINITY, 0xff80),
        ] {
            assert_eq!(upper(value), expected, "{value}");
        }
        // A NaN whose fraction is all in the lower half.
        let nan = f32::from_bits(0x7f80_0001);
        assert!(f32::from_bits(pair(nan, 1.) << 16).is_nan());
        assert_eq!(pair(1., -2.), 0xc000_3f80);
    }

    #[test]
    fn vectors_round_as_defined() {
        struct All<'a> {
            low: &'a [f32],
            high: &'a [f32],
            out: Vec<u32>,
        }
        impl PairKernel for &mut All<'_> {
            fn run<P: PairProducts>(self, products: P) {
                let (low, _) = P::Vectors::as_simd_f32s(self.low);
                let (high, _) = P::Vectors::as_simd_f32s(self.high);
                let (out, _) = P::Vectors::as_mut_simd_u32s(&mut self.out);
                for (out, (&low, &high)) in out.iter_mut().zip(low.iter().zip(high)) {
                    *out = products.pair(low, high);
                }
            }
        }
        // Every upper half with the lower halves about which rounding turns, but for numbers below the least
        // normal one.
        let values: Vec<f32> = (0..=0xffff_u32)
            .flat_map(|upper| {
                [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|lower| upper << 16 | lower)
            })
            .map(f32::from_bits)
            .filter(|value| !value.is_subnormal())
            .collect();
        let values = &values[..values.len() / 16 * 16];
        let reversed: Vec<f32> = values.iter().rev().copied().collect();
        let expected: Vec<u32> = (values.iter().zip(&reversed))
            .map(|(&low, &high)| pair(low, high))
            .collect();
        for set in InstructionSet::available() {
            for is_emulated in [false, true] {
                let mut all = All {
                    low: values,
                    high: &reversed,
                    out: vec![0; values.len()],
                };
                set.scope(|| {
                    with_vectors!(simd => {
                        if is_emulated {
                            (&mut all).run(Emulated(simd));
                        } else {
                            simd.with_pair_products(&mut all);
                        }
                    });
                });
                let wrong = all.out.iter().zip(&expected).position(|(a, b)| a != b);
                assert_eq!(
                    wrong.map(|at| (values[at], reversed[at])),
                    None,
                    "{}",
                    set.name()
                );
            }
        }
    }

    #[test]
    fn a_scope_ends_with_its_call() {
        assert_eq!(Precision::current(), Precision::Single);
        Precision::Bf16.scope(|| {
            Precision::Single.scope(|| assert_eq!(Precision::current(), Precision::Single));
            assert_eq!(Precision::current(), Precision::Bf16);
        });
        assert_eq!(Precision::current(), Precision::Single);
    }
}
