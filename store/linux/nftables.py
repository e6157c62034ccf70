"""The packet filter, by its library, which takes milliseconds and lets other threads run meanwhile.

Whether a chain is there is asked of the kernel itself: the library takes longer to load.
"""

from __future__ import annotations

import _ctypes
import _socket
from struct import pack, unpack_from

from store.linux.foreign import Bytes, Int, Pointer, SyscallError

_RTLD_NOW = 2
_ENOMEM = 12
_NETLINK_NETFILTER, _REQUEST, _ERROR = 12, 1, 2
_GET_CHAIN = 10 << 8 | 4  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN
_CHAIN_TABLE, _CHAIN_NAME = 1, 3
_FAMILIES = {"ip": 2, "ip6": 10}


class _Work(_ctypes.CFuncPtr):
    _flags_ = 1 | 8
    _restype_ = Int


class _ForPointer(_ctypes.CFuncPtr):
    _flags_ = 1 | 8
    _restype_ = Pointer


class _ForText(_ctypes.CFuncPtr):
    _flags_ = 1 | 8
    _restype_ = Bytes


def has_chain(family: str, table: str, chain: str) -> bool:
    """Whether ``family`` (``ip`` or ``ip6``) has it; no where the kernel has no nftables."""
    body = pack("=BBH", _FAMILIES[family], 0, 0) + _text(_CHAIN_TABLE, table) + _text(_CHAIN_NAME, chain)
    try:
        asking = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError:
        return False
    try:
        asking.send(pack("=IHHII", 16 + len(body), _GET_CHAIN, _REQUEST, 0, 0) + body)
        kind: int = unpack_from("=IH", asking.recv(1 << 13))[1]
        return kind != _ERROR
    except OSError:
        return False
    finally:
        asking.close()


def _text(kind: int, text: str) -> bytes:
    data = text.encode() + b"\0"
    return pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) & 3)


def run_nftables(commands: bytes) -> str | None:
    """Run nft commands as one transaction: their error text, "" when all went well.

    None when libnftables is not installed (use the nft program then).
    """
    try:
        library = _ctypes.dlopen("libnftables.so.1", _RTLD_NOW)
    except OSError:
        return None

    new = _ForPointer(_ctypes.dlsym(library, "nft_ctx_new"))
    new.argtypes = (Int,)
    free, buffer_error, buffer_output, run = (
        _Work(_ctypes.dlsym(library, name))
        for name in ("nft_ctx_free", "nft_ctx_buffer_error", "nft_ctx_buffer_output", "nft_run_cmd_from_buffer")
    )
    free.argtypes = buffer_error.argtypes = buffer_output.argtypes = (Pointer,)
    run.argtypes = (Pointer, Bytes)
    errors = _ForText(_ctypes.dlsym(library, "nft_ctx_get_error_buffer"))
    errors.argtypes = (Pointer,)

    context = new(0)
    if not context:
        raise SyscallError(_ENOMEM, "nft_ctx_new")
    try:
        buffer_error(context)
        buffer_output(context)
        if run(context, commands) == 0:
            return ""
        text: bytes = errors(context)
        return text.decode("utf-8", "replace") or "nft refused the commands"
    finally:
        free(context)
