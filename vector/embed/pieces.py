"""Long texts cut into pieces that a model reads whole. Neighbours overlap, so that what stands at a cut is whole in one of them. Pure."""

from collections.abc import Sequence

OVERLAP_SHARE = 8
"""An eighth of a piece is in the next one too."""
PIECES_MAX = 256
"""Of one record: some 50,000 words; embedding them takes seconds. What is behind them is left out, and the hits say so."""
CHARACTERS_READ_MAX = 256 * 1024
"""Tokenizing that many takes a tenth of a second, which every partition of the worker waits for."""

Window = Sequence[tuple[int, int]]
"""Where each token of a piece begins and ends in the text."""


def overlap(tokens: int) -> int:
    """Tokens that neighbouring windows of so many share."""
    return tokens // OVERLAP_SHARE


def cut_at_windows(text: str, windows: Sequence[Window], shared_tokens: int) -> list[str]:
    """The pieces of a text that a tokenizer cut into overlapping windows, moved to the ends of words within the overlap: a word
    that is cut has other tokens, and more of them, than in the text. Ends of the text stay."""
    slack = shared_tokens // 2
    pieces = []
    for number, window in enumerate(windows):
        begin, end = window[0][0], window[-1][1]
        if number:
            starts = (start for start, _ in window[:slack] if start == 0 or not text[start - 1].isalnum())
            begin = next(starts, begin)
        if number + 1 < len(windows):
            stops = (
                stop for _, stop in reversed(window[-slack:] if slack else ()) if not text[stop : stop + 1].isalnum()
            )
            end = next(stops, end)
        pieces.append(text[begin:end])
    return [piece for piece in pieces if piece.strip()]


def cut_at_characters(text: str, characters: int, pieces_max: int) -> tuple[list[str], bool]:
    """Where no tokenizer is at hand: pieces of at most `characters`, at white space where there is some near the cut; at most
    `pieces_max`, and whether they are the whole text."""
    if len(text) <= characters:
        return [text], True
    shared = characters // OVERLAP_SHARE
    pieces: list[str] = []
    begin = 0
    while len(pieces) < pieces_max:
        end = begin + characters
        if end >= len(text):
            pieces.append(text[begin:])
            return [piece for piece in pieces if piece.strip()], True
        space = max(text.rfind(" ", end - shared // 2, end), text.rfind("\n", end - shared // 2, end))
        end = space if space > begin else end
        pieces.append(text[begin:end])
        begin = end - shared // 2
    return [piece for piece in pieces if piece.strip()], False
