"""CLIP and DINO families against the libraries' own pipelines, on tiny random checkpoints."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from logging import LogRecord
from logging.handlers import BufferingHandler
from pathlib import Path

import numpy as np
import open_clip
import pytest
import tiny_backbones
import torch
from clips import random_clip
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, CLIPVisionConfig
from transformers import CLIPVisionModelWithProjection as ClipVision
from transformers.utils import logging

from dfdbench.evaluate.metrics import Compute, Setting, clip_vit_l14, get_family
from dfdbench.utils.assets import get_asset
from dfdbench.utils.errors import MissingWeights, UserError
from dfdbench.utils.video import Clip

NAMES = tuple(tiny_backbones.WRITERS)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    for writer in (
        tiny_backbones.write_clip,
        tiny_backbones.write_dinov2,
        tiny_backbones.write_dinov3,
    ):
        writer(folder)
    return folder


@pytest.fixture
def tiny(checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The tiny checkpoints in place of the real ones."""
    monkeypatch.setenv("DFDBENCH_ASSETS", str(checkpoints))
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    tiny_backbones.expect_tiny(monkeypatch)
    yield checkpoints


@pytest.fixture
def reports() -> Iterator[list[LogRecord]]:
    """What transformers logs: it does so through a handler of its own, which capsys cannot see."""
    handler = BufferingHandler(1000)
    logging.add_handler(handler)
    yield handler.buffer
    logging.remove_handler(handler)


def wide_frames(seed: int = 0, frames: int = 3) -> np.ndarray:
    """Not square, so that resizing and cropping show; (T, 90, 160, 3)."""
    return random_clip(seed, frames, height=90, width=160)


def clip_of(frames: np.ndarray) -> Clip:
    return Clip(frames, 8.0, "test", np.arange(len(frames)))


def features(compute: Compute, name: str, frames: np.ndarray) -> np.ndarray:
    values = compute(clip_of(frames))[f"{name}_features"]
    assert isinstance(values, np.ndarray)
    return values


def prepared_by_hand(frame: np.ndarray) -> torch.Tensor:
    """CLIP's preprocessing with Pillow and numpy alone: (3, 224, 224)."""
    image = Image.fromarray(frame)
    short = min(image.size)
    width, height = (int(224 * side / short) for side in image.size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized.crop((left, top, left + 224, top + 224))) / 255
    mean = [0.48145466, 0.4578275, 0.40821073]
    std = [0.26862954, 0.26130258, 0.27577711]
    return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1).float()


def by_open_clip(folder: Path, frames: np.ndarray) -> np.ndarray:
    """open_clip's own way from the same folder: whole model, its own transform."""
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    images = torch.stack([prepare(Image.fromarray(frame)) for frame in frames])
    return model.eval().encode_image(images).detach().numpy()


def by_transformers_clip(folder: Path, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Another implementation with the same weights: projected embedding, raw class token."""
    vision = tiny_backbones.CLIP_CONFIG["vision_cfg"]
    network = ClipVision(
        CLIPVisionConfig(
            hidden_size=vision["width"],
            intermediate_size=4 * vision["width"],
            num_hidden_layers=vision["layers"],
            num_attention_heads=vision["width"] // vision["head_width"],
            image_size=224,
            patch_size=vision["patch_size"],
            projection_dim=tiny_backbones.CLIP_CONFIG["embed_dim"],
            hidden_act="quick_gelu",
        )
    ).eval()
    weights = load_file(folder / "open_clip_model.safetensors")
    mine = {k.removeprefix("visual."): v for k, v in weights.items() if k.startswith("visual.")}
    root = "vision_model."
    theirs = {
        f"{root}embeddings.class_embedding": mine["class_embedding"],
        f"{root}embeddings.position_embedding.weight": mine["positional_embedding"],
        f"{root}embeddings.patch_embedding.weight": mine["conv1.weight"],
        "visual_projection.weight": mine["proj"].T,
    }
    for kind in ("weight", "bias"):
        theirs[f"{root}pre_layrnorm.{kind}"] = mine[f"ln_pre.{kind}"]
        theirs[f"{root}post_layernorm.{kind}"] = mine[f"ln_post.{kind}"]
        for i in range(vision["layers"]):
            to, of = f"{root}encoder.layers.{i}.", f"transformer.resblocks.{i}."
            parts = mine[f"{of}attn.in_proj_{kind}"].chunk(3)
            for letter, part in zip("qkv", parts, strict=True):
                theirs[f"{to}self_attn.{letter}_proj.{kind}"] = part
            theirs[f"{to}self_attn.out_proj.{kind}"] = mine[f"{of}attn.out_proj.{kind}"]
            theirs[f"{to}layer_norm1.{kind}"] = mine[f"{of}ln_1.{kind}"]
            theirs[f"{to}layer_norm2.{kind}"] = mine[f"{of}ln_2.{kind}"]
            theirs[f"{to}mlp.fc1.{kind}"] = mine[f"{of}mlp.c_fc.{kind}"]
            theirs[f"{to}mlp.fc2.{kind}"] = mine[f"{of}mlp.c_proj.{kind}"]
    network.load_state_dict(theirs, strict=False)
    assert len(theirs) == len([*network.parameters()])
    with torch.inference_mode():
        out = network(torch.stack([prepared_by_hand(frame) for frame in frames]))
    return out.image_embeds.numpy(), out.last_hidden_state[:, 0].numpy()


def by_transformers_auto(folder: Path, frames: np.ndarray) -> np.ndarray:
    processor, network = (
        AutoImageProcessor.from_pretrained(folder),
        AutoModel.from_pretrained(folder),
    )
    inputs = processor([Image.fromarray(frame) for frame in frames], return_tensors="pt")
    with torch.inference_mode():
        return network.eval()(**inputs).pooler_output.numpy()


def test_clip_is_prepared_as_by_pillow_and_by_open_clip() -> None:
    frames = wide_frames()
    found = clip_vit_l14.preprocess(frames, (224, 224))
    by_hand = torch.stack([prepared_by_hand(frame) for frame in frames])
    torch.testing.assert_close(found, by_hand, atol=TOLERANCE, rtol=0)
    settings = open_clip.get_pretrained_cfg("ViT-L-14-quickgelu", "openai")
    theirs = open_clip.image_transform(
        224,
        is_train=False,
        mean=settings["mean"],
        std=settings["std"],
        interpolation=settings["interpolation"],
        resize_mode=settings["resize_mode"],
    )
    by_library = torch.stack([theirs(Image.fromarray(frame)) for frame in frames])
    torch.testing.assert_close(found, by_library, atol=TOLERANCE, rtol=0)


def test_clip_is_what_open_clip_means_by_openai() -> None:
    """Its hub repository and QuickGELU; weights of ViT-L-14 would fit the wrong activation too."""
    theirs = open_clip.get_pretrained_cfg(clip_vit_l14.MODEL, "openai")
    assert theirs["hf_hub"].rstrip("/") == get_asset(clip_vit_l14.ASSET).repository
    assert open_clip.get_model_config(clip_vit_l14.MODEL)["quick_gelu"] is theirs["quick_gelu"]
    assert clip_vit_l14.WEIGHTS == open_clip.constants.HF_SAFE_WEIGHTS_NAME


def test_clip_equals_open_clips_whole_model_and_transformers(tiny: Path) -> None:
    folder, frames = tiny / "clip_vit_l14", wide_frames()
    compute = get_family("clip_vit_l14").load(Setting())
    found = features(compute, "clip_vit_l14", frames)
    assert found.shape == (3, 24) and found.dtype == np.float32
    np.testing.assert_allclose(found, by_open_clip(folder, frames), atol=TOLERANCE)
    np.testing.assert_allclose(found, by_transformers_clip(folder, frames)[0], atol=TOLERANCE)


def test_clip_cls_equals_the_hidden_state_that_dp_dmd_takes(tiny: Path) -> None:
    frames = wide_frames()
    compute = get_family("clip_vit_l14_cls").load(Setting())
    found = features(compute, "clip_vit_l14_cls", frames)
    assert found.shape == (3, 32)
    expected = by_transformers_clip(tiny / "clip_vit_l14", frames)[1]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["dinov2_l", "dinov3_l"])
def test_dino_equals_the_librarys_pipeline(tiny: Path, name: str) -> None:
    frames = wide_frames()
    found = features(get_family(name).load(Setting()), name, frames)
    assert found.shape == (3, 32) and found.dtype == np.float32
    np.testing.assert_allclose(found, by_transformers_auto(tiny / name, frames), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("dinov2_l", "encoder.layer.0.attention.attention.query.weight"),
        ("dinov3_l", "layer.0.attention.q_proj.weight"),
    ],
)
def test_tiny_files_name_tensors_as_the_published_ones(
    tiny: Path, name: str, published: str
) -> None:
    """transformers 5 renames both in memory; a file in its own names would test less."""
    with safe_open(tiny / name / "model.safetensors", "pt") as weights:
        assert published in weights.keys()  # noqa: SIM118


@pytest.mark.parametrize("name", ["dinov2_l", "dinov3_l"])
def test_dino_sees_what_its_processor_leaves_of_a_frame(tiny: Path, name: str) -> None:
    """DINOv2 crops the sides of a wide frame away, DINOv3 squeezes them in."""
    frames = wide_frames(frames=1)
    other = frames.copy()
    other[:, :, :20] = 255 - other[:, :, :20]
    compute = get_family(name).load(Setting())
    change = np.abs(features(compute, name, frames) - features(compute, name, other)).max()
    assert (change == 0) == (name == "dinov2_l")


@pytest.mark.parametrize("name", NAMES)
def test_neither_batches_nor_threads_nor_company_change_a_frame(tiny: Path, name: str) -> None:
    frames = wide_frames(1, frames=9)
    compute = get_family(name).load(Setting())
    whole = features(compute, name, frames)
    single = np.concatenate([features(compute, name, frame[None]) for frame in frames])
    np.testing.assert_allclose(single, whole, atol=TOLERANCE)
    with ThreadPoolExecutor(4) as pool:
        again = pool.map(lambda x: features(compute, name, x), [frames] * 4)
    for values in again:
        np.testing.assert_array_equal(values, whole)


@pytest.mark.parametrize("name", NAMES)
def test_colours_are_read_as_red_green_blue(tiny: Path, name: str) -> None:
    frames = wide_frames()
    compute = get_family(name).load(Setting())
    straight, swapped = (features(compute, name, x) for x in (frames, frames[..., ::-1]))
    assert np.abs(straight - swapped).max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_equal_clips_have_no_diversity_and_others_some(tiny: Path, name: str) -> None:
    family = get_family(name)
    compute = family.load(Setting())
    same = [compute(clip_of(wide_frames())) for _ in range(3)]
    values = family.group(same, {})  # type: ignore[misc]
    assert values[f"{name}_diversity"].value == pytest.approx(0, abs=1e-12)
    assert values[f"{name}_vendi"].value == pytest.approx(1, abs=1e-9)
    other = family.group([compute(clip_of(wide_frames(i))) for i in range(3)], {})  # type: ignore[misc]
    assert other[f"{name}_diversity"].value > 1e-4
    assert 1 < other[f"{name}_vendi"].value <= 3


@pytest.mark.parametrize("name", NAMES)
def test_missing_weights_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    family, asset = get_family(name), name.removesuffix("_cls")
    for call in (family.find, family.load):
        with pytest.raises(MissingWeights, match=f"dfdbench assets get {asset}"):
            call(Setting())  # type: ignore[misc]


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def pickle(file: Path) -> None:
    torch.save({"visual.proj": torch.zeros(2)}, file)


def other_shapes(file: Path) -> None:
    save_file({k: torch.zeros(3, *v.shape) for k, v in load_file(file).items()}, file)


def lose_a_tensor(file: Path) -> None:
    weights = load_file(file)
    lost = next(k for k in weights if k.startswith("visual.") or "visual.proj" not in weights)
    save_file({k: v for k, v in weights.items() if k != lost}, file)


@pytest.mark.parametrize("damage", [truncate, pickle, other_shapes, lose_a_tensor])
@pytest.mark.parametrize("name", NAMES)
def test_bad_weights_are_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reports: list[LogRecord],
    name: str,
    damage: Callable[[Path], None],
) -> None:
    tiny_backbones.expect_tiny(monkeypatch)
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path))
    folder = tiny_backbones.WRITERS[name](tmp_path)
    (file,) = folder.glob("*.safetensors")
    damage(file)
    refused(name, file, reports)


@pytest.mark.parametrize("name", NAMES)
def test_a_smaller_model_does_not_go_by_the_large_ones_name(
    checkpoints: Path,
    monkeypatch: pytest.MonkeyPatch,
    reports: list[LogRecord],
    name: str,
) -> None:
    monkeypatch.setenv("DFDBENCH_ASSETS", str(checkpoints))
    clip = checkpoints / "clip_vit_l14" / "open_clip_model.safetensors"
    refused(name, checkpoints / name / "config.json" if name.startswith("dino") else clip, reports)


@pytest.mark.parametrize("text", ["{", "[]", '{"image_processor_type": "None"}'])
def test_a_bad_preprocessor_config_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reports: list[LogRecord],
    text: str,
) -> None:
    tiny_backbones.expect_tiny(monkeypatch)
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path))
    file = tiny_backbones.write_dinov2(tmp_path) / "preprocessor_config.json"
    file.write_text(text)
    refused("dinov2_l", file, reports)


def refused(name: str, file: Path, reports: list[LogRecord]) -> None:
    """The family is refused in one line about `file`, with no report of transformers beside it."""
    with pytest.raises(UserError) as caught:
        get_family(name).load(Setting())
    message = str(caught.value)
    assert not reports
    assert message.startswith(f"{file}: not ") and "\n" not in message
    assert message.endswith(f"`dfdbench assets get {name.removesuffix('_cls')}`")
