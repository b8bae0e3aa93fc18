"""Tests of the page at ``/`` in Chromium, with a line client on the other side."""

import re
import time
from datetime import datetime, timedelta
from functools import partial

import pytest
from playwright.sync_api import expect

from tests.end_to_end.conftest import guarded_server

pytestmark = pytest.mark.end_to_end


def row(page, offset):
    return page.locator(f'#events .event[data-offset="{offset}"]')


def publish(page, text):
    page.fill("#message", text)
    page.click("#send")


def test_exchanges_events_with_line_clients(server, line_client, open_page, channel):
    typist = line_client(server.lines[0])
    typist.request(f"SUB {channel}")
    typist.request("NICK ann")
    page = open_page().open(f"{server.page}#{channel}")
    expect(page.locator("#address-to")).to_have_text(server.page.removeprefix("http://").rstrip("/"))
    expect(page.locator("#address-from")).to_have_text(re.compile(r"127\.0\.0\.1:\d+"))

    typist.request(f"PUB {channel} 21.5")
    typist.receive()
    expect(row(page, 1)).to_contain_text("ann")
    expect(row(page, 1).locator(".payload")).to_have_text("21.5")
    page.click("#snippets-link")
    expect(page.locator("#channel-title")).to_have_text(channel)
    expect(page.locator("#snippet-kinds")).to_contain_text("Python")
    page.go_back()
    expect(row(page, 1)).to_contain_text("ann")
    typist.request(f'PUB {channel} <img src=x onerror="alert(1)"> & {{}}')
    typist.receive()
    expect(row(page, 2).locator(".payload")).to_have_text('<img src=x onerror="alert(1)"> & {}')

    publish(page, "lights on")
    assert re.fullmatch(rf"MSG {channel} 3 \w+ lights on", typist.receive())
    page.check("#format-json", force=True)
    publish(page, '{"celsius": 21.5}')
    assert re.fullmatch(rf'MSG {channel} 4 \w+ {{"celsius": 21.5}}', typist.receive())
    page.fill("#event-name", "alarm")
    publish(page, "too hot")
    assert re.fullmatch(rf"EVENT {channel} 5 \w+ alarm too hot", typist.receive())
    expect(row(page, 5)).to_contain_text("alarm")


def test_shows_members_and_their_names(server, line_client, open_page, channel):
    page = open_page().open(f"{server.page}#{channel}")
    members = page.locator(f'[data-members="{channel}"] li')
    expect(members).to_have_count(1)
    typist = line_client(server.lines[0])
    typist.request("NICK ann")
    typist.request(f"SUB {channel} presence=on")
    expect(members).to_have_count(2)
    expect(members.filter(has_text="ann")).to_have_count(1)

    page.fill("#nick", "bob")
    page.click("#nick-set")
    expect(members.filter(has_text="bob")).to_have_count(1)
    publish(page, "hello")
    assert typist.receive() == f"MSG {channel} 1 bob hello"
    # This server does not use tokens.
    expect(page.locator("#token-block")).to_be_hidden()
    expect(page.locator("#identity")).to_be_empty()

    typist.close()
    expect(members).to_have_count(1)
    other = open_page().open(f"{server.page}#{channel}")
    expect(members).to_have_count(2)
    other.context.close()
    expect(members).to_have_count(1)


def test_gives_joins_that_are_far_apart_a_time_of_their_own(server, line_client, open_page, channel):
    monitored = open_page()
    monitored.page.clock.install()
    page = monitored.open(f"{server.page}#{channel}")
    notes = page.locator('#events .note[data-kind="join"]')

    def join(nick):
        client = line_client(server.lines[0])
        client.request(f"NICK {nick}")
        client.request(f"SUB {channel}")

    join("ann")
    join("bob")
    expect(notes).to_contain_text([f"ann and bob joined {channel}"])
    page.clock.fast_forward(11_000)
    join("eve")
    expect(notes).to_contain_text([f"ann and bob joined {channel}", f"eve joined {channel}"])


def publish_in_turn(client, channels, numbers):
    """Publish numbers on the channels alternately, at different times."""
    for number in numbers:
        client.request(f"PUB {channels[number % len(channels)]} {number}")
        time.sleep(0.005)


def test_shows_the_history_of_several_channels_by_time_with_its_age(server, line_client, open_page, channel):
    typist = line_client(server.lines[0])
    publish_in_turn(typist, [channel, f"{channel}-b"], range(6))
    published = datetime.now()
    monitored = open_page()
    monitored.page.clock.install(time=published + timedelta(minutes=5, seconds=10))
    page = monitored.open(f"{server.page}#{channel},{channel}-b")
    expect(page.locator("#events .event .payload")).to_have_text([str(number) for number in range(6)])
    expect(page.locator("#events .since")).to_have_text(["5 min ago"] * 6)
    oldest = row(page, 1).first.locator("time")
    expect(oldest).to_have_attribute("title", re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}, from the history$"))
    expect(oldest.locator(".clock")).to_have_text(oldest.get_attribute("title")[11:19])
    page.clock.fast_forward(60_000)
    expect(page.locator("#events .since")).to_have_text(["6 min ago"] * 6)

    typist.request(f"PUB {channel} live")
    newest = row(page, 4).locator("time")
    expect(newest).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    received = datetime.fromisoformat(newest.get_attribute("datetime")).timestamp()
    assert 0 <= received - published.timestamp() < 60


@pytest.mark.parametrize("time", ["", '"time":1000000000000,'], ids=["missing", "set-back"])
def test_shows_a_live_event_at_the_end_whatever_its_time(server, line_client, open_page, channel, time):
    page = open_page()

    def relay(socket):
        rewrite = partial(re.sub, rf'(?<="channel":"{channel}-b","offset":1,)"time":\d+,', time)
        socket.connect_to_server().on_message(lambda text: socket.send(rewrite(text)))

    page.page.route_web_socket("**/ws", relay)
    page = page.open(f"{server.page}#{channel},{channel}-b")
    expect(page.get_by_text("only you")).to_have_count(2)
    typist = line_client(server.lines[0])
    publish_in_turn(typist, [channel, f"{channel}-b"], range(2))
    expect(page.locator("#events .event .payload")).to_have_text(["0", "1"])


def test_offers_no_commands_for_channels_with_special_characters(server, open_page):
    page = open_page().open(f"{server.page}#kitchen;reboot")
    expect(page.locator("#empty-note")).to_contain_text("has a special meaning in shells")
    expect(page.locator("#copy-lines")).to_be_hidden()


def test_adds_and_closes_channels(server, line_client, open_page, channel):
    page = open_page().open(f"{server.page}#{channel}")
    page.fill("#channel-add", f"{channel}-b")
    page.click("#channel-add-button")
    expect(page.locator("#channels > li")).to_have_count(2)
    typist = line_client(server.lines[0])
    typist.request(f"PUB {channel}-b received")
    expect(row(page, 1)).to_contain_text("received")
    page.fill("#channel-add", "two words")
    page.click("#channel-add-button")
    expect(page.locator("#channel-add-error")).not_to_be_empty()
    page.click(f'[data-channel="{channel}-b"] .remove')
    expect(page.locator("#channels > li")).to_have_count(1)
    typist.request(f"PUB {channel}-b not received")
    typist.request(f"PUB {channel} received again")
    expect(page.locator("#events .event").last).to_contain_text("received again")
    expect(page.locator("#events")).not_to_contain_text("not received")


def test_reconnects_after_a_server_restart_and_reports_the_gap(start, line_client, open_page):
    first = start()
    monitored = open_page()
    page = monitored.open(f"{first.page}#kitchen")
    line_client(first.lines[0]).request("PUB kitchen before")
    expect(row(page, 1)).to_contain_text("before")
    first.stop()
    expect(page.locator("#state")).not_to_have_attribute("data-state", "open")

    second = start.again(first)
    monitored.wait_until_connected()
    expect(page.locator("#events")).to_contain_text("earlier ones may no longer be valid")
    line_client(second.lines[0]).request("PUB kitchen after")
    expect(page.locator("#events .event").last).to_contain_text("after")
    monitored.forget_refused_connections()


def test_misses_nothing_when_a_server_with_a_state_directory_is_killed(start, line_client, open_page):
    first = start("--state", "state")
    monitored = open_page()
    page = monitored.open(f"{first.page}#kitchen")
    line_client(first.lines[0]).request("PUB kitchen before")
    expect(row(page, 1)).to_contain_text("before")
    first.kill()
    expect(page.locator("#state")).not_to_have_attribute("data-state", "open")

    second = start.again(first, "--state", "state")
    monitored.wait_until_connected()
    expect(page.locator("#events .note[data-kind='back']")).to_contain_text("Reconnected. No events were missed.")
    line_client(second.lines[0]).request("PUB kitchen after")
    expect(row(page, 2)).to_contain_text("after")
    monitored.forget_refused_connections()


def test_shows_missed_events_after_an_outage(server, line_client, open_page, channel, cutting_proxy):
    proxy = cutting_proxy(server.web_port)
    monitored = open_page()
    channels = [channel, f"{channel}-b"]
    page = monitored.open(f"{proxy.origin}/#{','.join(channels)}")
    typist = line_client(server.lines[0])
    publish_in_turn(typist, channels, range(2))
    expect(row(page, 1)).to_have_count(2)
    proxy.refuses = True
    proxy.cut()
    expect(page.locator("#state")).not_to_have_attribute("data-state", "open")
    publish_in_turn(typist, channels, range(2, 6))
    proxy.refuses = False
    monitored.wait_until_connected()
    publish_in_turn(typist, channels, range(6, 7))
    expect(page.locator("#events .event .payload")).to_have_text([str(number) for number in range(7)])
    caught_up = f"Caught up: 2 missed events on {channel} and 2 missed events on {channel}-b."
    expect(page.locator('#events .note[data-kind="back"]')).to_contain_text([caught_up])
    monitored.errors.clear()


@pytest.mark.parametrize("address", ["#", "console#/channels/"])
def test_shows_a_reset_of_a_channel(failover_server, line_client, open_page, address):
    page = open_page().open(f"{failover_server.page}{address}kitchen")
    typist = line_client(failover_server.lines[0])
    publish_in_turn(typist, ["kitchen"], range(3))
    expect(row(page, 3)).to_be_visible()
    typist.request("PUB failover now")
    note = page.locator('#events .note[data-kind="reset"]')
    text = "The server has reset kitchen: event 3 is no longer valid. Offsets begin again at 1."
    expect(note).to_contain_text(text)
    expect(page.locator("#announcer")).to_have_text(text)
    typist.request("PUB kitchen again")
    following = page.locator('.note[data-kind="reset"] + .event')
    expect(following).to_contain_text("again")
    expect(following.locator(".since")).to_have_count(0)  # not of the history


@pytest.mark.parametrize("address", ["#", "console#/channels/"])
def test_starts_anew_if_events_became_void_during_an_outage(
    failover_server, line_client, open_page, cutting_proxy, address
):
    proxy = cutting_proxy(failover_server.web_port)
    monitored = open_page()
    page = monitored.open(f"{proxy.origin}/{address}kitchen")
    typist = line_client(failover_server.lines[0])

    def fail_over_during_an_outage():
        proxy.refuses = True
        proxy.cut()
        expect(page.locator("#state")).not_to_have_attribute("data-state", "open")
        typist.request("PUB failover now")
        proxy.refuses = False
        monitored.wait_until_connected()

    publish(page, "own")
    publish_in_turn(typist, ["kitchen"], range(2))
    expect(row(page, 3)).to_be_visible()
    fail_over_during_an_outage()
    note = page.locator('.note[data-kind="lost"]')
    expect(note).to_contain_text("events after 3 may be missing, and earlier ones may no longer be valid.")
    typist.request("PUB kitchen of the new epoch")
    following = page.locator('.note[data-kind="lost"] + .event')
    expect(following).to_contain_text("of the new epoch")
    expect(following).not_to_have_attribute("data-own", "")
    fail_over_during_an_outage()
    expect(note.last).to_contain_text("events after 1 may be missing")
    typist.request("PUB failover again")
    expect(page.locator("#events .note").last).to_contain_text("no events were lost")
    monitored.errors.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_does_not_scroll_sideways_on_a_phone(server, line_client, open_page, channel, scheme):
    monitored = open_page(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True, color_scheme=scheme)
    page = monitored.open(f"{server.page}#{channel}")
    typist = line_client(server.lines[0])
    typist.request(f"PUB {channel} {'wide' * 200}")
    typist.request(f'PUB {channel} {{"deep": {{"wide": "{"x" * 500}"}}}}')
    expect(row(page, 2)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click("#panel-toggle")
    expect(page.locator("#channel-add")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_other_origins_can_import_the_client_but_not_connect(server, open_page, serve_folder, tmp_path):
    (tmp_path / "index.html").write_text("<!doctype html>")
    other_origin = serve_folder(tmp_path).replace("127.0.0.1", "localhost")
    monitored = open_page()
    monitored.page.goto(other_origin)
    client = f"import('{server.page}sockbridge.js')"
    assert monitored.page.evaluate(f"{client}.then((module) => typeof module.connect)") == "function"
    outcome = monitored.page.evaluate(
        f"""new Promise((resolve) => {{
            const socket = new WebSocket('{server.page.replace("http", "ws")}ws');
            socket.onopen = () => resolve('open');
            socket.onclose = () => resolve('refused');
        }})"""
    )
    assert outcome == "refused"
    assert f"refused a WebSocket of origin '{other_origin}'; --allow-origin would allow it" in server.log()
    assert len(monitored.errors) == 1
    assert "403" in monitored.errors.pop()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, issuer):
    """A server with anonymous access to lobbies and read access to news."""
    policy = issuer.access('anonymous = { "lobby.*" = "rw", "news" = "r" }', "leeway = 0", 'cookie = "session"')
    with guarded_server(tmp_path_factory.mktemp("guarded"), issuer, policy) as server:
        yield server


@pytest.fixture
def authenticated(line_client, guarded, issuer):
    """Connects line clients that authenticate with a token for a channel."""

    def connect(name, channel):
        peer = line_client(guarded.lines[0])
        assert peer.request(f"AUTH {issuer.token(name, {channel: 'rw'})}").startswith(f"OK {name} ")
        return peer

    return connect


def sign_in(page, token):
    page.fill("#token", token)
    page.click("#token-submit")


def expect_locked(page, channel, text):
    item = page.locator(f'#channels [data-channel="{channel}"]')
    expect(item).to_have_attribute("data-no-access", "")
    expect(item.locator(".access-error")).to_have_text(text)


def expect_readable(page, channel):
    expect(page.locator(f'#channels [data-channel="{channel}"]')).not_to_have_attribute("data-no-access", "")
    expect(page.locator(f'[data-members="{channel}"] li')).not_to_have_count(0)


def test_token_grants_access_and_stays_in_its_tab(guarded, open_page, issuer, authenticated, channel):
    monitored = open_page()
    page = monitored.open(f"{guarded.page}#{channel}")
    expect_locked(page, channel, "Token required.")
    expect(page.locator("#empty-title")).to_have_text(f"A token is required to read {channel}")
    expect(page.locator("#token-help")).to_contain_text("sockbridge token")
    publish(page, "hello")
    expect(page.locator("#message-error")).to_have_text(f"A token is required to publish on {channel}.")
    page.click("#empty-token-button")
    field = page.locator("#token")
    expect(field).to_be_focused()
    assert field.get_attribute("autocomplete") == "off"
    assert field.evaluate("field => getComputedStyle(field).webkitTextSecurity") == "disc"

    error = page.locator("#token-error")
    sign_in(page, "not a token")
    expect(error).to_contain_text("look like a token")
    sign_in(page, issuer.token(channels={channel: "rw"}, seconds=-1))
    expect(error).to_have_text(re.compile(r"^Token rejected: .*expired.*\.$"))
    token = issuer.token("ann", {channel: "rw"})
    # As copied from a terminal.
    sign_in(page, f" AUTH {token}")
    expect_readable(page, channel)
    expect(page.locator("#token-form")).to_be_hidden()
    expect(page.locator("#token-state")).to_have_text("Accepted. Expires in 59 minutes.")
    expect(page.locator("#identity")).to_have_text("Verified as ann.")
    expect(page.locator("#message-error")).to_be_empty()
    expect(page.locator("#empty-state [data-terminal]")).to_contain_text("AUTH your-token")
    peer = authenticated("bob", channel)
    peer.request(f"SUB {channel}")
    publish(page, "hello")
    assert peer.receive() == f"MSG {channel} 1 ann hello"

    # Signed in after a reload. The token is not in permanent storage, the URL or the document.
    page.reload()
    monitored.wait_until_connected()
    expect_readable(page, channel)
    expect(row(page, 1)).to_contain_text("ann")
    expect(page.locator("#identity")).to_have_text("Verified as ann.")
    assert token in page.evaluate("JSON.stringify({...sessionStorage})")
    for seen in (page.url, page.content(), page.evaluate("JSON.stringify({...localStorage})")):
        issuer.assert_absent_from(seen)
    expect(field).to_have_value("")

    page.click("#token-sign-out")
    expect_locked(page, channel, "Token required.")
    expect(page.locator("#events .event")).to_have_count(0)
    assert token not in page.evaluate("JSON.stringify({...sessionStorage})")


def test_explains_missing_rights(guarded, open_page, issuer, line_client, channel):
    page = open_page().open(f"{guarded.page}#lobby.{channel}")
    expect_readable(page, f"lobby.{channel}")
    expect(page.locator("#token-block")).to_be_hidden()
    page.fill("#nick", "bob")
    page.click("#nick-set")
    expect(page.locator("#identity")).to_have_text("Other people see you as ~bob. ~ marks an unverified name.")
    assert "unverified" in page.locator("#identity").get_attribute("title")
    member = page.locator(f'[data-members="lobby.{channel}"] li')
    expect(member).to_have_text("~bob (you)")
    assert "unverified" in member.get_attribute("title")
    publish(page, "hello")
    assert "unverified" in row(page, 1).locator(".from").get_attribute("title")

    sign_in(page, issuer.token("ann", {"inbox": "w"}))
    expect(page.locator("#identity")).to_have_text("Verified as ann.")
    expect(member).to_have_text("ann (you)")
    page.fill("#nick", "carl")
    page.click("#nick-set")
    expect(page.locator("#identity")).to_contain_text("~carl")
    for name in ("inbox", "news"):
        page.fill("#channel-add", name)
        page.click("#channel-add-button")
    expect(page.locator("#channel-add-error")).to_be_empty()
    expect_locked(page, "inbox", "No permission to read.")
    expect_readable(page, "news")
    publish(page, "extra")
    expect(page.locator("#message-error")).to_have_text("As ann, you can’t publish on news.")
    page.select_option("#channel-select", "inbox")
    expect(page.locator("#empty-title")).to_have_text("As ann, you can’t read inbox")
    publish(page, "for you")
    expect(page.locator("#message-error")).to_be_empty()
    reader = line_client(guarded.lines[0])
    reader.request(f"AUTH {issuer.token('reader', {'inbox': 'r'})}")
    assert reader.request("HIST inbox") == "MSG inbox 1 ~carl for you"
    page.click("#ask")
    page.fill("#request-message", "are you there?")
    page.fill("#request-reply", "inbox")
    page.keyboard.press("Enter")
    expect(page.locator("#request-error")).to_have_text("You can’t read inbox.")


def test_does_not_ask_for_a_token_if_a_cookie_contains_one(guarded, open_page, issuer, channel):
    monitored = open_page()
    token = issuer.token("ann", {channel: "r"})
    monitored.page.context.add_cookies([{"name": "session", "value": token, "url": guarded.page, "httpOnly": True}])
    page = monitored.open(f"{guarded.page}#{channel}")
    expect_readable(page, channel)
    expect(page.locator("#identity")).to_have_text("Verified as ann.")
    expect(page.locator("#token-block")).to_be_hidden()
    publish(page, "hello")
    expect(page.locator("#message-error")).to_have_text(f"As ann, you can’t publish on {channel}.")


def test_removes_a_token_from_the_url_and_waits_for_the_user_to_sign_in(guarded, open_page, issuer, channel):
    token = issuer.token("ann", {channel: "rw"})
    page = open_page().open(f"{guarded.page}#{channel},token={token}")
    assert page.url == f"{guarded.page}#{channel}"
    expect(page.locator("#token-state")).to_contain_text("Sign in with it only if you trust the link")
    expect_locked(page, channel, "Token required.")
    expect(page.locator("#token")).to_have_value(token)
    page.evaluate(f"location.hash = '#{channel},token={token}'")
    expect(page).to_have_url(f"{guarded.page}#{channel}")
    page.click("#token-submit")
    expect_readable(page, channel)
    expect(page.locator("#token")).to_have_value("")
    issuer.assert_absent_from(page.evaluate("JSON.stringify({...localStorage})"))


def test_continues_after_a_token_has_expired_and_catches_up_with_the_next_one(
    guarded, open_page, issuer, authenticated, channel
):
    page = open_page().open(f"{guarded.page}#{channel},lobby.{channel}")
    expect_readable(page, f"lobby.{channel}")
    sign_in(page, issuer.token("ann", {channel: "rw"}, seconds=3))
    expect_readable(page, channel)
    peer = authenticated("bob", channel)
    assert peer.request(f"PUB {channel} 1") == "OK 1"
    expect(row(page, 1)).to_be_visible()
    expect(page.locator("#token-error")).to_have_text("Your token has expired. Enter another one.", timeout=20_000)
    expect_locked(page, channel, "Token required.")
    expect_readable(page, f"lobby.{channel}")
    expect(page.locator("#outage")).to_be_hidden()
    assert "token" not in page.evaluate("JSON.stringify({...sessionStorage})")
    assert peer.request(f"PUB {channel} 2") == "OK 2"
    sign_in(page, issuer.token("ann", {channel: "rw"}))
    expect_readable(page, channel)
    expect(page.locator("#events .event .payload")).to_have_text(["1", "2"])
    expect(page.locator("#events")).to_contain_text(f"Caught up: 1 missed event on {channel}.")


def test_notes_the_events_missed_before_each_token(guarded, open_page, issuer, authenticated, channel):
    page = open_page().open(f"{guarded.page}#{channel}")
    sign_in(page, issuer.token("ann", {channel: "rw"}))
    expect_readable(page, channel)
    peer = authenticated("bob", channel)
    for offset in (1, 2):
        page.click("#token-change")
        sign_in(page, issuer.token("ann", {"attic": "rw"}))
        expect_locked(page, channel, "No permission to read.")
        assert peer.request(f"PUB {channel} {offset}") == f"OK {offset}"
        page.click("#token-change")
        sign_in(page, issuer.token("ann", {channel: "rw"}))
        expect_readable(page, channel)
        expect(page.locator(f'.note[data-kind="back"] + .event[data-offset="{offset}"]')).to_be_visible()


def test_asks_for_another_token_before_one_expires(guarded, open_page, issuer, channel):
    page = open_page().open(f"{guarded.page}#{channel}")
    sign_in(page, issuer.token("ann", {channel: "rw"}, seconds=62))
    expect_readable(page, channel)
    expect(page.locator("#token-form")).to_be_hidden()
    expect(page.locator("#events")).to_contain_text("Your token expires in a minute. Enter another one")
    expect(page.locator("#token-form")).to_be_visible()
    sign_in(page, issuer.token("ann", {channel: "rw"}))
    expect(page.locator("#token-state")).to_contain_text("59 minutes")
    expect(page.locator("#events .note")).to_have_count(1)


def test_drops_a_token_that_a_restarted_server_rejects(start, open_page, issuer, tmp_path, channel):
    policy = issuer.access('anonymous = { "lobby" = "rw" }')
    (tmp_path / "bridge.toml").write_text(policy + issuer.make_key("restarted"))
    first = start("--config", "bridge.toml", tcp=("none",))
    monitored = open_page()
    page = monitored.open(f"{first.page}#lobby,{channel}")
    sign_in(page, issuer.token("ann", {channel: "r"}, key="restarted"))
    expect_readable(page, channel)
    first.stop()
    (tmp_path / "bridge.toml").write_text(policy + issuer.make_key("restarted"))
    start.again(first, "--config", "bridge.toml")
    expect(page.locator("#token-error")).to_have_text("Token rejected: Wrong signature.", timeout=60_000)
    monitored.wait_until_connected()
    expect_readable(page, "lobby")
    expect_locked(page, channel, "Token required.")
    monitored.forget_refused_connections()


def test_forgets_a_token_that_a_restarted_server_does_not_need(start, open_page, issuer, tmp_path, channel):
    (tmp_path / "bridge.toml").write_text(issuer.access() + issuer.make_key("unneeded"))
    first = start("--config", "bridge.toml", tcp=("none",))
    monitored = open_page()
    page = monitored.open(f"{first.page}#{channel}")
    sign_in(page, issuer.token("ann", {channel: "rw"}, key="unneeded"))
    expect(page.locator("#identity")).to_have_text("Verified as ann.")
    first.stop()
    start.again(first)
    expect(page.locator("#token-error")).to_contain_text("Token rejected:", timeout=60_000)
    monitored.wait_until_connected()
    publish(page, "hello")
    expect(row(page, 1)).to_contain_text("ann")
    expect(page.locator("#token-help")).to_be_hidden()
    expect(page.locator("#identity")).to_be_empty()
    monitored.forget_refused_connections()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_signs_in_on_a_phone_without_scrolling_sideways(guarded, open_page, issuer, channel, scheme):
    monitored = open_page(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True, color_scheme=scheme)
    page = monitored.open(f"{guarded.page}#{channel}")
    expect(page.locator("#panel-summary")).to_have_text("1 channel, 1 locked")
    page.click("#empty-token-button")
    expect(page.locator("#token")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    sign_in(page, issuer.token("a" * 200, {channel: "rw"}))
    expect_readable(page, channel)
    expect(page.locator("#token-actions")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
