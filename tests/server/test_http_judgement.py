"""Who may ask for what: pages of other sites, tokens, strangers that are too fast, proxies."""

import pytest
from OpenSSL.crypto import FILETYPE_PEM, load_certificate
from twisted.internet.address import IPv4Address

from tests.authority import Authority
from tests.server.http_visits import HOST, Place, ask
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.auth.trusted_proxies import parse_trusted
from twistedsock.errors import TOO_FAST
from twistedsock.limits.principal import LOCAL
from twistedsock.server.http.routing import Route
from twistedsock.server.sockets import ListenerConfig
from twistedsock.testing import FakePolicy, FakeServer

OWN = "http://" + HOST
FRIEND = "https://app.example"
FOREIGN = ["https://evil.example", "null", "http://127.0.0.1:8083", "http://127.0.0.1.evil.example:8082", ""]
STRANGER, PROXY = "198.51.100.9", "10.0.0.1"
POLICY = FakePolicy({"lobby": "r"}, {"good": ("ann", {"kitchen": "rw"}, None)})


class Seen:
    """What an operation has been asked."""

    def __init__(self):
        self.requests = []

    def __call__(self, request):
        self.requests.append((request.identity, request.endpoints.client, request.captured))
        request.respond_json(200, b"{}")


@pytest.fixture
def build(reactor, wire):
    """Make a place with operations of our own: ``/who`` asks who comes, ``/open`` does not."""

    def make(policy=None, origins=None, listening=None, **limits):
        seen = Seen()
        routes = [
            Route("GET", "/who", seen),
            Route("POST", "/who", seen),
            Route("POST", "/things/{thing}/parts", seen),
            Route("GET", "/open", seen, authenticates=False),
            Route("GET", "/dear", lambda request: (request.charge(9), seen(request))),
        ]
        server = FakeServer(policy=policy, **limits)
        place = Place(reactor, wire, routes, origins, listening or ListenerConfig("tcp:8082"), server)
        place.seen = seen
        return place

    return make


@pytest.fixture
def place(build):
    return build()


# Pages of other sites.


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize(("path", "method"), [("/who", "GET"), ("/who", "POST"), ("/healthz", "GET"), ("/none", "GET")])
def test_a_page_of_another_site_gets_nothing_done(place, origin, path, method):
    answer = place().asks(path, method, Origin=origin)
    assert (answer.status, answer.code) == (403, "forbidden")
    assert "access-control-allow-origin" not in answer.headers
    assert place.seen.requests == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_form_of_another_site_publishes_nothing(place, kind):
    """These are sent without asking first ("simple requests")."""
    page = place.server.json_client()
    page.send({"type": "subscribe", "id": 1, "channel": "kitchen"})
    assert page.received()[-1]["type"] == "ok"
    answer = place().asks(
        "/channels/kitchen/events", "POST", b"hello", Origin="https://evil.example", Content_Type=kind
    )
    assert answer.status == 403
    place.server.turn()
    assert page.received() == []


def test_a_page_whose_name_was_made_to_point_here_learns_nothing(build):
    """It sends no origin, as it takes us for its own server (DNS rebinding); the listener is not on loopback."""
    place = build(policy=POLICY)
    visit = place(here="10.0.0.1")
    for path in ("/who", "/channels/lobby/events", "/channels", "/stream", "/events?channel=lobby&wait=9"):
        answer = visit.asks(path, Host="evil.example:8082")
        assert (answer.status, answer.code) == (421, "forbidden"), path
    assert place.seen.requests == []
    for host, token in (("10.0.0.1:8082", ""), ("evil.example:8082", "Bearer good")):
        shown = {"Authorization": token} if token else {}
        assert visit.asks("/who", Host=host, **shown).status == 200
    assert visit.asks("/open", Host="evil.example:8082").status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("mode", "dest"),
    [("no-cors", "image"), ("no-cors", "script"), ("navigate", "iframe"), ("navigate", "document"), ("", "")],
)
def test_what_a_page_of_another_site_embeds_or_opens_gets_files_only(place, site, mode, dest):
    """It is asked for without an origin but with the cookie of the user, and could be a stream with a nick."""
    page = place.server.json_client()
    page.send({"type": "subscribe", "channel": "kitchen", "presence": True})
    page.received()
    fetched = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": dest, "Accept": "text/event-stream"}
    for path in ("/events?channel=kitchen&nick=evil", "/stream", "/channels/kitchen/events?wait=9", "/who", "/none"):
        answer = place().asks(path, **fetched)
        assert (answer.status, answer.code) == (403, "forbidden")
    place.server.turn()
    assert page.received() == [] and place.seen.requests == []
    assert place().asks("/sockbridge.js", **fetched).status == 200


@pytest.mark.parametrize(
    "fetched",
    [
        {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
        {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"},
        {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty", "Origin": FRIEND},
    ],
)
def test_what_the_user_or_an_allowed_page_asks_for_is_served(build, fetched):
    assert build(origins=AllowedOrigins((FRIEND,)))().asks("/who", **fetched).status == 200


HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    "navigation",
    [
        # A link in a mail, or an address that was typed.
        {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document", "Accept": HTML},
        {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe", "Accept": HTML},
        # Over plain HTTP from another machine, browsers tell nothing of where they come from.
        {"Accept": HTML},
    ],
)
@pytest.mark.parametrize("path", ["/events?channel=kitchen&nick=fool", "/stream"])
def test_a_page_that_is_navigated_to_joins_no_channel(place, navigation, path):
    member = place.server.json_client()
    member.send({"type": "subscribe", "channel": "kitchen", "presence": True})
    member.received()
    answer = place().asks(path, **navigation)
    assert (answer.status, answer.code) == (403, "forbidden")
    place.server.turn()
    assert member.received() == []
    assert len(place.server.context.sessions) == 1


def test_a_foreign_origin_is_logged_once(place, logged):
    for _ in range(3):
        place().asks("/who", Origin="https://evil.example")
    (event,) = logged
    assert event["shown"] == "'https://evil.example'" and "--allow-origin" in event["log_format"]


@pytest.mark.parametrize("origin", [OWN, FRIEND])
def test_a_page_that_may_ask_may_read_the_answer(build, origin):
    place = build(origins=AllowedOrigins((FRIEND,)))
    for path in ("/who", "/none"):
        answer = place().asks(path, Origin=origin)
        assert answer.headers["access-control-allow-origin"] == origin
        exposed = "Allow, ETag, Idempotency-Replayed, Retry-After, WWW-Authenticate"
        assert answer.headers["access-control-expose-headers"] == exposed
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", [OWN, FRIEND])
@pytest.mark.parametrize("path", ["/openapi.json", "/", "/page.js"])
def test_a_page_that_may_ask_may_read_files(build, path, origin):
    answer = build(origins=AllowedOrigins((FRIEND,)))().asks(path, Origin=origin)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, origin)
    assert "ETag" in answer.headers["access-control-expose-headers"] and "Origin" in answer.headers["vary"]


def test_a_file_is_not_read_by_other_pages_and_nothing_is_logged(place, logged):
    answer = place().asks("/openapi.json", Origin="https://evil.example")
    assert answer.status == 200 and "access-control-allow-origin" not in answer.headers
    assert logged == []


def test_the_client_is_read_by_all_pages_and_allows_no_origin_twice(place):
    answer = place().asks("/sockbridge.js", Origin=OWN)
    assert [line for line in answer.lines if line.startswith("Access-Control-Allow-Origin")] == [
        "Access-Control-Allow-Origin: *"
    ]


def test_a_page_that_may_ask_reads_that_it_is_too_fast_and_for_how_long(build):
    place = build(origins=AllowedOrigins((FRIEND,)), commands_per_second=1, commands_burst=1)
    visit = place(there=STRANGER)
    answers = [visit.asks("/who", Origin=FRIEND) for _ in range(3)]
    assert answers[-1].status == 429 and int(answers[-1].headers["retry-after"]) > 0
    assert answers[-1].headers["access-control-allow-origin"] == FRIEND
    assert "Retry-After" in answers[-1].headers["access-control-expose-headers"]


def test_who_is_no_page_is_told_that_others_hear_something_else(place):
    answer = place().asks("/who")
    assert "access-control-allow-origin" not in answer.headers and answer.headers["vary"] == "Origin"


def preflight(place, path="/who", origin=FRIEND, method="POST"):
    return place().asks(path, "OPTIONS", Origin=origin, Access_Control_Request_Method=method)


def test_a_browser_that_asks_before_is_told_what_may_be_asked(build):
    place = build(origins=AllowedOrigins((FRIEND,)))
    answer = preflight(place)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == FRIEND
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD, POST"
    allowed = (
        "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Sockbridge-Stream"
    )
    assert answer.headers["access-control-allow-headers"] == allowed
    assert answer.headers["access-control-max-age"] == "600"
    assert answer.headers["vary"] == "Origin"
    assert "content-length" not in answer.headers
    assert place.seen.requests == []


def test_a_browser_of_a_foreign_page_is_told_no(place):
    answer = preflight(place)
    assert answer.status == 403 and "access-control-allow-methods" not in answer.headers


def test_what_is_not_there_cannot_be_asked_for(build):
    assert preflight(build(origins=AllowedOrigins((FRIEND,))), "/none").status == 404


def test_options_that_are_no_preflight_list_the_methods(place):
    answer = place().asks("/who", "OPTIONS", Origin=OWN)
    assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, POST")
    assert "access-control-allow-methods" not in answer.headers


def test_a_page_may_ask_whether_a_file_has_changed(build):
    answer = preflight(build(origins=AllowedOrigins((FRIEND,))), "/openapi.json", method="GET")
    assert (answer.status, answer.headers["access-control-allow-methods"]) == (204, "GET, HEAD")
    assert "If-None-Match" in answer.headers["access-control-allow-headers"]


def test_files_are_for_everybody(place):
    assert place().asks("/sockbridge.js", Origin="https://evil.example").status == 200


@pytest.mark.parametrize("path", ["/who", "/", "/none"])
def test_another_host_is_refused(place, path):
    """A page whose own name was made to point here (DNS rebinding)."""
    visit = place()
    assert visit.asks("/who").status == 200
    answer = visit.asks(path, Host="evil.example", Origin="http://evil.example")
    assert (answer.status, answer.code) == (421, "forbidden")


# Who asks.


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/who?token=good", {}),
        ("/who", {"Authorization": "Bearer good"}),
        ("/who", {"Cookie": "other=x; bridge-token=good"}),
    ],
)
def test_a_token_says_who_asks(build, path, headers):
    place = build(POLICY)
    assert place().asks(path, **headers).status == 200
    ((identity, _, _),) = place.seen.requests
    assert identity.subject == b"ann"


@pytest.mark.parametrize("path", ["/who?token=bad", "/who"])
def test_a_wrong_token_is_told(build, path):
    place = build(POLICY)
    answer = place().asks(path, **({} if "?" in path else {"Authorization": "Bearer bad"}))
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert "bad" not in answer.problem["detail"]
    assert place.seen.requests == []


def test_each_request_says_anew_who_asks(build):
    place = build(POLICY)
    visit = place()
    visit.asks("/who", Authorization="Bearer good")
    visit.asks("/who")
    assert [identity and identity.subject for identity, _, _ in place.seen.requests] == [b"ann", None]


@pytest.mark.parametrize("policy", [POLICY, None])
@pytest.mark.parametrize("path", ["/open?token=bad", "/?token=bad", "/healthz?token=bad"])
def test_where_nobody_asks_who_comes_a_token_does_not_matter(build, policy, path):
    assert build(policy)().asks(path).status == 200


def test_without_a_policy_nobody_looks(build):
    place = build()
    assert place().asks("/who?token=bad").status == 200
    assert place.seen.requests[0][0] is None


@pytest.mark.parametrize("change", ["gone", "expired", "later expired"])
def test_a_token_must_be_good_still_when_the_body_has_come(build, change):
    """It can take as long as it likes where no bound is set, and a minute elsewhere."""
    expires = None if change == "gone" else 1_800_000_010.0
    policy = FakePolicy({}, {"good": ("ann", {"kitchen": "rw"}, expires)})
    place = build(policy)
    visit = place()
    visit.send_bytes(ask("/who?token=good", "POST", Content_Length="2"))
    if change != "expired":
        place.server.context.change_policy(FakePolicy({}, {} if change == "gone" else policy._tokens))
    if change != "gone":
        place.server.wall += 10
    (answer,) = visit.send_bytes(b"{}")
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert place.seen.requests == []


def test_rights_are_those_of_when_the_body_has_come(build):
    place = build(POLICY)
    visit = place()
    visit.send_bytes(ask("/who?token=good", "POST", Content_Length="2"))
    place.server.context.change_policy(FakePolicy({}, {"good": ("ann", {"hall": "rw"}, None)}))
    (answer,) = visit.send_bytes(b"{}")
    ((identity, _, _),) = place.seen.requests
    assert answer.status == 200 and not identity.grants.on(b"kitchen") and identity.grants.on(b"hall")


def test_a_certificate_says_who_asks(build, tmp_path):
    place = build(POLICY, listening=ListenerConfig("ssl:8082"))
    Authority(tmp_path).issue("meter", "meter")
    visit = place()
    certificate = load_certificate(FILETYPE_PEM, (tmp_path / "meter.pem").read_bytes())
    visit.transport.getPeerCertificate = lambda: certificate
    visit.asks("/who")
    assert place.seen.requests[0][0].subject == b"meter"


def test_what_is_captured_is_decoded(place):
    for path in ("/things/a%20b/parts", "/things/x/y%2Fz/parts", "/things/parts/parts", "/things//parts"):
        assert place().asks(path, "POST").status == 200
    assert [captured for _, _, captured in place.seen.requests] == [b"a b", b"x/y/z", b"parts", b""]
    for path in ("/things/parts", "/things/a/parts/", "/things/a", "/things"):
        assert place().asks(path, "POST").status == 404


def test_another_method_is_told_which_there_are(place):
    answer = place().asks("/things/a/parts", "GET")
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "unknown-command", "POST")


# Strangers that are too fast.


def test_each_request_of_a_stranger_is_a_command(build):
    place = build(commands_per_second=1, commands_burst=3)
    statuses = [place(there=STRANGER).asks("/open").status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    answer = place(there=STRANGER).asks("/open")
    assert answer.code == "rate" and answer.headers["retry-after"] == "1"
    place.server.now += 2
    assert place(there=STRANGER).asks("/open").status == 200
    assert place(there="198.51.100.10").asks("/open").status == 200, "another one"


def test_who_goes_on_is_closed(build):
    place = build(commands_per_second=1, commands_burst=3)
    visit = place(there=STRANGER)
    answers = visit.send_bytes(ask("/open") * 20)
    assert [answer.status for answer in answers] == [200] * 3 + [429] * 4
    assert visit.is_closing and answers[-1].headers["connection"] == "close"
    (answer,) = place(there=STRANGER).send_bytes(ask("/open"))
    assert answer.headers["connection"] == "close"


def test_refusals_are_commands_too(build):
    place = build(commands_per_second=1, commands_burst=3)
    statuses = [place(there=STRANGER).asks(path).status for path in ("/none", "/none", "/none", "/none", "/")]
    assert statuses == [404, 404, 404, 429, 429]


def test_an_operation_can_be_dearer(build):
    place = build(commands_per_second=1, commands_burst=5)
    assert [place(there=STRANGER).asks("/dear").status for _ in range(2)] == [200, 429]
    assert place(there=STRANGER).asks("/dear").headers["retry-after"] == "5"


def test_the_bytes_of_a_stranger_count(build):
    place = build(bytes_per_second=100, bytes_burst=10_000)
    visit = place(there=STRANGER)
    assert visit.asks("/who", "POST", b"x" * 20_000).status == 200
    answer = visit.asks("/who", "POST", b"x" * 20_000)
    assert answer.status == 429 and int(answer.headers["retry-after"]) >= 100
    visit.protocol.dataReceived(ask("/who", "POST", b"x" * 20_000))
    assert visit.transport.heard().startswith(b"HTTP/1.1 429 ")
    assert visit.is_closing


def test_who_floods_in_the_midst_of_a_body_is_told_and_closed(build):
    place = build(bytes_per_second=100, bytes_burst=10_000)
    visit = place(there=STRANGER)
    visit.protocol.dataReceived(ask("/who", "POST", Content_Length="60000"))
    for _ in range(4):
        visit.protocol.dataReceived(b"x" * 11_000)
    (answer,) = visit.received()
    assert (answer.status, answer.code) == (429, "rate")
    assert visit.is_closing


def test_who_is_no_stranger_has_no_meter(build):
    place = build(commands_per_second=1, commands_burst=3)
    assert {place().asks("/open").status for _ in range(20)} == {200}


# Proxies.

BEHIND = ListenerConfig("tcp:8082", False, parse_trusted(["10.0.0.0/8"]))


def test_behind_a_proxy_each_request_tells_whom_it_speaks_for(build):
    place = build(listening=BEHIND)
    visit = place(there=PROXY, is_proxied=True)
    visit.asks("/who")
    assert not visit.is_closing
    answer = visit.asks("/who", X_Forwarded_For="192.0.2.66, 203.0.113.7")
    assert answer.headers["connection"] == "close" and visit.is_closing
    assert [client for _, client, _ in place.seen.requests] == [b"10.0.0.1:50000", b"203.0.113.7:0"]


@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1", "127.0.0.1, 127.0.0.1"])
def test_behind_a_remote_proxy_a_request_from_loopback_is_not_local(build, loopback):
    place = build(listening=BEHIND, commands_per_second=1, commands_burst=1)
    visit = place(there=PROXY, is_proxied=True)
    visit.asks("/who")
    assert visit.asks("/who", X_Forwarded_For=loopback).status == 429
    another = place(there=PROXY, is_proxied=True)
    assert another.asks("/peers", X_Forwarded_For=loopback).status == 429
    assert another.protocol.principal != LOCAL
    assert [client for _, client, _ in place.seen.requests] == [b"10.0.0.1:50000"]


def test_behind_a_proxy_the_address_that_is_told_is_metered(build):
    place = build(listening=BEHIND, commands_per_second=1, commands_burst=1)
    statuses = []
    for client in ("203.0.113.7", "203.0.113.7", "203.0.113.8"):
        statuses.append(place(there=PROXY, is_proxied=True).asks("/who", X_Forwarded_For=client).status)
    assert statuses == [200, 429, 200]


def test_what_a_proxy_tells_must_be_an_address(build):
    visit = build(listening=BEHIND)(there=PROXY, is_proxied=True)
    answer = visit.asks("/who", X_Forwarded_For="unknown")
    assert (answer.status, answer.code) == (400, "bad-argument") and visit.is_closing


def test_a_stranger_tells_nothing(build):
    place = build(listening=BEHIND)
    place(there=STRANGER).asks("/who", X_Forwarded_For="203.0.113.7")
    assert place.seen.requests[0][1] == b"198.51.100.9:50000"


def test_the_first_request_has_been_read_already(build):
    """Where it told whom it speaks for, that is the far end."""
    place = build(listening=BEHIND)
    visit = place()
    visit.protocol.set_client_address(IPv4Address("TCP", "203.0.113.7", 0))
    visit.asks("/who", X_Forwarded_For="203.0.113.7")
    assert place.seen.requests[0][1] == b"203.0.113.7:0"


@pytest.mark.parametrize("value", [b"a\r\nb", b"a\n", b"a\rb"])
def test_no_operation_can_make_two_headers_of_one(place, logged, value):
    place.site.routes.find(b"/open").methods[b"GET"] = Route(
        "GET", "/open", lambda request: request.respond_error(TOO_FAST, headers={b"X": value})
    )
    visit = place()
    visit.protocol.dataReceived(ask("/open"))
    assert visit.transport.heard().startswith(b"HTTP/1.1 500 ")
    (event,) = logged
    assert event["log_failure"].check(ValueError)
    logged.clear()


# Whether it is ready.


def test_it_lives(place):
    answer = place().asks("/healthz")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"ok\n", "text/plain; charset=utf-8")


def test_it_is_ready_unless_it_goes_away_or_its_backplane_is_away(reactor, wire):
    server = FakeServer(late=True)
    place = Place(reactor, wire, server=server)
    answer = place().asks("/readyz")
    assert (answer.status, answer.body.strip()) == (200, b'{"ready":true}')
    server.backplane.is_ready = False
    answer = place().asks("/readyz")
    assert (answer.status, answer.code) == (503, "unavailable")
    server.backplane.is_ready = True
    server.context.draining = True
    assert place().asks("/readyz").status == 503
    assert place().asks("/healthz").status == 200


def test_refusals_and_bytes_are_counted(place):
    stats = place.server.context.stats
    visit = place()
    visit.protocol.dataReceived(ask("/none"))
    assert stats.received == len(ask("/none"))
    assert stats.sent == len(visit.transport.heard())
    assert {code.decode(): times for code, times in stats.errors.items()} == {"unknown-command": 1}
