"""How the package is built: its rooms, floors and arrows, and the way of the data from call to call.

python -m benchmarks.structure [--package probgen] [--json] [--calls] [--record]

Read from the source alone; nothing of the package is imported.

A *room* is a module that defines something (a function, a class, a value), with two exceptions: an
`__init__` or `__main__` that only hands names on, and a file of fewer than 40 lines that no import ties to
the others. In the coarser count each folder of the package is one room, with all folders in it, and a
module beside the folders is a room of its own.

An *arrow* A -> B: A imports B; imports inside functions and for type checking count. A name that an
`__init__` hands on counts as an import of the module that defines it. A room stands a *floor* above the
highest that it imports; one that imports nothing of the package stands on floor 1. Where rooms import each
other in a circle, the fewest arrows whose removal leaves no circle *run back up*: of several such choices
those that join the fewest modules. Floors are counted without them.

The way of the data is an argument followed from call to call (`data_path.py` says what is followed). A
*station* is a stay in one module: consecutive calls within a module are one stay. A *step up* is a call
into a room on a higher floor than that of the station before; the floors are those of the coarser count,
and those of modules in parentheses. That a function returns to its caller is no step.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from benchmarks.data_path import Call
from benchmarks.data_path import Path as DataPath
from benchmarks.package_source import Package

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PATHS = (
    ("fit", "data"),
    ("log_marginal_likelihood", "data"),
    ("SemiSupervisedClassifier.fit", "X"),
)
Arrow = tuple[str, str]


@dataclass(frozen=True)
class Plan:
    """Rooms with their floors, arrows between them, and those of the arrows that run back up."""

    floors: dict[str, int]
    arrows: set[Arrow]
    back: set[Arrow]

    @classmethod
    def of(cls, rooms: set[str], weights: Mapping[Arrow, int]) -> Plan:
        """The plan of rooms whose arrows join so many modules each."""
        back = upward(weights)
        return cls(_floors(rooms, set(weights) - back), set(weights), back)

    @property
    def height(self) -> int:
        return max(self.floors.values(), default=0)


@dataclass(frozen=True)
class Station:
    """A stay in a module; the calls made there that were given the argument."""

    module: str
    calls: list[Call]


def upward(weights: Mapping[Arrow, int]) -> set[Arrow]:
    """The fewest arrows whose removal leaves no circle; of several choices those of least weight."""
    for most in count():
        if found := list(_cuts(set(weights), most)):
            return min(found, key=lambda cut: (len(cut), sum(weights[a] for a in cut), sorted(cut)))
    raise AssertionError("unreachable")


def _cuts(arrows: set[Arrow], most: int) -> Iterator[set[Arrow]]:
    """Sets of at most so many arrows without which there is no circle."""
    try:
        TopologicalSorter(_imported(arrows)).prepare()
    except CycleError as error:
        if most:
            for imported, importer in pairwise(error.args[1]):
                arrow = (importer, imported)
                for cut in _cuts(arrows - {arrow}, most - 1):
                    yield cut | {arrow}
    else:
        yield set()


def _imported(arrows: set[Arrow]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for importer, imported in sorted(arrows):
        found.setdefault(importer, set()).add(imported)
    return found


def _floors(rooms: set[str], arrows: set[Arrow]) -> dict[str, int]:
    imported = _imported(arrows)
    order = TopologicalSorter({room: imported.get(room, set()) for room in sorted(rooms)})
    floors: dict[str, int] = {}
    for room in order.static_order():
        floors[room] = 1 + max((floors[other] for other in imported.get(room, ())), default=0)
    return floors


def folder_of(module: str) -> str:
    """The room of a module in the coarser count: its folder of the package, or itself."""
    return ".".join(module.split(".")[:2])


def plans(package: Package) -> tuple[Plan, Plan]:
    """Each module a room, and each folder a room."""
    rooms = set(package.rooms())
    arrows = {(a, b): 1 for a, b in package.arrows() if a in rooms and b in rooms}
    joined: dict[Arrow, int] = {}
    for a, b in arrows:
        pair = folder_of(a), folder_of(b)
        if pair[0] != pair[1]:
            joined[pair] = joined.get(pair, 0) + 1
    folders = {folder_of(room) for room in rooms}
    return Plan.of(rooms, arrows), Plan.of(folders, joined)


def stations(package: Package, name: str, parameter: str) -> list[Station]:
    """The stays of an argument of a public name."""
    found: list[Station] = []
    for call in DataPath(package, name, parameter).calls:
        if not found or found[-1].module != call.module:
            found.append(Station(call.module, []))
        found[-1].calls.append(call)
    return found


def steps_up(floors: list[int]) -> int:
    """How many floors are higher than the one before."""
    return sum(later > earlier for earlier, later in pairwise(floors))


def measure(package: Package) -> dict[str, Any]:
    """Everything that is counted, for JSON; paths whose start the package lacks are left out."""
    modules, folders = plans(package)
    record: dict[str, Any] = {"package": package.name}
    for name, plan in (("folders", folders), ("modules", modules)):
        record[name] = {
            "rooms": len(plan.floors),
            "floors": plan.height,
            "arrows": len(plan.arrows),
            "back up": [f"{a} -> {b}" for a, b in sorted(plan.back)],
            "floor of": dict(sorted(plan.floors.items(), key=lambda item: (-item[1], item[0]))),
        }
    record["paths"] = []
    for name, parameter in PATHS:
        first = name.partition(".")[0]
        if package.find(package.name, first) is None:
            continue
        stays = stations(package, name, parameter)
        on = [folders.floors.get(folder_of(s.module), 1) for s in stays]
        on_modules = [modules.floors.get(s.module, 1) for s in stays]
        record["paths"].append(
            {
                "start": f"{name}: {parameter}",
                "stations": len(stays),
                "modules": len({s.module for s in stays}),
                "steps up": steps_up(on),
                "steps up between modules": steps_up(on_modules),
                "stays": [
                    {
                        "floor": floor,
                        "module": s.module,
                        "calls": [f"{c.function}({', '.join(c.parameters)})" for c in s.calls],
                    }
                    for floor, s in zip(on, stays, strict=True)
                ],
            }
        )
    return record


def table(record: Mapping[str, Any]) -> list[str]:
    """The counts as Markdown."""
    lines = [
        f"| rooms of `{record['package']}` | rooms | floors | arrows | arrows back up |",
        "|---|---|---|---|---|",
    ]
    for name, one in (("folders", "each folder one room"), ("modules", "each module one room")):
        plan = record[name]
        back = ", ".join(f"`{arrow}`" for arrow in plan["back up"])
        shown = f"{len(plan['back up'])} ({back})" if back else "0"
        lines.append(f"| {one} | {plan['rooms']} | {plan['floors']} | {plan['arrows']} | {shown} |")
    lines += [
        "",
        "| the way of | stations | modules | steps up (floors of modules) |",
        "|---|---|---|---|",
    ]
    for path in record["paths"]:
        lines.append(
            f"| `{path['start']}` | {path['stations']} | {path['modules']} | "
            f"{path['steps up']} ({path['steps up between modules']}) |"
        )
    return lines


def stays(record: Mapping[str, Any]) -> list[str]:
    """Each path station by station, with its floor in the coarser count."""
    lines = []
    for path in record["paths"]:
        lines += ["", f"`{path['start']}`:", ""]
        lines += [
            f"{index}. floor {stay['floor']}, `{stay['module']}`: {', '.join(stay['calls'])}"
            for index, stay in enumerate(path["stays"], 1)
        ]
    return lines


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structure", description=__doc__.split("\n")[0])  # fmt: skip
    parser.add_argument("--package", type=Path, default=ROOT / "probgen", help="its folder")
    parser.add_argument("--json", action="store_true", help="everything that was counted, as JSON")
    parser.add_argument("--calls", action="store_true", help="each path, station by station")
    parser.add_argument("--record", action="store_true", help="also write benchmarks/results")
    chosen = parser.parse_args(arguments)
    if not (chosen.package / "__init__.py").is_file():
        parser.error(f"--package: {chosen.package} is no package; give a folder with __init__.py.")
    record = measure(Package(chosen.package.resolve()))
    text = json.dumps(record, indent=2)
    lines = table(record)
    if chosen.record:
        (RESULTS / "structure.json").write_text(text + "\n")
        title = "Rooms, floors and arrows, and the way of the data from call to call, read from the source."
        (RESULTS / "structure.md").write_text("\n".join([title, "", *lines, *stays(record), ""]))
    print(text if chosen.json else "\n".join(lines + (stays(record) if chosen.calls else [])))


if __name__ == "__main__":
    main()
