//! For what NVRTC compiles the kernels, how, and why a driver may not take what it makes.

use crate::Precision;

/// The text of the kernels.
pub(super) const KERNELS: &str = concat!(include_str!("kernels.cu"), include_str!("rows.cu"));

/// The names of all kernels.
pub(super) fn kernel_names() -> impl Iterator<Item = &'static str> {
    let definitions = KERNELS.split("\nKERNEL ").skip(1);
    definitions.filter_map(|text| Some(text.split_once('(')?.0))
}

/// For what the kernels are compiled, by a compute capability such as 90.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The GPU's own instructions, which its driver runs as they are.
    Cubin(u32),
    /// PTX of an older capability, which the driver translates: NVRTC does not know the GPU.
    Ptx(u32),
}

impl Target {
    /// For a GPU, by what NVRTC knows; `None` where that is all newer than the GPU.
    pub(super) fn of(capability: u32, known: &[u32]) -> Option<Self> {
        if known.contains(&capability) {
            return Some(Self::Cubin(capability));
        }
        let older = known.iter().filter(|&&known| known < capability);
        older.max().copied().map(Self::Ptx)
    }

    /// NVRTC's options. Products and sums are not contracted: the kernels give the bits of the emulator, and positions
    /// in images those of the CPU.
    pub(super) fn options(self, precision: Precision) -> Vec<String> {
        let architecture = match self {
            Self::Cubin(capability) => format!("sm_{capability}"),
            Self::Ptx(capability) => format!("compute_{capability}"),
        };
        let mut options = vec![
            format!("--gpu-architecture={architecture}"),
            "--fmad=false".to_owned(),
        ];
        if precision == Precision::Bf16 {
            options.push("-DBF16".to_owned());
        }
        options
    }
}

/// A version of CUDA, major and minor.
pub(super) type Version = (u32, u32);

/// Why a driver did not load what NVRTC compiled.
pub(super) fn not_loaded(error: &str, nvrtc: Version, driver: Version) -> String {
    let ((major, minor), (driver_major, driver_minor)) = (nvrtc, driver);
    let versions = format!(
        "NVRTC is of CUDA {major}.{minor}, the driver takes CUDA up to {driver_major}.{driver_minor}"
    );
    if nvrtc > driver {
        return format!(
            "the driver does not take the GPU kernels, as NVRTC is newer than the driver: {error}; {versions}\n\
             hint: install a newer driver, or put the libraries of CUDA {driver_major}.{driver_minor} or older first on LD_LIBRARY_PATH"
        );
    }
    format!(
        "the driver does not take the GPU kernels that NVRTC compiled: {error}; {versions}\nhint: docs/cuda.md names the libraries to install"
    )
}

/// Why there is nothing to compile for.
pub(super) fn too_old(capability: u32, nvrtc: Version, known: &[u32]) -> String {
    let (major, minor) = nvrtc;
    let least = known.iter().min().copied().unwrap_or(0);
    format!(
        "this GPU, of compute capability {}.{}, is older than what NVRTC of CUDA {major}.{minor} compiles for, which begins with {}.{}\n\
         hint: put the libraries of an older CUDA first on LD_LIBRARY_PATH",
        capability / 10,
        capability % 10,
        least / 10,
        least % 10
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compiled_for_the_gpu_in_use() {
        let known = [75, 80, 90, 100, 120];
        assert_eq!(Target::of(90, &known), Some(Target::Cubin(90)));
        // Of a GPU newer than NVRTC the driver translates the newest there is, which need not be the last.
        assert_eq!(Target::of(89, &known), Some(Target::Ptx(80)));
        assert_eq!(Target::of(121, &[120, 75]), Some(Target::Ptx(120)));
        assert_eq!(Target::of(70, &known), None);
        assert_eq!(Target::of(90, &[]), None);
        let of = |target: Target, precision| target.options(precision).join(" ");
        assert_eq!(
            of(Target::Cubin(90), Precision::Bf16),
            "--gpu-architecture=sm_90 --fmad=false -DBF16"
        );
        assert_eq!(
            of(Target::Ptx(80), Precision::Single),
            "--gpu-architecture=compute_80 --fmad=false"
        );
    }

    #[test]
    fn an_nvrtc_newer_than_the_driver_is_named_as_the_cause() {
        let newer = not_loaded("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", (13, 0), (12, 4));
        assert!(newer.contains("NVRTC is newer than the driver"), "{newer}");
        assert!(newer.contains("CUDA 12.4 or older first on LD_LIBRARY_PATH"));
        let other = not_loaded("CUDA_ERROR_OUT_OF_MEMORY", (12, 4), (13, 0));
        assert!(!other.contains("newer than the driver"), "{other}");
        assert!(other.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{other}");
        let old = too_old(70, (13, 0), &[80, 75]);
        assert!(old.contains("compute capability 7.0") && old.contains("begins with 7.5"));
    }

    #[test]
    fn every_kernel_has_a_name_of_its_own() {
        let mut names: Vec<&str> = kernel_names().collect();
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n);
        assert!(names.contains(&"activate") && names.contains(&"warp"));
    }
}
