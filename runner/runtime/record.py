"""What a container of the command line is, between commands: ROOT/ID/state.json.

    ROOT/ID/state.json    the record, replaced by one rename
    ROOT/ID/config.json   the bundle's, as it was at create
    ROOT/ID/exec.fifo     while the container waits for its start

The directory is made first and removed last, so an id is taken as long as anything of its
container may be left; a killed command leaves a record that ``delete`` can clean up by.
Whether the container lives is never recorded but looked at: its pid counts only with the
start time that it had.

Spec: runtime-spec 1.2, "State".
"""

from __future__ import annotations

import errno
import os

from image.bare import dumps, loads, suppress
from image.errors import ContainerNotFound, InvalidInput, NameInUse, NotPermitted
from image.value import dataclass
from runner.runtime.names import check_id
from store.linux import descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

FIFO: Final = "exec.fifo"


@dataclass(frozen=True, slots=True)
class Record:
    """``created`` is RFC 3339 in UTC; ``place`` is where its groups are
    in each hierarchy, ``groups`` are their directories once there are some. ``pid`` 0 and ``start_time`` (clock ticks) 0 before there is one."""

    directory: str
    id: str
    bundle: str
    rootfs: str
    created: str
    oci_version: str
    owner: str = ""
    pid: int = 0
    start_time: int = 0
    place: str = ""
    groups: tuple[str, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    def write(self) -> None:
        """Raises NotPermitted."""
        document = {name: getattr(self, name) for name in type(self).__slots__ if name != "directory"}
        document["annotations"] = dict(self.annotations)
        temporary = f"{self.directory}/.state.json"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(dumps(document))
            os.rename(temporary, f"{self.directory}/state.json")
        except OSError as error:
            raise NotPermitted(f"cannot write {temporary}: {os.strerror(error.errno or 0).lower()}") from error

    def pidfd(self) -> int:
        """A descriptor of pid 1, the caller's. Raises ContainerNotFound when the container has ended."""
        if self.pid:
            with suppress(ProcessLookupError):
                fd = os.pidfd_open(self.pid)
                if start_time(self.pid) == self.start_time and not descriptors.poll({fd: descriptors.POLLIN}, 0):
                    return fd
                os.close(fd)
        raise ContainerNotFound(f"container {self.id} is not running")

    @property
    def status(self) -> str:
        """creating, created, running, paused or stopped; looked at now."""
        if not self.pid:
            return "creating" if not self.created else "stopped"
        if start_time(self.pid) != self.start_time:
            return "stopped"
        if self.frozen:
            return "paused"
        return "created" if os.path.exists(f"{self.directory}/{FIFO}") else "running"

    @property
    def frozen(self) -> bool:
        from runner.runtime.freezer import is_frozen

        return is_frozen(self.groups)

    def oci_state(self, status: str = "") -> dict[str, Any]:
        """What hooks read on their standard input."""
        status = status or self.status
        state = {
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "pid": 0 if status == "stopped" else self.pid,
            "bundle": self.bundle,
        }
        return state | ({"annotations": dict(self.annotations)} if self.annotations else {})

    def forget(self) -> None:
        """Remove the directory; the id is free then."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self.directory):  # files only; shutil takes longer to import than all this
                os.unlink(f"{self.directory}/{name}")
            os.rmdir(self.directory)


def start_time(pid: int) -> int:
    """When the process began, in clock ticks since boot; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def new(root: str, container_id: str) -> str:
    """Take the id: its directory, empty. Raises NameInUse, InvalidInput or NotPermitted."""
    directory = f"{root}/{check_id(container_id)}"
    try:
        os.makedirs(root, mode=0o711, exist_ok=True)
        os.mkdir(directory)
        os.chmod(directory, 0o711)  # whatever the umask: pid 1 passes through when it opens the fifo
    except FileExistsError:
        raise NameInUse(f"container with id {container_id} already exists (delete it first)") from None
    except OSError as error:
        raise NotPermitted(f"cannot make {directory}: {os.strerror(error.errno or 0).lower()}") from error
    return directory


def read(root: str, container_id: str) -> Record:
    """Raises ContainerNotFound, or InvalidInput when the record is damaged."""
    directory = f"{root}/{check_id(container_id)}"
    try:
        with open(f"{directory}/state.json", "rb") as file:
            document = loads(file.read())
        document["annotations"] = tuple(document["annotations"].items())
        document["groups"] = tuple(document["groups"])
        return Record(directory, **document)
    except OSError as error:
        if error.errno == errno.ENOENT and os.path.isdir(directory):
            return Record(directory, container_id, "", "", "", "")  # killed before it wrote anything
        raise ContainerNotFound(f"container {container_id} does not exist") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(f"{directory}/state.json is damaged: {error}") from error


def every(root: str) -> Iterator[Record]:
    """All containers, by id."""
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(root)):
            with suppress(ContainerNotFound, InvalidInput):
                yield read(root, name)
