//! A [`Machine`] on the processor: the kernels, compiled by the C compiler that Rust links with.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use candle_core::{Result, bail};

use super::compile::KERNELS;
use super::convolution::{Layout, Sizes};
use super::machine::{Argument, Blocks, Convolution, Machine, Matrix, Pass, Product, View};
use crate::Precision;

type Launch = unsafe extern "C" fn(*const c_char, c_uint, c_uint, *mut *mut c_void) -> c_int;

/// An environment variable that lets tests pass without the emulator where it cannot be built.
const WITHOUT: &str = "CXR_WITHOUT_EMULATOR";

/// The library keeps its state in static variables: one test at a time uses it.
static IN_USE: Mutex<()> = Mutex::new(());

/// The type of a kernel's argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Values,
    MutableValues,
    Table,
    Int,
    Long,
    Float,
}

impl Type {
    fn of(parameter: &str) -> Self {
        let is_const = parameter.starts_with("const ");
        match parameter.trim_start_matches("const ") {
            text if text.starts_with("unsigned long long *") => Self::Table,
            text if text.contains('*') && is_const => Self::Values,
            text if text.contains('*') => Self::MutableValues,
            text if text.starts_with("long long ") => Self::Long,
            text if text.starts_with("int ") => Self::Int,
            text if text.starts_with("float ") => Self::Float,
            _ => panic!("`{parameter}`: no type of an argument"),
        }
    }

    /// Reads an argument out of where it stands.
    fn c(self) -> &'static str {
        match self {
            Self::Values | Self::MutableValues | Self::Table => "*(void **)",
            Self::Int => "*(int32_t *)",
            Self::Long => "*(int64_t *)",
            Self::Float => "*(float *)",
        }
    }
}

/// Every kernel with the types of its arguments, as kernels.cu defines them.
fn definitions(text: &str) -> BTreeMap<&str, Vec<Type>> {
    let definitions = text.split("\nKERNEL ").skip(1);
    definitions
        .filter_map(|text| {
            let (name, rest) = text.split_once('(')?;
            let (parameters, _) = rest.split_once(')')?;
            let types = parameters.split(',').map(|text| Type::of(text.trim()));
            Some((name, types.collect()))
        })
        .collect()
}

/// What emulator.c includes: a call of each kernel, and a table of them.
fn calls(definitions: &BTreeMap<&str, Vec<Type>>) -> String {
    let mut calls = String::new();
    let mut table = String::new();
    for (name, types) in definitions {
        let arguments: Vec<String> = (types.iter().enumerate())
            .map(|(at, of)| format!("{}arguments[{at}]", of.c()))
            .collect();
        let arguments = arguments.join(", ");
        calls += &format!("static void call_{name}(void) {{ {name}({arguments}); }}\n");
        table += &format!("    {{\"{name}\", call_{name}}},\n");
    }
    calls
        + "static const struct { const char *name; void (*call)(void); } kernels[] = {\n"
        + &table
        + "};\n"
}

/// See the module.
pub(super) struct Emulator {
    precision: Precision,
    definitions: BTreeMap<&'static str, Vec<Type>>,
    library: &'static libloading::Library,
    _in_use: MutexGuard<'static, ()>,
}

impl Emulator {
    /// `None` where there is no C compiler and the environment allows to do without; else that is a failure.
    pub(super) fn new() -> Option<Self> {
        Self::with(Precision::Single)
    }

    /// With activations of a precision.
    pub(super) fn with(precision: Precision) -> Option<Self> {
        static LIBRARIES: [OnceLock<Option<libloading::Library>>; 2] =
            [const { OnceLock::new() }; 2];
        let in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        let library = match precision {
            Precision::Single => &LIBRARIES[0],
            Precision::Bf16 => &LIBRARIES[1],
        };
        let Some(library) = library.get_or_init(|| build(precision)) else {
            assert!(
                std::env::var_os(WITHOUT).is_some(),
                "no C compiler `cc` with the system's headers to run GPU kernels with\n\
                 hint: install one, or set {WITHOUT}=1 to skip the tests that need it"
            );
            eprintln!("skipped: {WITHOUT} is set, and there is no C compiler");
            return None;
        };
        Some(Self {
            precision,
            definitions: definitions(KERNELS),
            library,
            _in_use: in_use,
        })
    }
}

/// Compiles the kernels; `None` where there is no C compiler.
fn build(precision: Precision) -> Option<libloading::Library> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("kernels.cu", KERNELS),
        ("emulator.c", include_str!("emulator.c")),
        ("calls.h", &calls(&definitions(KERNELS))),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let compile = |source: &str, output: &Path| {
        Command::new("cc")
            .args(["-O2", "-ffp-contract=off", "-shared", "-fPIC"])
            .args((precision == Precision::Bf16).then_some("-DBF16"))
            .arg("-o")
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
        return None;
    }
    let output = compile("emulator.c", &path).unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{messages}");
    // SAFETY: the library was just built from the two files above, which run nothing when loaded. Its file may go.
    Some(unsafe { libloading::Library::new(&path) }.unwrap())
}

impl<'a> From<&'a Vec<f32>> for View<'a, [f32]> {
    fn from(memory: &'a Vec<f32>) -> Self {
        Self::from(&**memory)
    }
}

impl<M: ?Sized, T> Argument<'_, M, T> {
    fn of(&self) -> Type {
        match self {
            Self::Read(_) => Type::Values,
            Self::Write(..) => Type::MutableValues,
            Self::Table(_) => Type::Table,
            Self::Int(_) => Type::Int,
            Self::Long(_) => Type::Long,
            Self::Float(_) => Type::Float,
        }
    }
}

impl Emulator {
    /// Activation `at` of a memory.
    fn load(&self, memory: &[f32], at: usize) -> f32 {
        match self.precision {
            Precision::Single => memory[at],
            Precision::Bf16 => {
                let pair = memory[at / 2].to_bits();
                f32::from_bits(if at.is_multiple_of(2) {
                    pair << 16
                } else {
                    pair & 0xffff_0000
                })
            }
        }
    }

    fn store(&self, memory: &mut [f32], at: usize, value: f64) {
        let value = value as f32;
        match self.precision {
            Precision::Single => memory[at] = value,
            Precision::Bf16 => {
                let pair = memory[at / 2].to_bits();
                let rounded = crate::bf16::pair(value, value);
                memory[at / 2] = f32::from_bits(if at.is_multiple_of(2) {
                    pair & 0xffff_0000 | rounded & 0xffff
                } else {
                    pair & 0xffff | rounded & 0xffff_0000
                });
            }
        }
    }

    /// Writes activations to a memory.
    pub(super) fn write(&self, memory: &mut [f32], values: &[f32]) {
        for (at, &value) in values.iter().enumerate() {
            self.store(memory, at, f64::from(value));
        }
    }

    /// The first `n` activations of a memory.
    pub(super) fn activations(&self, memory: &[f32], n: usize) -> Vec<f32> {
        (0..n).map(|at| self.load(memory, at)).collect()
    }
}

/// Where the operands and the output of a convolution meet: calls `see` with the places of input, weight and output
/// of every product.
fn products(s: &Sizes, mut see: impl FnMut(usize, usize, usize)) {
    let [kernel_height, kernel_width] = s.kernel;
    let taps = kernel_height * kernel_width;
    for at in 0..s.n_output() * taps {
        let (output, tap) = (at / taps, at % taps);
        let (image, output_channel, row, column) = match s.layout {
            Layout::Nhwc => {
                let (pixel, channel) = (output / s.outputs, output % s.outputs);
                let line = pixel / s.width_out;
                let (image, row) = (line / s.height_out, line % s.height_out);
                (image, channel, row, pixel % s.width_out)
            }
            Layout::Nchw => {
                let line = output / s.width_out;
                let plane = line / s.height_out;
                let (image, channel) = (plane / s.outputs, plane % s.outputs);
                (image, channel, line % s.height_out, output % s.width_out)
            }
        };
        let (tap_y, tap_x) = (tap / kernel_width, tap % kernel_width);
        let place = |at: usize, tap: usize, size: usize| {
            (at * s.stride + tap)
                .checked_sub(s.padding)
                .filter(|&at| at < size)
        };
        let (Some(y), Some(x)) = (place(row, tap_y, s.height), place(column, tap_x, s.width))
        else {
            continue;
        };
        for channel in 0..s.inputs {
            let (input, weight) = match s.layout {
                Layout::Nhwc => (
                    ((image * s.height + y) * s.width + x) * s.inputs + channel,
                    (output_channel * taps + tap) * s.inputs + channel,
                ),
                Layout::Nchw => (
                    ((image * s.inputs + channel) * s.height + y) * s.width + x,
                    (output_channel * s.inputs + channel) * taps + tap,
                ),
            };
            see(input, weight, output);
        }
    }
}

impl Emulator {
    /// A pass of a convolution by its definition.
    pub(super) fn convolve_sizes(&self, s: &Sizes, pass: Pass<'_, [f32]>, out: &mut [f32]) {
        let mut sums = vec![0f64; s.n_of(&pass).0];
        let load =
            |of: View<'_, [f32]>, at: usize| f64::from(self.load(&of.memory[of.offset..], at));
        let [first, second] = pass.operands();
        products(s, |x, w, y| match pass {
            Pass::Forward { .. } => sums[y] += load(first, x) * load(second, w),
            Pass::OfInput { .. } => sums[x] += load(first, y) * load(second, w),
            Pass::OfWeight { .. } => sums[w] += load(first, y) * load(second, x),
        });
        for (at, sum) in sums.into_iter().enumerate() {
            self.store(out, at, sum);
        }
    }
}

impl Machine for Emulator {
    type Memory = [f32];
    type Owned = Vec<f32>;
    type Table = Vec<u64>;

    fn alloc(&self, len: usize) -> Result<Vec<f32>> {
        // What a kernel forgets to write shows.
        Ok(vec![f32::NAN; len])
    }

    fn upload(&self, table: &[u64]) -> Result<Vec<u64>> {
        Ok(table.to_vec())
    }

    fn write_bytes(&self, memory: &mut [f32], offset: usize, bytes: &[u8]) -> Result<()> {
        for (at, &byte) in (offset..).zip(bytes) {
            let value = &mut memory[at / 4];
            let mut four = value.to_bits().to_ne_bytes();
            four[at % 4] = byte;
            *value = f32::from_bits(u32::from_ne_bytes(four));
        }
        Ok(())
    }

    fn read(&self, memory: &[f32]) -> Result<Vec<f32>> {
        Ok(memory.to_vec())
    }

    fn address(&self, values: View<'_, [f32]>) -> u64 {
        values.memory[values.offset..].as_ptr() as u64
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn multiply(&self, product: Product<'_, [f32]>) -> Result<()> {
        let Product {
            rows,
            columns,
            inner,
            left,
            right,
            out,
            out_offset,
            out_pitch,
            is_out_single,
        } = product;
        let at = |matrix: &Matrix<'_, [f32]>, row: usize, column: usize| {
            let (row, column) = if matrix.is_transposed {
                (column, row)
            } else {
                (row, column)
            };
            let place = matrix.offset + row * matrix.pitch + column;
            f64::from(self.load(matrix.memory, place))
        };
        for row in 0..rows {
            for column in 0..columns {
                let products = (0..inner).map(|k| at(&left, row, k) * at(&right, k, column));
                let place = out_offset + row * out_pitch + column;
                let sum = products.sum::<f64>();
                if is_out_single {
                    out[place] = sum as f32;
                } else {
                    self.store(out, place, sum);
                }
            }
        }
        Ok(())
    }

    fn convolve(
        &self,
        convolution: &Convolution,
        pass: Pass<'_, [f32]>,
        out: &mut [f32],
    ) -> Result<()> {
        self.convolve_sizes(&Sizes::from(convolution), pass, out);
        Ok(())
    }

    fn launch(
        &self,
        kernel: &'static str,
        blocks: Blocks,
        arguments: &mut [Argument<'_, [f32], Vec<u64>>],
    ) -> Result<()> {
        let Some(types) = self.definitions.get(kernel) else {
            bail!("kernels.cu has no kernel `{kernel}`");
        };
        let given: Vec<Type> = arguments.iter().map(Argument::of).collect();
        assert_eq!(&given, types, "arguments of `{kernel}`");
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
            bail!("the library has no kernel `{kernel}`");
        }
        Ok(())
    }
}
