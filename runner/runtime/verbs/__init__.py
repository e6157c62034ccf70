"""The verbs of ``tierce-runtime``, one file each: ``run(call)`` returns the exit status."""
