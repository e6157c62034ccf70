"""The process that packs layers beside a build: hashing lets go of the interpreter lock, walking does not.

``packers`` starts it with one end of a socket as its standard input. Each message is a marshalled
request that brings two descriptors, the layer's directory and the unfinished blob; the answer is
one message. It opens and names nothing of its own, so that it leaves nothing when it is killed,
and it ends with its parent.
"""

from __future__ import annotations

import _socket
import marshal
import os
import select
from typing import TYPE_CHECKING, Final, NoReturn

from image.errors import InvalidInput, TierceError
from store.content import storage_errors
from store.layer_blob import pack_blob

if TYPE_CHECKING:
    from image.media_types import Compression

CONTROL: Final = 0
MESSAGE_SIZE: Final = 1 << 16
DESCRIPTOR_SIZE: Final = 4

Answer = tuple[str, str, str, int, int, int] | tuple[str, str]
"""``done`` with a ``PackedBlob``'s fields, or the kind of a failure with what it says."""


def main() -> NoReturn:
    """Pack what is asked for until the other end of the socket is closed. Never returns."""
    control = _socket.socket(fileno=CONTROL)
    room = _socket.CMSG_SPACE(2 * DESCRIPTOR_SIZE)
    while True:
        message, ancillary, _, _ = control.recvmsg(MESSAGE_SIZE, room, _socket.MSG_CMSG_CLOEXEC)
        if not message or not ancillary:
            os._exit(0)
        directory, blob = memoryview(ancillary[0][2]).cast("i")
        request = marshal.loads(message)  # noqa: S302  # only ever from the other end of our own program
        try:
            control.send(marshal.dumps(_answer(directory, blob, *request)))
        except OSError:
            os._exit(0)  # nobody waits for it any more
        finally:
            os.close(directory)
            os.close(blob)


def _answer(
    directory: int, blob: int, root: str, compression: Compression, level: int | None, clamp_s: int | None
) -> Answer:
    def write(data: bytes) -> None:
        if _is_alone():
            os._exit(0)
        with storage_errors(f"write a blob in {root}"):
            written = os.write(blob, data)
            while written < len(data):
                written += os.write(blob, data[written:])

    try:
        packed = pack_blob(directory, write, compression, level=level, clamp_s=clamp_s)
    except InvalidInput as error:
        return "invalid", str(error)
    except TierceError as error:
        return "failed", str(error)
    except Exception as error:  # there is nobody else to tell
        return "failed", f"cannot pack a layer: {error!r}"
    return "done", str(packed.diff_id), str(packed.digest), packed.size, packed.entries, packed.unpacked_size


def _is_alone() -> bool:
    poll = select.poll()
    poll.register(CONTROL, 0)
    return bool(poll.poll(0))
