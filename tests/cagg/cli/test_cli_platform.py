"""Where cagg cannot run it says so."""

from __future__ import annotations

import sys

import pytest

from cagg.cli.__main__ import main
from cagg.errors import CaggError


def test_windows_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "cagg: Windows is not supported; use Linux, for example in WSL, or macOS.\n"


@pytest.mark.parametrize("name", ["gate", "Gate"])
def test_the_gate_itself_is_refused_there_too(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import cagg

    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(CaggError, match="Windows is not supported"):
        getattr(cagg, name)
