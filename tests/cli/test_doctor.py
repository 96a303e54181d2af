"""What doctor and `assets list` say: states, remedies, families and suites that are not ready."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner
from vbench_suites import install

from dfdbench.cli import doctor
from dfdbench.cli.app import app
from dfdbench.evaluate.metrics import FAMILY_NAMES
from dfdbench.utils import assets
from dfdbench.utils.assets import ASSETS, Asset, Status
from dfdbench.utils.errors import UserError

runner = CliRunner()


@pytest.fixture(autouse=True)
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of this test alone."""
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def stock(**states: str) -> list[Status]:
    """Every asset present but those named."""
    return [Status(a, states.get(a.name, "present"), Path("x")) for a in ASSETS.values()]  # type: ignore[arg-type]


def out(*arguments: str) -> str:
    done = runner.invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_doctor_is_complete_as_json_and_ends_with_what_is_missing():
    found = json.loads(out("doctor", "--json"))
    assert found["versions"]["torch"] and found["versions"]["opencv-python-headless"]
    assert found["decoders"] and "toy/dfd" in found["recipes"]
    assert [row["name"] for row in found["assets"]] == list(ASSETS)
    states = {row["name"]: row["state"] for row in found["assets"]}
    assert states["toy-t2v"] == "present" and states["wan2.1-t2v-1.3b"] == "absent"
    assert all(cache["free"] > 0 for cache in found["caches"])
    last = doctor.lines(found | {"missing": {"brisque": "brisque", "x": "a and b"}})[-2:]
    assert last == ["  brisque: brisque", "  x: a and b"]
    assert doctor.lines(found | {"missing": {}})[-1].endswith(": none")


def test_doctor_begins_with_what_is_ready():
    rows = [
        {"name": "toy-t2v", "state": "present", "unlocks": ["--model toy-t2v, the default"]},
        {"name": "wan", "state": "absent", "unlocks": ["--model wan"]},
        {"name": "brisque", "state": "present", "unlocks": ["brisque"]},
    ]
    suites = [
        {"name": "clips", "ready": ["colour", "flicker"], "missing": ["brisque"], "lacks": ""},
        {"name": "vbench", "ready": [], "missing": [], "lacks": "no info file"},
    ]
    expected = "toy-t2v; metric families: a folder of clips 2/3"
    assert doctor.ready({"assets": rows, "suites": suites}) == expected
    begins = "ready: toy-t2v, toy-i2v; metric families: a folder of clips, "
    assert out("doctor").startswith(begins) and out("doctor", "--all").startswith(begins)


def test_doctor_is_short_and_names_what_is_wrong_and_how_to_get_the_rest():
    text = out("doctor").splitlines()
    assert len(text) < 10 and all(len(line) < 250 for line in text)
    (rest,) = [line for line in text if line.startswith("for the rest of a folder of clips (")]
    assert "dfdbench assets get clip_vit_l14 " in rest and "vbench" not in rest
    assert text[-1].endswith("dfdbench doctor --all")
    found = json.loads(out("doctor", "--json"))
    found["assets"][0] |= {"state": "wrong", "detail": "cut", "get": "replace it"}
    name = found["assets"][0]["name"]
    assert f"wrong: {name}: cut; replace it" in doctor.in_short(found)


def test_an_absent_asset_takes_away_its_families_and_no_other():
    faults = doctor.family_faults(stock(effnet_lite2="absent"))
    assert list(faults) == list(FAMILY_NAMES)
    assert faults["effnet_lite2"] == "effnet_lite2" and faults["colour"] == ""
    assert doctor.family_faults(stock(effnet_lite2="wrong"))["effnet_lite2"] == "effnet_lite2"
    assert doctor.family_faults(stock())["effnet_lite2"] == ""


def test_a_family_of_several_assets_names_those_it_lacks(monkeypatch):
    monkeypatch.setattr(doctor, "FAMILY_NAMES", ("lpips_alex",))
    monkeypatch.setattr(doctor, "get_family", lambda name: SimpleNamespace(find=None))
    both = stock(lpips_alexnet="absent", lpips_heads="wrong")
    assert doctor.family_faults(both) == {"lpips_alex": "lpips_alexnet and lpips_heads"}
    assert doctor.family_faults(stock(lpips_heads="wrong")) == {"lpips_alex": "lpips_heads"}


def test_a_family_without_an_asset_is_asked_itself(monkeypatch):
    def find(setting: object) -> str:
        raise UserError("name the poses with --poses")

    monkeypatch.setattr(doctor, "FAMILY_NAMES", ("vipe",))
    monkeypatch.setattr(doctor, "get_family", lambda name: SimpleNamespace(find=find))
    assert doctor.family_faults(stock()) == {"vipe": "name the poses with --poses"}


def test_suites_split_their_families_into_ready_and_not():
    faults = dict.fromkeys(FAMILY_NAMES, "") | {"oracle": "its weights"}
    rows = {row["name"]: row for row in doctor.suite_rows(faults)}
    assert rows["toy-t2v"]["missing"] == ["oracle"] and "colour" in rows["toy-t2v"]["ready"]
    assert rows["t2v-mixed"]["missing"] == [] and rows["t2v-mixed"]["prompts"] == 70


def test_a_suite_without_its_info_file_says_how_to_get_it(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    (tmp_path / "vbench" / "VBench_full_info.json").unlink()
    rows = {row["name"]: row for row in doctor.suite_rows(dict.fromkeys(FAMILY_NAMES, ""))}
    assert rows["vbench"]["prompts"] is None and rows["toy-t2v"]["lacks"] == ""
    lines = doctor.suite_table(rows.values())
    assert any(line.startswith("suite vbench: no VBench_full_info.json") for line in lines)
    assert not any(line.startswith("vbench ") for line in lines)
    install(tmp_path, monkeypatch)
    rows = {row["name"]: row for row in doctor.suite_rows(dict.fromkeys(FAMILY_NAMES, ""))}
    assert rows["vbench"]["prompts"] == 4 and rows["vbench"]["lacks"] == ""


def test_a_quick_look_hashes_nothing_and_verify_hashes_all(monkeypatch, tmp_path):
    known = {n: a for n, a in ASSETS.items() if all(a.files.values())}
    asset = Asset("thing", {"w": "0" * 64}, 1, "MIT", use="x", repository="a/b")
    (tmp_path / "assets" / "thing").mkdir(parents=True)
    (tmp_path / "assets" / "thing" / "w").write_bytes(b"1")
    monkeypatch.setattr(doctor, "ASSETS", {**known, "thing": asset})
    monkeypatch.setattr(assets, "SMALL", -1)
    hashed: list[str] = []

    def spy(path: Path) -> str:
        hashed.append(path.name)
        return "1" * 64

    monkeypatch.setattr(assets, "sha256_file", spy)
    monkeypatch.setattr("dfdbench.utils.files.sha256_file", spy)
    assert doctor.take_stock()[-1].state == "present" and hashed == []
    assert doctor.take_stock(verify=True)[-1].state == "wrong" and "w" in hashed


def test_every_row_says_what_to_do_unless_all_is_well():
    asset = ASSETS["dinov2_l"]
    assert doctor.asset_row(Status(asset, "present", Path("/x")))["get"] == ""
    assert doctor.asset_row(Status(asset, "absent"))["get"] == "dfdbench assets get dinov2_l"
    hand = Status(asset, "wrong", assets.assets_folder() / "dinov2_l", ("m",), "m: not whole")
    assert doctor.asset_row(hand)["get"] == "delete it, then `dfdbench assets get dinov2_l`"
    cached = doctor.asset_row(replace(hand, folder=Path("/cache")))
    assert cached["get"] == "replace it with `dfdbench assets get dinov2_l`"


def test_assets_lists_state_path_size_licence_use_source_and_remedy(tmp_path):
    folder = tmp_path / "assets" / "dinov2_l"
    folder.mkdir(parents=True)
    for name in ASSETS["dinov2_l"].files:
        (folder / name).write_bytes(b"")
    text = out("assets")
    assert text == out("assets", "list")
    blocks = text.split("\ndinov2_l")[1].split("\ndinov3_l")
    assert blocks[0].split()[:5] == ["wrong", "1.2", "GB", "Apache-2.0", "dinov2_l"]
    assert f"    {folder}\n" in blocks[0] and "    hub facebook/dinov2-large\n" in blocks[0]
    assert "config.json: not a whole file (it is empty); delete it, then" in blocks[0]
    assert "accept the licence" in blocks[1] and "dfdbench assets get dinov3_l" in blocks[1]
    assert "\nt2v-mixed       1        70       8 " in text
    found = json.loads(out("assets", "--json"))
    assert {row["name"] for row in found["suites"]} >= {"toy-t2v", "released-clips"}
    row = next(row for row in found["assets"] if row["name"] == "dinov2_l")
    assert row["state"] == "wrong" and row["path"] == str(folder) and row["detail"]


def test_tables_line_up_and_sizes_are_readable():
    assert doctor.table(("a", "b"), [("long", "x"), ("s", "y")]) == [
        "a     b",
        "long  x",
        "s     y",
    ]
    sizes = [6_009, 1_000_000, 24_666_229, 28_900_000_000]
    assert [doctor.readable(size) for size in sizes] == [
        "6.0 kB",
        "1.0 MB",
        "24.7 MB",
        "28.9 GB",
    ]
