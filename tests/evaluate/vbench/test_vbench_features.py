"""VBench's DINO, CLIP and DreamSim dimensions without VBench: closed forms and other libraries.

Equality with the official code is test_parity_features.py's; here small networks stand in for the
large ones.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import random_features
import timm
import torch
from clips import as_clip, random_clip
from joint_passes import all_at_once
from PIL import Image
from safetensors.torch import load_file, save_file

from dfdbench.evaluate.metrics import Setting, get_family
from dfdbench.evaluate.metrics.vbench.nets import clip as openai_clip
from dfdbench.evaluate.metrics.vbench.nets import dino, dreamsim
from dfdbench.evaluate.metrics.vbench.nets.weights import DREAMSIM_CLIP
from dfdbench.utils.assets import ASSETS
from dfdbench.utils.errors import MissingWeights, UserError
from dfdbench.utils.vbench_weights import (
    read_state,
    vbench_digest,
    vbench_file,
    vbench_unusable,
)

TINY_DINO = "test_vit"  # timm's smallest, trained on 160 pixels
TINY_SIZES = {"img_size": 160, "embed_dim": 64, "depth": 6, "num_heads": 2, "mlp_ratio": 3}
TINY_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 32, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
CLIPS = {"ViT-B-32": TINY_CLIP, "ViT-L-14": TINY_CLIP | {"embed_dim": 768}}
NAMES = (
    "subject_consistency",
    "background_consistency",
    "aesthetic_quality",
    "appearance_style",
    "i2v_subject",
    "i2v_background",
)


def test_position_embeddings_are_sampled_where_dino_samples_them() -> None:
    """Rows before columns, and at 0.1 patches more than the grid has."""
    embedding = torch.randn(1, 1 + 14 * 14, 5, generator=torch.Generator().manual_seed(0))
    found = dino.positions(embedding, (20, 31))
    assert found.shape == (1, 1 + 20 * 31, 5)
    torch.testing.assert_close(found[:, 0], embedding[:, 0])
    # patch i of n lies at (i + ½) · 14 / (n + 0.1) of the old patches' edges, and 14 is 1 here
    y, x = (((torch.arange(n) + 0.5) * 2 / (n + 0.1) - 1).double() for n in (20, 31))
    places = torch.stack((x.expand(20, 31), y[:, None].expand(20, 31)), -1)[None]
    square = embedding[:, 1:].reshape(1, 14, 14, 5).permute(0, 3, 1, 2).double()
    expected = torch.nn.functional.grid_sample(
        square, places, mode="bicubic", padding_mode="border", align_corners=False
    )
    again = found[:, 1:].reshape(1, 20, 31, 5).permute(0, 3, 1, 2).double()
    torch.testing.assert_close(again, expected, atol=1e-4, rtol=0)
    assert dino.positions(embedding, (14, 14)) is embedding


def tiny_network(**options: Any) -> Any:
    torch.manual_seed(0)
    network = timm.create_model(TINY_DINO, num_classes=0, **options).eval()
    torch.nn.init.normal_(network.pos_embed)
    return network.requires_grad_(False)


def test_tokens_equal_timms_on_the_trained_grid() -> None:
    network = tiny_network()
    pixels = torch.randn(2, 3, 160, 160)
    expected = network.forward_features(pixels)
    torch.testing.assert_close(network.norm(dino.tokens(network, pixels)), expected)


def test_what_is_left_of_a_patch_at_the_sides_is_not_seen() -> None:
    network = tiny_network()
    pixels = torch.randn(1, 3, 230, 398)
    whole = dino.tokens(network, pixels)
    assert whole.shape[1] == 1 + 14 * 24
    torch.testing.assert_close(whole, dino.tokens(network, pixels[..., :224, :384]))


def test_a_tower_of_dreamsim_is_open_clips_in_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both activations, LayerNorm before the blocks, its ε, and the projection."""
    sizes = {"patch_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2}
    monkeypatch.setattr(dreamsim, "SIZES", sizes)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    (tmp_path / "dreamsim").mkdir()
    pixels = torch.randn(2, 3, 224, 224)
    for quick_gelu, activation in ((True, "quick_gelu"), (False, "gelu")):
        tower = open_clip.CLIP(**(TINY_CLIP | {"quick_gelu": quick_gelu})).visual.eval()
        tower.load_state_dict(random_features.draw(tower.state_dict(), 0))
        state = tower.state_dict()
        named = {
            "proj": state["proj"],
            "cls_token": state["class_embedding"][None, None],
            "pos_embed": state["positional_embedding"][None],
            "patch_embed.proj.weight": state["conv1.weight"],
            "patch_embed.proj.bias": torch.zeros(32),
        }
        pairs = {
            "ln_pre": "pos_drop", "ln_post": "norm", "transformer.resblocks": "blocks",
            "ln_1": "norm1", "ln_2": "norm2", "c_fc": "fc1", "c_proj": "fc2",
            "attn.in_proj_": "attn.qkv.", "out_proj": "proj",
        }  # fmt: skip
        for key, value in state.items():
            if key.startswith(("ln_", "transformer.")):
                for old, new in pairs.items():
                    key = key.replace(old, new)
                named[key] = value
        file = tmp_path / "dreamsim" / "clip_vitb16_pretrain.pth.tar"
        torch.save({"state_dict": named}, file)
        network, projection = dreamsim.load_tower(DREAMSIM_CLIP, activation)
        found = network.norm(dino.tokens(network, pixels))[:, 0] @ projection
        torch.testing.assert_close(found, tower(pixels).detach(), atol=1e-4, rtol=1e-4)


def test_lora_adds_scale_times_b_times_a_to_the_layer_it_names() -> None:
    networks = [tiny_network() for _ in range(3)]
    before = networks[0].blocks[3].attn.qkv.weight.clone()
    name = "base_model.model.extractor_list.{}.model.blocks.3.attn.qkv.lora_{}.weight"
    down, up = torch.randn(4, 64), torch.randn(192, 4)
    dreamsim.add_lora(networks, {name.format(1, "A"): down, name.format(1, "B"): up}, 0.5)
    torch.testing.assert_close(networks[1].blocks[3].attn.qkv.weight, before + up @ down / 2)
    for i in (0, 2):
        torch.testing.assert_close(networks[i].blocks[3].attn.qkv.weight, before)
    for wrong in ({}, {name.format(1, "A"): down}, {name.format(3, "A"): down}):
        with pytest.raises(KeyError):
            dreamsim.add_lora(networks, wrong, 0.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for name, config in CLIPS.items():
        random_features.write_clip(folder, name, config)
    random_features.write_dino(folder, TINY_DINO)
    random_features.write_head(folder)
    random_features.write_dreamsim(folder, TINY_DINO)
    return folder


@pytest.fixture
def cache(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of small networks, which the families take for the large ones."""
    folder = tmp_path / "cache"
    shutil.copytree(files, folder)
    for name in ("HOME", "TORCH_HOME", "DFDBENCH_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(folder))
    for name, config in CLIPS.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, f"tiny-{name}", config)
        monkeypatch.setitem(openai_clip.MODELS, name, f"tiny-{name}")
    monkeypatch.setattr(dino, "MODEL", TINY_DINO)
    monkeypatch.setattr(dreamsim, "SIZES", dreamsim.SIZES | TINY_SIZES)
    return folder


def clip_of(frames: np.ndarray, image: np.ndarray | None = None) -> Any:
    image = frames[0] if image is None else image
    return as_clip(frames)._replace(prompt="a cat, oil painting", image=image)


@pytest.mark.parametrize("name", NAMES)
def test_a_clips_value_is_one_over_threads_and_frames(cache: Path, name: str) -> None:
    compute = get_family(f"vbench_{name}").load(Setting())
    clip = clip_of(random_clip(0, 3, 50, 64))
    # As the engine's workers: a new thread would start with as many threads as there are cores.
    with ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        value, *others = pool.map(compute, [clip] * 4)
    assert others == [value] * 3
    still = compute(clip_of(np.repeat(clip.frames[:1], 3, 0)))
    if name.endswith("consistency"):
        assert still[name] == pytest.approx(1, abs=1e-5) and value[name] < 0.999
        assert value[f"{name}_frames"] == 2
    elif name.startswith("i2v"):
        assert still[name] > 0.85 > value[name]
        other = compute(clip_of(clip.frames, 255 - clip.frames[0]))
        assert other[name] < value[name]
    else:
        single = [compute(clip_of(frame[None]))[name] for frame in clip.frames]
        assert np.ptp(single) > 1e-3  # type: ignore[arg-type]
        assert value[name] == pytest.approx(np.mean(single), abs=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_batches_change_no_score(cache: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    clip = clip_of(random_clip(1, 4, 40, 64))
    alone = get_family(f"vbench_{name}").load(Setting())(clip)[name]
    monkeypatch.setitem(dino.batched.__globals__["BATCH"], "cpu", 3)
    together = get_family(f"vbench_{name}").load(Setting())(clip)[name]
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_clips_that_share_passes_get_the_scores_that_each_has_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sizes = [(3, 40, 64), (3, 64, 40), (5, 40, 64), (1, 40, 64)]
    clips = [clip_of(random_clip(seed, *size)) for seed, size in enumerate(sizes)]
    if name.endswith("consistency") or name.startswith("i2v"):
        clips = clips[:3]
    compute = get_family(f"vbench_{name}").load(Setting())
    alone = [compute(clip) for clip in clips]
    monkeypatch.setitem(dino.batched.__globals__["BATCH"], "cpu", 4)
    compute = get_family(f"vbench_{name}").load(Setting())
    futures, widths = all_at_once(monkeypatch, compute, clips)
    assert max(widths) > 1, "no pass was for several clips"
    for clip, future in zip(alone, futures, strict=True):
        assert future.result() == pytest.approx(clip, abs=1e-5)


def test_appearance_style_is_open_clips_own_cosine(cache: Path) -> None:
    clip = clip_of(random_clip(2, 2, 300, 224))
    state = read_state(cache / "clip_model" / "ViT-B-32.pt", "")
    model = open_clip.CLIP(**TINY_CLIP).eval()
    model.load_state_dict({k: v for k, v in state.items() if k not in openai_clip.NO_WEIGHTS})
    prepare = open_clip.image_transform(224, is_train=False)
    images = torch.stack([prepare(Image.fromarray(frame)) for frame in clip.frames])
    with torch.inference_mode():
        image = model.encode_image(images, normalize=True)
        text = model.encode_text(open_clip.tokenize(["oil painting"]), normalize=True)
    found = get_family("vbench_appearance_style").load(Setting())(clip)
    assert found["appearance_style"] == pytest.approx(float((image @ text.T).mean()), abs=1e-4)
    assert found["appearance_style_frames"] == 2


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("appearance_style", {"prompt": None}),
        ("appearance_style", {"prompt": "a cat"}),
        ("i2v_subject", {"image": None}),
        ("i2v_background", {"image": None}),
    ],
)
def test_a_clip_without_its_condition_has_no_value(
    cache: Path, name: str, without: dict[str, Any]
) -> None:
    compute = get_family(f"vbench_{name}").load(Setting())
    assert compute(clip_of(random_clip(0, 2))._replace(**without)) == {}


FILES = {
    "subject_consistency": "dino_model/dino_vitbase16_pretrain.pth",
    "background_consistency": "clip_model/ViT-B-32.pt",
    "aesthetic_quality": "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
    "appearance_style": "clip_model/ViT-B-32.pt",
    "i2v_subject": "dino_model/dino_vitbase16_pretrain.pth",
    "i2v_background": "dreamsim/open_clip_vitb16_pretrain.pth.tar",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named_with_its_source_and_place(cache: Path, name: str) -> None:
    family, file = get_family(f"vbench_{name}"), cache / FILES[name]
    before = family.find(Setting())  # type: ignore[misc]
    assert len(before) == 64
    file.unlink()
    (source,) = {a.url for a in ASSETS.values() if FILES[name] in a.files}
    for call in (family.find, family.load):
        with pytest.raises(MissingWeights) as caught:
            call(Setting())  # type: ignore[misc]
        message = str(caught.value)
        assert message.startswith(f"no {file.name} (") and "\n" not in message
        assert source in message and message.endswith(f"put it at {file}")


@pytest.mark.parametrize("name", NAMES)
def test_other_weights_are_refused_in_one_line(cache: Path, name: str) -> None:
    file = cache / FILES[name]
    for damage in ({"proj": torch.zeros(2)}, {"state_dict": {"a": torch.zeros(2)}}, [1], None):
        if damage is None:
            file.write_bytes(b"not a checkpoint")
        else:
            torch.save(damage, file)
        with pytest.raises(UserError) as caught:
            get_family(f"vbench_{name}").load(Setting())
        message = str(caught.value)
        assert message.startswith(f"{file}: not ") and "get it again from" in message
        assert "\n" not in message


def test_a_damaged_lora_is_refused(cache: Path) -> None:
    folder, load = cache / "dreamsim" / "ensemble_lora", get_family("vbench_i2v_background").load
    settings, adapter = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    good = settings.read_text()
    for text in ("{", "[]", "{}", json.dumps(json.loads(good) | {"use_rslora": True})):
        settings.write_text(text)
        with pytest.raises(UserError, match=r"adapter_config\.json: not the settings"):
            load(Setting())
    settings.write_text(good)
    save_file(dict(list(load_file(adapter).items())[1:]), adapter)
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: not the LoRA"):
        load(Setting())


def test_folders_are_searched_in_vbenchs_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "vbench"))
    name = "ViT-B-32.pt"
    places = [
        tmp_path / "models" / name,
        tmp_path / "home" / ".cache" / "clip" / name,
        tmp_path / "torch" / "hub" / "checkpoints" / name,
        tmp_path / "vbench" / name,
        tmp_path / "vbench" / "clip_model" / name,
    ]
    digests = set()
    for i, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(str(i))
        found = vbench_file(f"clip_model/{name}", name, what="CLIP")
        assert found == place
        digests.add(vbench_digest(found))
    assert len(digests) == len(places)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ViT-B-32.pt"
    torch.save({"weight": Path("anything but a tensor")}, file)
    with pytest.raises(UserError, match=r"ViT-B-32\.pt: not weights; get it again from https"):
        read_state(file, "weights")
    assert "ViT-B-32" in str(vbench_unusable(file, "weights"))


def test_archives_dicts_and_safetensors_hold_the_same_tensors(cache: Path) -> None:
    archive = cache / "clip_model" / "ViT-B-32.pt"
    tensors = dict(read_state(archive, ""))
    assert tensors["context_length"] == 77
    torch.save(tensors, archive.with_suffix(".pth"))
    save_file(tensors, archive.with_suffix(".safetensors"))
    for suffix in (".pth", ".safetensors"):
        again = read_state(archive.with_suffix(suffix), "")
        assert set(again) == set(tensors)
        assert all(torch.equal(again[key], value) for key, value in tensors.items())
