"""The checkpoint `tiny` in an object store."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moderay.core.storage import filesystem
from moderay.engines import checkpoint


@contextmanager
def stored(s3: dict[str, str], folder: Path) -> Iterator[str]:
    """`tiny` in the S3 server, with files beside it from which no model is loaded, and a cache in
    `folder` to fetch it into.

    Args:
        s3: The server's environment variables, which hold meanwhile.
        folder: Whose name is the folder's in the bucket, too.

    Yields:
        The checkpoint's URL.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**s3, "MODERAY_CACHE": str(folder / "cache")}.items():
            patch.setenv(name, value)
        url = f"s3://data/{folder.name}/tiny"
        fs, path = filesystem(url)
        fs.put([str(file) for file in weights(checkpoint.TINY_FOLDER)], f"{path}/")
        fs.pipe(
            {
                f"{path}/pytorch_model.bin": b"a pickle",
                f"{path}/original/model.safetensors": b"the same once more",
            }
        )
        yield url
        fs.rm(path, recursive=True)


def weights(folder: Path) -> list[Path]:
    """What of a checkpoint's folder is loaded."""
    return sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors"))
