"""What README and docs show, runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_run(page: Path, tmp_path: Path, run_page: Callable[..., int]) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    run_page(page, folder)


def test_the_readme_shows_the_two_commands_and_python_that_runs(parse_page: Callable[[str], list[Any]]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = parse_page(text)
    shown = "\n".join(block.code for block in blocks)
    assert "make demo" in shown
    assert "make test" in shown
    assert [block for block in blocks if block.language == "python" and not block.shown_only]


def test_the_readme_gives_a_reason_for_each_core_dependency() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    names = re.findall(r'^  "([a-z0-9-]+)[><=]', _dependencies(), flags=re.MULTILINE)
    assert len(names) > 5
    assert [name for name in names if name not in text] == []


def _dependencies() -> str:
    document = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return document.split("\ndependencies = [", 1)[1].split("]", 1)[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_checkout_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target and ":" not in target]
    assert [target for target in links if not (page.parent / target).exists()] == []


def test_blocks_are_read_with_their_marks(parse_page: Callable[[str], list[Any]]) -> None:
    page = """# Title
```sh
$ true
```
<!-- not run: it needs a checkout of its own -->
```sh
git clone somewhere
```
<!-- exit 1 -->
```python
# folder/check.py
raise SystemExit(1)
```
1. A step

   ```toml
   zone = "neso:GB"
   ```
"""
    shell, clone, python, toml = parse_page(page)
    assert (shell.language, shell.line, shell.status, shell.shown_only) == ("sh", 2, 0, "")
    assert clone.shown_only == "it needs a checkout of its own"
    assert (python.status, python.file, python.shown_only) == (1, "folder/check.py", "")
    assert toml.code == 'zone = "neso:GB"\n'


def test_a_block_that_fails_is_noticed(tmp_path: Path, run_page: Callable[..., int]) -> None:
    page = ROOT / "tests" / "docs" / "pages" / "failing.md"
    with pytest.raises(AssertionError, match=r"failing\.md:3 ended with 3, not 0"):
        run_page(page, tmp_path, engine="prefect")


def test_each_block_runs_with_its_engine(tmp_path: Path, run_page: Callable[..., int]) -> None:
    page = tmp_path / "page.md"
    page.write_text("""```sh
touch with-prefect
```

<!-- airflow -->
```sh
touch with-airflow
```
""")
    assert run_page(page, tmp_path, engine="airflow") == 1
    assert (tmp_path / "with-airflow").exists()
    assert not (tmp_path / "with-prefect").exists()
    assert run_page(page, tmp_path, engine="prefect") == 1
    assert (tmp_path / "with-prefect").exists()
