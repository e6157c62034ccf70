"""How a container was created, as an image's configuration: what ``inspect`` shows and ``commit`` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from image.config import ContainerConfig, Healthcheck
from image.errors import NotFound
from image.value import replace
from runner.containers.policy import HealthFlags
from runner.containers.records import Made
from runner.network.ports import parse_exposed
from store.store import Store


def container_config(store: Store, made: Made) -> ContainerConfig:
    """The image's configuration with what the container was created with. ONBUILD does not pass on, as in docker."""
    options, image = made.options, made.config
    given = options.entrypoint is not None
    return replace(
        image,
        user=options.user or image.user,
        exposed_ports=tuple(dict.fromkeys((*image.exposed_ports, *_ports(made)))),
        env=_environment(image.env, options.env),
        entrypoint=((options.entrypoint,) if options.entrypoint else None) if given else image.entrypoint,
        cmd=options.args or (None if given else image.cmd),
        volumes=tuple(dict.fromkeys((*image.volumes, *_anonymous(store.root, made)))),
        working_dir=options.workdir or image.working_dir,
        labels={**image.labels, **made.policy.labels},
        stop_signal=made.policy.stop_signal or image.stop_signal,
        healthcheck=_healthcheck(made.policy.health, image.healthcheck),
        on_build=(),
    )


def _ports(made: Made) -> Iterator[str]:
    published = made.options.ports(made.config)
    exposed = [port for text in made.options.expose for port in parse_exposed(text)]
    for port in (*published, *exposed):
        yield f"{port.container_port}/{port.protocol}"


def _environment(image: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """One value a name, the user's before the image's, as docker lists them; a name alone takes the image's away."""
    values = {item.partition("=")[0]: item for item in given}
    for item in image:
        values.setdefault(item.partition("=")[0], item)
    return tuple(item for item in values.values() if "=" in item)


def _anonymous(root: Path, made: Made) -> Iterator[str]:
    """Targets of ``-v /PATH``. Named volumes and binds belong to this machine, not to an image."""
    requests = [request for request in made.options.mounts if request.kind == "volume"]
    if not requests:
        return
    from runner.volumes.volumes import Volumes

    known = Volumes(root)
    for request in requests:
        with suppress(NotFound):
            if not request.source or known.get(request.source).anonymous:
                yield request.target


def _healthcheck(flags: HealthFlags, image: Healthcheck | None) -> Healthcheck | None:
    if flags.off:
        return Healthcheck(("NONE",))
    if flags == HealthFlags():
        return image
    own = image or Healthcheck(())
    return Healthcheck(
        ("CMD-SHELL", flags.cmd) if flags.cmd else own.test,
        flags.interval_ns or own.interval_ns,
        flags.timeout_ns or own.timeout_ns,
        flags.start_period_ns or own.start_period_ns,
        flags.start_interval_ns or own.start_interval_ns,
        flags.retries or own.retries,
    )
