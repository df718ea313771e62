import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mialib.data.splits import swapped, targets_and_shadows, unseen


@given(size=st.integers(1, 40), extra=st.integers(1, 200), seed=st.integers(0, 5))
def test_sides_are_disjoint_and_as_large_as_asked(size, extra, seed):
    n = 3 * size + extra
    targets, shadows = targets_and_shadows(n, size, 2, 3, seed)
    for split in targets + shadows:
        both = np.concatenate([split.members, split.non_members])
        assert len(np.unique(both)) == len(both) and both.min() >= 0 and both.max() < n
        assert len(split.members) == size
    assert all(len(split.non_members) == size for split in shadows)
    room = n - max(n // 2, 2 * size) - size
    assert all(len(split.non_members) == min(size, room) for split in targets)
    seen = [
        np.concatenate([part for split in side for part in (split.members, split.non_members)])
        for side in (targets, shadows)
    ]
    assert not np.intersect1d(*seen).size


def test_another_shadow_changes_no_other():
    few, more = (targets_and_shadows(100, 20, 1, k, 0)[1] for k in (2, 5))
    assert all((a.members == b.members).all() for a, b in zip(few, more, strict=False))
    assert len({tuple(split.members) for split in more}) == 5


def test_locations_larger_size_leaves_few_non_members():
    [target], _ = targets_and_shadows(5010, 1600, 1, 1, 0)
    assert len(target.non_members) == 5010 - 3 * 1600


def test_swapped_trains_no_record_on_both_sides():
    targets, shadows = swapped(101, 48, 2, 3, 0)
    for target in targets:
        for shadow in shadows:
            assert not np.intersect1d(target.members, shadow.members).size
            assert not np.intersect1d(target.non_members, shadow.non_members).size
    for split in targets + shadows:
        assert len(split.members) == len(split.non_members) == 48
        assert len(np.unique(np.concatenate([split.members, split.non_members]))) == 96
    assert set(shadows[0].members) != set(shadows[1].members)
    with pytest.raises(ValueError, match="101 records are too few for two disjoint sets of 51"):
        swapped(101, 51, 1, 1, 0)
    with pytest.raises(ValueError, match="must be at least 1"):
        swapped(101, 5, 0, 1, 0)


def test_too_few_records_are_refused():
    with pytest.raises(ValueError, match="30 records are too few for disjoint sets of 10: at least 31 are needed"):
        targets_and_shadows(30, 10, 1, 1, 0)
    with pytest.raises(ValueError, match="must be at least 1"):
        targets_and_shadows(30, 0, 1, 1, 0)


def test_only_records_that_were_trained_on_are_left_out():
    X = np.arange(24, dtype=np.uint8).reshape(6, 4)
    assert unseen(X, X[[4, 1]] + np.uint8(0)).tolist() == [0, 2, 3, 5]
    assert unseen(X, X[::-1, ::-1]).tolist() == list(range(6))
