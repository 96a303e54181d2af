"""ViCLIP cosines and human_action without VBench: against open_clip, timm and closed forms."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import as_clip, random_clip
from text_networks import TINY_UMT, expect_tiny, umt_state, viclip_state, write_umt, write_viclip
from timm.models.vision_transformer import VisionTransformer
from torchvision.models._meta import _KINETICS400_CATEGORIES

from dfdbench.evaluate.metrics import Setting, get_family
from dfdbench.evaluate.metrics.vbench import human_action as umt
from dfdbench.evaluate.metrics.vbench.nets import viclip
from dfdbench.evaluate.metrics.vbench.nets.pixels import CLIP, IMAGENET
from dfdbench.evaluate.metrics.vbench.nets.weights import UMT, VICLIP
from dfdbench.utils.errors import MissingWeights, UserError
from dfdbench.utils.video import Clip, select

WEIGHTS = {"vbench_viclip": VICLIP, "vbench_human_action": UMT}
FAMILIES = tuple(WEIGHTS)
PROMPT = "a red ball rolls"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VBench's cache with tiny random weights, which are the only ones found."""
    expect_tiny(monkeypatch)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def styles(cache: Path) -> viclip.ViCLIP:
    write_viclip(cache)
    return viclip.load_network("cpu")


@pytest.fixture
def actions(cache: Path) -> umt.Classifier:
    write_umt(cache)
    return umt.load_network("cpu")


def clip_of(frames: np.ndarray, policy: str, prompt: str | None) -> Clip:
    return select(as_clip(frames), policy)._replace(prompt=prompt)


def style(frames: np.ndarray, prompt: str) -> float:
    compute = get_family("vbench_viclip").load(Setting())
    return float(compute(clip_of(frames, "middle8", prompt))["temporal_style"])


@torch.inference_mode()
def test_one_frame_without_a_place_is_open_clips_image_embedding(styles: viclip.ViCLIP) -> None:
    pixels = viclip.preprocess(random_clip(frames=1))
    alone = styles._replace(place=torch.zeros(1, styles.place.shape[1]))
    expected = styles.towers.encode_image(pixels)[0]
    assert torch.allclose(viclip.encode_video(alone, pixels), expected, atol=1e-5)


@torch.inference_mode()
def test_order_of_frames_matters_through_their_places_only(styles: viclip.ViCLIP) -> None:
    pixels = viclip.preprocess(random_clip(frames=8))
    placeless = styles._replace(place=torch.zeros_like(styles.place))
    forward, backward = (viclip.encode_video(placeless, p) for p in (pixels, pixels.flip(0)))
    assert torch.allclose(forward, backward, atol=1e-4)
    forward, backward = (viclip.encode_video(styles, p) for p in (pixels, pixels.flip(0)))
    assert not torch.allclose(forward, backward, atol=1e-2)


def test_style_is_the_cosine_and_negative_where_embeddings_oppose(cache: Path) -> None:
    state = viclip_state(viclip.MODEL, 0.4)
    file = cache / VICLIP.path
    file.parent.mkdir()
    scores = []
    for sign in (1, -1):
        state["vision_encoder.proj"] *= sign
        torch.save({"model": state}, file)
        scores.append(style(random_clip(), PROMPT))
    network = viclip.load_network("cpu")
    with torch.inference_mode():
        frames = select(as_clip(random_clip()), "middle8").frames
        video = viclip.encode_video(network, viclip.preprocess(frames)).numpy().astype(float)
        text = viclip.encode_text(network, PROMPT).numpy().astype(float)
    expected = video @ text / np.sqrt((video**2).sum() * (text**2).sum())
    assert scores[1] == pytest.approx(expected, abs=1e-6)
    assert scores[0] == pytest.approx(-scores[1], abs=1e-6)
    assert min(scores) < -1e-3


@torch.inference_mode()
def test_prompts_are_cut_to_32_tokens(styles: viclip.ViCLIP) -> None:
    words = ["one", "two", "three", "four", "five"] * 10
    texts = [viclip.encode_text(styles, " ".join(words[:n])) for n in (50, 40, 30, 29)]
    assert torch.equal(texts[0], texts[1]) and torch.equal(texts[0], texts[2])
    assert not torch.allclose(texts[2], texts[3], atol=1e-2)


def test_both_style_dimensions_are_one_number_of_one_look(
    styles: viclip.ViCLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    encode = viclip.encode_video

    def counting(network: viclip.ViCLIP, pixels: torch.Tensor) -> torch.Tensor:
        looks.append(len(pixels))
        return encode(network, pixels)

    monkeypatch.setattr(viclip, "encode_video", counting)
    found = get_family("vbench_viclip").load(Setting())(clip_of(random_clip(), "middle8", PROMPT))
    assert set(found) == {"temporal_style", "overall_consistency"}
    assert len(set(found.values())) == 1 and looks == [8]


def by_hand(frames: np.ndarray, size: tuple[int, int], mode: str, statistics: Any) -> np.ndarray:
    """Resized to (height, width) by torch without antialiasing, rounded, cropped, normalised."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).double()
    pixels = torch.nn.functional.interpolate(pixels, size, mode=mode, align_corners=False)
    pixels = pixels.round().clamp(0, 255)
    top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
    pixels = pixels[:, :, top : top + 224, left : left + 224] / 255
    mean, deviation = (torch.tensor(s)[:, None, None] for s in statistics)
    return ((pixels - mean) / deviation).numpy()


def test_viclip_sees_bicubic_frames_rounded_to_bytes() -> None:
    frames = random_clip(frames=2, height=300, width=400)
    expected = by_hand(frames, (224, 298), "bicubic", CLIP)
    difference = np.abs(viclip.preprocess(frames).numpy() - expected)
    assert np.mean(difference > 1e-5) < 1e-3  # a rounding may go the other way
    assert difference.max() < 1.01 / 255 / 0.26


def test_umt_sees_bilinear_frames_whose_shorter_side_was_256() -> None:
    frames = random_clip(frames=2, height=448, width=336)
    expected = by_hand(frames, (341, 256), "bilinear", IMAGENET)
    # 341 is odd: VBench rounds half of 117 to 58, to the even number
    difference = np.abs(umt.preprocess(frames).numpy() - expected)
    assert np.mean(difference > 1.01 / 255 / 0.22) == 0


def test_odd_margins_round_to_even() -> None:
    rows = np.arange(259).clip(max=255).astype(np.uint8)
    frame = np.tile(rows[:, None, None], (1, 256, 3))
    first = umt.preprocess(frame[None])[0, 0, 0, 0].item() * 0.229 + 0.485
    assert first * 255 == pytest.approx(18, abs=1e-3)  # 17.5 rows above


@torch.inference_mode()
def test_one_frame_in_its_place_is_timms_transformer(actions: umt.Classifier) -> None:
    pixels = umt.preprocess(random_clip(frames=1))
    places = actions.places[:, :196]
    reference = VisionTransformer(
        num_classes=400, global_pool="avg", class_token=False, no_embed_class=True, **TINY_UMT
    )
    state = actions.transformer.state_dict() | {"pos_embed": places}
    reference.load_state_dict(state)
    expected = reference.eval()(pixels)[0].sigmoid()
    found = umt.probabilities(actions._replace(places=places), pixels)
    assert torch.allclose(found, expected, atol=1e-5)


def test_queries_and_values_have_biases_and_keys_none(actions: umt.Classifier) -> None:
    state = umt_state(TINY_UMT, 0.4)
    query, key, value = actions.transformer.blocks[1].attn.qkv.bias.chunk(3)
    assert torch.equal(query, state["blocks.1.attn.q_bias"]) and not key.any()
    assert torch.equal(value, state["blocks.1.attn.v_bias"])


@torch.inference_mode()
def test_order_of_frames_matters_to_the_classifier_through_their_places_only(
    actions: umt.Classifier,
) -> None:
    pixels = umt.preprocess(random_clip(frames=16))
    placeless = actions._replace(places=torch.zeros_like(actions.places))
    forward, backward = (umt.probabilities(placeless, p) for p in (pixels, pixels.flip(0)))
    assert torch.allclose(forward, backward, atol=1e-5)
    forward, backward = (umt.probabilities(actions, p) for p in (pixels, pixels.flip(0)))
    assert not torch.allclose(forward, backward, atol=1e-4)


def test_seen_are_five_classes_at_most_that_round_to_085() -> None:
    names = umt.categories()
    probability = torch.zeros(400)
    probability[[3, 7, 11]] = torch.tensor([0.99, 0.84996, 0.84994])
    assert umt.seen(probability) == {names[3], names[7]}
    probability[20:26] = torch.tensor([0.91, 0.92, 0.93, 0.94, 0.95, 0.96])
    assert umt.seen(probability) == {names[3], *names[22:26]}


def test_action_is_what_the_prompt_names_after_person_is() -> None:
    assert umt.action_of("A person is riding a bike") == "riding a bike"
    assert umt.action_of("A person is Riding A Bike-like vehicle") == "riding a bike"
    assert umt.action_of("A person is marching-band, in super slow motion") == "marching"
    assert umt.action_of("riding a bike_2") == "riding a bike"
    assert umt.action_of("A person is happily riding a bike") is None


def test_categories_are_the_400_of_kinetics() -> None:
    assert set(umt.categories()) == {name.lower() for name in _KINETICS400_CATEGORIES}
    assert len(umt.categories()) == 400
    # not alphabetical: the order of the classifier's outputs
    assert umt.categories()[:3] == ("riding a bike", "marching", "dodgeball")


def test_clip_is_1_where_its_action_is_seen_and_0_where_another_is(
    actions: umt.Classifier,
) -> None:
    frames = select(as_clip(random_clip()), "middle16").frames
    with torch.inference_mode():
        order = umt.probabilities(actions, umt.preprocess(frames)).argsort(descending=True)
    compute = get_family("vbench_human_action").load(Setting())
    for place, expected in ((0, 1.0), (4, 1.0), (5, 0.0), (399, 0.0)):
        clip = as_clip(frames)._replace(prompt=f"A person is {umt.categories()[order[place]]}")
        assert compute(clip) == {"human_action": expected}


def test_clip_whose_prompt_says_nothing_has_no_value(
    styles: viclip.ViCLIP, actions: umt.Classifier
) -> None:
    for name in FAMILIES:
        family = get_family(name)
        compute = family.load(Setting())
        assert family.needs == ("prompt",)
        assert compute(clip_of(random_clip(), family.policy, None)) == {}
    assert compute(clip_of(random_clip(), family.policy, "A cat on the moon")) == {}


@pytest.mark.parametrize("name", FAMILIES)
def test_missing_weights_are_named(cache: Path, name: str) -> None:
    file = Path(WEIGHTS[name].path).name
    for call in (get_family(name).find, get_family(name).load):
        assert call is not None
        with pytest.raises(MissingWeights, match=file):
            call(Setting())


@pytest.mark.parametrize("name", FAMILIES)
def test_other_weights_are_refused(cache: Path, name: str) -> None:
    file = cache / WEIGHTS[name].path
    file.parent.mkdir()
    torch.save({"model": {"vision_encoder.proj": torch.zeros(3)}}, file)
    with pytest.raises(UserError, match=f"{file.name}: not the weights of"):
        get_family(name).load(Setting())


def test_a_lost_tensor_is_refused(cache: Path) -> None:
    state = umt_state(TINY_UMT, 0.4)
    del state["blocks.0.mlp.fc1.bias"]
    file = cache / UMT.path
    file.parent.mkdir()
    torch.save(state, file)
    with pytest.raises(UserError, match="not the weights of UMT"):
        umt.load_network("cpu")
