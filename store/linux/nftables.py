"""The packet filter, by its library, which takes milliseconds and lets other threads run meanwhile."""

from __future__ import annotations

import _ctypes

from store.linux.foreign import Bytes, Int, Pointer, SyscallError

_RTLD_NOW = 2
_ENOMEM = 12


class _Work(_ctypes.CFuncPtr):
    _flags_ = 1 | 8
    _restype_ = Int


class _ForPointer(_ctypes.CFuncPtr):
    _flags_ = 1 | 8
    _restype_ = Pointer


class _ForText(_ctypes.CFuncPtr):
    _flags_ = 1 | 8
    _restype_ = Bytes


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
