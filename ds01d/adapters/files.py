"""Small files, whole. Thousands are read in a minute, so paths are texts here and nothing stands around the bytes."""


def contents(file: str) -> bytes:
    """All bytes of a file, as they are at this moment; OSError where it cannot be read."""
    with open(file, "rb", buffering=0) as opened:  # noqa: PTH123  # a path as an object costs more than the file
        return opened.read()
