"""What software a record was made with: the container's image, Python, this package, and the libraries that are loaded.

Only what is loaded already is looked at; nothing is imported for it. The version of the code is in cagg.checkout, the
hardware in the readings.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["IMAGE_VARIABLE", "LIBRARIES", "Image", "image", "library_versions", "software_body"]

IMAGE_VARIABLE = "CAGG_IMAGE_DIGEST"
"""Environment variable with the digest of the container's image; a container cannot learn it from inside."""

LIBRARIES: Mapping[str, str] = {
    "accelerate": "accelerate",
    "catboost": "catboost",
    "datasets": "datasets",
    "evidently": "evidently",
    "flax": "flax",
    "jax": "jax",
    "keras": "keras",
    "lightgbm": "lightgbm",
    "mlflow": "mlflow",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "pandas": "pandas",
    "peft": "peft",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "scipy": "scipy",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
    "statsmodels": "statsmodels",
    "tensorflow": "tensorflow",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "torchvision": "torchvision",
    "transformers": "transformers",
    "vllm": "vllm",
    "xgboost": "xgboost",
}
"""Modules that a model's result depends on, with the distribution that tells their version."""

_DIGEST = re.compile(r"(?:[^\s@]*@)?(sha256:[0-9a-f]{64})")
_PODMAN = re.compile(r'^imageid="([0-9a-f]{64})"$', re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The container's image.

    Attributes:
        digest: ``sha256:…``; None = unknown.
        source: who says so; when it is unknown, why.
    """

    digest: str | None
    source: str


def image(environ: Mapping[str, str], podman: Path = Path("/run/.containerenv")) -> Image:
    """Return the digest of the image that this process runs in, where that can really be known.

    ``CAGG_IMAGE_DIGEST`` says it (``sha256:…`` or ``name@sha256:…``, of which only the digest is kept). Else Podman
    writes the image's id into privileged containers (containers-common, podman-run(1), file /run/.containerenv).

    Args:
        environ: the environment.
        podman: that file.
    """
    stated = environ.get(IMAGE_VARIABLE, "").strip()
    if stated:
        found = _DIGEST.fullmatch(stated)
        if found is None:
            return Image(digest=None, source=f"{IMAGE_VARIABLE} is no digest such as sha256:…")
        return Image(digest=found[1], source=IMAGE_VARIABLE)
    try:
        told = _PODMAN.search(podman.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        told = None
    if told is not None:
        return Image(digest=f"sha256:{told[1]}", source="image id in /run/.containerenv")
    return Image(digest=None, source=f"{IMAGE_VARIABLE} is not set")


_lock = threading.Lock()
_versions: dict[str, str | None] = {}
_images: list[Image] = []


def library_versions(modules: Mapping[str, Any] | None = None) -> Mapping[str, str]:
    """Return versions by distribution: Python, cagg, and what is loaded of :data:`LIBRARIES`.

    Args:
        modules: loaded modules by name; None = those of this process.
    """
    from cagg import __version__

    loaded = sys.modules if modules is None else modules
    found = {"python": sys.version.split()[0], "cagg": __version__}
    for module, distribution in LIBRARIES.items():
        if module in loaded and (known := _version(distribution)) is not None:
            found[distribution] = known
    return found


def _version(distribution: str) -> str | None:
    """Return what is installed; looked up once per process, because it reads folders."""
    if distribution not in _versions:
        from importlib.metadata import PackageNotFoundError, version

        try:
            _versions[distribution] = version(distribution)
        except (PackageNotFoundError, OSError, ValueError, TypeError):  # absent, or its metadata cannot be read
            _versions[distribution] = None
    return _versions[distribution]


def software_body(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return image and versions as ledger values; the image is looked up once per process.

    Args:
        environ: the environment.
    """
    with _lock:
        if not _images:
            _images.append(image(environ))
        found = _images[0]
        versions = library_versions()
    return {
        "image_digest": found.digest,
        "image_source": found.source,
        "versions": [{"name": name, "value": versions[name]} for name in sorted(versions)],
    }
