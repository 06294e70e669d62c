"""What augmentation did, told to truths: places go where the pixels of a mask go."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sonde.contracts.augment import AugmentParams, partner

SIZES = [(7, 10), (5, 6, 8)]
sizes = st.sampled_from(SIZES)


def centre(place):
    """Where the middle of a pixel is, in pixels."""
    return [each + 0.5 for each in place]


@st.composite
def whole_pixels(draw):
    """A grid, a shift that leaves its middle inside, and flips."""
    size = draw(sizes)
    shift = [draw(st.integers(-(side // 3), side // 3)) for side in size]
    flip = [draw(st.booleans()) for _ in size]
    return AugmentParams(size=size, shift_BD=torch.tensor([shift]), flip_BD=torch.tensor([flip]))


@settings(max_examples=60, deadline=None)
@given(whole_pixels(), st.data())
def test_a_marked_pixel_goes_where_points_says(params, data):
    place = tuple(data.draw(st.integers(0, side - 1)) for side in params.size)
    grid = torch.zeros(1, *params.size, dtype=torch.int64)
    grid[0][place] = 1
    moved = params.grids(grid, outside=255)
    assert 255 not in moved
    (found,) = params.points(torch.tensor([[centre(place)]]))[0]
    inside = all(0 <= each < side for each, side in zip(found.tolist(), params.size, strict=True))
    # What is shifted in from beyond a border is the mirror image: a pixel may be there twice, or be gone.
    if inside:
        assert moved[0][tuple(int(each) for each in found)] == 1
    for other in (moved[0] == 1).nonzero().tolist():
        source = [int(params.sources(axis)[0, at]) for axis, at in enumerate(other)]
        assert tuple(source) == place


@settings(max_examples=40, deadline=None)
@given(whole_pixels())
def test_sources_are_one_map_for_grids_and_points(params):
    """Every output pixel that no border reflected shows the source pixel that points() puts there."""
    number = torch.arange(math.prod(params.size)).reshape(1, *params.size)
    moved = params.grids(number, outside=255)
    places = torch.tensor([centre(each) for each in itertools.product(*map(range, params.size))])
    outputs = params.points(places[None])[0]
    hits = 0
    for source, output in zip(number.flatten().tolist(), outputs.tolist(), strict=True):
        if all(0 <= each < side for each, side in zip(output, params.size, strict=True)):
            assert moved[0][tuple(int(each) for each in output)] == source
            hits += 1
    kept = [side - abs(int(shift)) for side, shift in zip(params.size, params.shift_BD[0], strict=True)]
    assert hits == math.prod(kept)


def affine(size, angle, zoom, shift, mirror):
    """A turn in pixels of the last two axes, as a map of places in [-1, 1], the last axis first."""
    dimensions = len(size)
    matrix = torch.eye(dimensions, dtype=torch.float64) / zoom
    aspect = size[-2] / size[-1]
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    matrix[0, :2] = torch.tensor([cos * mirror, -sin * aspect])
    matrix[1, :2] = torch.tensor([sin * mirror / aspect, cos])
    return torch.cat([matrix, torch.tensor(shift[:dimensions], dtype=torch.float64)[:, None]], dim=1)[None].float()


maps = st.builds(
    lambda size, angle, zoom, shift, mirror: AugmentParams(size=size, affine=affine(size, angle, zoom, shift, mirror)),
    sizes,
    st.floats(-0.7, 0.7),
    st.floats(0.7, 1.5),
    st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3),
    st.sampled_from([1.0, -1.0]),
)


@settings(max_examples=60, deadline=None)
@given(maps)
def test_points_invert_the_map_that_torch_samples_by(params):
    """torch says where each output pixel looks; points() brings that place back to the pixel."""
    size = params.size
    looks = functional.affine_grid(params.affine, [1, 1, *size], align_corners=False).flatten(1, -2)
    # From [-1, 1], the last axis first, to pixels in the order of the axes.
    sources = (looks.flip(-1) + 1) / 2 * torch.tensor(size)
    outputs = torch.tensor([centre(each) for each in itertools.product(*map(range, size))])
    torch.testing.assert_close(params.points(sources)[0], outputs, rtol=1e-3, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(maps, st.data())
def test_a_marked_pixel_under_an_affine_map(params, data):
    """A block is marked; the middle of where grids() put it is where points() puts its middle."""
    place = tuple(data.draw(st.integers(1, side - 2)) for side in params.size)
    grid = torch.zeros(1, *params.size, dtype=torch.uint8)
    grid[0][tuple(slice(each - 1, each + 2) for each in place)] = 1
    moved = params.grids(grid, outside=255)
    assert moved.dtype == torch.uint8
    (point,) = params.points(torch.tensor([[centre(place)]]))[0].tolist()
    if all(0.05 < each < side - 0.05 for each, side in zip(point, params.size, strict=True)):
        assert moved[0][tuple(int(each) for each in point)] == 1
    # And to the nearest pixel, as torch's own sampling has it: what comes from outside is said to.
    places = functional.affine_grid(params.affine, [1, 1, *params.size], align_corners=False)
    ones = functional.grid_sample(torch.ones(1, 1, *params.size), places, mode="nearest", align_corners=False)
    assert torch.equal(moved == 255, ones[:, 0] == 0)


@pytest.mark.parametrize("size", SIZES)
def test_a_flip_is_an_affine_map_too(size):
    flips = torch.zeros(2, len(size), dtype=torch.bool)
    flips[1, -1] = True
    whole = AugmentParams(size=size, shift_BD=torch.zeros(2, len(size), dtype=torch.int64), flip_BD=flips)
    identity = torch.cat([torch.eye(len(size)), torch.zeros(len(size), 1)], dim=1)
    mirror = identity.clone()
    mirror[0, 0] = -1
    smooth = AugmentParams(size=size, affine=torch.stack([identity, mirror]))
    grid = torch.randint(0, 9, (2, *size), generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole.grids(grid, 255), smooth.grids(grid, 255))
    points = torch.rand(2, 6, len(size)) * torch.tensor(size)
    torch.testing.assert_close(whole.points(points), smooth.points(points), rtol=1e-4, atol=1e-4)
    assert whole.moved
    assert smooth.moved
    assert not AugmentParams(size=size).moved


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("factor", [2, 0.5, 1.7])
def test_resized_grids_and_points_agree(size, factor):
    resized = tuple(max(1, round(side * factor)) for side in size)
    params = AugmentParams(size=size, resized=resized)
    number = torch.arange(math.prod(size)).reshape(1, *size)
    moved = params.grids(number, outside=255)
    assert moved.shape == (1, *resized)
    # An output pixel shows the source pixel that its middle lies in.
    for output in itertools.product(*map(range, resized)):
        source = [(at + 0.5) * side / new for at, side, new in zip(output, size, resized, strict=True)]
        assert moved[0][output] == number[0][tuple(int(each) for each in source)]
        (found,) = params.points(torch.tensor([[source]]))[0].tolist()
        assert found == pytest.approx(centre(output), abs=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_moved_then_resized_is_both_in_turn(size):
    resized = tuple(2 * side for side in size)
    shift = torch.tensor([[1] * len(size)])
    flip = torch.tensor([[False] * (len(size) - 1) + [True]])
    first, both = (AugmentParams(size=size, shift_BD=shift, flip_BD=flip, resized=each) for each in (None, resized))
    second = AugmentParams(size=size, resized=resized)
    grid = torch.randint(0, 9, (1, *size), generator=torch.Generator().manual_seed(0))
    assert torch.equal(both.grids(grid, 255), second.grids(first.grids(grid, 255), 255))
    points = torch.rand(1, 5, len(size)) * torch.tensor(size)
    torch.testing.assert_close(both.points(points), second.points(first.points(points)))


def test_each_example_of_a_batch_moves_by_its_own():
    size = (6, 9)
    shift, flip = torch.tensor([[1, -2], [0, 3]]), torch.tensor([[False, True], [True, False]])
    both = AugmentParams(size=size, shift_BD=shift, flip_BD=flip)
    grid, points = torch.randint(0, 9, (2, *size)), torch.rand(2, 4, 2) * 6
    for index in range(2):
        one = AugmentParams(size=size, shift_BD=shift[index : index + 1], flip_BD=flip[index : index + 1])
        assert torch.equal(both.grids(grid, 255)[index], one.grids(grid[index : index + 1], 255)[0])
        assert torch.equal(both.points(points)[index], one.points(points[index : index + 1])[0])


@pytest.mark.parametrize("count", [6, 7])
def test_partners_are_neighbours_and_mutual(count):
    values = torch.arange(count)
    found = partner(values)
    assert torch.equal(partner(found), values)
    assert found[:6].tolist() == [1, 0, 3, 2, 5, 4]
    assert found[6:].tolist() == values[6:].tolist()
