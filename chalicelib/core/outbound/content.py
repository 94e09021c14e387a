"""The body of an answer: decompressed, and bounded before and behind the decompression."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from chalicelib.core.errors import UpstreamFailed

_GUNZIP_PIECE = 64 * 1024


def broken() -> UpstreamFailed:
    """Return the error of an answer that is not the HTTP which was asked for."""
    return UpstreamFailed("The server did not answer in HTTP.", code="http.protocol_error")


def content(chunks: Iterable[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    """Yield the body in pieces as they come, none of them empty.

    Parameters
    ----------
    chunks
        As received.
    encoding
        All values of Content-Encoding in lower case, joined by ", ".
    limit
        Bytes, of what is received and of what it becomes: 5 MB of gzip become 5 GB, and gzip members that
        hold nothing can be sent for ever.

    Raises
    ------
    errors.UpstreamFailed
        `http.response_too_large`, `http.protocol_error`.
    """
    for piece in _bounded(_decoded(_bounded(chunks, limit), encoding), limit):
        if piece:
            yield piece


def _bounded(chunks: Iterable[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise UpstreamFailed(f"The answer is longer than {limit} bytes.", code="http.response_too_large")
        yield chunk


def _decoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    if encoding in ("", "identity"):
        yield from chunks
        return
    decoder = None
    for chunk in chunks:
        if encoding not in ("gzip", "x-gzip"):  # nothing else was asked for
            raise broken()
        rest = chunk
        while rest:
            if decoder is None or decoder.eof:  # RFC 1952: members follow one another
                decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            try:
                yield decoder.decompress(rest, _GUNZIP_PIECE)
            except zlib.error as error:
                raise broken() from error
            rest = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    if decoder is not None and not decoder.eof:
        raise broken()
