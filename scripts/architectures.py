"""The architectures of the sweep: their names, and how each is made, small and with random weights."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 7
_SIZES = (64, 96, 128, 160, 224, 256)

TIMM = """
beit_base_patch16_224 botnet26t_256 eca_botnext26ts_256 eca_halonext26ts lambda_resnet26t sehalonet33ts
bat_resnext26ts eca_resnet33ts gcresnext26ts gernet_s mobileone_s0 regnetz_b16 regnetz_b16_evos repvgg_a0 resnext26ts
resnet50_clip test_byobnet cait_xxs24_224 coat_tiny coat_lite_tiny convit_tiny convmixer_768_32 convnext_atto
convnext_zepto_rms convnextv2_atto test_convnext cpubone_nano crossvit_tiny_240 crossvit_9_dagger_240 csatv2
cs3darknet_focus_s cspresnet50 darknet17 darknetaa53 cspnext_tiny davit_tiny deit_tiny_patch16_224
deit_tiny_distilled_patch16_224 deit3_small_patch16_224 densenet121 densenetblur121d dla46_c dla60_res2net dpn48b
edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0 efficientnet_b0_gn efficientnet_blur_b0
efficientnet_cc_b0_4e efficientnet_es efficientnet_lite0 efficientnetv2_rw_t fbnetc_100 mixnet_s mnasnet_small
mobilenetv1_100 mobilenetv2_035 spnasnet_100 tf_efficientnet_b0 tinynet_e efficientvim_m1 efficientvit_b0
efficientvit_l1 efficientvit_m0 eva02_tiny_patch14_224 vit_pe_core_tiny_patch16_384 vit_small_patch16_rope_224
vit_small_patch16_rope_mixed_224 vit_small_patch16_dinov3 fasternet_t0 fastvit_t8 fastvit_sa12 focalnet_tiny_srf
gcvit_xxtiny ghostnet_050 ghostnetv2_100 ghostnetv3_050 hardcorenas_a hgnet_tiny hgnetv2_b0 hiera_tiny_224
hieradet_small hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4
lcnetv2_small levit_128s levit_conv_128s lowformer_b0 mambaout_femto test_mambaout coatnet_pico_rw_224
coatnext_nano_rw_224 maxvit_pico_rw_256 maxxvit_rmlp_nano_rw_256 test_coatnet test_maxvit caformer_s18 convformer_s18
poolformer_s12 poolformerv2_s12 gmixer_12_224 gmlp_ti16_224 mixer_s32_224 resmlp_12_224 fbnetv3_b lcnet_035
mobilenetv3_small_050 mobilenetv4_conv_small_035 mobilenetv4_hybrid_medium_075 mobilevit_xxs mobilevitv2_050
mvitv2_tiny mvitv2_small_cls naflexvit_base_patch16_gap nest_tiny nextvit_small eca_nfnet_l0 nf_regnet_b0 nf_resnet26
test_nfnet pit_ti_224 pit_ti_distilled_224 pvt_v2_b0 pvt_v2_b2_li rdnet_tiny regnetx_002 regnety_002 regnetv_040
repghostnet_050 repvit_m0_9 res2net50_14w_8s resnest14d ecaresnet26t resnet10t resnet18 resnet18d resnet50_gn
resnetaa34d resnetblur18 resnetrs50 resnext50_32x4d seresnet18 resnetv2_18 resnetv2_50x1_bit resnetv2_50d_evos
resnetv2_50d_frn resnetv2_50d_gn rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18
starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swin_s3_tiny_224 swinv2_tiny_window8_256
swinv2_cr_tiny_ns_224 tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m twins_pcpvt_small twins_svt_small vgg11 vgg11_bn
visformer_tiny test_vit test_vit2 test_vit3 test_vit4 vit_tiny_patch16_224 vit_small_patch14_dinov2
vit_small_patch14_reg4_dinov2 flexivit_small vit_base_patch32_siglip_256 vit_base_patch32_clip_quickgelu_224
vit_tiny_r_s16_p8_224 test_vit_relpos vit_srelpos_small_patch16_224 samvit_base_patch16_224 vitamin_small_224
volo_d1_224 eca_vovnet39b ese_vovnet19b_slim_dw legacy_xception xception41p xcit_nano_12_p16_224
""".split()
"""The smallest of each family, and those of its relatives that compute something else."""

TORCHVISION = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5
mobilenet_v2 mobilenet_v3_small mobilenet_v3_large regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d
wide_resnet50_2 shufflenet_v2_x0_5 squeezenet1_0 squeezenet1_1 swin_t swin_v2_t vgg11 vgg11_bn vit_b_32 fcn_resnet50
deeplabv3_mobilenet_v3_large deeplabv3_resnet50 lraspp_mobilenet_v3_large r3d_18 mc3_18 r2plus1d_18 s3d swin3d_t
mvit_v1_b mvit_v2_s quantized_resnet18 quantized_mobilenet_v2
""".split()

_VIDEO = {"r3d_18", "mc3_18", "r2plus1d_18", "s3d", "swin3d_t", "mvit_v1_b", "mvit_v2_s"}
_WHOLE = {"inception_v3": 96, "maxvit_t": 224, "mvit_v1_b": 224, "mvit_v2_s": 224, "s3d": 224}
_BARE: dict[str, Any] = {"weights_backbone": None}
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False, "aux_logits": False},
    "inception_v3": {"init_weights": False, "aux_logits": False},
    "vit_b_32": {"image_size": 64},
    "fcn_resnet50": _BARE,
    "deeplabv3_resnet50": _BARE,
    "deeplabv3_mobilenet_v3_large": _BARE,
    "lraspp_mobilenet_v3_large": _BARE,
    "quantized_resnet18": {"quantize": True},
    "quantized_mobilenet_v2": {"quantize": True},
}


def _sizes(**sizes: Any) -> dict[str, Any]:
    return sizes


_VIT = _sizes(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=37, image_size=32, patch_size=8,
)  # fmt: skip
_STAGES = _sizes(depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32])
_SWIN = _sizes(image_size=32, patch_size=2, embed_dim=16, depths=[1, 2, 1], num_heads=[2, 2, 4], window_size=4)
_PYRAMID = _sizes(
    image_size=64, depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 2, 4, 4],
    sequence_reduction_ratios=[8, 4, 2, 1],
)  # fmt: skip
_SEGFORMER = _sizes(
    depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 2, 4, 4], decoder_hidden_size=16,
)  # fmt: skip
_DETR = _sizes(
    d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
    encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=5,
)  # fmt: skip

HUGGING_FACE: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ViTForImageClassification": ("ViTConfig", _VIT),
    "ViTModel": ("ViTConfig", _VIT),
    "DeiTForImageClassification": ("DeiTConfig", _VIT),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", _VIT),
    "BeitForImageClassification": ("BeitConfig", _VIT | _sizes(use_relative_position_bias=True)),
    "BeitForSemanticSegmentation": ("BeitConfig", _sizes(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=37, image_size=64, patch_size=16,
        out_indices=[1, 2, 3, 4],
    )),
    "Data2VecVisionForImageClassification": ("Data2VecVisionConfig", _VIT),
    "Dinov2ForImageClassification": ("Dinov2Config", _VIT),
    "Dinov2WithRegistersForImageClassification": ("Dinov2WithRegistersConfig", _VIT),
    "DINOv3ViTModel": ("DINOv3ViTConfig", _VIT),
    "DINOv3ConvNextModel": ("DINOv3ConvNextConfig", _STAGES | _sizes(image_size=64)),
    "SiglipForImageClassification": ("SiglipConfig", _sizes(vision_config=_VIT)),
    "SiglipVisionModel": ("SiglipVisionConfig", _VIT),
    "CLIPVisionModel": ("CLIPVisionConfig", _VIT),
    "CLIPVisionModelWithProjection": ("CLIPVisionConfig", _VIT | _sizes(projection_dim=16)),
    "CLIPForImageClassification": ("CLIPConfig", _sizes(vision_config=_VIT)),
    "MetaClip2ForImageClassification": ("MetaClip2Config", _sizes(vision_config=_VIT)),
    "Aimv2VisionModel": ("Aimv2VisionConfig", _VIT),
    "MLCDVisionModel": ("MLCDVisionConfig", _VIT | _sizes(num_key_value_groups=1)),
    "PixioModel": ("PixioConfig", _VIT),
    "ViTMAEModel": ("ViTMAEConfig", _VIT | _sizes(mask_ratio=0.0)),
    "ViTMSNForImageClassification": ("ViTMSNConfig", _VIT),
    "IJepaForImageClassification": ("IJepaConfig", _VIT),
    "VitDetModel": ("VitDetConfig", _VIT),
    "YolosForObjectDetection": ("YolosConfig", _VIT | _sizes(image_size=[32, 32], num_detection_tokens=5)),
    "SwinForImageClassification": ("SwinConfig", _SWIN),
    "Swinv2ForImageClassification": ("Swinv2Config", _SWIN),
    "DonutSwinForImageClassification": ("DonutSwinConfig", _SWIN),
    "ConvNextForImageClassification": ("ConvNextConfig", _STAGES),
    "ConvNextV2ForImageClassification": ("ConvNextV2Config", _STAGES),
    "ResNetForImageClassification": ("ResNetConfig", _STAGES | _sizes(embedding_size=8, layer_type="basic")),
    "RegNetForImageClassification": ("RegNetConfig", _STAGES | _sizes(embedding_size=8, groups_width=4)),
    "BitForImageClassification": ("BitConfig", _STAGES | _sizes(embedding_size=8, num_groups=4)),
    "HGNetV2ForImageClassification": ("HGNetV2Config", {}),
    "LevitForImageClassification": ("LevitConfig", _STAGES | _sizes(
        image_size=64, hidden_sizes=[16, 24, 32], num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8, 8, 8],
    )),
    "CvtForImageClassification": ("CvtConfig", _sizes(embed_dim=[8, 16, 32], num_heads=[1, 2, 4], depth=[1, 2, 3])),
    "PvtForImageClassification": ("PvtConfig", _STAGES | _sizes(
        image_size=64, num_attention_heads=[1, 2, 4, 4], sequence_reduction_ratios=[8, 4, 2, 1],
    )),
    "PvtV2ForImageClassification": ("PvtV2Config", _STAGES | _sizes(image_size=64, num_attention_heads=[1, 2, 4, 4])),
    "PoolFormerForImageClassification": ("PoolFormerConfig", _STAGES),
    "SwiftFormerForImageClassification": ("SwiftFormerConfig", _sizes(depths=[1, 1, 1, 1], embed_dims=[8, 16, 24, 32])),
    "SegformerForImageClassification": ("SegformerConfig", _STAGES | _sizes(
        num_attention_heads=[1, 2, 4, 4], decoder_hidden_size=16,
    )),
    "SegformerForSemanticSegmentation": ("SegformerConfig", _STAGES | _sizes(
        num_attention_heads=[1, 2, 4, 4], decoder_hidden_size=16,
    )),
    "MobileNetV1ForImageClassification": ("MobileNetV1Config", _sizes(depth_multiplier=0.25, min_depth=8)),
    "MobileNetV2ForImageClassification": ("MobileNetV2Config", _sizes(depth_multiplier=0.25, min_depth=8)),
    "MobileNetV2ForSemanticSegmentation": ("MobileNetV2Config", _sizes(depth_multiplier=0.25, min_depth=8)),
    "MobileViTForImageClassification": ("MobileViTConfig", _sizes(
        hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 48], num_attention_heads=4, image_size=64,
    )),
    "MobileViTForSemanticSegmentation": ("MobileViTConfig", _sizes(
        hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 32, 48], num_attention_heads=4, image_size=64,
    )),
    "MobileViTV2ForImageClassification": ("MobileViTV2Config", _sizes(width_multiplier=0.25, image_size=64)),
    "EfficientNetForImageClassification": ("EfficientNetConfig", _sizes(
        width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320, image_size=64,
    )),
    "FocalNetForImageClassification": ("FocalNetConfig", _STAGES | _sizes(
        image_size=32, embed_dim=16, hidden_sizes=[16, 32], depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3],
    )),
    "HieraForImageClassification": ("HieraConfig", _sizes(
        image_size=[64, 64], embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8],
    )),
    "TextNetForImageClassification": ("TextNetConfig", {}),
    "PPLCNetForImageClassification": ("PPLCNetConfig", _sizes(scale=0.25)),
    "PerceiverForImageClassificationLearned": ("PerceiverConfig", _sizes(
        d_latents=16, d_model=16, num_latents=8, num_blocks=1, num_self_attends_per_block=2,
        num_self_attention_heads=2, num_cross_attention_heads=1, image_size=32,
    )),
    "TimmWrapperForImageClassification": ("TimmWrapperConfig", _sizes(architecture="test_vit")),
    "TimesformerForVideoClassification": ("TimesformerConfig", _VIT | _sizes(num_frames=2)),
    "VideoMAEForVideoClassification": ("VideoMAEConfig", _VIT | _sizes(num_frames=4)),
    "VivitForVideoClassification": ("VivitConfig", _VIT | _sizes(num_frames=4, tubelet_size=[2, 8, 8])),
    "VJEPA2ForVideoClassification": ("VJEPA2Config", _sizes(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, patch_size=8, crop_size=32, image_size=32,
        frames_per_clip=4, num_pooler_layers=1, pred_hidden_size=16, pred_num_hidden_layers=1,
        pred_num_attention_heads=2,
    )),
    "DPTForSemanticSegmentation": ("DPTConfig", _sizes(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=37, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16, is_hybrid=False,
    )),
    "GLPNForDepthEstimation": ("GLPNConfig", _STAGES | _sizes(
        num_attention_heads=[1, 2, 4, 4], decoder_hidden_size=16,
    )),
    "DetrForObjectDetection": ("DetrConfig", _DETR),
    "Swin2SRModel": ("Swin2SRConfig", _sizes(
        image_size=32, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4,
    )),
}  # fmt: skip
"""Class of transformers -> the class of its configuration, and what makes it small."""
_FRAMES = {
    "TimesformerForVideoClassification": 2,
    "VideoMAEForVideoClassification": 4,
    "VivitForVideoClassification": 4,
    "VJEPA2ForVideoClassification": 4,
}

_ARGUMENTS = {
    "VJEPA2ForVideoClassification": "pixel_values_videos",
    "PerceiverForImageClassificationLearned": "inputs",
}

_OUTPUTS = ("logits", "image_embeds", "pooler_output", "predicted_depth", "last_hidden_state", "out")

NAMES = (
    *(f"timm:{name}" for name in TIMM),
    *(f"hf:{name}" for name in HUGGING_FACE),
    *(f"torchvision:{name}" for name in TORCHVISION),
)


def make(name: str) -> tuple[nn.Module, Tensor]:
    """A network with random weights, and one picture of the smallest size that it takes."""
    source, _, rest = name.partition(":")
    makers: Mapping[str, Callable[[str], tuple[nn.Module, Tensor]]] = {
        "timm": _timm, "hf": _hugging_face, "torchvision": _torchvision
    }  # fmt: skip
    _torchvision_operators()
    return makers[source](rest)


@cache
def _torchvision_operators() -> Any:
    """The schemas without which a torchvision built for CUDA does not import beside a CPU torch."""
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _timm(name: str) -> tuple[nn.Module, Tensor]:
    import timm

    errors = []
    for size in _SIZES:
        for options in ({"img_size": size}, {}):
            x = torch.randn(1, 3, size, size)
            try:
                net = timm.create_model(name, num_classes=CLASSES, exportable=False, scriptable=False, **options).eval()
                with torch.no_grad():
                    net(x)
            except Exception as error:
                errors.append(error)
                continue
            return net, x
    raise errors[-1]


def _hugging_face(name: str) -> tuple[nn.Module, Tensor]:
    import transformers

    config_class, options = HUGGING_FACE[name]
    labels = {"num_labels": CLASSES} if "For" in name else {}
    if name.startswith("Detr"):
        backbone = transformers.ResNetConfig(**_STAGES, embedding_size=8, out_features=["stage4"], layer_type="basic")
        options = options | {"backbone_config": backbone}
    config = getattr(transformers, config_class)(**options, **labels)
    config._attn_implementation = "eager"
    net = getattr(transformers, name)(config).eval()
    size = options.get("image_size", options.get("vision_config", {}).get("image_size", 64))
    size = size if isinstance(size, int) else size[0]
    frames = (_FRAMES[name],) if name in _FRAMES else ()
    if name.startswith("TimmWrapper"):
        size = 160
    return _OfPictures(net, _ARGUMENTS.get(name, "pixel_values")), torch.randn(1, *frames, 3, size, size)


class _OfPictures(nn.Module):
    """A network that wants its pictures by name or returns several tensors, as a function from pictures to one."""

    def __init__(self, net: nn.Module, argument: str | None) -> None:
        super().__init__()
        self.net, self.argument = net, argument

    def forward(self, x: Tensor) -> Tensor:
        output = self.net(x) if self.argument is None else self.net(**{self.argument: x})
        found: Tensor = next(output[key] for key in _OUTPUTS if output.get(key) is not None)
        return found


def _torchvision(name: str) -> tuple[nn.Module, Tensor]:
    import torchvision

    options: dict[str, Any] = {"weights": None, "num_classes": CLASSES} | _OPTIONS.get(name, {})
    frames = (16,) if name in _VIDEO else ()
    size = _WHOLE.get(name, 64)
    net = torchvision.models.get_model(name, **options)
    return _OfPictures(net, None) if _OPTIONS.get(name) is _BARE else net, torch.randn(1, 3, *frames, size, size)
