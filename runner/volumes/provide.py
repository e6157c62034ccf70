"""Mount requests → mount points: volumes made, filled and held, sources of binds checked.

The one place where what a container mounts has effects on the host.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Final

from image.errors import InvalidInput, TierceError
from image.value import dataclass, replace
from runner.runtime.spec import Mount
from runner.volumes.request import MountRequest
from runner.volumes.volumes import DRIVER, Volume, Volumes
from store.content import storage_errors
from store.linux import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.volumes.request import Kind

ImageTree = Callable[[], AbstractContextManager[int]]
"""Opens the image's merged tree and gives a descriptor of it."""

SUBDIRECTORY: Final = "X-mount.subdir="
"""mount(8)'s word for a directory inside the source, which the runtime resolves without leaving it."""


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A mount that is ready, with docker's names for ``inspect``.

    ``source`` is a path of the host; ``name`` that of a volume, ``anonymous`` when it goes
    with its container. ``options`` are for the runtime.
    """

    kind: Kind
    destination: str
    source: str = ""
    name: str = ""
    anonymous: bool = False
    mode: str = ""
    read_only: bool = False
    propagation: str = ""
    fstype: str = "bind"
    options: tuple[str, ...] = ()

    @property
    def driver(self) -> str:
        return DRIVER if self.kind == "volume" else ""

    @property
    def mount(self) -> Mount:
        return Mount(self.destination, self.fstype, self.source or self.fstype, self.options)


@contextmanager
def provided(requests: Iterable[MountRequest], volumes: Volumes, image: ImageTree) -> Iterator[tuple[MountPoint, ...]]:
    """The mount points, in the order of the requests; their volumes are held inside the block.

    An empty volume gets what the image has at its target. When this or the block fails, the
    anonymous volumes that it made are removed again.

    Raises InvalidInput for a bind without a source, VolumeInUse, StorageError.
    """
    made: list[str] = []
    with ExitStack() as held:
        trees = _Trees(held, image)
        try:
            yield tuple([_provide(request, volumes, trees, held, made) for request in requests])
        except BaseException:
            held.close()
            for name in made:
                with suppress(TierceError):
                    volumes.remove(name)
            raise


def remove_anonymous(points: Iterable[MountPoint], volumes: Volumes) -> None:
    """The anonymous volumes of a container that is removed go with it, unless another one uses them."""
    for point in points:
        if point.anonymous:
            with suppress(TierceError):
                volumes.remove(point.name)


def _provide(request: MountRequest, volumes: Volumes, trees: _Trees, held: ExitStack, made: list[str]) -> MountPoint:
    match request.kind:
        case "bind":
            _check_source(request)
            return _bind(request)
        case "tmpfs":
            words = (*request.tmpfs_options, *(("ro",) if request.read_only else ()))
            return MountPoint(
                "tmpfs", request.target, fstype="tmpfs", read_only=request.read_only, options=words, mode=request.mode
            )
        case "volume":
            volume = _volume(request, volumes, held)
            if not request.source:
                made.append(volume.name)
            if not request.no_copy and not volume.options:
                _fill(volume, request.target, volumes, trees)
            return _mount_volume(request, volume)


def _check_source(request: MountRequest) -> None:
    """``-v`` of a host path that is absent makes a directory, as docker's does; ``--mount`` does not."""
    if os.path.lexists(request.source):
        return
    if not request.make_source:
        raise InvalidInput(f"invalid mount on {request.target}: bind source path does not exist: {request.source}")
    try:
        os.makedirs(request.source, mode=0o755, exist_ok=True)
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise InvalidInput(f"cannot mount {request.source}: cannot make it: {why}") from error


def _bind(request: MountRequest) -> MountPoint:
    options = ["bind" if request.below == "disabled" else "rbind"]
    if request.read_only:
        options.append("ro" if request.below in ("writable", "disabled") else "rro")
    propagation = request.propagation or "rprivate"
    return MountPoint(
        "bind",
        request.target,
        request.source,
        mode=request.mode,
        read_only=request.read_only,
        propagation=propagation,
        options=(*options, propagation),
    )


def _volume(request: MountRequest, volumes: Volumes, held: ExitStack) -> Volume:
    """The volume, made if absent and held. One that goes at this moment is made anew."""
    for attempt in range(3):
        volume = volumes.create(
            request.source, driver=request.driver, options=request.driver_options, labels=request.labels
        )
        try:
            held.callback(os.close, volumes.hold(volume))
        except TierceError:
            if attempt == 2:
                raise
            continue
        return volume
    raise AssertionError  # the third attempt returns or raises


def _mount_volume(request: MountRequest, volume: Volume) -> MountPoint:
    point = MountPoint(
        "volume",
        request.target,
        volume.data,
        volume.name,
        anonymous=not request.source,
        mode=request.mode or ("z" if request.source else ""),  # what docker shows for a volume without a mode
        read_only=request.read_only,
    )
    read_only = ("ro",) if request.read_only else ()
    options = dict(volume.options)
    words = [word for word in options.get("o", "").split(",") if word]
    if not options or "bind" in words or "rbind" in words:
        source = options.get("device", volume.data)
        if not os.path.isdir(source):
            raise InvalidInput(f"cannot mount volume {volume.name}: its device {source} is not a directory")
        subdirectory = (f"{SUBDIRECTORY}{request.subpath}",) if request.subpath else ()
        return replace(point, source=source, options=("rbind", *read_only, "rprivate", *subdirectory))
    if request.subpath:
        raise InvalidInput(f"cannot mount volume {volume.name}: volume-subpath needs a volume without options")
    return replace(point, source=options["device"], fstype=options["type"], options=(*words, *read_only))


# --- the first content ---------------------------------------------------------------------


class _Trees:
    """The image's tree, opened for the first volume that needs it."""

    def __init__(self, held: ExitStack, image: ImageTree) -> None:
        self._held = held
        self._image = image
        self._root = -1

    def directory(self, path: str) -> int | None:
        """A descriptor of a directory of the image; None when there is nothing at the path.

        Links lead inside the image only. Raises InvalidInput for what is not a directory.
        """
        if self._root < 0:
            self._root = self._held.enter_context(self._image())
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            return paths.openat2(self._root, path.encode(), flags, 0, paths.RESOLVE_IN_ROOT)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            if error.errno != errno.ENOTDIR:
                raise
            raise InvalidInput(f"cannot mount a volume on {path}: in the image it is not a directory") from None


def _fill(volume: Volume, target: str, volumes: Volumes, trees: _Trees) -> None:
    """What the image has at the target, into an empty volume. Raises StorageError."""
    if _settled(volume) and os.listdir(volume.data):
        return
    source = trees.directory(target)
    try:
        from runner.volumes.copy_up import fill, settle

        with storage_errors(f"copy {target} of the image into volume {volume.name}"), volumes.filling(volume):
            settle(str(volume.path), volume.data)
            if source is not None and not os.listdir(volume.data):
                fill(str(volume.path), volume.data, source)
    finally:
        if source is not None:
            os.close(source)


def _settled(volume: Volume) -> bool:
    return not os.path.lexists(volume.path / "filled")


def inspected(points: Sequence[MountPoint]) -> list[dict[str, object]]:
    """Docker's ``Mounts`` of an inspected container."""
    documents: list[dict[str, object]] = []
    for point in points:
        document: dict[str, object] = {"Type": point.kind}
        if point.name:
            document["Name"] = point.name
        document["Source"] = "" if point.kind == "tmpfs" else point.source
        document["Destination"] = point.destination
        if point.driver:
            document["Driver"] = point.driver
        document |= {"Mode": point.mode, "RW": not point.read_only, "Propagation": point.propagation}
        documents.append(document)
    return documents
