"""A small model of every family of timm, and of common kinds beside it, with random weights that do something."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import timm
import torch
from torch import nn

from whyfooled import Classifier

SIDE = 96
CLASSES = 10


class Small(NamedTuple):
    """A model, how large its images are, and with what it is made."""

    name: str
    side: int = SIDE
    options: Mapping[str, Any] = MappingProxyType({})


def _sized(name: str, side: int = SIDE, **options: Any) -> Small:
    """Name a model that has to be told the size of its images."""
    return Small(name, side, {"img_size": side, **options})


# One of the smallest of each module of timm.
FAMILIES = {
    "beit": _sized("beit_base_patch16_224", depth=3),
    "byoanet": Small("lambda_resnet26t"),
    "byobnet": Small("test_byobnet"),
    "cait": _sized("cait_xxs24_224"),
    "coat": _sized("coat_tiny"),
    "convit": _sized("convit_tiny"),
    "convmixer": Small("convmixer_768_32"),
    "convnext": Small("test_convnext"),
    "cpubone": Small("cpubone_nano"),
    "crossvit": Small("crossvit_tiny_240", 240),
    "csatv2": Small("csatv2", 256),
    "cspnet": Small("cs3darknet_focus_s"),
    "cspnext": Small("cspnext_tiny"),
    "davit": Small("davit_tiny"),
    "deepseek_vit": _sized("deepseek_vit_412m", 224, depth=2),
    "deit": _sized("deit_tiny_patch16_224"),
    "densenet": Small("densenet121"),
    "dla": Small("dla46x_c"),
    "dpn": Small("dpn48b"),
    "edgenext": Small("edgenext_xx_small"),
    "efficientformer": _sized("efficientformer_l1", 224),
    "efficientformer_v2": _sized("efficientformerv2_s0"),
    "efficientnet": Small("test_efficientnet"),
    "efficientvim": Small("efficientvim_m1"),
    "efficientvit_mit": Small("efficientvit_b0"),
    "efficientvit_msra": _sized("efficientvit_m0"),
    "eva": _sized("eva02_tiny_patch14_224", 112),
    "fasternet": Small("fasternet_t0"),
    "fastvit": Small("fastvit_t8"),
    "focalnet": Small("focalnet_tiny_srf"),
    "gcvit": _sized("gcvit_xxtiny"),
    "gemma4_vit": _sized("gemma4_vit_167m", depth=2),
    "ghostnet": Small("ghostnet_050"),
    "hardcorenas": Small("hardcorenas_b"),
    "hgnet": Small("hgnetv2_b0"),
    "hiera": _sized("hiera_tiny_224"),
    "hieradet_sam2": Small("sam2_hiera_tiny"),
    "hrnet": Small("hrnet_w18_small"),
    "iformer": Small("iformer_t"),
    "inception_next": Small("inception_next_atto"),
    "inception_resnet_v2": Small("inception_resnet_v2", 160),
    "inception_v3": Small("inception_v3", 160),
    "inception_v4": Small("inception_v4", 160),
    "lcnetv2": Small("lcnetv2_small"),
    "levit": _sized("levit_128s"),
    "lowformer": Small("lowformer_b0"),
    "mambaout": Small("test_mambaout"),
    "maxxvit": _sized("test_coatnet"),
    "metaformer": Small("poolformerv2_s12"),
    "mlp_mixer": _sized("mixer_s32_224"),
    "mobilenetv3": Small("mobilenetv3_small_050"),
    "mobilenetv5": Small("mobilenetv5_base"),
    "mobilevit": Small("mobilevit_xxs"),
    "mvitv2": _sized("mvitv2_tiny"),
    "naflexvit": _sized("naflexvit_base_patch16_parfac_gap", depth=3),
    "nasnet": Small("nasnetalarge"),
    "nest": _sized("jx_nest_tiny"),
    "nextvit": Small("nextvit_small"),
    "nfnet": Small("test_nfnet"),
    "pit": _sized("pit_ti_224"),
    "pnasnet": Small("pnasnet5large"),
    "pvt_v2": Small("pvt_v2_b0"),
    "qwen3_vit": _sized("qwen3_vit_88m", depth=2),
    "rdnet": Small("rdnet_tiny"),
    "regnet": Small("regnetx_002"),
    "repghost": Small("repghostnet_050"),
    "repvit": Small("repvit_m1"),
    "res2net": Small("res2next50"),
    "resnest": Small("resnest14d"),
    "resnet": Small("test_resnet"),
    "resnetv2": Small("resnetv2_18"),
    "rexnet": Small("rexnet_100"),
    "selecsls": Small("selecsls42"),
    "senet": Small("legacy_seresnet18"),
    "sequencer": _sized("sequencer2d_s"),
    "shvit": Small("shvit_s1"),
    "sknet": Small("skresnet18"),
    "starnet": Small("starnet_s050"),
    "swiftformer": _sized("swiftformer_xs"),
    "swin_transformer": _sized(
        "swin_tiny_patch4_window7_224", embed_dim=16, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 2), window_size=3
    ),
    "swin_transformer_v2": _sized("swinv2_tiny_window16_256"),
    "swin_transformer_v2_cr": _sized("swinv2_cr_tiny_224"),
    "tiny_vit": Small("tiny_vit_5m_224"),
    "tnt": _sized("tnt_s_legacy_patch16_224"),
    "tresnet": Small("tresnet_m"),
    "twins": _sized("twins_svt_small"),
    "vgg": Small("vgg11"),
    "visformer": _sized("visformer_tiny"),
    "vision_transformer": _sized("test_vit"),
    "vision_transformer_hybrid": _sized("vit_tiny_r_s16_p8_224"),
    "vision_transformer_relpos": _sized("test_vit_relpos"),
    "vision_transformer_sam": _sized("samvit_base_patch16_224", depth=4),
    "vitamin": _sized("vitamin_small_224"),
    "volo": _sized("volo_d1_224"),
    "vovnet": Small("ese_vovnet19b_slim_dw"),
    "xception": Small("legacy_xception"),
    "xception_aligned": Small("xception41p"),
    "xcit": _sized("xcit_nano_12_p8_224"),
}
# Other kinds that people use, of the same modules.
MORE = {
    "resnet-18": Small("resnet18"),
    "resnext": Small("resnext50_32x4d"),
    "se-resnet": Small("seresnet50"),
    "eca-resnet": Small("ecaresnet26t"),
    "wide resnet, antialiased": Small("resnetblur50"),
    "bit": Small("resnetv2_50x1_bit"),
    "regnety": Small("regnety_002"),
    "regnetz": Small("regnetz_005"),
    "repvgg": Small("repvgg_a0"),
    "mobileone": Small("mobileone_s0"),
    "gernet": Small("gernet_s"),
    "darknet": Small("darknet17"),
    "efficientnet-b0": Small("efficientnet_b0"),
    "efficientnet-lite": Small("tf_efficientnet_lite0"),
    "efficientnet-v2": Small("efficientnetv2_rw_t"),
    "mobilenet-v2": Small("mobilenetv2_050"),
    "mobilenet-v4": Small("mobilenetv4_conv_small_035"),
    "mnasnet": Small("mnasnet_small"),
    "mixnet": Small("mixnet_s"),
    "nf-regnet": Small("nf_regnet_b0"),
    "eca-nfnet": Small("eca_nfnet_l0"),
    "convnext-atto": Small("convnext_atto"),
    "convnext-v2": Small("convnextv2_atto"),
    "caformer": Small("caformer_s18"),
    "coatnet": _sized("coatnet_nano_rw_224"),
    "maxvit": _sized("maxvit_pico_rw_256"),
    "resmlp": _sized("resmlp_12_224"),
    "gmlp": _sized("gmlp_ti16_224"),
    "vit-tiny": _sized("vit_tiny_patch16_224"),
    "swin-tiny": _sized("swin_tiny_patch4_window7_224"),
    "dinov2": _sized("vit_small_patch14_dinov2", 112),
    "vit, pooled by attention": _sized("vit_base_patch16_siglip_gap_224", depth=3),
    "deit, distilled": _sized("deit_tiny_distilled_patch16_224"),
}
EVERY = {**FAMILIES, **MORE}
QUICK = (
    *("byobnet", "convnext", "efficientnet", "mambaout", "maxxvit", "mlp_mixer", "nfnet", "resnet", "swin_transformer"),
    "vision_transformer",
)
"""Those that every test run looks at."""


def build(family: str) -> Classifier:
    """Make the model of a family, with a head for ten classes and random weights."""
    model = EVERY[family]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = timm.create_model(model.name, pretrained=False, num_classes=CLASSES, **model.options).eval()
    waken(module)
    return Classifier(module, (0.5,) * 3, (0.25,) * 3, (model.side, model.side), name=model.name)


@torch.no_grad()
def waken(module: nn.Module) -> None:
    """Give weights that begin at 0, or close to it, values with which their parts do something.

    Layer scales begin at 1e-6 and heads at 0: every rule of a block agrees with every other, or no logit changes.
    """
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            is_small = "bias" not in name and bool(parameter.abs().max() < 1e-2)
            if isinstance(part, nn.Linear | nn.Conv2d):
                if is_small and not parameter.any():
                    nn.init.normal_(parameter, 0, 0.05)
            elif is_small and (parameter.ndim <= 1 or "scale" in name or "gamma" in name):
                parameter.fill_(0.5)
