"""What is prepared before the first trial, of what a space can ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from automed.data import cache
from automed.data.images import kinds
from automed.data.manifest import Manifest, read_manifest
from automed.data.phantom import draw_phantom
from automed.data.settings import Data, Preprocess
from automed.errors import DataError
from automed.space.sample import SearchSpace
from automed.study.experiment import read_experiment, shipped
from automed.study.pictures import refuse_crowded, take_stock


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_phantom(tmp_path_factory.mktemp("phantom") / "images", patients=8, slices=1, size=64)


@pytest.fixture
def pictures(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path / "cache"))
    return read_manifest(Data(group="none"), drawn)


@pytest.fixture
def space(tmp_path: Path) -> Callable[..., SearchSpace]:
    def read(preprocess: str, start: str = "{optim.lr: 1e-3}", size: str = "[32, 64]") -> SearchSpace:
        (tmp_path / "space.yaml").write_text(
            "study: {name: x}\ndata: {group: none}\nspace:\n"
            f"  model: {{name: [small_cnn, alexnet_mini], image_size: {size}}}\n"
            "  optim: {lr: {low: 1e-4, high: 1e-2, log: true}}\n"
            f"  preprocess: {preprocess}\nstart_from:\n  - {start}\n"
        )
        return read_experiment(tmp_path / "space.yaml").space

    return read


def made() -> int:
    return len(list(cache.cache_folder("images").glob("*.npy")))


def test_all_that_the_space_can_ask_for_is_made_once(
    space, pictures: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = space("{channels: [1, 3], clahe: [0, 2], edges: {value: 0.5, when: {preprocess.clahe: 2}}}")
    stock = take_stock(asked, pictures, 50)
    size = sum(
        kind.bytes
        for kind in kinds(
            pictures,
            [
                (preprocess, side)
                for preprocess in (Preprocess(), Preprocess(clahe=2.0, edges=0.5))
                for side in (32, 64)
            ],
        )
    )
    assert pictures.grey and stock.size == size, "of one channel and three it is the same"
    monkeypatch.setenv(cache.LIMIT, "3GB")
    where = f"4 kinds of prepared pictures, 0.1 MB, in {tmp_path}/cache (limit 3 GB)"
    assert stock.line() == where
    told: list[tuple[int, int]] = []
    stock.prepare(lambda done, total: told.append((done, total)))
    count = len(pictures.items)
    assert made() == 4 and told[-1] == (count, count)
    again = take_stock(asked, pictures, 50)
    assert again.line() == where + "; all there already"
    next(iter(cache.cache_folder("images").glob("*.npy"))).unlink()
    assert take_stock(asked, pictures, 50).line() == where + "; 3 there already"


def test_nothing_is_decoded_where_all_is_there(
    space, pictures: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = space("{clahe: [0, 2]}")
    take_stock(asked, pictures, 50).prepare()
    monkeypatch.setattr("automed.data.scan.decode_file", lambda file: pytest.fail("decoded again"))
    take_stock(asked, pictures, 50).prepare()


def test_there_are_not_more_kinds_than_trials_and_what_is_used_most_comes_first(
    space, pictures: Manifest
) -> None:
    asked = space("{clahe: [0, 2]}", "{preprocess.clahe: 2, model.image_size: 64}")
    stock = take_stock(asked, pictures, 1)
    assert stock.now == ((Preprocess(clahe=2.0), 64),), "the first trial asks for it"
    assert stock.line().endswith("; others are prepared when a trial first asks for them")
    fine = take_stock(space("{edges: {low: 0, high: 5, step: 0.125}}"), pictures, 1000)
    assert len(fine.now) == 50 and fine.later


def test_of_a_range_only_what_the_first_trials_name_is_made(space, pictures: Manifest) -> None:
    stock = take_stock(space("{clahe: {low: 0, high: 4}}", size="32"), pictures, 50)
    assert stock.now == () and stock.line() == "pictures are prepared when a trial first asks for them"
    stock.prepare()
    assert made() == 0
    stock = take_stock(space("{clahe: {low: 0, high: 4}}", "{preprocess.clahe: 1.3}", "32"), pictures, 50)
    assert stock.now == ((Preprocess(clahe=1.3), 32),) and stock.later


def test_what_the_cache_cannot_hold_at_once_waits_for_its_trial(
    space, pictures: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (large,) = kinds(pictures, [(Preprocess(), 512)])
    limit = 1.5 * large.bytes / 1e6
    monkeypatch.setenv(cache.LIMIT, f"{limit}MB")
    stock = take_stock(space("{clahe: [0, 2]}", size="[32, 512]"), pictures, 50)
    assert stock.size <= limit * 1e6 and stock.later
    assert sorted(size for _, size in stock.now) == [32, 32, 512]
    stock.prepare()
    assert made() == 3, "none had to make room for another"


def test_pictures_that_the_cache_can_never_hold_are_refused(
    space, pictures: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = space("{clahe: [0, 2]}", size="[32, 512, 1024]")
    refuse_crowded(asked, pictures)
    monkeypatch.setenv(cache.LIMIT, "2MB")
    with pytest.raises(DataError) as caught:
        refuse_crowded(asked, pictures)
    small, large = (fault.message for fault in caught.value.faults)
    assert small.startswith("the prepared pictures of 512x512x1 need ")
    assert small.endswith("but the cache holds 2 MB") and "1024x1024x1" in large
    assert made() == 0
    monkeypatch.setenv("AUTOMED_CACHE", str(tmp_path / "space.yaml"))
    with pytest.raises(
        DataError, match=r"no cache here: Not a directory(.|\n)*\$AUTOMED_CACHE names another"
    ):
        refuse_crowded(asked, pictures)


def test_the_full_space_is_counted(pictures: Manifest) -> None:
    stock = take_stock(read_experiment(shipped("brain")).space, pictures, 200)
    assert len(stock.now) == 24 and not stock.later, "channels make no difference to grey pictures"
    assert stock.missing == 24
