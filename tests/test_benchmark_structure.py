"""The counts of benchmarks.structure, on a small package whose answers are known."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from benchmarks.data_path import Path as DataPath
from benchmarks.package_source import Package
from benchmarks.structure import main, measure, plans, stations, upward

SOURCES = {
    "__init__.py": "import lazy_loader\n",
    "__init__.pyi": """
        from .engine.train import fit as fit
        from .shop import Shop as Shop
    """,
    "lonely.py": "LEVEL = 3\n",  # short, and nothing imports it
    "numbers.py": """
        def whole(value):
            return int(value)

        def half(value):
            return value / 2

        class Rounded:
            def __init__(self, value):
                self.value = whole(value)
    """,
    "boxes.py": """
        from dataclasses import dataclass
        from typing import TYPE_CHECKING

        from tiny.numbers import whole

        if TYPE_CHECKING:
            from tiny.shop import Shop

        @dataclass
        class Box:
            content: object
            owner: "Shop"

            def heavy(self, limit):
                return whole(self.content) > limit
    """,
    "engine/__init__.py": "from tiny.engine.train import fit\n",
    "engine/train.py": """
        from tiny.boxes import Box
        from tiny.engine import steps
        from tiny.numbers import Rounded, half, whole

        def fit(pair, data, *, epochs=1):
            if len(data) < whole(epochs):
                raise ValueError("few")
            ready, size = steps.prepare(data, epochs)
            whole(size)
            whole(data is None)
            whole(f"{data}")
            rounded = Rounded(ready)
            half(rounded)
            box = Box(ready)
            steps.check(box, ready.shape)
            steps.check(epochs, pair)
            return box
    """,
    "engine/steps.py": """
        from tiny.numbers import half

        def prepare(values, epochs):
            first = [half(value) for value in values]
            return first, len(values)

        def check(box, shape):
            def inner():
                return half(box)
            return inner()
    """,
    "shop.py": """
        import tiny
        from tiny.boxes import Box

        class Counter:
            def count(self, goods):
                return goods

        class Shop(Counter):
            def sell(self, goods, price):
                counted = self.count(goods)
                self.last = Box(counted)
                return self._send(price, parcel=self.last)

            def _send(self, price, parcel):
                return tiny.fit(None, parcel)
    """,
}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    for name, text in SOURCES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def test_rooms_floors_and_arrows(tiny: Path) -> None:
    modules, folders = plans(Package(tiny))
    assert folders.floors == {
        "tiny.numbers": 1,
        "tiny.boxes": 2,
        "tiny.engine": 3,
        "tiny.shop": 4,
    }
    assert folders.arrows == {
        ("tiny.boxes", "tiny.numbers"),
        ("tiny.boxes", "tiny.shop"),  # for type checking
        ("tiny.engine", "tiny.boxes"),
        ("tiny.engine", "tiny.numbers"),
        ("tiny.shop", "tiny.boxes"),
        ("tiny.shop", "tiny.engine"),  # `tiny.fit`, which the package hands on
    }
    assert folders.back == modules.back == {("tiny.boxes", "tiny.shop")}
    assert (len(modules.floors), modules.height, len(modules.arrows)) == (5, 4, 8)
    assert ("tiny.engine.train", "tiny.engine.steps") in modules.arrows
    assert modules.floors["tiny.engine.steps"] == 2


def test_the_fewest_arrows_run_back_up() -> None:
    circle = {("a", "b"): 5, ("b", "c"): 5, ("c", "a"): 1, ("b", "d"): 2, ("d", "a"): 2}
    assert upward(circle) == {("a", "b")}  # one arrow, though two others join fewer modules
    assert upward({("a", "b"): 3, ("b", "a"): 1}) == {("b", "a")}
    assert upward({("a", "b"): 1, ("a", "c"): 1}) == set()


def test_the_way_of_an_argument(tiny: Path) -> None:
    found = stations(Package(tiny), "fit", "data")
    shown = [(s.module, [f"{c.function} {' '.join(c.parameters)}" for c in s.calls]) for s in found]
    # Not followed: its length, what is said of it, the object of a class with an `__init__`, its attributes.
    assert shown == [
        ("tiny.engine.train", ["fit data"]),
        ("tiny.engine.steps", ["prepare values"]),
        ("tiny.numbers", ["half value", "Rounded.__init__ value", "whole value"]),
        ("tiny.engine.steps", ["check box"]),
        ("tiny.numbers", ["half value"]),
    ]


def test_methods_are_followed_where_the_class_is_known(tiny: Path) -> None:
    calls = DataPath(Package(tiny), "Shop.sell", "goods").calls
    assert [c.function for c in calls[:4]] == ["Shop.sell", "Counter.count", "Shop._send", "fit"]
    assert calls[2].parameters == ("parcel",)


def test_the_longest_of_several_ways_is_followed(tmp_path: Path) -> None:
    """Of methods that override one another; records are followed under their names."""
    folder = tmp_path / "post"
    folder.mkdir()
    sources = {
        "__init__.py": "from post.office import send\n",
        "parcels.py": """
            from dataclasses import dataclass

            @dataclass(init=False)
            class Parcel:
                content: object

                def __init__(self, content):
                    self.content = content

                @classmethod
                def of(cls, content) -> "Parcel":
                    return cls(content)
        """,
        "carriers.py": """
            from abc import ABC, abstractmethod

            class Carrier(ABC):
                @abstractmethod
                def carry(self, parcel):
                    return parcel

            class Foot(Carrier):
                def carry(self, parcel):
                    return None
        """,
        "ships.py": """
            from post.carriers import Carrier
            from post.parcels import Parcel

            class Ship(Carrier):
                def carry(self, parcel):
                    return Parcel(parcel)
        """,
        "office.py": """
            from post.carriers import Carrier
            from post.parcels import Parcel

            def carrier(name: str) -> Carrier:
                return REGISTRY[name]()

            def send(content, name):
                parcels = [Parcel.of(content)]
                sent = carrier(name).carry(parcels)
                return sent
        """,
    }
    for name, text in sources.items():
        (folder / name).write_text(textwrap.dedent(text))
    calls = DataPath(Package(folder), "send", "content").calls
    # Not the abstract method, and not the one that goes nowhere.
    assert [f"{call.module[5:]} {call.function}" for call in calls] == [
        "office send", "parcels Parcel.of", "parcels Parcel.__init__",
        "ships Ship.carry", "parcels Parcel.__init__",
    ]  # fmt: skip


def test_what_is_counted_and_shown(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = measure(Package(tiny))["paths"]
    assert [(p["start"], p["stations"], p["modules"]) for p in path] == [("fit: data", 5, 3)]
    # From the numbers back to the steps; both floors are those of the folder.
    assert (path[0]["steps up"], path[0]["steps up between modules"]) == (1, 1)
    main(["--package", str(tiny), "--json"])
    assert json.loads(capsys.readouterr().out)["paths"] == path
    main(["--package", str(tiny), "--calls"])
    out = capsys.readouterr().out
    assert "| each folder one room | 4 | 4 | 6 | 1 (`tiny.boxes -> tiny.shop`) |" in out
    assert "2. floor 3, `tiny.engine.steps`: prepare(values)" in out
    with pytest.raises(SystemExit):
        main(["--package", str(tmp_path / "nothing")])
    assert "is no package" in capsys.readouterr().err


def test_a_start_that_is_not_there_is_refused(tiny: Path) -> None:
    with pytest.raises(ValueError, match="no public function or method of tiny"):
        DataPath(Package(tiny), "train", "data")
    with pytest.raises(ValueError, match="no parameter 'rows', but pair, data, epochs"):
        DataPath(Package(tiny), "fit", "rows")
    with pytest.raises(ValueError, match="no public function or method"):
        DataPath(Package(tiny), "Shop.lend", "goods")


def test_the_package_itself_is_counted() -> None:
    record = measure(Package(Path(__file__).parent.parent / "probgen"))
    starts = ["fit: data", "log_marginal_likelihood: data", "SemiSupervisedClassifier.fit: X"]
    assert [path["start"] for path in record["paths"]] == starts
    assert all(path["stations"] > 1 for path in record["paths"])
    # The way of the data is short, and training does not hand data back to rooms that stand above it.
    most = {"fit: data": (8, 0), "log_marginal_likelihood: data": (3, 1)}
    for path in record["paths"][:2]:
        stations_at_most, steps_at_most = most[path["start"]]
        assert path["stations"] <= stations_at_most and path["steps up"] <= steps_at_most, path
    assert record["paths"][2]["stations"] <= 16 and record["paths"][2]["steps up"] <= 3
