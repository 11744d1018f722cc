import pytest
import torch

from truthful.data import FixedSample, FreshSamples, StratifiedSamples
from truthful.settings import Setting, UniformBox
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


def test_stratified_batches_have_one_draw_in_each_part_of_every_value_s_law() -> None:
    setting = UniformBox(2, 2, [4.0, 4.0], [16.0, 7.0], "additive")
    data = StratifiedSamples()
    data.prepare(setting, 50, 0)
    values, rows = data(3)
    assert rows is None
    assert torch.equal(values, data(3)[0])
    assert not torch.equal(values, data(4)[0])
    strata = ((values - setting.low) / (setting.high - setting.low) * 50).long().clamp_max(49)
    assert all(sorted(strata[:, i, j].tolist()) == list(range(50)) for i in range(2) for j in range(2))
    assert strata[:, 0, 0].tolist() != strata[:, 0, 1].tolist()


def test_stratified_batches_estimate_a_mean_better_and_without_bias(two_by_two: UniformBox) -> None:
    stratified, fresh = StratifiedSamples(), FreshSamples()
    for data in (stratified, fresh):
        data.prepare(two_by_two, 64, 0)
    better, plain = (
        torch.stack([data(t)[0].sum((-2, -1)).square().mean() for t in range(400)]) for data in (stratified, fresh)
    )
    expected = 4 / 3 + 12 / 4  # four squares and twelve products
    assert float(better.mean()) == pytest.approx(expected, abs=4 * float(better.std()) / 20)
    assert float(better.std()) < 0.5 * float(plain.std())


class Observed(UniformBox):
    """A setting whose law is not known as a function of uniform numbers."""

    quantile = Setting.quantile


def test_stratified_batches_need_a_law_by_quantiles() -> None:
    with pytest.raises(ValueError, match="use data=fresh or data=fixed"):
        StratifiedSamples().prepare(Observed(2, 2, 0.0, 1.0, "additive"), 8, 0)


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
