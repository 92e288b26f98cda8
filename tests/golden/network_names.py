"""The described networks, by the names that torchvision (timm for Xception and ConvNeXt V2) has for them."""

ALL = """resnet18 resnet34 resnet38 resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x8d vgg16 vgg16_bn mobilenet_v2
efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_v2_s inception_v3
regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf
convnext_tiny convnext_small convnext_base convnextv2_tiny convnextv2_base xception""".split()
