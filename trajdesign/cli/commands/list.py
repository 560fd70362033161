"""``trajdesign list``."""

from trajdesign.cli import console
from trajdesign.cli.commands._options import Json


def list_(json: Json = False) -> None:
    """Show every plug-in, its options with their defaults, meanings and units, and the NUFFT backends here."""
    from trajdesign.config import plugins
    from trajdesign.encoding import nufft
    from trajdesign.runtime import processes

    catalogue = plugins.catalogue()
    backends = {str(device): nufft.measured(device) for device in processes.found()}
    taken = {str(device): nufft.fastest(device) for device in processes.found()}
    if json:
        console.show_json("list", {**catalogue, "backend": backends})
        return
    for kind, entries in catalogue.items():
        rows = []
        for name, entry in entries.items():
            rows.append((name, "", plugins.plain(entry["summary"])))
            rows += [
                ("", f"{key} = {value}", plugins.plain(entry["meanings"][key]))
                for key, value in entry["options"].items()
            ]
        console.show_list(kind, rows)
    measured = [
        (device, name, f"{1e3 * seconds:.2g} ms for a small image", "auto takes it" if name == taken[device] else "")
        for device, times in backends.items()
        for name, seconds in sorted(times.items(), key=lambda item: item[1])
    ]
    console.show_list("NUFFT backend", measured)
    console.suggest(("config", "init", "--out", "run.toml"))
