"""``trajdesign doctor``."""

from dataclasses import asdict

import typer

from trajdesign.cli import console
from trajdesign.cli.commands._options import Json, Quiet


def doctor(quiet: Quiet = False, json: Json = False) -> None:
    """Say what is here for the program, and test that it computes right. Exit code 6 if something needed is missing."""
    from trajdesign.cli import doctor as examination

    findings = examination.examine()
    verdicts = {finding.verdict for finding in findings}
    ok = not verdicts & {"missing", "failed"}
    if json:
        console.show_json("doctor", {"ok": ok, "findings": [asdict(finding) for finding in findings]})
    elif not quiet:
        rows = [(f.kind, f.name, f.value, "" if f.verdict == "ok" else f.verdict, f.remedy) for f in findings]
        headings = ("", "what", "found", "verdict", "remedy")
        console.show("trajdesign doctor", headings, rows, left=headings)
        if ok:
            console.suggest(("optimize", "--out", "runs/first"))
    if not ok:
        raise typer.Exit(6 if "missing" in verdicts else 1)
