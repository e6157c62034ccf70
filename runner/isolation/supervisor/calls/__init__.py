"""What a step's calls do under an emulated root, a file for each kind of call.

Each ``do_NAME(call, *arguments)`` answers the system call NAME: its value, None when the answer
was given already; or it raises OSError.
"""
