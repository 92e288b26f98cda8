//! Networks of candle-transformers on parameters of ours.

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::VarBuilder;
use candle_nn::var_builder::SimpleBackend;
use candle_transformers::models::{convnext, dinov2};
use cxr_ops::{Init, ParameterPath};

use super::config::{ConvNextConfig, ConvNextSize, FrozenConfig, TransformerSizes};
use super::{Forward, FrozenError};

pub(super) fn build(
    config: &FrozenConfig,
    path: &ParameterPath,
) -> std::result::Result<Forward, FrozenError> {
    match config {
        FrozenConfig::ConvNext(config) => {
            // candle-transformers takes what it finds: the one version has what the other lacks.
            let absent = if config.v2 { ".gamma" } else { ".grn." };
            let weights = weights(path, Some(absent));
            let network = convnext::convnext_no_final_layer(&sizes(config), weights)
                .map_err(cxr_ops::OpsError::from)?;
            Ok(Box::new(move |images| {
                let means = images.apply(&network)?;
                means.unsqueeze(2)?.unsqueeze(3)
            }))
        }
        FrozenConfig::DinoV2(dino) => {
            let sizes = dino.sizes();
            sizes.check().map_err(|source| FrozenError::Sizes {
                name: config.to_string(),
                source,
            })?;
            let TransformerSizes {
                depth,
                width,
                heads,
            } = sizes;
            let weights = weights(path, None);
            let network = dinov2::DinoVisionTransformer::new(weights, depth, width, heads)
                .map_err(cxr_ops::OpsError::from)?;
            Ok(Box::new(move |images| {
                let (count, _, height, width) = images.dims4()?;
                if height != width {
                    // Position embeddings would be laid out with height and width exchanged.
                    candle_core::bail!("DINOv2: expected square images, got {height}×{width}");
                }
                // The class token is not repeated: one image at a time.
                let maps = (0..count).map(|index| {
                    let image = images.narrow(0, index, 1)?;
                    network
                        .get_intermediate_layers(&image, &[depth - 1], true, false, true)?
                        .squeeze(0)
                });
                let maps = maps.collect::<Result<Vec<_>>>()?;
                Tensor::cat(&maps, 0)?.contiguous()
            }))
        }
    }
}

fn sizes(config: &ConvNextConfig) -> convnext::Config {
    match config.size {
        ConvNextSize::Atto => convnext::Config::atto(),
        ConvNextSize::Femto => convnext::Config::femto(),
        ConvNextSize::Pico => convnext::Config::pico(),
        ConvNextSize::Nano => convnext::Config::nano(),
        ConvNextSize::Tiny => convnext::Config::tiny(),
        ConvNextSize::Small => convnext::Config::small(),
        ConvNextSize::Base => convnext::Config::base(),
        ConvNextSize::Large => convnext::Config::large(),
    }
}

fn weights(path: &ParameterPath, absent: Option<&'static str>) -> VarBuilder<'static> {
    let registered = Registered {
        path: path.clone(),
        absent,
    };
    VarBuilder::from_backend(Box::new(registered), DType::F32, path.device().clone())
}

/// Makes a parameter of every tensor that a network asks for.
struct Registered {
    path: ParameterPath,
    /// Tensors with this in their name are not there.
    absent: Option<&'static str>,
}

impl SimpleBackend for Registered {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: candle_nn::Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        if !self.contains_tensor(name) {
            let path = self.path.pp(name).name().to_owned();
            return Err(Error::CannotFindTensor { path });
        }
        if name.starts_with("head.") {
            // DINOv2 is built with a classifier that is never called.
            return Tensor::zeros(shape, dtype, device);
        }
        let added = self.path.fixed(name, shape, Init::Zeros);
        added.map_err(Error::wrap)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("expected the shape of `{name}`, got none")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        // `….gamma` is the end of a name, `.grn.` the middle of one.
        self.absent.is_none_or(|absent| !name.contains(absent))
    }
}
