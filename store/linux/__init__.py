"""System calls that Python's ``os`` lacks, a module for each thing of the kernel that they are about.

The storage and the runner use them, and so does the process that becomes a container: a bare
interpreter (``python -I -S``), whose start is most of what a container costs. So these modules
import nothing but each other, ``sys``, ``posix`` and ``_ctypes``, and each is loaded by those alone
who call it; ``confine``, for steps without namespaces, is the exception. What runs inside a container's
root must have imported what it calls before it went there.

One function a system call. Paths are bytes, descriptors come back close-on-exec, and every
failure is a ``SyscallError`` (an ``OSError``) that knows the call and the path.
"""
