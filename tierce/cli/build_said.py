"""What ``tierce build`` says at its end."""

from __future__ import annotations

from collections.abc import Iterable

from image.reference import Reference
from tierce.cli.output import echo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tierce.cli.build_flags import BuildFlags


def say_built(flags: BuildFlags, image_id: str, names: Iterable[Reference], *, err: bool = False) -> None:
    """Write ``--iidfile``, and print the id or docker's last lines; ``image_id`` "" when there is no image."""
    if flags.iidfile is not None and image_id:
        flags.iidfile.write_text(image_id)
    if flags.quiet:
        echo(image_id, err=err, nl=bool(image_id))
    elif flags.progress not in {"rawjson", "none"} and image_id:
        tagged = "".join(f"Successfully tagged {name.familiar}\n" for name in names)
        echo(f"Successfully built {image_id.partition(':')[2][:12]}\n{tagged}", nl=False, err=err)
