"""Networks that timm builds: what is asked of it, and what is said where it does not import."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mlpspace
from mlpspace import papers
from mlpspace.comparators import Comparator, TimmMissing
from mlpspace.errors import ArchitectureError, UserError
from mlpspace.proof import prove

COMPARATORS = [paper for paper in papers.PAPERS if isinstance(paper.architecture, Comparator)]


def timm_imports() -> bool:
    try:
        import timm  # noqa: F401
    except Exception:  # a torchvision of another torch raises nearly anything
        return False
    return True


needs_timm = pytest.mark.skipif(not timm_imports(), reason="timm does not import here")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What a stand-in for timm is asked for."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def create_model(name: str, **options: Any) -> nn.Module:
        calls.append((name, options))
        return nn.Identity()

    stub = types.ModuleType("timm")
    stub.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", stub)
    return calls


def test_timm_is_asked_for_the_network_without_weights(asked: list[tuple[str, dict[str, Any]]]) -> None:
    mlpspace.build(papers.get("regnety_4gf"), resolution=160, classes=10)
    assert asked == [("regnety_040", {"pretrained": False, "num_classes": 10})]


def test_what_is_built_for_one_image_size_is_told_it(asked: list[tuple[str, dict[str, Any]]]) -> None:
    mlpspace.build(papers.get("cait_xs24_224"), resolution=224, classes=1000)
    assert asked == [("cait_xs24_384", {"pretrained": False, "num_classes": 1000, "img_size": 224})]


@pytest.mark.parametrize("name", ["deit_s", "deit_b", "cait_xs24_224", "swin_t"])
def test_pixels_that_its_patches_do_not_divide_are_refused(name: str) -> None:
    with pytest.raises(ArchitectureError, match=r"timm's \w+ needs a multiple of \d+ pixels, not 225"):
        mlpspace.build(papers.get(name), resolution=225, classes=10)


def test_without_timm_the_reason_and_what_to_type_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        TimmMissing, match=r"(?s)timm, which does not import here \(.+\).*pip install 'mlpspace\[timm\]'"
    ):
        mlpspace.build(papers.get("deit_s"), resolution=224, classes=1000)
    assert issubclass(TimmMissing, UserError)


def test_whatever_keeps_timm_from_importing_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TimmMissing, match="RuntimeError: operator torchvision::nms does not exist"):
        mlpspace.build(papers.get("deit_s"), resolution=224, classes=1000)


@needs_timm
@pytest.mark.slow
@pytest.mark.parametrize("paper", COMPARATORS, ids=lambda paper: paper.name)
def test_a_comparator_has_the_counts_on_record_to_the_unit(paper: Any) -> None:
    proof = prove(paper)
    assert (proof.params, proof.macs) == (paper.params, paper.macs)


@needs_timm
@pytest.mark.slow
@pytest.mark.parametrize("paper", COMPARATORS, ids=lambda paper: paper.name)
@pytest.mark.parametrize("resolution", [32, 64, 96, 160, 224])
def test_a_comparator_stands_at_every_resolution(paper: Any, resolution: int) -> None:
    with torch.device("meta"), torch.no_grad():
        network = mlpspace.build(paper.architecture, resolution=resolution, classes=10).eval()
        assert network(torch.empty(2, 3, resolution, resolution)).shape == (2, 10)
