"""The monai networks of the sweep: (name, module:constructor, input shape, arguments)."""

from __future__ import annotations

from typing import Any

_2D: dict[str, Any] = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
_3D: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
_LEVELS: dict[str, Any] = {"channels": (4, 8, 16), "strides": (2, 2)}
_SCORE: dict[str, Any] = {"in_shape": (1, 32, 32), "channels": (4, 8), "strides": (2, 2)}
_PATCH: dict[str, Any] = {"spatial_dims": 2, "channels": 8, "in_channels": 3}
_REGISTRATION: dict[str, Any] = {"spatial_dims": 3, "in_channels": 2, "num_channel_initial": 4}
_QUANTISED: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "channels": (8, 16),
    "num_res_layers": 1,
    "num_res_channels": (8, 16),
    "downsample_parameters": ((2, 4, 1, 1), (2, 4, 1, 1)),
    "upsample_parameters": ((2, 4, 1, 1, 0), (2, 4, 1, 1, 0)),
}
_AUTO: dict[str, Any] = {"channels": (4, 8, 16), "strides": (2, 2, 2)}
_DILATED: dict[str, Any] = {"inter_channels": (8, 8), "inter_dilations": (1, 2), **_AUTO, **_2D}
_VARIATIONAL: dict[str, Any] = {"spatial_dims": 2, "in_shape": (1, 32, 32), "out_channels": 1, "latent_size": 4}
_MORPH: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 2,
    "unet_out_channels": 8,
    "channels": (8, 8, 8, 8),
    "final_conv_channels": (8,),
}
_RESNET: dict[str, Any] = {"spatial_dims": 3, "n_input_channels": 1, "num_classes": 2}

MEDICAL: tuple[tuple[str, str, tuple[int, ...], dict[str, Any]], ...] = (
    ("ahnet_2d", "ahnet:AHNet", (1, 1, 128, 128), {**_2D, "upsample_mode": "bilinear"}),
    ("ahnet_3d", "ahnet:AHNet", (1, 1, 64, 64, 32), {**_3D, "psp_block_num": 2}),
    ("attention_unet", "attentionunet:AttentionUnet", (1, 1, 16, 16, 16), {**_LEVELS, **_3D}),
    ("autoencoder", "autoencoder:AutoEncoder", (1, 1, 32, 32), _DILATED),
    ("basic_unet_2d", "basic_unet:BasicUNet", (1, 1, 48, 56), {"features": (4, 4, 8, 8, 16, 4), **_2D}),
    (
        "basic_unetplusplus",
        "basic_unetplusplus:BasicUNetPlusPlus",
        (1, 1, 32, 32, 32),
        {"features": (4, 4, 8, 8, 16, 4), **_3D},
    ),
    ("classifier", "classifier:Classifier", (1, 1, 32, 32), {"classes": 3, **_SCORE}),
    ("critic", "classifier:Critic", (1, 1, 32, 32), _SCORE),
    ("densenet121_3d", "densenet:DenseNet121", (1, 1, 32, 32, 32), _3D),
    ("discriminator", "classifier:Discriminator", (1, 1, 32, 32), _SCORE),
    (
        "efficientnet_2d",
        "efficientnet:EfficientNetBN",
        (1, 3, 75, 96),
        {"model_name": "efficientnet-b0", "pretrained": False},
    ),
    (
        "efficientnet_3d",
        "efficientnet:EfficientNetBN",
        (1, 1, 32, 40, 48),
        {"model_name": "efficientnet-b0", "pretrained": False, "spatial_dims": 3, "in_channels": 1, "num_classes": 2},
    ),
    (
        "flexible_unet",
        "flexible_unet:FlexibleUNet",
        (1, 3, 64, 96),
        {"in_channels": 3, "out_channels": 2, "backbone": "efficientnet-b0", "decoder_channels": (16, 16, 8, 8, 4)},
    ),
    (
        "generator",
        "generator:Generator",
        (1, 16),
        {"latent_shape": (16,), "start_shape": (8, 8, 8), "channels": (8, 4, 1), "strides": (2, 2, 1)},
    ),
    ("globalnet", "regunet:GlobalNet", (1, 2, 16, 16, 16), {"image_size": [16, 16, 16], "depth": 2, **_REGISTRATION}),
    ("localnet", "regunet:LocalNet", (1, 2, 16, 16, 16), {"extract_levels": (0, 1), **_REGISTRATION}),
    ("mednext_s", "mednext:MedNeXtS", (1, 1, 64, 64), _2D),
    (
        "multiscale_patch_discriminator",
        "patchgan_discriminator:MultiScalePatchDiscriminator",
        (1, 3, 96, 96),
        {"num_d": 2, "num_layers_d": 2, "minimum_size_im": 96, **_PATCH},
    ),
    (
        "patch_discriminator_3d",
        "patchgan_discriminator:PatchDiscriminator",
        (1, 1, 32, 32, 32),
        {"spatial_dims": 3, "channels": 8, "in_channels": 1, "num_layers_d": 2},
    ),
    ("quicknat", "quicknat:Quicknat", (1, 1, 64, 64), {"num_classes": 3, "num_filters": 8}),
    ("regressor", "regressor:Regressor", (1, 1, 32, 32), {"out_shape": (2,), **_SCORE}),
    ("regunet", "regunet:RegUNet", (1, 2, 16, 16, 16), {"depth": 2, **_REGISTRATION}),
    ("resnet10_3d", "resnet:resnet10", (1, 1, 32, 32, 32), _RESNET),
    ("segresnet_ds", "segresnet_ds:SegResNetDS", (1, 1, 32, 32, 32), {"init_filters": 8, **_3D}),
    ("segresnet_ds2", "segresnet_ds:SegResNetDS2", (1, 1, 32, 32, 32), {"init_filters": 8, **_3D}),
    ("segresnet_vae", "segresnet:SegResNetVAE", (1, 1, 32, 32, 32), {"input_image_size": (32, 32, 32), "vae_nz": 8}),
    ("senet50_2d", "senet:SEResNet50", (1, 3, 96, 96), {"spatial_dims": 2, "in_channels": 3, "num_classes": 4}),
    ("unet_1d", "unet:UNet", (2, 1, 64), {"spatial_dims": 1, "in_channels": 1, "out_channels": 2, **_LEVELS}),
    ("unet_2d_plain", "unet:UNet", (1, 1, 36, 44), {**_2D, **_LEVELS}),
    ("varautoencoder", "varautoencoder:VarAutoEncoder", (1, 1, 32, 32), {**_AUTO, **_VARIATIONAL}),
    ("voxelmorph_unet", "voxelmorph:VoxelMorphUNet", (1, 2, 32, 32, 32), _MORPH),
    ("vqvae", "vqvae:VQVAE", (1, 1, 32, 32), _QUANTISED),
)
