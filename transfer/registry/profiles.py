"""What registries do that the specification does not say, and what their refusals mean.

A profile is chosen by the registry's host. It never decides what is sent to whom; a
registry without one is taken by the distribution-spec alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from image.reference import DEFAULT_DOMAIN
from image.value import dataclass

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Advice:
    """What to tell a user whose ``verb`` was answered with ``status`` and ``words`` (a pattern for codes and text).

    ``text`` may name ``{domain}`` and ``{path}``. An empty ``statuses`` or ``verb`` means any.
    """

    text: str
    words: str = ""
    statuses: tuple[int, ...] = ()
    verb: str = ""

    def fits(self, verb: str, status: int, said: str) -> bool:
        return (
            (not self.statuses or status in self.statuses)
            and verb.startswith(self.verb)
            and re.search(self.words, said, re.IGNORECASE) is not None
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """One registry's habits. Sizes in bytes."""

    name: str = "any"
    advice: tuple[Advice, ...] = ()
    expired_statuses: frozenset[int] = frozenset()
    """Where a login that ended is told by the words "token has expired" and not by a 401."""
    delete_action: str = "delete"
    """What a token must allow for deleting."""
    chunk_size: int = 4 * MIB
    last_chunk_ends: bool = False
    """The last chunk must go with the request that ends the upload, as an empty one fails there."""
    counts_one_too_many: bool = False
    """An upload's status says one byte more than arrived."""
    heads_blobs: bool = True
    """Whether HEAD of a blob is answered as GET is."""
    subject_told_is_true: bool = True
    """Whether OCI-Subject in a reply means that there is a referrers API."""

    def explain(self, verb: str, status: int, codes: Sequence[str], words: str) -> Advice | None:
        """The advice for a refusal, if there is any better than the registry's own words."""
        said = " ".join((*codes, words))
        return next((advice for advice in (*self.advice, *_EVERYWHERE) if advice.fits(verb, status, said)), None)


_EVERYWHERE: Final = (
    Advice(
        "this registry does not allow deleting (in the Distribution registry: REGISTRY_STORAGE_DELETE_ENABLED=true)",
        statuses=(400, 405),
        words="UNSUPPORTED|not allowed|disabled|^ *$",
        verb="delete",
    ),
    Advice("this registry does not list its repositories", statuses=(404, 405), verb="list repositories"),
    Advice("the manifest is larger than this registry takes", statuses=(413,), words="manifest", verb="push"),
)

DOCKER_HUB: Final = Profile(
    "Docker Hub",
    (
        Advice(
            "the pull limit of Docker Hub is reached: log in with 'tierce login', wait, or pull through a mirror",
            statuses=(429,),
            words="pull rate limit",
        ),
        Advice("Docker Hub deletes tags on hub.docker.com alone", statuses=(401, 405), verb="delete"),
        Advice("Docker Hub does not list its repositories", statuses=(401, 403, 404), verb="list repositories"),
    ),
)

GHCR: Final = Profile(
    "GitHub's registry",
    (
        Advice(
            "the token may not write this package: it needs write:packages (in a workflow 'permissions: packages:"
            " write'), and an existing package must give the repository write access",
            statuses=(403,),
            words="write_package",
        ),
        Advice(
            "the token may not read this package: it needs read:packages, or the package does not exist",
            statuses=(403,),
            words="read_package|denied",
            verb="pull",
        ),
        Advice("GitHub deletes package versions on github.com alone", statuses=(401, 405), verb="delete"),
        Advice("GitHub's registry does not list its repositories", verb="list repositories"),
    ),
)

QUAY: Final = Profile(
    "Quay",
    (
        Advice(
            "Quay refuses the manifest: an OCI index must not hold images of Docker's types (convert them with"
            " --format oci, or the index to Docker's list with --format v2s2), and a subject must be there first",
            statuses=(400,),
            words="MANIFEST_INVALID",
            verb="push",
        ),
    ),
    delete_action="*",
    counts_one_too_many=True,
)

_ECR_EXPIRED: Final = "the login has ended (Amazon's last 12 hours): log in again with '{login}'"
_ECR_LOGIN: Final = "aws {service} get-login-password | tierce login --username AWS --password-stdin {{domain}}"


def _amazon(service: str, *advice: Advice, expired: int, heads_blobs: bool = True) -> Profile:
    login = _ECR_LOGIN.format(service=service)
    return Profile(
        "Amazon ECR",
        (
            Advice(_ECR_EXPIRED.format(login=login), words="token has expired"),
            Advice(
                "the repository does not exist, and Amazon creates none by itself: use --create-repository, or"
                f" 'aws {service} create-repository --repository-name {{path}}'",
                statuses=(404,),
                words="NAME_UNKNOWN|repository .*does not exist",
                verb="push",
            ),
            Advice("the manifest must say its own mediaType", words="Invalid JSON syntax", verb="push"),
            Advice("an index can be pushed only after its images", statuses=(405,), verb="push"),
            Advice("Amazon deletes images by its own API ('aws ecr batch-delete-image')", statuses=(405,), verb="delete"),
            Advice("Amazon lists repositories by its own API ('aws ecr describe-repositories')", verb="list repositories"),
            *advice,
        ),
        expired_statuses=frozenset({expired}),
        chunk_size=5 * MIB,
        last_chunk_ends=True,
        heads_blobs=heads_blobs,
        subject_told_is_true=False,
    )  # fmt: skip


ECR: Final = _amazon(
    "ecr",
    Advice(
        "the tag exists and this repository's tags are immutable: push under another tag",
        words="cannot be overwritten|TAG_INVALID|immutable",
        verb="push",
    ),
    Advice("the user may not list images (ecr:ListImages)", statuses=(403,), verb="list tags"),
    expired=403,
)

ECR_PUBLIC: Final = _amazon(
    "ecr-public",
    Advice("Amazon's public registry does not list tags", statuses=(404,), verb="list tags"),
    expired=400,
    heads_blobs=False,
)

_ANY: Final = Profile()
_BY_HOST: Final = (
    (rf"{re.escape(DEFAULT_DOMAIN)}|registry-1\.docker\.io", DOCKER_HUB),
    (r"ghcr\.io", GHCR),
    (r"quay\.io", QUAY),
    (r"\d{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?", ECR),
    (r"public\.ecr\.aws", ECR_PUBLIC),
)


def profile_for(domain: str) -> Profile:
    """The profile of a registry by its host name."""
    return next((profile for pattern, profile in _BY_HOST if re.fullmatch(pattern, domain)), _ANY)
