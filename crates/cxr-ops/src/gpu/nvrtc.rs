//! The kernels, compiled by NVRTC for a GPU and loaded by its driver, once for each GPU and precision.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::sys::cuDriverGetVersion;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, CudaFunction};
use candle_core::cuda_backend::cudarc::nvrtc::{Ptx, result, sys};
use candle_core::{Error, Result, bail};

use super::compile::{KERNELS, Target, Version, kernel_names, not_loaded, too_old};
use crate::Precision;

/// The kernels of one GPU for one precision, by name.
#[derive(Debug)]
pub(super) struct Kernels(HashMap<&'static str, CudaFunction>);

/// By the number of the GPU and the precision.
type Loaded = Vec<((usize, Precision), Arc<Kernels>)>;
static LOADED: Mutex<Loaded> = Mutex::new(Vec::new());

impl Kernels {
    /// Those of a GPU.
    ///
    /// # Errors
    /// Libraries that do not compile them, or a driver that does not take what they make.
    pub(super) fn of(context: &Arc<CudaContext>, precision: Precision) -> Result<Arc<Self>> {
        let key = (context.ordinal(), precision);
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, kernels)) = loaded.iter().find(|(known, _)| *known == key) {
            return Ok(kernels.clone());
        }
        let kernels = Arc::new(Self::load(context, precision)?);
        loaded.push((key, kernels.clone()));
        Ok(kernels)
    }

    fn load(context: &Arc<CudaContext>, precision: Precision) -> Result<Self> {
        let (major, minor) = context.compute_capability().map_err(Error::wrap)?;
        let capability = (10 * major + minor).unsigned_abs();
        let known = known_capabilities()?;
        let nvrtc = nvrtc_version()?;
        let Some(target) = Target::of(capability, &known) else {
            bail!("{}", too_old(capability, nvrtc, &known));
        };
        let module = match context.load_module(compile(target, precision)?) {
            Ok(module) => module,
            // A driver may refuse what an NVRTC of another version made and still translate PTX.
            Err(_) if target == Target::Cubin(capability) => {
                let ptx = compile(Target::Ptx(capability), precision)?;
                let module = context.load_module(ptx);
                module.map_err(|error| not_taken(&error.to_string(), nvrtc))?
            }
            Err(error) => return Err(not_taken(&error.to_string(), nvrtc)),
        };
        let function = |name| -> Result<(&'static str, CudaFunction)> {
            let function = module.load_function(name).map_err(Error::wrap)?;
            Ok((name, function))
        };
        Ok(Self(kernel_names().map(function).collect::<Result<_>>()?))
    }

    pub(super) fn get(&self, kernel: &str) -> Result<&CudaFunction> {
        match self.0.get(kernel) {
            Some(function) => Ok(function),
            None => bail!("kernels.cu has no kernel `{kernel}`"),
        }
    }
}

fn not_taken(error: &str, nvrtc: Version) -> Error {
    match driver_version() {
        Ok(driver) => Error::msg(not_loaded(error, nvrtc, driver)),
        Err(error) => error,
    }
}

/// Of CUDA, up to which the driver goes.
pub(super) fn driver_version() -> Result<Version> {
    let mut version = 0;
    // SAFETY: it writes one number.
    unsafe { cuDriverGetVersion(&raw mut version) }.result()?;
    let version: u32 = version.unsigned_abs();
    Ok((version / 1000, version % 1000 / 10))
}

/// Of CUDA, to which NVRTC belongs.
pub(super) fn nvrtc_version() -> Result<Version> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: it writes two numbers.
    let status = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    status.result().map_err(wrong)?;
    Ok((major.unsigned_abs(), minor.unsigned_abs()))
}

/// The compute capabilities that NVRTC compiles for.
fn known_capabilities() -> Result<Vec<u32>> {
    let mut n = 0;
    // SAFETY: it writes one number.
    let status = unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut n) };
    status.result().map_err(wrong)?;
    let mut known = vec![0i32; n.unsigned_abs() as usize];
    // SAFETY: it writes as many numbers as it said.
    let status = unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) };
    status.result().map_err(wrong)?;
    Ok(known.into_iter().map(i32::unsigned_abs).collect())
}

fn wrong(error: result::NvrtcError) -> Error {
    Error::msg(format!(
        "NVRTC: {error}\nhint: docs/cuda.md names the libraries to install"
    ))
}

/// A program of NVRTC, destroyed when dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it was created once, and nothing uses it after. Nothing can be done about an error.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn compile(target: Target, precision: Precision) -> Result<Ptx> {
    let text = CString::new(KERNELS).map_err(Error::wrap)?;
    let program = Program(result::create_program(&text, None).map_err(wrong)?);
    // SAFETY: the program lives, and so does its text.
    if let Err(error) = unsafe { result::compile_program(program.0, &target.options(precision)) } {
        // SAFETY: as above.
        let log = unsafe { result::get_program_log(program.0) }.map_err(wrong)?;
        let log: Vec<u8> = log.into_iter().map(|byte| byte as u8).collect();
        let log = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy);
        bail!(
            "NVRTC could not compile the GPU kernels: {error}: {}\nhint: docs/cuda.md names the libraries to install",
            log.unwrap_or_default()
        );
    }
    match target {
        Target::Ptx(_) => {
            // SAFETY: the program was compiled.
            let ptx = unsafe { result::get_ptx(program.0) }.map_err(wrong)?;
            let ptx: Vec<u8> = ptx.into_iter().map(|byte| byte as u8).collect();
            let ptx = CStr::from_bytes_until_nul(&ptx).map_err(Error::wrap)?;
            Ok(Ptx::from_src(ptx.to_string_lossy()))
        }
        Target::Cubin(_) => {
            let mut size = 0;
            // SAFETY: the program was compiled; it writes one number, and then as many bytes as it said.
            let cubin = unsafe {
                let status = sys::nvrtcGetCUBINSize(program.0, &raw mut size);
                status.result().map_err(wrong)?;
                let mut cubin = vec![0u8; size];
                let status = sys::nvrtcGetCUBIN(program.0, cubin.as_mut_ptr().cast());
                status.result().map_err(wrong)?;
                cubin
            };
            Ok(Ptx::from_binary(cubin))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NVRTC needs no GPU.
    #[test]
    fn nvrtc_takes_the_kernels_and_contracts_nothing() -> Result<()> {
        for precision in Precision::ALL {
            let ptx = compile(Target::Ptx(80), precision)?.to_src();
            for kernel in kernel_names() {
                assert!(ptx.contains(&format!(".entry {kernel}(")), "{kernel}");
            }
            let contracted = ptx.lines().find(|line| line.trim().starts_with("fma."));
            assert_eq!(contracted, None, "{precision:?}");
            // A pack is one access of 16 bytes.
            let activate = ptx.split(".entry activate(").nth(1).unwrap_or_default();
            let activate = activate.split(".entry").next().unwrap_or_default();
            for access in ["ld.global.nc.v4", "st.global.v4"] {
                assert!(activate.contains(access), "{precision:?}: {activate}");
            }
            // Neither a slow division of 64 bits.
            assert!(!activate.contains("div.s64") && !activate.contains("rem.s64"));
        }
        Ok(())
    }

    #[test]
    fn an_architecture_that_nvrtc_knows_gives_instructions_of_its_own() -> Result<()> {
        let known = known_capabilities()?;
        let newest = known.iter().max().copied().unwrap_or_default();
        let target = Target::of(newest, &known);
        assert_eq!(target, Some(Target::Cubin(newest)));
        for precision in Precision::ALL {
            compile(Target::Cubin(newest), precision)?;
        }
        assert!(nvrtc_version()? >= (11, 0));
        Ok(())
    }
}
