"""Which hosts and origins may ask for something, and who is told of those that may not."""

from twisted.logger import Logger

from twistedsock.core.origins import Door, Origins, Verdict, host_name

MOST_TOLD = 100
"""Different refused origins and hosts that are logged; whoever tries more of them is no misconfigured page."""


class Gate:
    """Judges hosts and origins, and logs each that it refuses once, with the option that would allow it. Its
    ``origins`` can be changed."""

    _log = Logger()

    def __init__(self, origins: Origins) -> None:
        self.origins = origins
        self._told: set[str] = set()

    def judge_host(self, host: str, door: Door) -> tuple[int, str] | None:
        """The status and words of a refusal, None for welcome."""
        return self._say(self.origins.judge_host(host, door), host, None)

    def judge_nobody(self, host: str, door: Door) -> tuple[int, str] | None:
        """As ``judge_host``, for somebody who shows nothing and asks for what is on the channels."""
        return self._say(self.origins.judge_nobody(host, door), host, None)

    def allows(self, host: str, origin: str, door: Door) -> bool:
        """Whether a page of this origin can read what it asks for. Logs nothing."""
        return self.origins.judge(host, origin, door) is Verdict.WELCOME

    def judge(self, host: str, origin: str | None, door: Door, what: str = "WebSocket") -> tuple[int, str] | None:
        """As ``judge_host``, for a WebSocket, or what else a page may ask for."""
        return self._say(self.origins.judge(host, origin, door), host, origin, what)

    def _say(self, verdict: Verdict, host: str, origin: str | None, what: str = "") -> tuple[int, str] | None:
        if verdict is Verdict.WELCOME:
            return None
        if verdict is Verdict.FOREIGN_HOST:
            self._tell("refused a request for host {shown}; --allow-host would allow it", host_name(host))
            return verdict.value, "this server is not known by that name; --allow-host would allow it"
        self._tell(f"refused a {what} of origin {{shown}}; --allow-origin would allow it", origin or "")
        return verdict.value, "pages of that origin may not connect; --allow-origin would allow it"

    def _tell(self, words: str, refused: str) -> None:
        if refused not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(refused)
            # As repr, so that nothing a stranger sends can look like a line of ours.
            self._log.warn(words, shown=repr(refused[:100]))
