"""Every system call of ``store.linux`` under one name."""

from store.linux.descriptors import *  # noqa: F403
from store.linux.devices import *  # noqa: F403
from store.linux.foreign import SyscallError as SyscallError  # noqa: PLC0414
from store.linux.memory import *  # noqa: F403
from store.linux.mounts import *  # noqa: F403
from store.linux.nftables import *  # noqa: F403
from store.linux.paths import *  # noqa: F403
from store.linux.processes import *  # noqa: F403
from store.linux.routes import *  # noqa: F403
from store.linux.seccomp import *  # noqa: F403
