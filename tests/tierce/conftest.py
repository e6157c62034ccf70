"""Small images made by hand, so that the command line is tested without a transfer or a build."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from image import media_types
from image.config import ContainerConfig, History, ImageConfig
from image.descriptor import Descriptor
from image.digest import DiffID
from image.manifest import Index, Manifest
from image.platform import Platform
from image.reference import Reference
from store.store import Store
from tests.support.cli import Tierce


@dataclass(frozen=True, slots=True)
class Stock:
    """A store, and a way to put images into it."""

    root: Path

    def add(
        self,
        *names: str,
        created: str = "2026-01-02T03:04:05Z",
        content: str = "hello",
        labels: Mapping[str, str] | None = None,
        platform: str = "linux/amd64",
        source: str = "",
        config: ContainerConfig | None = None,
    ) -> Descriptor:
        """One image of one layer with one file."""
        with Store.open(self.root) as store, store.session() as session:
            tar = io.BytesIO()
            with tarfile.open(fileobj=tar, mode="w") as archive:
                entry = tarfile.TarInfo("greeting")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content.encode()))
            layer = session.put(gzip.compress(tar.getvalue(), mtime=0), media_types.OCI_LAYER_GZIP)
            container = config or ContainerConfig(env=("A=1", "B=two"), cmd=("/bin/sh",), labels=labels or {})
            document = ImageConfig(
                Platform.parse(platform),
                container,
                (DiffID.of(tar.getvalue()),),
                (
                    History(created, "COPY greeting / # buildkit", "buildkit.dockerfile.v0"),
                    History(created, 'CMD ["/bin/sh"]', "buildkit.dockerfile.v0", empty_layer=True),
                ),
                created,
            )
            manifest = Manifest.build(session.put(document.encode(), media_types.OCI_CONFIG), [layer])
            target = session.put(manifest.raw, manifest.media_type)
            store.add_image(target, [Reference.parse(name).with_default_tag() for name in names], source=source)
        return target

    def add_index(self, name: str, children: Sequence[tuple[Descriptor, str]]) -> Descriptor:
        """An index of images that are there, each for its platform."""
        from dataclasses import replace

        with Store.open(self.root) as store, store.session() as session:
            index = Index.build([replace(child, platform=Platform.parse(platform)) for child, platform in children])
            target = session.put(index.raw, index.media_type)
            store.add_image(target, [Reference.parse(name).with_default_tag()])
        return target


@pytest.fixture
def stock(tmp_path: Path) -> Stock:
    return Stock(tmp_path / "root")


@pytest.fixture
def tierce(tmp_path: Path) -> Tierce:
    """The real command on the same root as ``stock``."""
    return Tierce(tmp_path / "root")


@pytest.fixture
def invoke(stock: Stock, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command in this process, with its real error reports: exit code, output, errors."""
    from tierce.cli.main import main

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--root", str(stock.root), *arguments])
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return call
