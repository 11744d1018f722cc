import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import Answer, network
from truthful import plots
from truthful.auction import Outcome
from truthful.laws import Exponential, PiecewiseUniform
from truthful.mechanisms import Mechanism
from truthful.settings import Independent, Optimum, Setting, UniformBox
from truthful.settings.regions import area, box_corners, inner_edges, menu_regions

MANELLI_VINCENT = UniformBox(1, 2, 0.0, 1.0, "additive")
SETTING_D = UniformBox(1, 2, [4.0, 4.0], [16.0, 7.0], "additive")


class Triangle(UniformBox):
    """Values with v1 + v2 <= 1; the bundle at 1/sqrt 3."""

    def project(self, values: Tensor) -> Tensor:
        return (values - (values.sum(-1, keepdim=True) - 1).clamp_min(0) / 2).clamp(0, 1)

    @property
    def optimum(self) -> Optimum:
        return Optimum(2 / 3 / 3**0.5, "test", "menu", (((1.0, 1.0), 3**-0.5),))


class Steps(Mechanism):
    """Item 1 from a value of 0.7 of it on, item 2 from 0.25 on."""

    def forward(self, bids: Tensor) -> Outcome:
        allocation = (bids >= torch.tensor([0.7, 0.25])).to(bids)
        return Outcome(allocation, torch.zeros_like(bids[..., 0]))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The figure that is saved for a mechanism in a setting."""

    def draw(mechanism: Mechanism, setting: Setting):
        figures = []
        monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
        plots.save_allocation(mechanism, setting, tmp_path / "allocation.png")
        return figures[0]

    return draw


@pytest.mark.parametrize("setting", [MANELLI_VINCENT, SETTING_D, UniformBox(1, 2, 0.0, 1.0, "unit")])
def test_regions_of_an_optimal_menu_earn_the_optimal_revenue(setting: UniformBox) -> None:
    menu = setting.optimum.menu
    support = box_corners(*map(tuple, (setting.low[0].tolist(), setting.high[0].tolist())))
    regions = menu_regions(menu, support)
    assert sum(map(area, regions)) == pytest.approx(area(support), rel=1e-12)
    earned = sum(price * area(region) for (_, price), region in zip(menu, regions, strict=False)) / area(support)
    assert earned == pytest.approx(setting.optimal_revenue, rel=1e-12)


def test_regions_are_where_an_entry_is_worth_most() -> None:
    generator = torch.Generator().manual_seed(0)
    chances = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    prices = (chances * torch.tensor([6.0, 4.0])).sum(1) * (0.8 + 0.2 * torch.rand(12, generator=generator))
    menu = tuple((tuple(chance), price) for chance, price in zip(chances.tolist(), prices.tolist(), strict=True))
    regions = menu_regions((*menu, menu[0]), box_corners((4.0, 4.0), (16.0, 7.0)))
    assert regions[12] == []  # the second of two equal entries
    steps = (torch.arange(600, dtype=torch.float64) + 0.5) / 600
    values = torch.stack(torch.meshgrid(4 + 12 * steps, 4 + 3 * steps, indexing="ij"), -1).flatten(0, 1)
    worth = torch.cat([values @ chances.T - prices, torch.zeros(len(values), 1)], 1)
    counts = torch.bincount(worth.argmax(1), minlength=13) / len(values)
    areas = torch.tensor([area(region) / 36 for region in regions[:12] + regions[13:]])
    assert int((areas > 0.01).sum()) >= 4
    assert float((areas - counts).abs().max()) < 2e-3


def test_inner_edges_are_the_boundaries_of_manelli_and_vincent() -> None:
    support = box_corners((0.0, 0.0), (1.0, 1.0))
    edges = inner_edges(menu_regions(MANELLI_VINCENT.optimum.menu, support), support)
    found = {tuple(sorted((round(x, 6), round(y, 6)) for x, y in edge)) for edge in edges}
    one, other = round(2 / 3, 6), round((2 - 2**0.5) / 3, 6)
    wanted = [
        ((0, one), (other, one)),
        ((other, one), (other, 1)),
        ((one, 0), (one, other)),
        ((one, other), (1, other)),
    ]
    assert found == {*wanted, ((other, one), (one, other))}
    assert len(edges) == 10


def test_maps_show_the_auction_where_it_is(drawn) -> None:
    setting = UniformBox(1, 2, 0.0, [2.5, 1.0], "additive")
    figure = drawn(Steps(**setting.shape), setting)
    one, two, _ = figure.axes  # no known optimum: one row, and the scale
    assert one.get_title() == "item 1"
    for axes, threshold, axis in ((one, 0.7 / 2.5, 1), (two, 0.25, 0)):
        (image,) = axes.get_images()
        shown = torch.tensor(image.get_array())
        assert image.origin == "lower"
        assert image.get_extent() == [0, 2.5, 0, 1]
        centres = (torch.arange(plots.RESOLUTION) + 0.5) / plots.RESOLUTION
        wanted = (centres >= threshold).float()
        assert torch.equal(shown, wanted.expand(len(centres), -1) if axis else wanted[:, None].expand(-1, len(centres)))


def test_a_known_menu_is_drawn_beside_the_auction(drawn) -> None:
    figure = drawn(network(SETTING_D), SETTING_D)
    titles = [axes.get_title() for axes in figure.axes[:4]]
    assert titles == ["item 1, this auction", "item 2, this auction", "item 1, optimal", "item 2, optimal"]
    assert "9.77778" in figure.get_suptitle()
    for axes in figure.axes[:4]:
        (lines,) = [drawn for drawn in axes.collections if type(drawn).__name__ == "LineCollection"]
        segments = {tuple(sorted(map(tuple, segment.round(6).tolist()))) for segment in lines.get_segments()}
        assert segments == {((8, 4), (8, 7)), ((4, 6), (8, 4))}
    labels = {text.get_text(): text.get_position() for text in figure.axes[2].texts}
    assert set(labels) == {"(1/2, 1)\nat 8", "(1, 1)\nat 12", "nothing"}
    assert labels["(1, 1)\nat 12"] == pytest.approx((12, 5.5), abs=0.05)
    assert labels["nothing"] == pytest.approx((4 + 4 / 3, 4 + 2 / 3), abs=0.05)


@pytest.mark.parametrize(
    ("setting", "hidden"),
    [
        (Triangle(1, 2, 0.0, 1.0, "additive"), [(0.9, 0.9)]),
        (
            Independent(2, 2, PiecewiseUniform(((0.0, 0.3), (0.7, 1.0)), (0.3, 0.3)), "additive"),
            [(0.5, 0.5), (0.1, 0.5)],
        ),
    ],
)
def test_values_that_cannot_be_are_covered(setting: Setting, hidden: list[tuple[float, float]], drawn) -> None:
    for axes in drawn(Steps(**setting.shape), setting).axes[:2]:
        covers = [one for one in axes.collections if type(one).__name__ == "QuadContourSet"]
        others = [one.zorder for one in axes.collections if one not in covers]
        for cover in covers:
            assert cover.zorder > max(others, default=0)
            for point, covered in [*((point, True) for point in hidden), ((0.1, 0.2), False), ((0.2, 0.1), False)]:
                assert cover.get_paths()[0].contains_point(point) == covered
        assert len(covers) == 2


def test_a_box_is_not_covered(drawn) -> None:
    kinds = {type(one).__name__ for axes in drawn(network(SETTING_D), SETTING_D).axes[:4] for one in axes.collections}
    assert "QuadContourSet" not in kinds


def test_evaluating_a_classical_auction_leaves_its_picture(cli, tmp_path: Path) -> None:
    answer: Answer = cli(
        "evaluate.py", "mechanism=second_price", "setting=d", "audit=fast", "audit.samples=8", "hydra.run.dir=out"
    )
    assert answer.code == 0, answer.err
    assert (tmp_path / "out" / "allocation.png").stat().st_size > 10_000
    assert "allocation.png" in answer.out.replace("\n", "")


def test_a_map_of_long_tails_ends_where_few_values_are(drawn) -> None:
    setting = Independent(1, 2, Exponential(1.0, 20.0), "additive")
    axes = drawn(Steps(**setting.shape), setting).axes[0]
    end = -1.25 * math.log(0.01)
    assert axes.get_images()[0].get_extent() == pytest.approx([0, end, 0, end], rel=1e-6)
    assert axes.get_xlim() == pytest.approx((0, end), rel=1e-6)
