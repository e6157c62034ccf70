"""Refusals of single registries, as users read them: what it means and what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fixtures.registries import DOCKER_HUB, ECR, ECR_PUBLIC, GHCR, PLAIN, QUAY, Behaviour, Emulator
from fixtures.registries.faults import too_many_requests
from image import media_types
from image.descriptor import Descriptor
from image.errors import RegistryError
from image.manifest import Index, Manifest
from tests.support.registry_lab import PATH, Lab, add, push, upload
from tests.support.tiny_image import tiny_image, tiny_index
from transfer.registry.client import Repository
from transfer.registry.replies import RateLimit

Attempt = Callable[[Emulator, Repository], object]


def pull_beyond_the_limit(registry: Emulator, repository: Repository) -> None:
    add(registry, tiny_image())
    registry.protocol.pulls_left = 0
    repository.fetch_manifest("1")


def push_without_permission(registry: Emulator, repository: Repository) -> None:
    registry.tokens.denied.add((f"repository:{PATH}", "push"))
    repository.begin_upload()


def push_index_of_docker_images(registry: Emulator, repository: Repository) -> None:
    image = tiny_image(docker_types=True)
    add(registry, image)
    repository.put_manifest("all", tiny_index([image]))


def push_to_what_is_not_there(registry: Emulator, repository: Repository) -> None:
    del registry.storage.repositories[PATH]
    repository.begin_upload()


def push_with_an_old_login(registry: Emulator, repository: Repository) -> None:
    registry.tokens.outdated.add("secret")
    repository.begin_upload()


def overwrite_a_tag(registry: Emulator, repository: Repository) -> None:
    add(registry, tiny_image({"old": b"1"}))
    push(repository, tiny_image({"new": b"2"}), "1")


def push_without_media_type(registry: Emulator, repository: Repository) -> None:
    config = upload(repository, b"{}")
    raw = Manifest.build(config, []).raw.replace(b'"mediaType":"application/vnd.oci.image.manifest.v1+json",', b"", 1)
    repository.put_manifest("1", Manifest(raw, media_types.OCI_MANIFEST, config, ()))


def push_index_before_its_images(_registry: Emulator, repository: Repository) -> None:
    repository.put_manifest("all", tiny_index([tiny_image()]))


def push_a_large_manifest(_registry: Emulator, repository: Repository) -> None:
    children = [Descriptor.of(str(number).encode(), media_types.OCI_MANIFEST) for number in range(30_000)]
    repository.put_manifest("all", Index.build(children))


def delete_a_tag(registry: Emulator, repository: Repository) -> None:
    add(registry, tiny_image())
    repository.delete_tag("1")


@pytest.mark.parametrize(
    ("behaviour", "attempt", "words"),
    [
        pytest.param(DOCKER_HUB, pull_beyond_the_limit, "pull limit of Docker Hub is reached: log in with", id="hub-pull-limit"),
        pytest.param(DOCKER_HUB, delete_a_tag, "Docker Hub deletes tags on hub.docker.com alone", id="hub-delete"),
        pytest.param(GHCR, push_without_permission, "may not write this package: it needs write:packages", id="ghcr-write"),
        pytest.param(GHCR, delete_a_tag, "GitHub deletes package versions on github.com alone", id="ghcr-delete"),
        pytest.param(QUAY, push_index_of_docker_images, "an OCI index must not hold images of Docker's types", id="quay-docker-children"),
        pytest.param(ECR, push_to_what_is_not_there, "does not exist, and Amazon creates none by itself: use --create-repository", id="ecr-name-unknown"),
        pytest.param(ECR, push_with_an_old_login, "the login has ended .*aws ecr get-login-password | tierce login", id="ecr-expired"),
        pytest.param(ECR, overwrite_a_tag, "tags are immutable: push under another tag", id="ecr-immutable"),
        pytest.param(ECR, push_without_media_type, "the manifest must say its own mediaType", id="ecr-media-type"),
        pytest.param(ECR, push_index_before_its_images, "only after its images", id="ecr-children-first"),
        pytest.param(ECR, delete_a_tag, "aws ecr batch-delete-image", id="ecr-delete"),
        pytest.param(ECR_PUBLIC, push_to_what_is_not_there, "aws ecr-public create-repository", id="ecr-public-name-unknown"),
        pytest.param(PLAIN, push_a_large_manifest, "larger than this registry takes", id="413"),
    ],
)  # fmt: skip
def test_refusals(lab: Lab, behaviour: Behaviour, attempt: Attempt, words: str) -> None:
    registry = lab.run(behaviour)
    with pytest.raises(RegistryError, match=words) as caught:
        attempt(registry, lab.open(registry))
    assert not caught.value.temporary
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(vars(caught.value))


def test_other_429s_are_waited_for(lab: Lab) -> None:
    """Docker Hub has two: one for hours, one for a moment."""
    registry = lab.run(DOCKER_HUB)
    add(registry, tiny_image())
    registry.on("GET .*/manifests/", too_many_requests(), times=2)
    lab.open(registry).fetch_manifest("1")
    assert len(registry.seen("GET .*/manifests/")) == 3


def test_pull_limit_is_asked_once(lab: Lab) -> None:
    registry = lab.run(DOCKER_HUB)
    with pytest.raises(RegistryError):
        pull_beyond_the_limit(registry, lab.open(registry))
    assert len(registry.seen("GET .*/manifests/")) == 1


def test_what_remains_is_known(lab: Lab) -> None:
    registry = lab.run(DOCKER_HUB)
    add(registry, tiny_image())
    assert lab.open(registry).pulls_left is None
    repository = lab.open(registry)
    repository.fetch_manifest("1")
    assert repository.rate_limit == RateLimit(100, 99, 21_600)
    repository.head_manifest("1")
    repository.fetch_manifest("1")
    assert repository.pulls_left == 98


def test_immutable_tag_that_is_what_we_want(lab: Lab) -> None:
    """A push that was done before succeeds again."""
    registry = lab.run(ECR)
    image = tiny_image()
    for _ in range(2):
        push(lab.open(registry), image, "1")
    assert registry.storage.tags(PATH) == ["1"]


def test_repository_is_made_once_where_asked(lab: Lab) -> None:
    registry = lab.run(ECR)
    del registry.storage.repositories[PATH]
    repository = lab.open(registry)
    made: list[str] = []

    def create() -> None:
        made.append(PATH)
        registry.storage.create(PATH)

    repository._create = create
    push(repository, tiny_image(), "1")
    assert made == [PATH]
