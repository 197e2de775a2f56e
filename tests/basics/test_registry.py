"""Names of a package's files and of a user's own things."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from probgen.basics.registry import Registry

FILES = {
    "__init__": '"""Animals."""',
    "base": '"""The base class."""\nclass Animal: pass\n',
    "cat": '"""A cat.\n\nMore."""\nfrom zoo.base import Animal\nclass Cat(Animal):\n    legs = 4\n',
    "house_cat": '"""A cat of a house."""\nfrom zoo.cat import Cat\nclass HouseCat(Cat): ...\n',
    "bird": '"""A bird."""\nfrom zoo import base\nclass Bird(base.Animal):\n'
    '    registered_name: str = "tit+bird"\n',
    "helper": '"""No animal."""\nclass _Hidden: pass\nSOUND = "hello"\n',
    "_private": '"""Not looked at."""\nfrom zoo.base import Animal\nclass Ghost(Animal): ...\n',
    "broken": '"""Cannot be imported."""\nfrom zoo.base import Animal\nclass Broken(Animal): ...\n'
    "raise RuntimeError\n",
}


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    (tmp_path / "zoo").mkdir()
    for name, text in FILES.items():
        (tmp_path / "zoo" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo"]:
        monkeypatch.delitem(sys.modules, name)
    return Registry("animal", "zoo", bases=["Animal"])


def test_files_are_found_and_not_imported(zoo: Registry) -> None:
    assert zoo.names() == ("broken", "cat", "house-cat", "tit+bird")
    assert [zoo.help(name) for name in ("cat", "tit+bird")] == ["A cat.", "A bird."]
    assert zoo.attributes()["HouseCat"] == "house-cat"
    assert not [name for name in sys.modules if name.startswith("zoo.")]


def test_get_imports_one_file(zoo: Registry) -> None:
    cat = zoo.get("cat")
    assert cat.legs == 4 and "zoo.bird" not in sys.modules
    assert zoo.name_of(cat) == zoo.library_name_of(cat) == "cat"
    assert zoo.name_of(int) is None
    with pytest.raises(ValueError, match=r"Unknown animal 'cats'; known are .* did you mean cat"):
        zoo.get("cats")
    with pytest.raises(RuntimeError):
        zoo.get("broken")


def test_files_by_a_constant(zoo: Registry) -> None:
    assert Registry("sound", "zoo").names() == ("helper",)
    assert Registry("sound", "zoo").get("helper") == "hello"
    assert Registry("noise", "zoo", attribute="SOUND").names() == ("helper",)


def test_a_users_own(zoo: Registry) -> None:
    class Dog:
        """A dog.

        Barks."""

    zoo.register("dog", Dog)
    assert zoo.get("dog") is Dog and zoo.help("dog") == "A dog." and "dog" in zoo
    assert zoo.names()[-1] == "dog" and zoo.name_of(Dog) == "dog"
    assert zoo.library_name_of(Dog) is None
    again = type("Dog", (), {"__module__": Dog.__module__, "__qualname__": Dog.__qualname__})
    zoo.register("dog", again)  # a notebook's cell that runs again
    assert zoo.get("dog") is again
    for name in ("dog", "cat"):
        with pytest.raises(ValueError, match=f"'{name}' is registered already by"):
            zoo.register(name, int)
    for name in ("", "a b", "1a", "a:b", "a/b"):
        with pytest.raises(ValueError, match="cannot be the name of a animal"):
            zoo.register(name, int)
    with pytest.raises(TypeError, match="must be text"):
        zoo.register(3, int)  # type: ignore[arg-type]


def test_no_such_package() -> None:
    with pytest.raises(ValueError, match=r"no package probgen\.nowhere"):
        Registry("thing", "probgen.nowhere").names()
