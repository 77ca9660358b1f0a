"""The generator against its published vectors, and the independence of its streams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.attacks import draws as draws_module
from bench.attacks.draws import GivenDraws, kernel_problem, keyed_draws, philox
from bench.errors import InputError
from tests.pretend_cuda import PretendCuda

ONES = 0xFFFFFFFF
KNOWN = [
    # Random123's known-answer file, philox4x32 with 10 rounds: counter, key, answer.
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_philox_gives_the_published_answers(make: object) -> None:
    assert callable(make)
    counters = tuple(make([known[0][word] for known in KNOWN]) for word in range(4))
    keys = tuple(make([known[1][word] for known in KNOWN]) for word in range(2))
    words = philox(counters, keys)
    answers = [[int(word[row]) for word in words] for row in range(len(KNOWN))]
    assert answers == [list(known[2]) for known in KNOWN]


def numbers(indices: list[int], count: int = 6, **key: int) -> Tensor:
    seed = key.pop("seed", 7)
    events = torch.full((len(indices),), key.pop("event", 0))
    return keyed_draws(seed, torch.tensor(indices), "square", **key).uniform(
        events, count, torch.float32
    )


def test_draws_belong_to_the_item_and_not_to_the_batch() -> None:
    together = numbers([4, 900, 77])
    assert torch.equal(together[1:2], numbers([900]))
    assert torch.equal(together.flip(0), numbers([77, 900, 4]))
    many = numbers(list(range(1000)), count=100)
    assert torch.equal(many[777:778], numbers([777], count=100))
    assert torch.equal(many[:, :5], numbers(list(range(1000)), count=5))


@pytest.mark.parametrize("key", ["seed", "restarts", "targets", "event"])
def test_every_part_of_the_key_counts(key: str) -> None:
    draws = [numbers([3], **{key: value}) for value in (1, 2, 2**20)]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 3
    other = keyed_draws(7, torch.tensor([3]), "apgd-ce")
    event = torch.tensor([0])
    assert not torch.equal(numbers([3]), other.uniform(event, 6, torch.float32))


def test_items_at_different_events_share_a_call() -> None:
    draws = keyed_draws(7, torch.tensor([5, 5, 8]), "square")
    mixed = draws.uniform(torch.tensor([2, 9, 4]), 6, torch.float32)
    alone = [numbers([index], event=event) for index, event in ((5, 2), (5, 9), (8, 4))]
    assert torch.equal(mixed, torch.cat(alone))


def test_restarts_and_targets_may_differ_in_a_call() -> None:
    indices = torch.tensor([5, 5])
    both = keyed_draws(7, indices, "square", restarts=indices, targets=torch.tensor([1, 2]))
    one = keyed_draws(7, indices[1:], "square", restarts=5, targets=2)
    assert torch.equal(both.words[1:], one.words)


def test_large_seeds_and_places() -> None:
    words = keyed_draws(2**64 - 1, torch.tensor([2**32 - 1]), "square").words
    assert torch.all((words >= 0) & (words < 2**32))
    assert not torch.equal(words, keyed_draws(2**32 - 1, torch.tensor([2**32 - 1]), "square").words)
    for seed in (-1, 2**64):
        with pytest.raises(InputError, match="seed in"):
            keyed_draws(seed, torch.tensor([0]), "square")


def test_uniform_numbers_are_uniform() -> None:
    draws = numbers(list(range(400)), count=500).double()
    assert float(draws.min()) >= 0
    assert float(draws.max()) < 1
    assert abs(float(draws.mean()) - 1 / 2) < 4 * (1 / 12 / draws.numel()) ** 0.5
    counts = torch.histc(draws, bins=50, min=0, max=1)
    expected = draws.numel() / 50
    assert float(((counts - expected) ** 2 / expected).sum()) < 100  # p below 2e-5 at 49 degrees
    correlation = torch.corrcoef(draws)
    assert float((correlation - torch.eye(400)).abs().max()) < 6 / 500**0.5


def test_normal_numbers_are_normal() -> None:
    draws = keyed_draws(1, torch.arange(400), "apgd-ce").normal(
        torch.zeros(400, dtype=torch.int64), 501, torch.float64
    )
    assert draws.shape == (400, 501)
    flat = draws.flatten().sort().values
    place = (torch.arange(len(flat), dtype=torch.float64) + 0.5) / len(flat)
    distance = (torch.special.ndtr(flat) - place).abs().max()
    assert float(distance) < 2 / len(flat) ** 0.5  # Kolmogorov-Smirnov, p below 1e-3
    assert torch.isfinite(draws).all()


def test_dtypes_agree() -> None:
    draws = keyed_draws(1, torch.arange(9), "square")
    events = torch.arange(9)
    single = draws.uniform(events, 7, torch.float32)
    assert torch.equal(single.double(), draws.uniform(events, 7, torch.float64))


def test_given_draws_are_given_back() -> None:
    table = torch.arange(24.0).view(2, 3, 4)
    draws = GivenDraws(table)
    got = draws.uniform(torch.tensor([2, 0]), 3, torch.float64)
    assert torch.equal(got, torch.stack((table[0, 2, :3], table[1, 0, :3])).double())
    with pytest.raises(InputError, match="at least 5 given numbers"):
        draws.normal(torch.tensor([0, 0]), 5, torch.float64)


@pytest.mark.parametrize("count", [1, 6, 131])
def test_the_kernel_of_a_gpu_draws_the_same_numbers_in_one_launch(count: int) -> None:
    """Through Triton's interpreter, on a pretend GPU."""
    pytest.importorskip("triton")
    indices, events = torch.arange(150) * 9973, torch.arange(150) * 33
    draws = keyed_draws(2**64 - 3, indices, "square", restarts=indices % 5)
    with PretendCuda() as cuda:
        there, at = draws.to(torch.device("cuda")), events.to("cuda")
        assert not kernel_problem(at.device)
        cuda.launches.clear()
        single = there.uniform(at, count, torch.float32)
        assert cuda.launches == {"philox_units": 1}
        assert single.is_contiguous()
        found = [
            single,
            there.uniform(at, count, torch.float64),
            there.normal(at, count, torch.float32),
        ]
        ours = [each.cpu() for each in found]
    assert torch.equal(ours[0], draws.uniform(events, count, torch.float32))
    assert torch.equal(ours[1], draws.uniform(events, count, torch.float64))
    assert torch.equal(ours[2], draws.normal(events, count, torch.float32))


@pytest.mark.parametrize("fails", [True, False])
def test_a_kernel_that_fails_or_errs_is_not_used(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    def kernel(words: Tensor, events: Tensor, count: int) -> Tensor:
        if fails:
            raise RuntimeError("no compiler\nhere")
        return torch.zeros(len(events), count, device=events.device)

    draws, events = keyed_draws(7, torch.arange(3), "square"), torch.arange(3)
    monkeypatch.setattr(draws_module, "_units_by_kernel", kernel)
    draws_module.kernel_problem.cache_clear()
    try:
        with PretendCuda():
            there = draws.to(torch.device("cuda"))
            found = there.uniform(events.to("cuda"), 5, torch.float32).cpu()
            problem = kernel_problem(torch.device("cuda", 0))
    finally:
        draws_module.kernel_problem.cache_clear()
    assert torch.equal(found, draws.uniform(events, 5, torch.float32))
    assert problem == ("RuntimeError: no compiler here" if fails else "its numbers differ")
