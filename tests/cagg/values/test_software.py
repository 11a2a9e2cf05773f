"""What software a record says it was made with."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

import cagg
from cagg.software import image, library_versions, software_body

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize("stated", [DIGEST, f"registry.example.org/me/image@{DIGEST}", f" {DIGEST}\n"])
def test_the_image_is_what_the_environment_says(stated: str, tmp_path: Path) -> None:
    found = image({"CAGG_IMAGE_DIGEST": stated}, tmp_path / "absent")
    assert (found.digest, found.source) == (DIGEST, "CAGG_IMAGE_DIGEST")


@pytest.mark.parametrize("stated", ["latest", "sha256:abc", f"{DIGEST}0", "me/image:1.2", f"a b@{DIGEST}"])
def test_a_tag_is_no_digest(stated: str, tmp_path: Path) -> None:
    found = image({"CAGG_IMAGE_DIGEST": stated}, tmp_path / "absent")
    assert found.digest is None
    assert "no digest" in found.source
    assert "me/image" not in found.source


def test_podman_says_the_image_to_privileged_containers(tmp_path: Path) -> None:
    file = tmp_path / "containerenv"
    file.write_text(f'engine="podman-4.9"\nname="web"\nimage="me/image:1"\nimageid="{"b" * 64}"\nrootless=1\n')
    assert image({}, file).digest == f"sha256:{'b' * 64}"
    file.write_text("")
    assert image({}, file).digest is None


def test_unknown_has_a_reason(tmp_path: Path) -> None:
    found = image({}, tmp_path / "absent")
    assert (found.digest, found.source) == (None, "CAGG_IMAGE_DIGEST is not set")


def test_only_what_is_loaded_is_listed() -> None:
    assert library_versions({}) == {"python": platform.python_version(), "cagg": cagg.__version__}
    import numpy as np

    found = library_versions({"numpy": np, "torch": None, "json": None})
    assert found["numpy"] == np.__version__
    assert "json" not in found


def test_a_module_without_a_distribution_is_left_out() -> None:
    assert "catboost" not in library_versions({"catboost": object()})


def test_nothing_is_imported_for_it() -> None:
    code = (
        "import sys, os\nfrom cagg.software import software_body\nbody = software_body(os.environ)\n"
        "assert not {'numpy', 'pandas', 'torch', 'sklearn'} & set(sys.modules), sys.modules.keys()\n"
        "assert [item['name'] for item in body['versions']] == ['cagg', 'python'], body"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def test_versions_are_in_the_order_of_their_names() -> None:
    names = [item["name"] for item in software_body({})["versions"]]
    assert names == sorted(names)
