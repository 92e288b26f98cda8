#![doc = include_str!("../README.md")]

mod error;
mod import;
mod network;
mod onnx;
mod torch;

pub use error::ExchangeError;
pub use import::{Architecture, Import, Imported, Training, architectures, import_model};
pub use onnx::{NON_IMAGE, ONNX_START, OnnxInput, OnnxOptions, onnx_bytes};
pub use torch::{TorchFiles, torch_files};
