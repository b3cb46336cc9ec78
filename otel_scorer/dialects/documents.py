"""Retrieved documents of any shape in one plain form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_scorer.dialects.values import is_dict, is_list, is_text, json_value
from otel_scorer.model.trace import MISSING, Document

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["document_list", "to_documents"]

# Where the answer of a retriever keeps its documents.
_LISTS: Final = (
    "documents",
    "output",
    "outputs",
    "result",
    "results",
    "data",
    "matches",
    "nodes",
    "source_nodes",
    "hits",
)
_CONTENTS: Final = ("content", "page_content", "text", "document", "body", "chunk")
_IDS: Final = ("id", "document_id", "doc_id", "id_", "doc_uri")
_SCORES: Final = ("score", "similarity", "relevance_score")


def document_list(value: object) -> object:
    """Decode a retriever's output to the list of documents in it; MISSING if there is none."""
    decoded = json_value(value)
    for _ in range(len(_LISTS)):
        if is_list(decoded):
            return decoded
        if not is_dict(decoded):
            break
        holder = decoded
        decoded = next((holder[key] for key in _LISTS if isinstance(holder.get(key), list | dict)), None)
    return MISSING


def to_documents(value: object) -> list[Document]:
    """Return the documents in a list of objects or texts."""
    found = document_list(value)
    return [_document(item) for item in found if is_dict(item) or is_text(item)] if is_list(found) else []


def _document(item: object) -> Document:
    item = json_value(item)
    if not is_dict(item):
        return Document(content=item if isinstance(item, str) else None)
    score = _score(item)
    for key in ("kwargs", "node", "document"):
        # A serialised LangChain document, a LlamaIndex node, and Haystack's envelope.
        inner = item.get(key)
        if is_dict(inner):
            item = inner
    metadata = json_value(item.get("metadata", item.get("meta")))
    return Document(
        content=_text(item, _CONTENTS),
        id=_text(item, _IDS),
        score=score if score is not None else _score(item),
        metadata=metadata if is_dict(metadata) else None,
    )


def _text(item: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    found = next((item[key] for key in keys if is_text(item.get(key)) or isinstance(item.get(key), int)), None)
    return None if found is None or isinstance(found, bool) else str(found)


def _score(item: Mapping[str, object]) -> float | None:
    found = next((item[key] for key in _SCORES if isinstance(item.get(key), int | float)), None)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
