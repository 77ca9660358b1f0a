"""The gallery: clean images come back bit for bit, and rare attacks come first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.store.gallery import MOST_SAMPLES, pack_gallery, read_gallery, spread
from bench.store.packing import pack_witnesses
from bench.store.records import Witnesses


@pytest.mark.parametrize("is_eight_bit", [True, False])
def test_both_images_come_back_bit_for_bit(tmp_path: Path, is_eight_bit: bool) -> None:
    draws = np.random.default_rng(0)
    n = MOST_SAMPLES + 30
    clean = draws.random((n, 3, 4, 4)).astype(np.float32)
    if is_eight_bit:
        clean = np.rint(clean * 255).astype(np.float32) / np.float32(255)
    images = np.clip(clean + 0.1 * draws.standard_normal(clean.shape), 0, 1).astype(np.float32)
    attack = np.array(["common"] * (n - 1) + ["rare"])
    witnesses = Witnesses(np.arange(n) + 5, attack, np.zeros(n, int), images)
    (tmp_path / "gallery.npz").write_bytes(pack_gallery(witnesses, clean))
    (tmp_path / "witnesses.npz").write_bytes(pack_witnesses(witnesses, clean))
    gallery = read_gallery(tmp_path / "gallery.npz", tmp_path / "witnesses.npz")
    rows = gallery.index - 5
    assert len(rows) == MOST_SAMPLES
    assert "rare" in gallery.attack
    assert (gallery.clean == clean[rows]).all()
    assert (gallery.adversarial == images[rows]).all()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_spread_orders_all_and_shows_each_combination_first(pairs: list[tuple[int, int]]) -> None:
    order = spread([a for a, _ in pairs], [b for _, b in pairs])
    assert sorted(order) == list(range(len(pairs)))
    combinations = len(set(pairs))
    assert len({pairs[place] for place in order[:combinations]}) == combinations
