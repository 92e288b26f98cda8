//! A [`Machine`] on the processor: `kernels.cu`, compiled by the C compiler that Rust links with.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Result, bail};

use super::machine::{Argument, Blocks, Machine, View};

type Launch = unsafe extern "C" fn(*const c_char, c_uint, c_uint, *mut *mut c_void) -> c_int;

/// The library keeps its state in static variables: one test at a time uses it.
static IN_USE: Mutex<()> = Mutex::new(());

/// See the module.
pub(super) struct Emulator {
    library: libloading::Library,
    _in_use: MutexGuard<'static, ()>,
    _folder: tempfile::TempDir,
}

impl Emulator {
    /// `None`, and a line that says so, where there is no C compiler.
    pub(super) fn new() -> Option<Self> {
        let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("kernels.cu", include_str!("kernels.cu")),
            ("emulator.c", include_str!("emulator.c")),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let compile = |source: &str, output: &Path| {
            Command::new("cc")
                .args(["-O2", "-ffp-contract=off", "-shared", "-fPIC", "-o"])
                .arg(output)
                .arg(folder.path().join(source))
                .arg("-lm")
                .output()
        };
        // Whether there are a compiler and a system's headers is one question, whether the kernels compile another.
        let headers = "#include <math.h>\n#include <setjmp.h>\n#include <ucontext.h>\n";
        std::fs::write(folder.path().join("headers.c"), headers).unwrap();
        let path = folder.path().join("kernels.so");
        if !compile("headers.c", &path).is_ok_and(|output| output.status.success()) {
            eprintln!(
                "skipped: no C compiler `cc` with the system's headers to run GPU kernels with"
            );
            return None;
        }
        let output = compile("emulator.c", &path).unwrap();
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{messages}");
        // SAFETY: the library was just built from the two files above, which run nothing when loaded.
        let library = unsafe { libloading::Library::new(&path) }.unwrap();
        Some(Self {
            library,
            _in_use: in_use,
            _folder: folder,
        })
    }
}

impl Machine for Emulator {
    type Memory = Vec<f32>;
    type Table = Vec<u64>;

    fn alloc(&self, len: usize) -> Result<Vec<f32>> {
        // What a kernel forgets to write shows.
        Ok(vec![f32::NAN; len])
    }

    fn upload(&self, table: &[u64]) -> Result<Vec<u64>> {
        Ok(table.to_vec())
    }

    fn address(&self, values: View<'_, Vec<f32>>) -> u64 {
        values.memory[values.offset..].as_ptr() as u64
    }

    fn launch(
        &self,
        kernel: &'static str,
        blocks: Blocks,
        arguments: &mut [Argument<'_, Vec<f32>, Vec<u64>>],
    ) -> Result<()> {
        let mut values: Vec<u64> = arguments
            .iter_mut()
            .map(|argument| match argument {
                Argument::Read(view) => view.memory[view.offset..].as_ptr() as u64,
                Argument::Write(memory, offset) => memory[*offset..].as_mut_ptr() as u64,
                Argument::Table(table) => table.as_ptr() as u64,
                Argument::Int(value) => u64::from(*value as u32),
                Argument::Long(value) => *value as u64,
                Argument::Float(value) => u64::from(value.to_bits()),
            })
            .collect();
        let mut pointers: Vec<*mut c_void> = values
            .iter_mut()
            .map(|value| std::ptr::from_mut(value).cast())
            .collect();
        let name = CString::new(kernel).map_err(candle_core::Error::wrap)?;
        // SAFETY: `launch` has this signature; the arguments live until it returns, and that kernels stay inside
        // them is what the tests are for.
        let is_unknown = unsafe {
            let launch: libloading::Symbol<'_, Launch> = self
                .library
                .get(b"launch")
                .map_err(candle_core::Error::wrap)?;
            launch(name.as_ptr(), blocks.x, blocks.y, pointers.as_mut_ptr())
        };
        if is_unknown != 0 {
            bail!("emulator.c knows no kernel `{kernel}`");
        }
        Ok(())
    }
}
