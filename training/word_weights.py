"""Makes `src/palate/text/word_weights.bin`: how rare words are in free English and Russian texts.

    python training/word_weights.py FOLDER

FOLDER holds JSONL files, plain or gzipped, whose rows have `text` and perhaps `title`. The file in the package was made of
Wikinews (CC BY 2.5: 35,761 chunks of articles in English and Russian, 828 articles in Russian), Wikipedia's portal of current
events (CC BY-SA 4.0, 4,952), posts of digital.gov (public domain, 2,054), the blog of Rust (MIT or Apache-2.0, 750) and abstracts
of arXiv (CC0, 6,613). It holds counts alone, none of their text.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from palate.text import embedding

SETS = ("wikinews-categories", "ruwikinews-nerel", "wp-current-events", "digitalgov", "rust-blog", "arxiv")
TARGET = Path(__file__).parent.parent / "src/palate/text/word_weights.bin"


def rows(folder: Path) -> Iterator[str]:
    for path in sorted(path for name in SETS for path in (folder / name).glob("*.jsonl*")):
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as lines:
            for line in lines:
                row = json.loads(line)
                yield f"{row.get('title') or ''} {row['text']}"


def main(folder: Path) -> None:
    english: list[str] = []
    russian: list[str] = []
    for text in rows(folder):
        (russian if re.search("[а-я]{3}", text) else english).append(text)
    TARGET.write_bytes(embedding.rarity([english, russian]).tobytes())
    print(f"{TARGET} made of {len(english)} English and {len(russian)} Russian texts.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
