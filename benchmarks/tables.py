"""Fill the marked blocks of both README.md with the tables of the JSON files, so that no number is typed by hand."""

import json
import re
from pathlib import Path

from benchmarks.common import RESULTS, markdown

READMES = [Path(__file__).parent / "README.md", Path(__file__).parents[1] / "README.md"]
_BLOCK = re.compile(r"(<!-- table: (\w+)(?:, columns ([\w ]+))? -->\n).*?(<!-- /table -->)", re.DOTALL)


def fill(readme: Path, results: Path = RESULTS) -> None:
    """Rewrite the blocks ``<!-- table: NAME -->`` to ``<!-- /table -->`` of a file; some have chosen columns."""

    def table_of(block: re.Match[str]) -> str:
        path = results / f"{block[2]}.json"
        if not path.exists():
            return f"{block[1]}Not measured yet.\n{block[4]}"
        result = json.loads(path.read_text(encoding="utf-8"))
        if block[3]:
            result |= {"columns": {key: result["columns"][key] for key in block[3].split()}, "note": ""}
        return f"{block[1]}{markdown(result)}\n{block[4]}"

    text = _BLOCK.sub(table_of, readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    for page in READMES:
        fill(page)
