"""Letters over a shot: told over moving and still scenes, and not seen in what only has edges."""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from clips import moving_texture
from PIL import Image, ImageDraw, ImageFont

from dfdbench.distill.data.curate.letters import glyph_lines, read_letters, text_share
from dfdbench.distill.data.curate.shots import Filters

FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
FRAMES, HEIGHT, WIDTH = 4, 360, 640
WHITE, LIMIT = (255, 255, 255), Filters().max_text


def share(frames):
    return text_share([read_letters(frame) for frame in frames])


# Scenes


def repeated(kind):
    """Things of one form at one distance: uint8 (H W 3)."""
    picture = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    across, down, wide, high = {
        "fence": (17, HEIGHT, 6, 180),
        "windows": (46, 54, 26, 34),
        "small windows": (21, 30, 10, 14),
        "keyboard": (33, 30, 26, 22),
        "blinds": (WIDTH, 12, WIDTH, 5),
        "checks": (30, 15, 15, 15),
    }[kind]
    for row, y in enumerate(range(5, HEIGHT - 5, down)):
        for x in range(5 + (15 * (row % 2) if kind == "checks" else 0), WIDTH - 5, across):
            cv2.rectangle(picture, (x, y), (x + wide, y + high), (200, 205, 195), -1)
    return picture


def scattered(kind):
    """Things of any form at any place: uint8 (H W 3)."""
    rng = np.random.default_rng(5)
    picture = np.full((HEIGHT, WIDTH, 3), 245 if kind == "leaves" else 70, np.uint8)
    for _ in range({"leaves": 2500, "stones": 700, "boxes": 120, "wires": 70}[kind]):
        x, y = int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT))
        colour = rng.integers(20, 180, 3).tolist()
        turn = float(rng.integers(0, 180))
        match kind:
            case "leaves":
                axes = int(rng.integers(3, 11)), int(rng.integers(2, 5))
                cv2.ellipse(picture, (x, y), axes, turn, 0, 360, colour, -1)
            case "stones":
                axes = int(rng.integers(4, 17)), int(rng.integers(4, 11))
                grey = [int(rng.integers(110, 220))] * 3
                cv2.ellipse(picture, (x, y), axes, turn, 0, 360, grey, -1)
            case "boxes":
                far = x + int(rng.integers(6, 90)), y + int(rng.integers(6, 60))
                cv2.rectangle(picture, (x, y), far, colour, -1)
            case "wires":
                end = int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT))
                cv2.line(picture, (x, y), end, colour, int(rng.integers(1, 4)))
    return picture


def from_a_still_camera(picture):
    """A ball that passes, and the noise of a camera: uint8 (T H W 3)."""
    rng = np.random.default_rng(0)
    frames = []
    for number in range(FRAMES):
        noisy = np.clip(picture + rng.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
        cv2.circle(noisy, (80 + 90 * number, 250), 24, (200, 60, 40), -1)
        frames.append(noisy)
    return np.stack(frames)


STILL = {
    **{kind: repeated for kind in ("fence", "windows", "small windows", "keyboard", "blinds")},
    "checks": repeated,
    **{kind: scattered for kind in ("leaves", "stones", "boxes", "wires")},
}


@pytest.mark.parametrize("kind", STILL)
def test_what_a_still_camera_sees_is_no_text(kind):
    assert share(from_a_still_camera(STILL[kind](kind))) < LIMIT


@pytest.mark.parametrize("kind", STILL)
def test_what_a_moving_camera_passes_is_no_text(kind):
    wide = np.concatenate([STILL[kind](kind)] * 2, axis=1)
    panned = [wide[:, 17 * n : 17 * n + WIDTH] for n in range(FRAMES)]
    assert share(panned) < LIMIT


# Overlays


def lettered(frames, text, size, place, alpha=1.0, outline=0):
    """`frames` with a text on each."""
    font = ImageFont.truetype(FONT, size)
    done = []
    for frame in frames:
        below = Image.fromarray(frame).convert("RGBA")
        above = Image.new("RGBA", below.size)
        ImageDraw.Draw(above).text(
            place,
            text,
            (*WHITE, round(255 * alpha)),
            font,
            stroke_width=outline,
            stroke_fill=(0, 0, 0, 255),
        )
        done.append(np.asarray(Image.alpha_composite(below, above).convert("RGB")))
    return np.stack(done)


OVERLAYS = {
    "title": ("THE LONG ROAD\nto the north", 46, (120, 110), 1.0, 2),
    "subtitle": ("I never said that we would go", 20, (130, 310), 1.0, 2),
    "watermark": ("studio-footage.com", 21, (400, 14), 0.8, 0),
    "logo of letters": ("NEWS 24", 28, (490, 20), 1.0, 1),
}
SCENES = {
    "still": lambda: from_a_still_camera(moving_texture(1, 1, HEIGHT, WIDTH)[0] // 3 + 50),
    "still, with edges": lambda: from_a_still_camera(repeated("windows") // 2 + 20),
    "moving": lambda: moving_texture(FRAMES, 9, HEIGHT, WIDTH) // 2 + 20,
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_letters_are_found_over_still_and_moving_scenes(overlay, scene):
    plain = SCENES[scene]()
    assert share(plain) < LIMIT < share(lettered(plain, *OVERLAYS[overlay]))


def test_a_subtitle_that_is_there_for_a_part_of_the_shot_is_found():
    plain = SCENES["still"]()
    lined = lettered(plain, *OVERLAYS["subtitle"])
    assert share(np.concatenate([plain[:2], lined[:3], plain[2:]])) > LIMIT
    assert share(np.concatenate([plain[:2], lined[:2], plain[2:]])) < LIMIT  # a second at most


def test_an_emblem_that_stays_is_found_where_the_scene_moves():
    moving = np.stack([np.roll(scattered("stones"), -40 * n, axis=1) // 2 for n in range(6)])
    marked = moving.copy()
    for frame in marked:
        cv2.circle(frame, (590, 45), 25, WHITE, -1)
        cv2.circle(frame, (590, 45), 18, (220, 30, 30), -1)
        cv2.putText(frame, "TV", (577, 52), cv2.FONT_HERSHEY_SIMPLEX, 0.7, WHITE, 2)
    assert share(moving) < LIMIT < share(marked)


def test_a_line_of_glyphs_is_boxed_dark_on_bright_and_bright_on_dark():
    dark = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    frame = lettered([dark], "a line of text", 24, (100, 200))[0]
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    rows, columns = np.nonzero(grey > 128)
    for picture in (grey, 255 - grey):
        (box,) = glyph_lines(picture)
        wanted = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert np.abs(np.subtract(box, wanted)).max() <= 12  # a dot, a tail, a bar are no glyphs
    assert glyph_lines(cv2.cvtColor(dark, cv2.COLOR_RGB2GRAY)) == []
