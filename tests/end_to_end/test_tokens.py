"""Tokens and client certificates on a running server: rights, invalid tokens, expiry and changed policies."""

import json
import re
import time

import pytest

from tests.authority import Authority
from tests.end_to_end.conftest import TCP, LineClient, guarded_server, receive_all
from tests.fuzz.grammars import HANDSHAKE
from tests.issuer import AUDIENCE, PRIVATE, base64url, hmac_token
from twistedsock.auth.tokens import SUBJECT_RULE

pytestmark = pytest.mark.end_to_end

TAKES_A_TOKEN = "ERR unauthorized authentication required to %s this channel: send AUTH <token>"
FORBIDDEN = "ERR forbidden no right to %s this channel"


def encoded(data):
    return base64url(json.dumps(data).encode()).decode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, issuer):
    """A server with a key of each algorithm. Its log must not contain a token."""
    folder = tmp_path_factory.mktemp("guarded")
    trusted = f"unix:{folder}/socket"
    anonymous = '{ "lobby.*" = "rw", "news" = "r", "bystander-*" = "rw" }'
    configuration = (
        "max-connections-per-identity = 3\n"
        + issuer.access(f"anonymous = {anonymous}", "leeway = 0", 'cookie = "session"')
        + f'[[access.listener]]\nendpoint = "{trusted}"\nallow = {{ ">" = "rw" }}\n'
        + "".join(issuer.make_key(algorithm.lower(), algorithm) for algorithm in PRIVATE)
    )
    with guarded_server(folder, issuer, configuration, tcp=(TCP, trusted)) as server:
        yield server


class Neighbour:
    """A subscriber that must be served whatever other clients do."""

    def __init__(self, client, channel):
        self._client, self._channel = client, channel
        self.received = []
        client.request(f"SUB {channel} presence=on")

    def is_served(self):
        self._client.send(f"PUB {self._channel} all is well")
        self.received += self._client.receive_until("MSG ")
        while "all is well" not in self.received[-1]:
            self.received += self._client.receive_until("MSG ")
        return self.received


@pytest.fixture
def lobby(channel):
    """A channel of this test, which every client can use."""
    return f"lobby.{channel}"


@pytest.fixture
def neighbour(guarded, line_client, issuer, lobby):
    neighbour = Neighbour(line_client(guarded.lines[0]), lobby)
    yield neighbour
    issuer.assert_absent_from("\n".join(neighbour.is_served()))


def test_client_without_token_has_anonymous_rights(guarded, line_client, web_client, lobby):
    for peer in (line_client(guarded.lines[0]), web_client(guarded.page, subprotocol="sockbridge.v1.line")):
        request = peer.request if isinstance(peer, LineClient) else lambda line, peer=peer: _ask(peer, line)
        assert request(f"SUB {lobby}").startswith(f"OK {lobby} ")
        assert request("SUB news").startswith("OK news ")
        assert request("PUB news extra") == TAKES_A_TOKEN % "publish on"
        for verb in ("SUB", "HIST", "WHO"):
            for closed in ("kitchen", "lobby", f"{lobby}.deeper", "news.old"):
                assert request(f"{verb} {closed}") == TAKES_A_TOKEN % "read"
    page = web_client(guarded.page)
    answer = page.request(type="publish", id=1, channel="news", data="extra")
    assert (answer["id"], answer["code"]) == (1, "unauthorized")


def _ask(peer, line):
    peer.send_text(line)
    return peer.receive_text().rstrip("\n")


def test_token_grants_its_rights_only(guarded, line_client, issuer, neighbour, lobby):
    peer = line_client(guarded.lines[0])
    answer = peer.request(f"AUTH {issuer.token(channels={'kitchen': 'rw', 'alerts.>': 'r', 'orders': 'w'})}")
    assert re.fullmatch(r"OK ann expires=3[56][0-9][0-9]", answer)
    assert peer.request("SUB kitchen").startswith("OK kitchen")
    assert peer.request("SUB alerts.fire/attic").startswith("OK alerts.fire/attic")
    assert peer.request("PUB alerts.fire/attic no") == FORBIDDEN % "publish on"
    assert peer.request("PUB orders tea") == "OK 1"
    assert peer.request("HIST orders") == FORBIDDEN % "read"
    # The rights without a token remain.
    peer.send(f"PUB {lobby} here I am")
    peer.receive()
    assert f"MSG {lobby} 1 ann here I am" in neighbour.is_served()


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_accepts_token_of_each_algorithm(guarded, line_client, issuer, algorithm):
    peer = line_client(guarded.lines[0])
    assert peer.request(f"AUTH {issuer.token(sub=algorithm, key=algorithm.lower())}").startswith(
        f"OK {algorithm} expires="
    )


@pytest.mark.parametrize("way", ["header", "query", "cookie", "message"])
@pytest.mark.parametrize("subprotocol", ["", "sockbridge.v1.line"])
def test_accepts_token_in_header_query_cookie_or_message(guarded, web_client, issuer, way, subprotocol):
    token = issuer.token(sub=way, channels={"kitchen": "r"})
    path = f"/ws?a=b&token={token}" if way == "query" else "/ws"
    headers = {"header": [f"Authorization: Bearer {token}"], "cookie": [f"Cookie: a=b; session={token}"]}.get(way, [])
    peer = web_client(guarded.page, path=path, headers=headers, subprotocol=subprotocol)
    if subprotocol:
        if way == "message":
            assert _ask(peer, f"AUTH {token}").startswith("OK message ")
        assert _ask(peer, "SUB kitchen").startswith("OK kitchen ")
        assert f"nick={way}" in _ask(peer, "INFO")
    else:
        if way == "message":
            assert peer.request(type="auth", id=1, token=token)["nick"] == "message"
        assert peer.request(type="subscribe", id=2, channel="kitchen")["type"] == "ok"
        assert peer.request(type="info", id=3)["peer"]["nick"] == way


def test_invalid_token_is_rejected_with_401_or_an_error(guarded, open_socket, web_client, issuer, neighbour):
    token = issuer.token(seconds=-5)
    program = open_socket(guarded.authority)
    handshake = HANDSHAKE.replace(b"127.0.0.1:8082", guarded.authority.encode()).removesuffix(b"\r\n")
    program.sendall(handshake + f"Authorization: Bearer {token}\r\n\r\n".encode())
    answer = receive_all(program).decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 401 ")
    assert 'WWW-Authenticate: Bearer error="invalid_token"' in head
    assert "the token has expired" in body
    issuer.assert_absent_from(answer)
    for page in (
        web_client(guarded.page, path=f"/ws?token={token}"),
        web_client(guarded.page, headers=[f"Cookie: session={token}"]),
    ):
        messages, code = page.receive_rest()
        assert [(message["type"], message["code"]) for message in messages] == [("error", "unauthorized")]
        assert "the token has expired" in messages[0]["message"]
        assert code == 1008
    neighbour.is_served()


def test_unverified_nicknames_have_a_mark(guarded, line_client, web_client, issuer, neighbour, lobby):
    ann, stranger, page = line_client(guarded.lines[0]), line_client(guarded.lines[0]), web_client(guarded.page)
    ann.request(f"AUTH {issuer.token(sub='anna')}")
    assert stranger.request("NICK anna") == "OK ~anna"
    assert page.request(type="nick", id=1, nick="~anna")["nick"] == "~anna"
    assert ann.request("NICK ines") == "OK ~ines"
    assert ann.request("NICK anna") == "OK anna"
    for number, peer in enumerate((ann, stranger), 1):
        assert peer.request(f"PUB {lobby} it is me") == f"OK {number}"
    page.request(type="publish", id=2, channel=lobby, data="it is me")
    received = neighbour.is_served()
    assert [line.split()[3] for line in received if "it is me" in line] == ["anna", "~anna", "~anna"]
    # The subject of a token must not be the id of another client.
    assert (
        ann.request(f"AUTH {issuer.token(sub=stranger.id)}")
        == "ERR bad-name invalid nick: it is the id of another client"
    )
    assert ann.request("PING") == "PONG"


def test_expired_token_closes_the_connection_unless_renewed(guarded, line_client, web_client, issuer, neighbour):
    rights = {"hall": "r"}
    renewing, forgetful = line_client(guarded.lines[0]), line_client(guarded.lines[0])
    page = web_client(guarded.page, path=f"/ws?token={issuer.token(sub='brief', channels=rights, seconds=3)}")
    warned = line_client(guarded.lines[0])
    warned.request(f"AUTH {issuer.token(sub='warned', channels=rights, seconds=63)}")
    for peer in (renewing, forgetful):
        assert re.fullmatch(r"OK brief expires=[12]", peer.request(f"AUTH {issuer.token('brief', rights, seconds=3)}"))
    for peer in (renewing, forgetful, warned):
        assert peer.request("SUB hall").startswith("OK hall offset=0 ")
    assert page.request(type="subscribe", id=1, channel="hall")["type"] == "ok"
    assert renewing.request(f"AUTH {issuer.token('brief', rights)}").startswith("OK brief expires=3")
    assert forgetful.receive_rest() == ["NOTICE token expired", "BYE"]
    messages, code = page.receive_rest()
    assert [message["text"] for message in messages if message["type"] == "notice"] == ["token expired"]
    assert code == 1008
    assert warned.receive() == "NOTICE token expires in 60 seconds: authenticate with a new one"
    speaker = line_client(guarded.lines[0])
    speaker.request(f"AUTH {issuer.token('speaker', {'hall': 'w'})}")
    assert speaker.request("PUB hall still here?") == "OK 1"
    for peer in (renewing, warned):
        assert peer.receive() == "MSG hall 1 speaker still here?"


def test_token_with_fewer_rights_ends_subscriptions(guarded, line_client, issuer):
    peer = line_client(guarded.lines[0])
    peer.request(f"AUTH {issuer.token('changing', {'a': 'r', 'b': 'r'})}")
    for name in "ab":
        assert peer.request(f"SUB {name}").startswith(f"OK {name}")
    peer.send(f"AUTH {issuer.token('changing', {'b': 'r'})}")
    assert peer.receive().startswith("OK changing expires=")
    assert peer.receive() == "NOTICE right to read a lost: the subscription has ended"
    assert peer.request("SUB b").startswith("OK b")
    assert peer.request("SUB a") == FORBIDDEN % "read"


def test_listener_has_its_own_rights(guarded, line_client, issuer):
    near, far = line_client(guarded.lines[1]), line_client(guarded.lines[0])
    assert near.request("PUB cellar 12") == "OK 1"
    assert near.request("NICK keeper") == "OK ~keeper"
    assert far.request("PUB cellar 13") == TAKES_A_TOKEN % "publish on"
    # A token adds to these rights.
    near.request(f"AUTH {issuer.token('keeper', {'nothing': 'r'})}")
    assert near.request("PUB cellar 14") == "OK 2"
    assert near.request("NICK keeper") == "OK keeper"


def test_connections_of_an_identity_are_limited(guarded, line_client, web_client, issuer, eventually):
    token = issuer.token(sub="many")
    peers = [line_client(guarded.lines[0]) for _ in range(4)]
    answers = [peer.request(f"AUTH {token}").split()[:2] for peer in peers]
    assert answers == [["OK", "many"]] * 3 + [["ERR", "limit"]]
    page = web_client(guarded.page, path=f"/ws?token={token}")
    messages, code = page.receive_rest()
    assert ([message["code"] for message in messages], code) == (["limit"], 1008)
    assert line_client(guarded.lines[0]).request(f"AUTH {issuer.token(sub='few')}").startswith("OK few ")
    peers[0].close()
    # It counts until the server has noticed that it is closed.
    eventually(
        lambda: line_client(guarded.lines[0]).request(f"AUTH {token}").startswith("OK many "), "room for another one"
    )


def signed(header, claims, secret):
    return hmac_token(header, claims, secret).decode()


@pytest.fixture
def forged(issuer):
    """Invalid tokens by their defect."""
    claims = {"sub": "ann", "aud": AUDIENCE, "exp": time.time() + 3600, "channels": {">": "rw"}, "admin": True}
    public = (issuer.folder / "rs256.pub").read_bytes()
    valid = issuer.token(channels={">": "rw"}, admin=True)
    head, body, signature = valid.split(".")
    other = issuer.token(sub="bob").split(".")[1]
    tokens = {
        "alg none": f"{encoded({'alg': 'none', 'kid': 'hs'})}.{body}.",
        "alg None with a signature": f"{encoded({'alg': 'None', 'kid': 'hs'})}.{body}.{signature}",
        "no alg": f"{encoded({'kid': 'hs'})}.{body}.{signature}",
        "HS256 with the public key": signed({"alg": "HS256", "kid": "rs256"}, claims, public),
        "HS256 with the public key, stripped": signed({"alg": "HS256", "kid": "rs256"}, claims, public.strip()),
        "RS256 with the secret": signed({"alg": "RS256", "kid": "hs"}, claims, (issuer.folder / "hs").read_bytes()),
        "an empty secret": signed({"alg": "HS256", "kid": "hs"}, claims, b""),
        "no kid": signed({"alg": "HS256"}, claims, (issuer.folder / "hs").read_bytes()),
        "unknown kid": signed({"alg": "HS256", "kid": "../hs"}, claims, (issuer.folder / "hs").read_bytes()),
        "its own key": signed({"alg": "HS256", "kid": "hs", "jwk": {"kty": "oct", "k": "YQ"}}, claims, b"a"),
        "other claims": f"{head}.{other}.{signature}",
        "truncated": valid[:-4],
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "padded": f"{valid}=",
        "expired": issuer.token(channels={">": "rw"}, seconds=-1),
        "not yet valid": issuer.token(nbf=time.time() + 60),
        "forever": issuer.token(exp=None),
        "another audience": issuer.token(aud="somebody"),
        "no audience": issuer.token(aud=None),
        "nobody": issuer.token(sub=None),
        "~ann": issuer.token(sub="~ann"),
        "strange rights": issuer.token(channels={"kitchen": "rwx"}),
        "too long": issuer.token(channels={f"a{'b' * 190}{number}": "r" for number in range(60)}),
        "terminal escapes": "\x1b[31m.\x07.\x9b",
        "letters": "é.ü.ß",
    }
    return {what: issuer.remember(token) for what, token in tokens.items()}


def test_invalid_token_grants_nothing(guarded, line_client, web_client, issuer, neighbour, bystander, forged):
    with bystander(guarded):
        for what, token in forged.items():
            peer = line_client(guarded.lines[0])
            answer = peer.request(f"AUTH {token}")
            assert answer.startswith("ERR unauthorized "), (what, answer)
            issuer.assert_absent_from(answer)
            assert peer.request("SUB kitchen") == TAKES_A_TOKEN % "read", what
            page = web_client(guarded.page)
            answer = page.request(type="auth", id=1, token=token)
            assert (answer["type"], answer["id"], answer["code"]) == ("error", 1, "unauthorized"), what
            assert page.request(type="subscribe", id=2, channel="kitchen")["code"] == "unauthorized"
            neighbour.is_served()


def test_closes_after_ten_invalid_tokens(guarded, line_client, neighbour):
    guesser = line_client(guarded.lines[0])
    guesser.send(*["AUTH a.b.c"] * 20)
    *refused, notice, bye = guesser.receive_rest()
    assert len(refused) == 10
    assert all(line.startswith("ERR unauthorized ") for line in refused)
    assert [notice, bye] == ["NOTICE too many invalid tokens", "BYE"]
    neighbour.is_served()


def test_no_reply_contains_a_token(guarded, line_client, web_client, open_socket, issuer, neighbour, lobby):
    token = issuer.token(channels={"kitchen": "rw"})
    peer = line_client(guarded.lines[0])
    for line in (
        *(f"AUHT {token}", f"AUTH {token} extra", f"AUTH{token}", f"AUTH: {token}", f"AUTH {token[:-1]}", token),
        *(f"NICK {token}", f"HELP {token}", f"WHO {token}", f"QUIET {token}", f"INFO {token}", f"AUTH \t{token}"),
        *(f"SUB {token}", f"SUB {lobby} {token}", f"SUB {lobby} last={token}", f"SUB {lobby} {token}=1"),
        *(f"GET /?token={token}", f"EMIT {lobby} {token} text", f"AUTH {token}\u00a0", f"AUTH token={token}"),
    ):
        answer = peer.request(line)
        assert answer.startswith("ERR "), (line, answer)
        issuer.assert_absent_from(answer)
    page = web_client(guarded.page)
    for text in (
        json.dumps({"type": "auht", "id": 1, "token": token}),
        json.dumps({"type": "auth", "id": 1, "tokn": token}),
        json.dumps({"type": "auth", "id": 1, "token": [token]}),
        json.dumps({"type": token, "id": 1}),
        json.dumps({"type": "nick", "id": 1, "nick": token}),
        f'{{"type":"auth","token":"{token}"',
        f'{{"type":"auth","token":{token}}}',
        f"AUTH {token}",
        token,
    ):
        page.send_text(text)
        answer = page.receive()
        assert answer["type"] == "error", (text, answer)
        issuer.assert_absent_from(json.dumps(answer))
    # An HTTP request at the line port.
    lost = open_socket(guarded.lines[0])
    lost.sendall(f"GET /ws?token={token} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    issuer.assert_absent_from(receive_all(lost).decode())
    for path in (f"/?token={token}", f"/nowhere?token={token}", f"/{token}", f"//[{token}"):
        visitor = open_socket(guarded.authority)
        visitor.sendall(f"GET {path} HTTP/1.1\r\nHost: {guarded.authority}\r\nConnection: close\r\n\r\n".encode())
        receive_all(visitor)
    neighbour.is_served()


def test_reload_changes_keys_and_rights_of_connected_clients(start, line_client, web_client, issuer, tmp_path, reload):
    old, lasting, new = (issuer.make_key(name) for name in ("old", "lasting", "new"))

    def table(anonymous, *keys):
        (tmp_path / "bridge.toml").write_text(issuer.access(f"anonymous = {{ {anonymous} }}") + "".join(keys))

    table('lobby = "rw", attic = "rw"', old, lasting)
    server = start("--config", "bridge.toml")
    rights = {"kitchen": "rw"}
    leaving, staying, nobody = (line_client(server.lines[0]) for _ in range(3))
    assert leaving.request(f"AUTH {issuer.token('leaving', rights, key='old')}").startswith("OK leaving ")
    assert staying.request(f"AUTH {issuer.token('staying', rights, key='lasting')}").startswith("OK staying ")
    page = web_client(server.page, path=f"/ws?token={issuer.token('page', rights, key='old')}")
    assert page.request(type="subscribe", id=1, channel="kitchen")["type"] == "ok"
    for peer in (leaving, staying):
        assert peer.request("SUB kitchen").startswith("OK kitchen ")
    for peer, name in ((nobody, "lobby"), (nobody, "attic"), (staying, "attic")):
        assert peer.request(f"SUB {name}").startswith(f"OK {name} ")
    assert nobody.request(f"AUTH {issuer.token('new', rights, key='new')}").startswith("ERR unauthorized ")

    def all_is_as_it_was(offset):
        for peer, name in ((nobody, "lobby"), (staying, "kitchen")):
            assert peer.request(f"PUB {name} {offset}") == f"OK {offset}"
            assert peer.receive().startswith(f"MSG {name} {offset} ")
        assert leaving.receive() == f"MSG kitchen {offset} staying {offset}"
        assert page.receive()["data"] == str(offset)

    whole = (tmp_path / "bridge.toml").read_text()
    for number, broken in enumerate(
        (
            whole.replace("[access]", "[acess]"),
            whole.replace('"rw"', '"rwx"', 1),
            whole + new.replace(str(issuer.folder / "new"), "nowhere"),
            whole + new.replace('"HS256"', '"RS256"'),
            whole + new.replace('"HS256"', '"none"'),
            whole[: len(whole) // 2],
            "",
        ),
        1,
    ):
        (tmp_path / "bridge.toml").write_text(broken)
        reload(server, "reload failed, configuration unchanged: ")
        all_is_as_it_was(number)
    (tmp_path / "bridge.toml").unlink()
    reload(server, "reload failed, configuration unchanged: cannot read ")
    head = number + 1
    all_is_as_it_was(head)

    table('lobby = "rw"', lasting, new)
    reload(server)
    removed = "the key of your token was removed: authenticate with a new token"
    assert leaving.receive_rest() == [f"NOTICE {removed}", "BYE"]
    messages, code = page.receive_rest()
    assert ([message["text"] for message in messages if message["type"] == "notice"], code) == ([removed], 1008)
    lost = "NOTICE right to read attic lost: the subscription has ended"
    assert nobody.receive() == staying.receive() == lost
    assert nobody.request("SUB attic") == TAKES_A_TOKEN % "read"
    assert staying.request("SUB attic") == FORBIDDEN % "read"
    head += 1
    assert staying.request(f"PUB kitchen {head}") == f"OK {head}"
    assert staying.receive() == f"MSG kitchen {head} staying {head}"
    assert nobody.request(f"PUB lobby {head}") == f"OK {head}"
    assert nobody.receive().startswith(f"MSG lobby {head} ")
    assert nobody.request(f"AUTH {issuer.token('new', rights, key='new')}").startswith("OK new ")
    assert nobody.request("SUB kitchen").startswith("OK kitchen ")
    assert (
        line_client(server.lines[0])
        .request(f"AUTH {issuer.token('leaving', key='old')}")
        .startswith("ERR unauthorized ")
    )
    issuer.assert_absent_from(server.log())


def test_client_certificate_is_an_identity(start, line_client, web_client, issuer, tmp_path, reload):
    authority = Authority(tmp_path)
    for name, common_name in (("server", "localhost"), ("ann", "ann"), ("bob", "bob"), ("mallory", "~ann")):
        authority.issue(name, common_name)
    secure = "ssl:0:interface=127.0.0.1:privateKey=server.key:certKey=server.pem"
    line, page = secure, secure + ":backlog=9"
    listening = "".join(
        f'[[access.listener]]\nendpoint = "{one}"\nclient-ca = "authority.pem"\n' for one in (line, page)
    )

    def allow(**allowed):
        subjects = "".join(
            f'[[access.subject]]\nname = "{one}"\nallow = {{ {rights} }}\n' for one, rights in allowed.items()
        )
        head = issuer.access('anonymous = { lobby = "rw" }')
        (tmp_path / "bridge.toml").write_text(head + key + listening + subjects)

    key = issuer.make_key("beside")
    allow(ann='kitchen = "rw", attic = "r"', bob='attic = "r"')
    server = start("--config", "bridge.toml", tcp=(line,), web=(page,))
    ann, bob = (
        line_client(server.lines[0], authority.tls_of("ann")),
        line_client(server.lines[0], authority.tls_of("bob")),
    )
    for name in ("kitchen", "attic", "lobby"):
        assert ann.request(f"SUB {name}").startswith(f"OK {name} ")
    assert bob.request("SUB kitchen") == FORBIDDEN % "read"
    assert bob.request("NICK ann") == "OK ~ann"
    assert bob.request("SUB attic").startswith("OK attic ")
    browser = web_client(server.page, tls=authority.tls_of("ann"))
    assert browser.request(type="publish", id=1, channel="kitchen", data="from a page")["offset"] == 1
    assert ann.receive() == "MSG kitchen 1 ann from a page"
    nobody = line_client(server.lines[0], authority.tls_of("mallory"))
    assert nobody.receive_rest() == [f"ERR unauthorized invalid certificate: the common name must be {SUBJECT_RULE}"]
    # A token replaces the identity of the certificate.
    assert bob.request(f"AUTH {issuer.token('carl', {'kitchen': 'r', 'attic': 'r'}, key='beside')}").startswith(
        "OK carl "
    )
    assert bob.request("SUB kitchen").startswith("OK kitchen ")

    allow(ann='kitchen = "rw"')
    reload(server)
    assert ann.receive() == "NOTICE right to read attic lost: the subscription has ended"
    assert ann.request("PUB kitchen still here") == "OK 2"
    assert [peer.receive() for peer in (ann, bob)] == ["MSG kitchen 2 ann still here"] * 2
