"""How many planted faults `trajdesign.reconstruct` names, and how many sound data sets it wrongly warns of.

The data sets are those of `benchmarks.planted`: on one half the thresholds were chosen, on the other they are tested.
With a folder that holds ``pulseq_raw/brain_16ch_flash_128.npz`` spokes and spirals sample that brain too. Nothing is
timed.
"""

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import planted
from benchmarks.common import RESULTS, Row, machine, say, table

BRAIN = "pulseq_raw/brain_16ch_flash_128.npz"
SOUND = "sound: warned of"


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Plant every fault in every data set; returns the rows of the table, one a pattern."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("folder", type=Path, nargs="?", help="with real data; without it heads are simulated alone")
    options.add_argument("--half", choices=("chosen", "tested"), nargs="*", default=["chosen", "tested"])
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON and Markdown files")
    settings = options.parse_args(arguments)
    facts, cases = machine(), list[Row]()
    halves = planted.scans(settings.folder / BRAIN if settings.folder else None)
    with tempfile.TemporaryDirectory() as folder:
        for half in settings.half:
            for name, scan in halves[half].items():
                cases += examined(half, name, scan, Path(folder))
                wrong = [c["fault"] for c in cases if c["data"] == name and c["named"] == (c["fault"] == SOUND)]
                say(f"{half}, {name}: wrong in {', '.join(wrong) or 'nothing'}")
    rows = [
        {"half": half, "pattern": pattern} | counted(cases, half, pattern)
        for half in settings.half
        for pattern in dict.fromkeys([case["pattern"] for case in cases if case["half"] == half] + ["all"])
    ]
    save(rows, cases, facts, settings.out)
    return rows


def examined(half: str, name: str, scan: planted.Scan, folder: Path) -> list[Row]:
    """Return what is said of a sound data set, and of each fault in it."""
    row = {"half": half, "data": name, "pattern": name.partition(":")[0]}
    said = planted.told(scan, scan.kspace(), folder)
    found = [{**row, "fault": SOUND, "named": bool(said), "said": said}]
    for fault, (plant, _) in planted.FAULTS.items():
        if fault == "dead coil" and scan.n_coils == 1:
            continue
        said = planted.told(scan, plant(scan), folder)
        named = any(re.search(planted.words(fault, scan), sentence) for sentence in said)
        found.append({**row, "fault": fault, "named": named, "warned": bool(said), "said": said})
    return found


def counted(cases: Sequence[Row], half: str, pattern: str) -> Row:
    """Return how many of how many are named, by fault."""
    found = {}
    for fault in (SOUND, *planted.FAULTS):
        of = [case["named"] for case in cases if case["half"] == half and case["fault"] == fault]
        if pattern != "all":
            of = [
                case["named"]
                for case in cases
                if (case["half"], case["fault"], case["pattern"]) == (half, fault, pattern)
            ]
        found[fault] = f"{sum(of)} of {len(of)}"
    return found


def save(rows: Sequence[Row], cases: Sequence[Row], facts: Row, out: Path) -> None:
    """Write every case as JSON, and how many are named as a Markdown table."""
    command = "python -m benchmarks.faults FOLDER"
    columns = {name: name for name in ("half", "pattern", SOUND, *planted.FAULTS)}
    out.mkdir(parents=True, exist_ok=True)
    result = {"command": command, "machine": facts, "columns": columns, "rows": [*rows], "cases": [*cases]}
    (out / "faults.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8", newline="\n")
    text = f"{table(columns, rows)}\n\n`{command}` on {facts['cpu']}, {facts['cores']} cores."
    (out / "faults.md").write_text(text + "\n", encoding="utf-8", newline="\n")
    say(text)


if __name__ == "__main__":
    main()
