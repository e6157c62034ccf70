"""``image export`` and ``flatten``: an image's layers as one tree, in crane's words."""

from __future__ import annotations

from typing import Any

from tierce.cli.command import Settings
from tierce.cli.declare import WrongUsage, argument, command, image_argument, option
from tierce.cli.mutate import platform_option, quiet_option, work_with
from tierce.cli.transfer import log_format_option, registry_options


@command(
    "export",
    short_help="Write an image's files, as one tree, to a tar",
    examples="""
tierce image export docker://busybox busybox.tar
tierce image export oci:/tmp/layout:app | tar -x -C rootfs
""",
)
@image_argument("image", metavar="IMAGE")
@argument("file", required=False, metavar="[FILE|-]")
@option("-o", "--output", default="-", metavar="FILE", help="Write to a file, not to standard output")
@platform_option
@registry_options
def image_export(
    settings: Settings, /, image: str, file: str | None, output: str, platform: str | None, **flags: Any
) -> None:
    """Write the files of an image, wherever it is, as one tree to a tar archive.

    Nothing is unpacked and nothing enters the store. A container's files: tierce export.
    """
    from tierce.cli.written import written
    from transfer.flattened import files_of

    if file is not None and output != "-":
        raise WrongUsage("the file is named twice")
    with work_with(settings, platform, True, flags) as work:
        part, source = work.part(image)
        with written(file or output) as write:
            for piece in files_of(source, part):
                write(piece)


@command(
    "flatten",
    short_help="Make one layer of an image's layers",
    examples="""
tierce flatten -t docker://r.example.com/app:flat docker://r.example.com/app:1
tierce flatten -t app:flat app
""",
)
@image_argument("image", metavar="IMAGE")
@option(
    "-t", "--tag", "destination", metavar="DESTINATION",
    help="Where the result goes  [beside the image in its registry, by digest]",
)  # fmt: skip
@platform_option
@quiet_option
@log_format_option
@registry_options
def flatten(
    settings: Settings, /, image: str, destination: str | None, platform: str | None, quiet: bool, **flags: Any
) -> None:
    """Make one layer of all layers of an image; the configuration stays, but for the history."""
    from transfer.changed import ChangedSource
    from transfer.flattened import flat_layer, flattened

    with work_with(settings, platform, quiet, flags) as work:
        part, source = work.part(image)
        beside = source.repository
        if destination is None and beside is None:
            raise WrongUsage("flatten needs -t DESTINATION: the image is in no registry")
        with flat_layer(source, part) as layer:
            changed = flattened(part, layer)
            if beside is not None and destination is None:
                destination = f"docker://{beside.repository}@{changed.manifest.digest}"
            work.put(ChangedSource(changed, {}, [layer]), destination or "")
