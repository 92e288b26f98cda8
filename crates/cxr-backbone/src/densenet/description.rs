//! A DenseNet as data: what it is exported by. The passes of [`DenseNet`](super::DenseNet) are held to it.

use cxr_ops::{ConvLayer, Init, NetworkBuilder, NetworkDescription, Node, OpsError};

use super::DenseNetConfig;

impl DenseNetConfig {
    /// The network as data, from images to the ReLU after `norm5`, with the parameter names that
    /// [`DenseNet::new`](super::DenseNet::new) gives it.
    ///
    /// # Errors
    /// Sizes that do not [check](Self::check).
    pub fn describe(&self) -> Result<NetworkDescription, OpsError> {
        self.check().map_err(candle_core::Error::wrap)?;
        let mut net = NetworkBuilder::new(3).with_norm(self.norm);
        let images = net.images();
        let stem = conv(self.stem_channels, 7).stride(2).same();
        let x = net.conv("conv0", images, stem);
        let x = net.norm("norm0", x);
        let x = net.relu(x);
        let mut x = net.max_pool(x, 3, 2, 1);
        for (index, &layers) in self.block_layers.iter().enumerate() {
            if index > 0 {
                let maps = net.channels(x) / 2;
                let name = format!("transition{index}");
                x = normalised(&mut net, &format!("{name}.norm"), x);
                x = net.conv(&format!("{name}.conv"), x, conv(maps, 1));
                x = net.average_pool(x, 2, 2, 0);
            }
            let block = format!("denseblock{}", index + 1);
            for layer in 1..=layers {
                let name = format!("{block}.denselayer{layer}");
                let bottleneck = self.bottleneck_size * self.growth_rate;
                let new = normalised(&mut net, &format!("{name}.norm1"), x);
                let new = net.conv(&format!("{name}.conv1"), new, conv(bottleneck, 1));
                let new = normalised(&mut net, &format!("{name}.norm2"), new);
                let grow = conv(self.growth_rate, 3).same();
                let new = net.conv(&format!("{name}.conv2"), new, grow);
                x = net.concat(&[x, new]);
            }
            net.name(&block, x);
        }
        let x = normalised(&mut net, "norm5", x);
        net.finish(x)
    }
}

fn conv(maps: usize, side: usize) -> ConvLayer {
    ConvLayer::new(maps, side).init(Init::KaimingNormal)
}

/// A normalisation and a ReLU.
fn normalised(net: &mut NetworkBuilder, name: &str, x: Node) -> Node {
    let x = net.norm(name, x);
    net.relu(x)
}
