"""Every saliency method on timm's families: ten of them as the page says, and the page of all of them."""

import warnings

import pytest
from timm.models._registry import _module_to_models

from benchmarks.families import EVERYTHING, PAGE, describe_refused, measure, read, write
from tests.helpers.timm_families import EVERY, FAMILIES, QUICK

ROWS = read(PAGE.read_text())
GRADIENT_LIKE = ("gradient", "input-x-gradient", "integrated-gradients", "smoothgrad", "guided", "enhanced")
ATTENDING = ("attention-rollout", "attention-relevance")
# The families whose attention is between the same tokens throughout. This list may only grow.
TRANSFORMERS = (
    *("beit", "deit", "efficientformer", "eva", "gemma4_vit", "naflexvit", "vision_transformer"),
    *("vision_transformer_hybrid", "vision_transformer_relpos", "vitamin", "vit-tiny", "dinov2"),
    *("vit, pooled by attention", "deit, distilled"),
)
# What no family may be refused by, but those that are named. This list may only shrink.
REFUSED = {"coat": ("gradcam", "gradcampp", "guided-gradcam")}
CONVOLUTIONAL = (
    *("byobnet", "convmixer", "convnext", "cspnet", "densenet", "dla", "dpn", "efficientnet", "ghostnet", "hgnet"),
    *("hrnet", "inception_resnet_v2", "inception_v3", "inception_v4", "mobilenetv3", "nasnet", "nfnet", "pnasnet"),
    *("regnet", "repghost", "res2net", "resnest", "resnet", "resnetv2", "rexnet", "selecsls", "senet", "sknet"),
    *("tresnet", "vgg", "vovnet", "xception", "xception_aligned", "resnext", "mobilenet-v2", "efficientnet-b0"),
)


@pytest.mark.parametrize("family", QUICK)
def test_a_family_is_as_the_page_says(family):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row = measure(family)
    assert row == ROWS[family]


def test_the_page_has_every_family_of_timm():
    assert set(FAMILIES) == set(_module_to_models)
    assert set(ROWS) == set(EVERY)
    assert len(FAMILIES) >= 60


def test_the_page_is_as_it_is_written():
    assert write(ROWS) == PAGE.read_text()
    assert read(write(ROWS)) == ROWS


@pytest.mark.parametrize("family", EVERY)
def test_methods_that_need_no_rule_hold_on_every_family(family):
    rules = ("deconvnet", "deeplift", "lrp", "contrastive-lrp", "cam", *ATTENDING)
    refused = set(ROWS[family].refused)
    assert refused.difference(rules) == set(REFUSED.get(family, ())), describe_refused(ROWS[family].refused)
    assert not refused.intersection(GRADIENT_LIKE)
    assert refused <= set(EVERYTHING)


@pytest.mark.parametrize("family", CONVOLUTIONAL)
def test_nothing_is_refused_by_explain_or_grad_cam_on_convolutional_networks(family):
    assert not {"explain", "gradcam", "guided-gradcam", "guided"}.intersection(ROWS[family].refused)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_what_transformers_attend_to_is_shown(family):
    assert not set(ATTENDING).intersection(ROWS[family].refused)
