"""``trajdesign list``."""

from trajdesign import console
from trajdesign.commands._options import Json


def list_(json: Json = False) -> None:
    """Show every plug-in with its options and their defaults, and the NUFFT backends of the devices here."""
    from trajdesign import nufft, plugins, runtime

    catalogue = plugins.catalogue()
    backends = {str(device): nufft.measured(device) for device in runtime.found()}
    taken = {str(device): nufft.fastest(device) for device in runtime.found()}
    if json:
        console.show_json("list", {**catalogue, "backend": backends})
        return
    for kind, entries in catalogue.items():
        rows = [
            (name, entry["summary"], "\n".join(f"{key} = {value}" for key, value in entry["options"].items()))
            for name, entry in entries.items()
        ]
        console.show_list(kind, rows)
    measured = [
        (device, name, f"{1e3 * seconds:.2g} ms for a small image", "auto takes it" if name == taken[device] else "")
        for device, times in backends.items()
        for name, seconds in sorted(times.items(), key=lambda item: item[1])
    ]
    console.show_list("NUFFT backend", measured)
    console.suggest(("config", "init", "--out", "run.toml"))
