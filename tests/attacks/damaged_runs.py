"""Damage to run directories: flips, cuts, swaps, deletions, wrong JSON under a checksum that fits.

Each is refused with a `RunError`, or what is read and what is trained on is that of the whole run.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import probgen as pg
from probgen.storage.files import read_record, write_record
from tests.attacks import Outcome
from tests.fitting import QUICK, structured, vae

FILES = (
    "config.json", "weights.safetensors", "checkpoint.safetensors", "metrics.csv",
    "scores/a.safetensors", "scores/b.safetensors",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 3, 2**40, 1e308, float("nan"), "", "x", "Tanh", "ReLU", "normal:2",
    "float64", "p(x)", [], [8], {}, {"kind": "own"}, [[[[]]]],
)  # fmt: skip


def attack(count: int, seed: int) -> Outcome:
    """Damage a copy of a run `count` times, read it, and every third time go on training."""
    rng, outcome = random.Random(seed), Outcome(count=count)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = Path(folder)
        for name, start in (("a", 0), ("b", 1)):
            _train(base / name, 2, start)
            run = pg.load_run(base / name)
            for score, samples in (("a", 30), ("b", 40)):
                found = pg.log_marginal_likelihood(run.pair, structured(9), num_samples=samples)
                run.save_score(found, score)
        shutil.copytree(base / "a", base / "longer")
        whole, longer = _observe(base / "a"), _train(base / "longer", 3, 0)
        for number in range(count):
            trial = base / "trial"
            shutil.copytree(base / "a", trial)
            what = rng.choice(DAMAGES)(trial, base / "b", rng)
            resumed = number % 3 == 0 and "captured" not in what
            try:
                found_now = _observe(trial)
                scores = found_now.pop("scores")
                same = found_now == {k: v for k, v in whole.items() if k != "scores"}
                # A score that was deleted is missed by nobody; one that is there is the one it was.
                same = same and all(
                    whole["scores"].get(name) == text for name, text in scores.items()
                )
                if resumed:
                    same = same and _train(trial, 3, 0) == longer
                if not same:
                    outcome.wrong.append(f"{what}: other numbers than those of the whole run")
            except pg.RunError as error:
                outcome.refused += 1
                if len(str(error)) < 20:
                    outcome.wrong.append(f"{what}: no words, {error}")
            except Exception as error:
                outcome.wrong.append(f"{what}: {error!r}")
            shutil.rmtree(trial)
    return outcome


def _train(folder: Path, epochs: int, seed: int) -> dict[str, Any]:
    result = pg.fit(
        vae(), structured(20), num_epochs=epochs, run_dir=folder, batch_size=8, seed=seed,
        resume=True, **QUICK,
    )  # fmt: skip
    weights = {name: tensor.tolist() for name, tensor in result.pair.state_dict().items()}
    return {"weights": weights, "elbo": result.elbo}


def _observe(folder: Path) -> dict[str, Any]:
    """The numbers that a reader learns. A run whose last file is missing has not ended."""
    run = pg.load_run(folder)
    return {
        "weights": {name: tensor.tolist() for name, tensor in run.pair.state_dict().items()},
        "pair": repr(run.pair),
        "curves": {n: getattr(run.result, n) for n in ("elbo", "learning_rate", "best_epoch")},
        "scores": {name: (repr(s), s.log_prob.tolist()) for name, s in run.scores.items()},
    }


# ---------------------------------------------------------------- damages


def _bytes(change: Callable[[bytes, random.Random], bytes]) -> Any:
    def damage(run: Path, other: Path, rng: random.Random) -> str:
        name = rng.choice(FILES)
        content = (run / name).read_bytes()
        (run / name).write_bytes(change(content, rng))
        return f"{change.__name__} in {name}"

    return damage


def flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 50))):
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def grow(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randrange(1, 300))


def zeros(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.randrange(1, 4096))
    return content[:start] + bytes(stop - start) + content[stop:]


def shuffle(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[at:] + content[:at]


def _swap_within(run: Path, other: Path, rng: random.Random) -> str:
    first, second = rng.sample(FILES, 2)
    content = (run / first).read_bytes()
    if rng.random() < 0.5:
        (run / first).write_bytes((run / second).read_bytes())
        return f"{second} copied to {first}"
    (run / first).write_bytes((run / second).read_bytes())
    (run / second).write_bytes(content)
    return f"{first} and {second} exchanged"


def _swap_among(run: Path, other: Path, rng: random.Random) -> str:
    name, theirs = (rng.choice(FILES),) * 2 if rng.random() < 0.7 else rng.sample(FILES, 2)
    (run / name).write_bytes((other / theirs).read_bytes())
    return f"{theirs} of another run in the place of {name}"


def _delete(run: Path, other: Path, rng: random.Random) -> str:
    names = rng.sample(FILES, rng.choice((1, 1, 2)))
    for name in names:
        (run / name).unlink()
    return f"{', '.join(names)} deleted"


def _json(run: Path, other: Path, rng: random.Random) -> str:
    """Anything in the place of anything in the configuration, with the right checksum."""
    config = json.loads(json.dumps(read_record(run / "config.json")))
    place, path = config, []
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        path.append(str(key))
        if not (isinstance(place[key], (dict, list)) and place[key]) or rng.random() < 0.3:
            break
        place = place[key]
    if isinstance(place, dict) and rng.random() < 0.3:
        del place[key]
        what = "deleted"
    else:
        place[key] = rng.choice(VALUES)
        what = f"set to {place[key]!r}"
    write_record(run / "config.json", config)
    return f"{'/'.join(path)} of config.json {what}"


DAMAGES = [
    _bytes(flip), _bytes(flip), _bytes(cut), _bytes(grow), _bytes(zeros), _bytes(shuffle),
    _swap_within, _swap_among, _delete, _json, _json, _json,
]  # fmt: skip
