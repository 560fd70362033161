"""Fill the marked blocks of README.md with the tables of the JSON files, so that no number is typed by hand."""

import json
import re
from pathlib import Path

from benchmarks.common import RESULTS, markdown

README = Path(__file__).parent / "README.md"
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def main(readme: Path = README, results: Path = RESULTS) -> None:
    """Rewrite the blocks ``<!-- table: NAME -->`` to ``<!-- /table -->`` of a file."""

    def fill(block: re.Match[str]) -> str:
        path = results / f"{block[2]}.json"
        table = "Not measured yet." if not path.exists() else markdown(json.loads(path.read_text(encoding="utf-8")))
        return f"{block[1]}{table}\n{block[3]}"

    readme.write_text(_BLOCK.sub(fill, readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
