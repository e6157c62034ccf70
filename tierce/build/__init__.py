"""``tierce build``, composed: the builder with what it needs from transfer, runner and the host.

building       one build: Dockerfile and context in, an image in the store out
contexts       what the user named as context, by its kind
base_images    where FROM finds images; layout_images those of ``oci-layout://``
network        downloads and repositories, for ADD and for contexts
sandbox        what runs a RUN; steps how, step_limits with how much; entered and failed_mounts once more
outputs        where the result goes; platforms for which machines
cache          caches that travel; usage what the local one takes
checks, reproducible    questions about a build
"""
