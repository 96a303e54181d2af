"""The list of VBench's weights agrees with the families that read them; `assets get` fills it."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dfdbench.cli import doctor
from dfdbench.cli.app import app
from dfdbench.evaluate.metrics import FAMILY_NAMES, Setting, get_family
from dfdbench.evaluate.metrics.vbench.official import BRIDGED, VERSION
from dfdbench.evaluate.vbench.totals import STATIC
from dfdbench.generate.suites.dimensions import DIMENSIONS
from dfdbench.utils import fetch
from dfdbench.utils.assets import ASSETS, Asset
from dfdbench.utils.errors import MissingWeights, UserError
from dfdbench.utils.fetch import expand
from dfdbench.utils.vbench_weights import cotracker_folder

WEIGHTS = [asset for asset in ASSETS.values() if asset.dimensions]
NATIVE = [(a, f) for a in WEIGHTS if a.url and not a.clone for f in a.files]
BRIDGE = "vbench_bridge"  # its files are the official package's to find
FAMILIES = [name for name in FAMILY_NAMES if name.startswith("vbench_") and name != BRIDGE]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of VBench, and no other."""
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "vbench"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "vbench"


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def lacking() -> set[str]:
    """The metrics whose family misses weights."""
    lost = set()
    for name in FAMILIES:
        family = get_family(name)
        try:
            family.find(Setting())  # type: ignore[misc]
        except MissingWeights:
            lost |= {m.name for m in family.metrics} & {*DIMENSIONS, STATIC}
    return lost


@pytest.mark.parametrize("lost", NATIVE, ids=lambda lost: Path(lost[1]).name)
def test_without_a_file_go_the_dimensions_that_it_unlocks_and_no_others(
    lost: tuple[Asset, str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("motion_smoothness", "imaging_quality"):  # code of packages
        monkeypatch.setattr(f"dfdbench.evaluate.metrics.vbench.{module}.digest", lambda *names: "")
    put(cotracker_folder() / "hubconf.py")
    for _, file in NATIVE:
        put(cache / file)
    assert lacking() == set()
    (cache / lost[1]).unlink()
    assert lacking() == set(lost[0].dimensions)


def test_every_dimension_of_ours_but_flickering_is_unlocked_by_some_file() -> None:
    unlocked = {dimension for w in WEIGHTS for dimension in w.dimensions}
    assert unlocked == {*DIMENSIONS, STATIC} - {"temporal_flickering", *BRIDGED}


def rows() -> dict[str, doctor.Row]:
    stock = doctor.take_stock()
    return {r["name"]: r for r in map(doctor.asset_row, stock) if r["name"].startswith("vbench/")}


def test_rows_say_where_files_lie_or_how_to_get_them(cache: Path, tmp_path: Path) -> None:
    absent = rows()
    assert all(row["state"] == "absent" and row["get"] for row in absent.values())
    assert len(absent) == len(WEIGHTS) == 12
    assert absent["vbench/amt-s"]["get"] == "dfdbench assets get vbench/amt-s"
    clone = absent["vbench/cotracker2-code"]["get"].split()
    assert clone[:2] == ["git", "clone"] and clone[3] == str(cotracker_folder())
    amt = put(cache / "amt_model/amt-s.pth")
    clip = put(tmp_path / ".cache/clip/ViT-B-32.pt")
    code = put(cotracker_folder() / "hubconf.py")
    put(cache / "dreamsim/ensemble_lora/adapter_model.bin")
    here = {row["path"]: row["get"] for row in rows().values() if row["state"] == "present"}
    assert here == {str(path.parent): "" for path in (amt, clip, code)}
    assert "no adapter_model" not in rows()["vbench/dreamsim"]["detail"]
    assert "no adapter_config.json" in rows()["vbench/dreamsim"]["detail"]


def test_doctor_and_assets_show_them_in_the_one_table() -> None:
    runner = CliRunner()
    for command in (["assets", "list"], ["doctor", "--all"]):
        lines = runner.invoke(app, command).stdout.splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("vbench/amt-s"))
        assert "absent" in lines[start] and "12.0 MB" in lines[start]
        assert "assets get vbench/amt-s" in "".join(lines[start : start + 3])
        listed = json.loads(runner.invoke(app, [*command, "--json"]).stdout)
        assert {row["name"] for row in listed["assets"]} == set(ASSETS)


def test_groups_hold_what_our_own_dimensions_read() -> None:
    assert "vbench/amt-s" in expand(["vbench"])
    assert "vbench/cotracker2-code" not in expand(["vbench"])  # cloned by hand
    assert not any(name.startswith("vbench/") for name in expand(["all", "offline"]))


def test_the_group_installs_the_official_package_without_its_pins() -> None:
    package = ASSETS[expand(["vbench"])[0]].packages[0]
    assert package.requirement == f"vbench=={VERSION}" and len(package.sha256) == 64


def sources(monkeypatch: pytest.MonkeyPatch, **of: Path) -> None:
    """Let the weights of these names come from files on this machine."""
    for name, path in of.items():
        asset = replace(ASSETS[f"vbench/{name}"], url=path.as_uri())
        monkeypatch.setitem(ASSETS, asset.name, asset)


def get(*names: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["assets", "get", *names])
    return done.exit_code, done.output


def test_a_named_file_is_fetched_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(tmp_path / "there.pth", b"weights" * 1000)
    sources(monkeypatch, **{"amt-s": source})
    code, text = get("vbench/amt-s")
    assert code == 0 and f"vbench/amt-s: now in {cache / 'amt_model'}" in text
    assert (cache / "amt_model/amt-s.pth").read_bytes() == source.read_bytes()
    assert [p.name for p in cache.rglob("*") if p.is_file()] == ["amt-s.pth"]
    source.unlink()
    assert get("vbench/amt-s") == (0, f"vbench/amt-s: already in {cache / 'amt_model'}\n")


def test_an_archive_gives_its_files_their_places(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = ["clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar"]
    members += ["ensemble_lora/adapter_config.json", "ensemble_lora/adapter_model.bin"]
    archive = tmp_path / "dreamsim.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for member in ["../outside.txt", *members]:
            opened.writestr(f"models/{member}", member)
    sources(monkeypatch, dreamsim=archive)
    kept = put(cache / "dreamsim" / members[0], b"mine")
    assert get("vbench/dreamsim")[0] == 0
    assert kept.read_bytes() == b"mine"
    for member in members[1:]:
        assert (cache / "dreamsim" / member).read_text() == member
    assert len([p for p in cache.rglob("*") if p.is_file()]) == 4


def test_what_cannot_be_had_is_said_in_one_line(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources(monkeypatch, **{"amt-s": tmp_path / "no.pth", "raft-things": tmp_path / "no.zip"})
    code, text = get("vbench/amt-s", "vbench/raft-things")
    lines = text.splitlines()
    assert code == 2 and len(lines) == 2
    assert lines[0].startswith("error: cannot get file:")
    assert lines[0].endswith(f"put it at {cache / 'amt_model/amt-s.pth'}")
    with zipfile.ZipFile(tmp_path / "no.zip", "w") as opened:
        opened.writestr("readme", "")
    with pytest.raises(UserError, match=r"not the archive that holds raft-things\.pth; put it at"):
        fetch.fetch("vbench/raft-things")
    put(tmp_path / "no.zip", b"no archive")
    with pytest.raises(UserError, match=r"not the archive"):
        fetch.fetch("vbench/raft-things")
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_a_download_that_breaks_off_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def short(url: str, timeout: float) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(headers={"Content-Length": "10"}, read=io.BytesIO(b"1234").read)

    monkeypatch.setattr(fetch, "urlopen", short)
    with pytest.raises(UserError, match="broke off after 4 of 10 bytes"):
        fetch.fetch("vbench/amt-s")
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_an_unknown_name_offers_near_ones() -> None:
    assert "did you mean vbench/amt-s" in get("vbench/amts")[1]
