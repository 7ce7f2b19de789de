"""Which token goes to which hub: one belongs to the origin that it was given for, and to no other."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import HubError, InvalidOptionError
from ..source_options import Secret, SourceOptions
from .urls import origin_of, redacted

__all__ = ["Access", "access_to"]


class Access(NamedTuple):
    """A hub and the token for it. `source` says in words where that came from."""

    endpoint: str
    token: Secret | None
    source: str

    @property
    def for_client(self) -> str | bool:
        """The token as huggingface_hub takes it; False sends none."""
        return self.token.reveal() if self.token is not None else False

    @property
    def headers(self) -> dict[str, str]:
        """The header that goes to the endpoint, and only there."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token.reveal()}"}


def access_to(source: SourceOptions) -> Access:
    """The hub that is meant and the token for it.

    The stored token is for the hub of HF_ENDPOINT; another one gets it only if the caller passes it.

    Raises:
        HubError: token=True, and none is stored. InvalidOptionError: a token or endpoint that no request can hold.
    """
    from huggingface_hub import constants, get_token

    endpoint = (source.endpoint or constants.ENDPOINT).rstrip("/")
    is_usual = origin_of(endpoint) == origin_of(constants.ENDPOINT)
    given = source.token
    if isinstance(given, Secret):
        return Access(endpoint, _usable(given), "the token that was passed")
    if given is False or (given is None and (not is_usual or constants.HF_HUB_DISABLE_IMPLICIT_TOKEN)):
        return Access(endpoint, None, "no token")
    stored = get_token()
    if stored is None and given is True:
        raise HubError(
            f"token=True, and no token is stored for {redacted(endpoint)}: run `hf auth login`, set HF_TOKEN, or pass "
            "the token itself",
            path=redacted(endpoint),
        )
    return (
        Access(endpoint, None, "no token") if stored is None else Access(endpoint, Secret(stored), "the stored token")
    )


def _usable(token: Secret) -> Secret:
    text = token.reveal()
    if not (text and text.isascii() and text.isprintable()):
        raise InvalidOptionError("the token holds characters that no token has", key="token")
    return token
