import pytest
import torch

from truthful.data import FixedSample, FreshSamples
from truthful.settings import UniformBox
from truthful.streams import Stream, generator


def prepared(two_by_two: UniformBox, seed: int = 0) -> FixedSample:
    data = FixedSample(80)
    data.prepare(two_by_two, 8, seed)
    return data


def test_an_epoch_visits_every_fixed_batch_once_in_a_new_order(two_by_two: UniformBox) -> None:
    data = prepared(two_by_two)
    epochs = [[data(10 * epoch + k)[1].start for k in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(0, 80, 8)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_follows_from_the_iteration_alone(two_by_two: UniformBox) -> None:
    data, again = prepared(two_by_two), prepared(two_by_two)
    for iteration in (0, 25, 3, 11):
        values, rows = data(iteration)
        assert torch.equal(values, data.sample[rows])
        assert rows == again(iteration)[1]
    assert not torch.equal(data.sample, prepared(two_by_two, seed=1).sample)


def test_the_sample_is_a_multiple_of_the_batch(two_by_two: UniformBox) -> None:
    with pytest.raises(ValueError, match="multiple of batch, got 80 and 7"):
        FixedSample(80).prepare(two_by_two, 7, 0)


def test_fresh_samples_differ_and_can_be_drawn_again(two_by_two: UniformBox) -> None:
    data = FreshSamples()
    data.prepare(two_by_two, 8, 0)
    first, rows = data(0)
    assert rows is None
    assert not torch.equal(first, data(1)[0])
    assert torch.equal(first, data(0)[0])


def test_streams_and_steps_never_share_a_state() -> None:
    states = {
        generator(seed, stream, step).initial_seed() % 2**32
        for seed in (0,)
        for stream in Stream
        for step in range(2000)
    }
    assert len(states) == len(Stream) * 2000
    ranges = [{generator(seed, stream, 7).initial_seed() % 2**32 >> 29 for seed in range(50)} for stream in Stream]
    assert ranges == [{int(stream)} for stream in Stream]
    draws = [torch.rand(3, generator=generator(0, stream, 1)) for stream in Stream]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(Stream)
