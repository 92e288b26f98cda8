//! Which vector instructions the kernels use.
//!
//! A kernel is written once, against `pulp`'s vectors, and compiled for AVX-512, for AVX2 with FMA
//! and for any processor. Which of them runs is decided at run time, so that a binary built
//! for the oldest processor is as fast as one built for the newest. The three round differently: bits
//! are the same for the same instruction set, which is why a run records it.

use std::cell::Cell;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::bf16::Native;
use crate::bf16::{Emulated, PairKernel};

/// A set of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// What every processor has: one value at a time.
    Portable,
    /// Eight `f32` at a time, with fused multiply-add (x86-64-v3).
    Avx2,
    /// Sixteen `f32` at a time (x86-64-v4).
    Avx512,
}

/// The environment variable that names the instruction set of a whole process.
const VARIABLE: &str = "CXR_INSTRUCTION_SET";

thread_local! {
    static FORCED: Cell<Option<InstructionSet>> = const { Cell::new(None) };
}

impl InstructionSet {
    /// All that this processor has, the slowest first.
    pub fn available() -> Vec<Self> {
        let all = [Self::Portable, Self::Avx2, Self::Avx512];
        all.into_iter().filter(|set| set.is_available()).collect()
    }

    /// What operations called on this thread use: the best there is, unless the environment variable
    /// `CXR_INSTRUCTION_SET` (`portable`, `avx2` or `avx512`) names another that the processor has, or
    /// [`Self::scope`] does.
    pub fn current() -> Self {
        static OF_PROCESS: OnceLock<InstructionSet> = OnceLock::new();
        FORCED.get().unwrap_or_else(|| {
            *OF_PROCESS.get_or_init(|| {
                let named = std::env::var(VARIABLE).ok();
                let available = Self::available();
                let wanted = available
                    .iter()
                    .find(|set| named.as_deref() == Some(set.name()));
                wanted
                    .or(available.last())
                    .copied()
                    .unwrap_or(Self::Portable)
            })
        })
    }

    /// Calls `f`; operations that it calls on this thread use this set, if the processor has it.
    pub fn scope<T>(self, f: impl FnOnce() -> T) -> T {
        struct Restore(Option<InstructionSet>);
        impl Drop for Restore {
            fn drop(&mut self) {
                FORCED.set(self.0);
            }
        }
        let _restore = Restore(FORCED.get());
        if self.is_available() {
            FORCED.set(Some(self));
        }
        f()
    }

    /// The name that the environment variable takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Avx2 => pulp::x86::V3::is_available(),
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            Self::Avx512 => pulp::x86::V4::is_available(),
            #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
            _ => false,
        }
    }
}

/// The vectors of one instruction set, and the way into code compiled for it.
pub(crate) trait Vectors: pulp::Simd {
    /// Calls `f`, compiled for this set: what is inlined into it uses its instructions, which a
    /// closure handed to another thread does not by itself.
    fn within<T>(self, f: impl FnOnce() -> T) -> T;

    /// Runs `kernel` with the fastest products of bf16 pairs that these vectors have.
    fn with_pair_products(self, kernel: impl PairKernel) {
        kernel.run(Emulated(self));
    }
}

impl Vectors for pulp::Scalar {
    #[inline(always)]
    fn within<T>(self, f: impl FnOnce() -> T) -> T {
        f()
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
impl Vectors for pulp::x86::V3 {
    #[inline(always)]
    fn within<T>(self, f: impl FnOnce() -> T) -> T {
        self.vectorize(f)
    }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
impl Vectors for pulp::x86::V4 {
    #[inline(always)]
    fn within<T>(self, f: impl FnOnce() -> T) -> T {
        self.vectorize(f)
    }

    #[cfg(target_arch = "x86_64")]
    fn with_pair_products(self, kernel: impl PairKernel) {
        match Native::try_new() {
            Some(native) => kernel.run(native),
            None => kernel.run(Emulated(self)),
        }
    }
}

/// Evaluates an expression with `$simd` bound to the vectors of the current instruction set.
macro_rules! with_vectors {
    ($simd:ident => $body:expr) => {{
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        {
            use $crate::simd::InstructionSet;
            let set = InstructionSet::current();
            if let (InstructionSet::Avx512, Some($simd)) = (set, pulp::x86::V4::try_new()) {
                $body
            } else if let (InstructionSet::Avx2, Some($simd)) = (set, pulp::x86::V3::try_new()) {
                $body
            } else {
                let $simd = pulp::Scalar::new();
                $body
            }
        }
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
        {
            let $simd = pulp::Scalar::new();
            $body
        }
    }};
}
pub(crate) use with_vectors;
