"""Layers packed in processes of their own, so that the steps that follow have the interpreter to themselves.

A small layer is packed here: an interpreter takes longer to start. See packer.py for the other side.
"""

from __future__ import annotations

import _socket
import marshal
import os
import signal
import sys
import threading
from array import array
from contextlib import suppress
from pathlib import Path
from typing import Final

from image.digest import DiffID, Digest
from image.errors import Cancelled, InvalidInput, StorageError
from image.value import dataclass
from store.content import BlobWriter
from store.layer_blob import PackedBlob, pack_blob
from store.packer import CONTROL, MESSAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from image.media_types import Compression

_PROGRAM: Final = "import sys; sys.path[:] = sys.argv[1:]; from store.packer import main; main()"
_PACKAGES: Final = str(Path(__file__).resolve().parent.parent)
_FEW_FILES: Final = 500
_FEW_BYTES: Final = 8 << 20


class Packers:
    """The packing processes of one build, as many as are busy at once. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Packer] = []
        self._busy: list[_Packer] = []
        self._aborted = False

    def pack(
        self,
        directory: Path,
        writer: BlobWriter,
        compression: Compression,
        *,
        level: int | None = None,
        clamp_s: int | None = None,
    ) -> PackedBlob:
        """Write the layer in ``directory`` to ``writer``; see ``pack_blob``. The caller commits it.

        Raises as ``pack_blob``; StorageError when the process dies; Cancelled after ``abort``.
        """
        packer = None if _is_small(directory) else self._take()
        if packer is None:
            return pack_blob(directory, writer.write_hashed, compression, level=level, clamp_s=clamp_s)
        answer = packer.ask(directory, writer, compression, level, clamp_s)
        self._give_back(packer, is_answering=answer is not None)
        match answer:
            case ("done", str(diff_id), str(digest), int(size), int(entries), int(unpacked_size)):
                return PackedBlob(DiffID(diff_id), Digest(digest), size, entries, unpacked_size)
            case ("invalid", str(text)):
                raise InvalidInput(text)
            case ("failed", str(text)):
                raise StorageError(text)
        how = packer.end()
        if self._aborted:
            raise Cancelled("packing a layer was stopped")
        raise StorageError(f"cannot pack a layer: its process {how}, try again")

    def abort(self) -> None:
        """Let every ``pack`` end at once, and none begin."""
        with self._lock:
            self._aborted = True
            for packer in self._busy:
                packer.hang_up()

    def close(self) -> None:
        """End the processes. No ``pack`` may be under way."""
        while self._idle:
            self._idle.pop().end()

    def _take(self) -> _Packer | None:
        """An idle process or a new one; None where no more can be started."""
        with self._lock:
            if self._aborted:
                raise Cancelled("packing a layer was stopped")
            try:
                packer = self._idle.pop() if self._idle else _Packer.start()
            except OSError:
                return None
            self._busy.append(packer)
        return packer

    def _give_back(self, packer: _Packer, *, is_answering: bool) -> None:
        with self._lock:
            self._busy.remove(packer)
            if is_answering:
                self._idle.append(packer)


class _Packer:
    """One process, and our end of the socket to it."""

    def __init__(self, control: _socket.socket, pid: int) -> None:
        self._control = control
        self._pid = pid

    @classmethod
    def start(cls) -> _Packer:
        """In a session of its own, so that no key of the terminal reaches it. Raises OSError."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            interpreter = os.path.realpath(sys.executable)
            paths = dict.fromkeys((_PACKAGES, *filter(os.path.isabs, sys.path)))
            actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), CONTROL),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_RDWR, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_RDWR, 0),
            ]
            argv = [interpreter, "-I", "-S", "-c", _PROGRAM, *paths]
            pid = os.posix_spawn(interpreter, argv, {}, file_actions=actions, setsid=True, setsigmask=())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(ours, pid)

    def ask(
        self, directory: Path, writer: BlobWriter, compression: Compression, level: int | None, clamp_s: int | None
    ) -> tuple[object, ...] | None:
        """Its answer, for which it may take minutes; None when it died or ``hang_up`` was called."""
        request = marshal.dumps((str(writer.root), compression, level, clamp_s))
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array("i", (fd, writer.fileno())))
            self._control.sendmsg([request], [rights])
            answer = self._control.recv(MESSAGE_SIZE)
        except OSError:
            answer = b""
        finally:
            os.close(fd)
        return tuple(marshal.loads(answer)) if answer else None  # noqa: S302  # from our own program

    def hang_up(self) -> None:
        with suppress(OSError):
            self._control.shutdown(_socket.SHUT_RDWR)

    def end(self) -> str:
        """End the process, if it has not ended; how it did."""
        self._control.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"


@dataclass(slots=True)
class _Allowance:
    """How much more a tree may hold and still be small."""

    files: int = _FEW_FILES
    size: int = _FEW_BYTES

    def covers(self, directory: str) -> bool:
        below: list[str] = []
        with os.scandir(directory) as listing:
            for child in listing:
                self.files -= 1
                if child.is_dir(follow_symlinks=False):
                    below.append(child.path)
                elif child.is_file(follow_symlinks=False):
                    self.size -= child.stat(follow_symlinks=False).st_size
                if self.files < 0 or self.size < 0:
                    return False
        return all(self.covers(path) for path in below)


def _is_small(directory: Path) -> bool:
    with suppress(OSError, RecursionError):  # packing itself says what is wrong
        return _Allowance().covers(str(directory))
    return False
