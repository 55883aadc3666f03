"""A process that writes a document anew for ever, in a store whose folder is named; it says each step once it is done.

python -m housekeeping_pipelines_tests.contracts.rewriting lancedb|qdrant FOLDER
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from housekeeping_pipelines.resources.vector_store import Chunk, Space

if TYPE_CHECKING:
    from housekeeping_pipelines.resources.vector_store import VectorStore

SPACE = Space("model-a", 8)
# More than Qdrant is sent at once.
CHUNKS = 300
FIRST = "the text of generation 0"


def open_folder(kind: str, folder: Path, space: Space = SPACE, client: Any = None) -> VectorStore:
    """A store in a folder."""
    if kind == "lancedb":
        from housekeeping_pipelines.resources.vector_store.lance import LanceStore

        return LanceStore(folder, space)
    from housekeeping_pipelines.resources.vector_store.qdrant import QdrantStore

    return QdrantStore(client or local_client(folder), space)


def local_client(folder: Path) -> Any:
    """Qdrant's own client over a folder of its own, without a server."""
    from qdrant_client import QdrantClient

    return QdrantClient(path=str(folder), force_disable_check_same_thread=True)


def chunks(number: int) -> list[Chunk]:
    """All of one text, so that two texts of a document are told apart."""
    vector = [1.0, *([0.0] * (SPACE.dimension - 1))]
    return [Chunk(at, f"the text of generation {number}", f"{number:064x}", vector) for at in range(CHUNKS)]


def main() -> None:
    store = open_folder(sys.argv[1], Path(sys.argv[2]))
    current = store.current("document")
    first = 0 if current is None else int(current.name) + 1
    for number in itertools.count(first):
        store.write("document", str(number), chunks(number))
        print("written", flush=True)  # noqa: T201
        store.switch("document", str(number))
        print("switched", flush=True)  # noqa: T201
        store.prune("document")
        print("pruned", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
