"""Tensors travel in few pieces, and come back whole."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from fmlm_cli.engine.ranks.buckets import Bucket, in_buckets

KINDS = st.tuples(st.integers(0, 9), st.sampled_from([torch.float32, torch.float64]))


@given(kinds=st.lists(KINDS, max_size=12), most=st.integers(1, 100))
def test_each_tensor_is_in_one_bucket_and_none_is_larger_than_need_be(
    kinds: list[tuple[int, torch.dtype]], most: int
) -> None:
    tensors = [torch.zeros(size, dtype=dtype) for size, dtype in kinds]
    buckets = list(in_buckets(tensors, most))
    assert [id(t) for bucket in buckets for t in bucket] == [id(t) for t in tensors]
    for bucket in buckets:
        assert len({tensor.dtype for tensor in bucket}) == 1
        assert len(bucket) == 1 or sum(tensor.nbytes for tensor in bucket) <= most
    for one, other in itertools.pairwise(buckets):  # nothing more would have fitted
        assert one[0].dtype != other[0].dtype or sum(t.nbytes for t in one) + other[0].nbytes > most


@given(shapes=st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=4), turned=st.booleans())
def test_what_is_done_to_the_row_is_done_to_the_tensors(shapes: list[list[int]], turned: bool) -> None:
    tensors = [torch.randn(shape) for shape in shapes]
    if turned:  # their values do not lie in a row
        tensors = [tensor.expand(2, *tensor.shape).clone().transpose(0, -1) for tensor in tensors]
    wanted = [2 * tensor for tensor in tensors]
    bucket = Bucket.of(tuple(tensors))
    bucket.flat.mul_(2)
    bucket.give_back()
    assert all(map(torch.equal, tensors, wanted))
