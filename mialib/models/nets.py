"""The image networks that Rezaei & Liu 2020 attack, as plain PyTorch modules: normalised images in, logits out.

Sources of the layers: the paper's released code for LeNet, bearpaw/pytorch-classification for AlexNet and DenseNet-BC,
He et al. 2016 (section 4.2, shortcut option A) for ResNet.
"""

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

# Names of the modules whose outputs are the paper's intermediate layers: -1 feeds the layer that makes the logits.
LAYERS = {
    "lenet": {-1: "relu4", -2: "relu3"},
    "alexnet": {-1: "flatten", -2: "relu5"},
    "resnet": {-1: "flatten", -2: "layer3"},
    "densenet": {-1: "flatten", -2: "relu"},
    "inception": {-1: "avgpool", -2: "Mixed_7c"},
    "xception": {-1: "global_pool", -2: "act4"},
}


def lenet(channels: int, classes: int) -> nn.Module:
    """LeNet as released: 6 and 16 filters of 3x3 with average pooling, 120 and 84 units, ReLU. For 28x28 images."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 6, 3),
            relu1=nn.ReLU(),
            pool1=nn.AvgPool2d(2),
            conv2=nn.Conv2d(6, 16, 3),
            relu2=nn.ReLU(),
            pool2=nn.AvgPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(400, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, classes),
        )
    )


def alexnet(channels: int, classes: int) -> nn.Module:
    """AlexNet without its fully connected layers, for 32x32 images."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 64, 11, stride=4, padding=5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(64, 192, 5, padding=2),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(192, 384, 3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 256, 3, padding=1),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(256, 256, 3, padding=1),
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc=nn.Linear(256, classes),
        )
    )


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters; names as in the ResNets trained by others."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding // 2, self.padding // 2))
        return F.relu(out + x)


def resnet(channels: int, classes: int, depth: int = 20, width: int = 16) -> nn.Module:
    """ResNet of `depth` = 6n + 2 layers and `width` filters at first. ValueError for another depth."""
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"a ResNet's depth is 8, 14, 20, …, not {depth}")
    layers = OrderedDict(conv1=nn.Conv2d(channels, width, 3, 1, 1, bias=False), bn1=nn.BatchNorm2d(width))
    layers["relu"] = nn.ReLU()
    inputs = width
    for number, outputs in enumerate((width, 2 * width, 4 * width), 1):
        blocks = []
        for place in range(depth // 6):
            blocks.append(_Block(inputs, outputs, 2 if number > 1 and place == 0 else 1))
            inputs = outputs
        layers[f"layer{number}"] = nn.Sequential(*blocks)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(inputs, classes)}
    return nn.Sequential(layers)


class _Dense(nn.Module):
    """A bottleneck layer of DenseNet-BC: 1x1 to four times the growth, 3x3 to the growth, beside its input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return torch.cat((x, out), 1)


def densenet(channels: int, classes: int, depth: int = 40, growth: int = 12) -> nn.Module:
    """DenseNet-BC of `depth` = 6n + 4 layers, each transition halving the channels. ValueError for another depth."""
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"a DenseNet-BC's depth is 10, 16, 22, …, not {depth}")
    inputs = 2 * growth
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=nn.Conv2d(channels, inputs, 3, padding=1, bias=False))
    for number in (1, 2, 3):
        blocks = []
        for _ in range((depth - 4) // 6):
            blocks.append(_Dense(inputs, growth))
            inputs += growth
        layers[f"dense{number}"] = nn.Sequential(*blocks)
        if number < 3:
            halved = nn.Conv2d(inputs, inputs // 2, 1, bias=False)
            layers[f"transition{number}"] = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), halved, nn.AvgPool2d(2))
            inputs //= 2
    layers |= {"bn": nn.BatchNorm2d(inputs), "relu": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1)}
    layers |= {"flatten": nn.Flatten(), "linear": nn.Linear(inputs, classes)}
    return nn.Sequential(layers)


def inception(channels: int, classes: int) -> nn.Module:
    """Inception-v3 without weights, from torchvision, for 299x299 images."""
    import torchvision

    return torchvision.models.inception_v3(num_classes=classes, aux_logits=False, init_weights=False)


def xception(channels: int, classes: int) -> nn.Module:
    """Xception without weights, from timm, for 299x299 images."""
    import timm

    return timm.create_model("legacy_xception", num_classes=classes)


def pretrained(network: str) -> nn.Module:
    """Inception-v3 (torchvision checks its digest) or Xception (timm, safetensors) as others trained it on ImageNet."""
    if network == "inception":
        import torchvision

        weights = torchvision.models.Inception_V3_Weights.IMAGENET1K_V1
        net = torchvision.models.inception_v3(init_weights=False)
        net.load_state_dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
        net.transform_input = False
        return net
    import timm

    return timm.create_model("legacy_xception.tf_in1k", pretrained=True)


FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "lenet": lenet,
    "alexnet": alexnet,
    "resnet": resnet,
    "densenet": densenet,
    "inception": inception,
    "xception": xception,
}


def make(network: str, channels: int, classes: int) -> nn.Module:
    """A network by name: a key of FAMILIES and its numbers, e.g. "lenet", "resnet-20", "densenet-40-12".

    ValueError on an unknown name.
    """
    family, *numbers = network.split("-")
    if family not in FAMILIES or not all(number.isdigit() for number in numbers):
        raise ValueError(f"unknown network {network!r}; valid: {', '.join(FAMILIES)}, with numbers as in resnet-20")
    return FAMILIES[family](channels, classes, *map(int, numbers))
