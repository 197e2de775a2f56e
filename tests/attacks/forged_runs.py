"""Run directories that somebody wrote to do harm, under checksums that fit, read by every command.

No code may run, nothing outside be written, nothing hang, no traceback or escape be printed, and
memory stay bounded.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import random
import resource
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import probgen as pg
from probgen.cli import main as cli
from probgen.storage.files import read_record, read_tensors, write_record, write_tensors
from tests.attacks import Outcome
from tests.fitting import QUICK, structured, vae
from tests.forging import CODE, DECLARED, ESCAPE, HUGE, MODEL, alarm, forged, places, put
from tests.forging import recipe_of_file as recipe_of

FILES = ("config.json", "weights.safetensors", "checkpoint.safetensors", "metrics.csv", "samples.npz",
         "scores/few.safetensors", "figures/samples.png", "model.py", ".lock")  # fmt: skip
COMMANDS = ("list", "show", "evaluate", "sample", "plot")
SECONDS, MEMORY = 60, 2**30
BAD = set("\x1b\x07\x9b\r\u202e")


class Place:
    """Where one forged run lies: beside it what it may want to run and to overwrite."""

    def __init__(self, base: Path, whole: Path) -> None:
        self.base, self.whole, self.run = base, whole, base / "runs" / "run"
        self.sentinel, self.victim = base / "ran", base / "victim"
        self.victim.mkdir(parents=True)
        self.run.parent.mkdir()
        for name in FILES:
            (self.victim / name).parent.mkdir(exist_ok=True)
            (self.victim / name).write_text("dear")
        self.code = MODEL.format(sentinel=str(self.sentinel)).encode()
        (base / "helper.py").write_bytes(self.code)
        os.chdir(base)  # where /proc/self/cwd/helper.py is

    def forge(self, **config: Any) -> None:
        forged(self.whole, self.run, **config)

    def put(self, name: str, make: Callable[[Path], Any]) -> None:
        """Something else in the place of a file of the run."""
        if not self.run.exists():
            self.forge()
        path = self.run / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        make(path)


def attack(count: int, seed: int) -> Outcome:
    """Forge `count` runs, and read each by all commands and by `load_run`."""
    rng, outcome, here = random.Random(seed), Outcome(count=count), Path.cwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.save(Path(folder) / "data.npy", structured(60).numpy())
        data, whole = pg.load(Path(folder) / "data.npy"), Path(folder) / "whole"
        pg.fit(vae(), data, num_epochs=1, run_dir=whole, **QUICK)
        read = pg.load_run(whole)
        read.save_score(pg.log_marginal_likelihood(read.pair, structured(9), num_samples=30), "few")
        forgers = list(FORGERS)
        try:
            for number in range(count):
                forger = forgers[number % len(forgers)] if count >= 10 else rng.choice(forgers)
                place = Place(Path(folder) / str(number), whole)
                what = f"{forger.__name__[1:]} {forger(place, rng)}"
                outcome.wrong += [f"{what}: {words}" for words in _read_by_all(place, outcome)]
                os.chdir(here)
                shutil.rmtree(place.base, ignore_errors=True)
        finally:
            os.chdir(here)
    return outcome


def _read_by_all(place: Place, outcome: Outcome) -> list[str]:
    wrong, refused = [], False
    before = _tree(place.victim)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for command in COMMANDS:
        words = [command, str(place.run.parent if command == "list" else place.run)]
        words += {"evaluate": ["--samples", "30", "-q"], "plot": ["-q"]}.get(command, [])
        try:
            with alarm(SECONDS):
                status, text = _main(words)
        except BaseException as error:
            wrong.append(f"{command} raised {error!r}")
            continue
        refused |= status == 2
        if status not in (0, 2) or "Traceback" in text or (command == "list" and status):
            wrong.append(f"{command} ended with {status}: {text[-300:]!r}")
        if BAD & set(text):
            wrong.append(f"{command} printed escapes")
        if status == 2 and len(text) < 20:
            wrong.append(f"{command} has no words: {text!r}")
    try:
        with alarm(SECONDS):
            repr(pg.load_run(place.run))
    except pg.RunError:
        refused = True
    except BaseException as error:
        wrong.append(f"load_run raised {error!r}")
    if place.sentinel.exists():
        wrong.append("code ran")
    if _tree(place.victim) != before:
        wrong.append("something outside was written")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    if grown > MEMORY / 1024:
        wrong.append(f"it took {grown // 1024} MB")
    outcome.refused += refused
    return wrong


def _main(words: list[str]) -> tuple[int, str]:
    """A command in this process, which may take a bounded share of the address space."""
    before, limits = sys.argv, resource.getrlimit(resource.RLIMIT_AS)
    out, status = io.StringIO(), 0
    sys.argv = ["probgen", *words]
    try:
        with contextlib.suppress(OSError, IndexError, ValueError):
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (now + 2 * MEMORY, limits[1]))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            cli.main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        sys.argv = before
    return status, out.getvalue()


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- forgers: what they did, in words


def _file(place: Place, rng: random.Random) -> str:
    """A Python file: the standard library's, a helper by a detour, in the folder, relative."""
    library = Path(os.__file__)
    paths = {
        str(library): (library.read_bytes(), "abort"),
        "/proc/self/cwd/helper.py": (place.code, "build"),
        str(place.base / "helper.py"): (place.code, "build"),
        "helper.py": (place.code, "build"),
        str(place.run / "model.py"): (place.code, "build"),
        f"{place.run}/../run/model.py": (place.code, "build"),
    }
    path = rng.choice(list(paths))
    place.forge(model=recipe_of(path, *paths[path]))
    (place.run / "model.py").write_bytes(paths[path][0])
    return path


def _text(place: Place, rng: random.Random) -> str:
    path, text = rng.choice(places(DECLARED)), rng.choice(CODE)
    place.forge(model=put(DECLARED, path, text))
    return f"{path} {text!r}"


def _library(place: Place, rng: random.Random) -> str:
    recipe = read_record(place.whole / "config.json")["model"]
    path = rng.choice(places(recipe))
    value = rng.choice([*CODE, {"network": "exec", "settings": {}}, [[]], {"activation": "Module"}])
    if isinstance(path[-1], tuple):
        value = str(value)
    place.forge(model=put(recipe, path, value))
    return f"{path} {value!r}"


def _size(place: Place, rng: random.Random) -> str:
    name = rng.choice(list(HUGE))
    place.forge(model={**DECLARED, "hidden": [8], "own": {}, **HUGE[name]})
    return name


def _link(place: Place, rng: random.Random) -> str:
    name = rng.choice((*FILES, "scores", "figures"))
    if name in ("scores", "figures"):
        place.forge()
        shutil.rmtree(place.run / name)
        (place.run / name).symlink_to(place.victim / name)
    else:
        place.put(name, lambda path: path.symlink_to(place.victim / name))
    return name


def _odd(place: Place, rng: random.Random) -> str:
    name = rng.choice(FILES)
    kinds: dict[str, Callable[[Path], Any]] = {
        "pipe": os.mkfifo,
        "zero": lambda path: path.symlink_to("/dev/zero"),
        "memory": lambda path: path.symlink_to("/proc/self/mem"),
        "loop": lambda path: path.symlink_to(path),
        "folder": lambda path: path.mkdir(),
        "sparse": _sparse,
    }
    kind = rng.choice(list(kinds))
    place.put(name, kinds[kind])
    return f"{name} is {kind}"


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**42)


def _names(place: Place, rng: random.Random) -> str:
    config = read_record(place.whole / "config.json")
    text = rng.choice([ESCAPE, "[red]x[/red][link=http://x]y[/link]", "\x00", "$\\frac{", "\udc80"])
    train = {**config["data"]["train"], "name": text, "transformations": {"x": text}}
    place.forge(name=text, command=text, started=text, data={**config["data"], "train": train},
                versions={"probgen": text}, settings={**config["settings"], text: text})  # fmt: skip
    return repr(text)


def _data(place: Place, rng: random.Random) -> str:
    """What it was trained on is a pipe, a device, objects, or anything else."""
    config = read_record(place.whole / "config.json")
    os.mkfifo(place.base / "pipe.npy")
    (place.base / "zero.npy").symlink_to("/dev/zero")
    objects = np.array([_Harm(place.sentinel)], dtype=object)
    np.save(place.base / "objects.npy", objects, allow_pickle=True)
    name = rng.choice(
        ["pipe.npy", "zero.npy", "objects.npy", "/etc/passwd", "helper.py", "\x00.npy"]
    )
    source = {**config["data"]["source"], "name": str(place.base / name)}
    source |= rng.choice([{}, {"transform": ESCAPE}, {"odd": 1}, {"split": "x"}, {"seed": 1e308}])
    place.forge(data={**config["data"], "source": source})
    return repr(source)


class _Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def _objects(place: Place, rng: random.Random) -> str:
    name = rng.choice([name for name in FILES if name != "model.py"])
    place.put(name, lambda path: path.write_bytes(pickle.dumps(_Harm(place.sentinel))))
    return name


def _record(place: Place, rng: random.Random) -> str:
    """Wrong types in the records of weights and scores."""
    place.forge()
    name = rng.choice(("weights.safetensors", "scores/few.safetensors"))
    tensors, record = read_tensors(place.run / name)
    record.pop("model", None)
    path = rng.choice(places(record))
    value: Any = rng.choice([None, "x", 3, 1e308, [], {}, ESCAPE, [[[1]]]])
    if isinstance(path[-1], tuple):
        value = "odd"
    write_tensors(place.run / name, tensors, put(record, path, value))
    return f"{name} {path} {value!r}"


def _config(place: Place, rng: random.Random) -> str:
    place.forge()
    config = read_record(place.run / "config.json")
    path = rng.choice([p for p in places(config) if p])
    value: Any = rng.choice([None, "x", -1, 1e308, 10**400, [], {}, ESCAPE, [[[1]]]])
    if isinstance(path[-1], tuple):
        value = "odd"
    write_record(place.run / "config.json", put(config, path, value))
    return f"{path} {str(value)[:40]!r}"


FORGERS = (
    _file, _text, _size, _link, _odd, _names, _data, _library, _objects, _record, _config
)  # fmt: skip
