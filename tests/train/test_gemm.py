from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from automed.train import gemm, processor

pytestmark = pytest.mark.skipif(gemm.PRODUCT is None, reason="this build of torch has no oneDNN")


@pytest.fixture(autouse=True)
def onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """oneDNN is asked whatever the processor, for the smallest products too; the shapes that it was given."""
    asked: list[tuple[int, ...]] = []
    real = gemm._asked

    def noted(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
        asked.append((*left.shape, len(right)))
        return real(left, right, bias)

    monkeypatch.setattr(gemm, "by_onednn", lambda: True)
    monkeypatch.setattr(gemm, "_LEAST", 0)
    monkeypatch.setattr(gemm, "_asked", noted)
    return asked


def learnt(
    layer: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
) -> list[Tensor | None]:
    """What comes out of a linear layer, and every gradient."""
    given = [one if one is None else one.detach().requires_grad_() for one in (rows, weight, bias)]
    made = layer(*given)
    made.transpose(0, -1).square().sum().backward()  # what comes back is not in the order of memory
    return [made, *(one if one is None else one.grad for one in given)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 6), (40, 6), (8, 34, 6), (5, 3, 6, 6)])
@pytest.mark.parametrize("out", [1, 4, 30])
def test_a_linear_layer_and_all_its_gradients_stay_what_they_were(
    shape: tuple[int, ...], out: int, bias: bool, onednn: list[tuple[int, ...]]
) -> None:
    torch.manual_seed(0)
    given = torch.randn(shape), torch.randn(out, 6), torch.randn(out) if bias else None
    wanted = learnt(functional.linear, *given)
    assert not onednn
    found = learnt(gemm.linear, *given)
    assert len(onednn) == 3
    for mine, torchs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-5)


def test_what_does_not_learn_gets_no_gradient_and_costs_none(onednn: list[tuple[int, ...]]) -> None:
    rows, weight, bias = torch.randn(9, 6), torch.randn(4, 6), torch.randn(4, requires_grad=True)
    gemm.linear(rows, weight, bias).sum().backward()
    assert bias.grad is not None and len(onednn) == 1
    gemm.linear(rows, weight.requires_grad_(), bias).sum().backward()
    assert weight.grad is not None and len(onednn) == 3


def test_a_gradient_of_weights_moves_the_fewer_numbers(onednn: list[tuple[int, ...]]) -> None:
    for inward, out in ((3, 50), (50, 3)):
        gemm.linear(
            torch.randn(99, inward), torch.randn(out, inward, requires_grad=True), None
        ).sum().backward()
        assert onednn.pop() == (3, 99, 50)


@pytest.mark.parametrize("turned", [True, False])
def test_what_stands_with_gaps_is_closed_up(turned: bool) -> None:
    left, right = torch.randn(5, 9), torch.randn(7, 18)[:, ::2]
    if turned:
        left, right = torch.randn(9, 5).t(), torch.randn(9, 14)[:, ::2].t()
    torch.testing.assert_close(gemm.rows_by_rows(left, right), left @ right.t())
    torch.testing.assert_close(gemm.columns_by_columns(left.t(), right.t()), left @ right.t())
    for one in (left, right, right.t()):
        whole = gemm._whole(one)
        assert torch.equal(whole, one) and (whole.is_contiguous() or whole.t().is_contiguous())
    assert gemm._whole(left) is left


def test_what_comes_next_may_work_in_place() -> None:
    rows, weight = torch.randn(8, 5, 6), torch.randn(4, 6, requires_grad=True)
    functional.relu_(gemm.linear(rows, weight, None)).sum().backward()
    found, weight.grad = weight.grad, None
    functional.relu(functional.linear(rows, weight)).sum().backward()
    torch.testing.assert_close(found, weight.grad)


def test_numbers_of_another_kind_go_the_usual_way(onednn: list[tuple[int, ...]]) -> None:
    rows, weight = torch.randn(8, 6).double(), torch.randn(4, 6).double()
    assert torch.equal(gemm.linear(rows, weight, None), functional.linear(rows, weight))
    assert torch.equal(gemm.rows_by_rows(rows, weight), rows @ weight.t())
    assert not onednn


def test_small_ones_go_the_usual_way(onednn: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "_LEAST", 8 * 6 * 4 + 1)
    gemm.linear(torch.randn(8, 6), torch.randn(4, 6), None)
    assert not onednn
    gemm.linear(torch.randn(9, 6), torch.randn(4, 6), None)
    assert onednn == [(9, 6, 4)]


def test_oneDNN_is_asked_where_products_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: N802
    monkeypatch.undo()
    for slowly in (True, False):
        monkeypatch.setattr(processor, "multiplies_slowly", lambda slowly=slowly: slowly)
        assert gemm.by_onednn.__wrapped__() == slowly
