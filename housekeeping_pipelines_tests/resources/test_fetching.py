"""The fetcher against servers and resolvers that want more of it than they may have."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import requests

from housekeeping_pipelines.errors import ConfigurationError, HousekeepingError
from housekeeping_pipelines.resources.fetching import (
    Fetcher,
    FetchError,
    FetchFailed,
    FetchPolicy,
    FetchRefused,
    Response,
    retry_after,
)
from housekeeping_pipelines.resources.fetching.addresses import is_public
from housekeeping_pipelines_tests.web_server import Answer, Asked, Raw, WebServer

Ask = Callable[..., Any]


class Names:
    """A resolver of made-up names, which hands on what it does not know only if it is an address already."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("__", "-").replace("_", "."): list(found) for name, found in names.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **options: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if (found := self.names.get(host.rstrip("."))) is None:
            try:
                # What inet_aton takes for an address is one to the resolver too.
                return socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST, **options)
            except socket.gaierror:
                if host.rstrip(".").lower() in ("localhost", "ip6-localhost"):
                    return _entries(["127.0.0.1", "::1"], port)
                raise
        return _entries(found, port)


def _entries(addresses: list[str], port: int) -> list[tuple[Any, ...]]:
    return [
        (
            socket.AF_INET6 if ":" in address else socket.AF_INET,
            socket.SOCK_STREAM,
            6,
            "",
            (address, port, 0, 0) if ":" in address else (address, port),
        )
        for address in addresses
    ]


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def make() -> Iterator[Callable[..., Fetcher]]:
    made: list[Fetcher] = []

    def maker(*allowed: str, resolve: Any = None, **policy: Any) -> Fetcher:
        policy = {"timeout_seconds": 5.0, "connect_timeout_seconds": 2.0, **policy}
        made.append(Fetcher(FetchPolicy(frozenset(allowed), **policy), resolve=resolve or Names()))
        return made[-1]

    yield maker
    for fetcher in made:
        fetcher.close()


def by_fetcher(fetcher: Fetcher, url: str, **options: Any) -> Response:
    return fetcher.get(url, **options)


def by_session(fetcher: Fetcher, url: str, **options: Any) -> requests.Response:
    return fetcher.session().get(url, **options)


BOTH = pytest.mark.parametrize("ask", [by_fetcher, by_session])

# Where {port} is, the server of the test listens; nothing of these may reach it.
TRICKS = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.1:{port}/",
    "http://0x7F.0x0.0x0.0x1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.0.0.2:{port}/",
    "http://127.255.255.254:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0x0:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://loc%61lhost:{port}/",
    "http://１２７.０.０.１:{port}/",
    "http://127。0。0。1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[fe80::1%25eth0]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2002:c0a8:101::1]/",
    "http://[2001:0:7f00:1::1]/",
    "http://[fd00::1]/",
    "http://[fc00::1]/",
    "http://[fec0::1]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[100::1]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://10.0.0.1/",
    "http://10.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://198.18.0.1/",
    "http://192.0.2.1/",
    "http://203.0.113.5/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://user@127.0.0.1:{port}/",
    "http://public.example@127.0.0.1:{port}/",
    "http://public.example:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@public.example/",
    "http://public.example\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@public.example/",
    "http://127.0.0.1:{port}?@public.example/",
    "http://127.0.0.1%00.public.example:{port}/",
    "http://127.0.0.1%2f.public.example:{port}/",
    "http://127.0.0.1:{port}:80/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1 .public.example:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1\r\nHost: public.example:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "http://",
    "https://:443/",
    "",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "ftp://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET",
    "dict://127.0.0.1:{port}/",
    "unix:///var/run/docker.sock",
    "data:text/plain,hello",
    "jar:http://127.0.0.1:{port}/!/",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "javascript:alert(1)",
    "https://127.0.0.1:{port}/",
    # What names resolve to.
    "http://inside.example:{port}/",
    "http://INSIDE.example:{port}/",
    "http://inside.example.:{port}/",
    "http://inside6.example:{port}/",
    "http://mapped.example:{port}/",
    "http://mixed.example:{port}/",
    "http://mixed6.example:{port}/",
    "http://metadata.example/",
    "http://lan.example/",
]
NAMES: dict[str, list[str]] = {
    "inside_example": ["127.0.0.1"],
    "inside6_example": ["::1"],
    "mapped_example": ["::ffff:127.0.0.1"],
    "mixed_example": ["93.184.215.14", "127.0.0.1"],
    "mixed6_example": ["93.184.215.14", "fe80::1%eth0"],
    "metadata_example": ["169.254.169.254"],
    "lan_example": ["192.168.0.10"],
}


@pytest.fixture(scope="module")
def strict() -> Iterator[Fetcher]:
    """One that may not connect to anything of a test, and resolves no name that is public."""
    fetcher = Fetcher(FetchPolicy(timeout_seconds=2.0), resolve=Names(**NAMES))
    yield fetcher
    fetcher.close()


@pytest.fixture(scope="module")
def led() -> Iterator[tuple[Fetcher, WebServer]]:
    """One that may connect to a server of the module by one name, and the server."""
    with WebServer() as server:
        names = Names(**NAMES, start_example=["127.0.0.1"])
        policy = FetchPolicy(frozenset({f"start.example:{server.port}"}), timeout_seconds=2.0)
        fetcher = Fetcher(policy, resolve=names)
        yield fetcher, server
        fetcher.close()


@BOTH
@pytest.mark.parametrize("trick", TRICKS)
def test_what_is_not_public_is_refused(ask: Ask, trick: str, web: WebServer, strict: Fetcher) -> None:
    """Every trick ends with a refusal in one line, within no time, and without a connection."""
    started = time.monotonic()
    # Some of them are no address to requests, which says so before the guard is asked.
    with pytest.raises((FetchError, requests.exceptions.InvalidURL, requests.exceptions.MissingSchema)) as error:
        ask(strict, trick.format(port=web.port))
    assert time.monotonic() - started < 1.5
    assert not web.requests
    if isinstance(error.value, FetchFailed):
        # Only what has no address at all; requests reads a few of these names otherwise.
        assert "looked up" in error.value.message
    if isinstance(error.value, HousekeepingError):
        assert "\n" not in error.value.one_line


@BOTH
@pytest.mark.parametrize("trick", TRICKS)
def test_what_is_not_public_is_refused_as_a_redirect_too(ask: Ask, trick: str, led: tuple[Fetcher, WebServer]) -> None:
    """A server that may be asked leads nowhere that may not be."""
    if any(sign in trick for sign in "\r\n"):
        pytest.skip("no header can hold it")
    fetcher, web = led
    location = trick.format(port=web.port).encode().decode("latin-1")
    web.routes["/start"] = Answer.to(location)
    try:
        answer = ask(fetcher, f"http://start.example:{web.port}/start")
    except (FetchError, requests.exceptions.RequestException):
        pass
    else:
        # What has no scheme leads back to the server that may be asked.
        assert "start.example" in answer.url
    for asked in web.requests:
        assert asked.headers["Host"] == f"start.example:{web.port}"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("1.1.1.1", True),
        ("93.184.215.14", True),
        ("2606:4700:4700::1111", True),
        ("2a00:1450:4001:82a::200e", True),
        ("64:ff9b::808:808", True),
        ("2002:808:808::1", True),
        ("::ffff:8.8.8.8", True),
        ("192.88.99.1", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("::8.8.8.8", False),
        ("2001::1", False),
        ("100.127.255.255", False),
        ("172.32.0.1", True),
    ],
)
def test_what_is_public(address: str, expected: bool) -> None:
    assert is_public(ip_address(address)) is expected


@pytest.mark.parametrize(
    ("allowed", "host", "works"),
    [
        ("inside.example", "inside.example", True),
        ("Inside.Example.", "inside.example", True),
        ("inside.example", "other.inside.example", False),
        ("*.example", "inside.example", True),
        ("*.inside.example", "inside.example", False),
        ("*.ample", "inside.example", False),
        ("inside.example:{port}", "inside.example", True),
        ("inside.example:1", "inside.example", False),
        ("127.0.0.1", "inside.example", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "2130706433", True),
        ("127.0.0.1", "[::ffff:127.0.0.1]", True),
        ("127.0.0.1:{port}", "inside.example", True),
        ("127.0.0.1:1", "inside.example", False),
        ("127.0.0.0/8", "inside.example", True),
        ("10.0.0.0/8", "inside.example", False),
        ("0.0.0.0/0", "inside.example", True),
        ("bücher.example", "xn--bcher-kva.example", True),
    ],
)
def test_what_is_allowed(allowed: str, host: str, works: bool, web: WebServer, make: Any) -> None:
    """By name, by the end of a name, by address and by network, each with or without a port."""
    web.routes["/"] = Answer(b"inside")
    names = Names(**NAMES)
    names.names |= {"other.inside.example": ["127.0.0.1"], "xn--bcher-kva.example": ["127.0.0.1"]}
    fetcher = make(allowed.format(port=web.port), resolve=names)
    url = f"http://{host}:{web.port}/"
    if works:
        assert fetcher.get(url).body == b"inside"
    else:
        with pytest.raises(FetchRefused, match="FETCH_ALLOWED_HOSTS") as error:
            raise FetchRefused(_refusal(fetcher, url))
        assert "127.0.0.1" in str(error.value)


def _refusal(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(FetchRefused) as error:
        fetcher.get(url)
    return error.value.one_line


@pytest.mark.parametrize("allowed", ["metadata.example", "*.example", "metadata.example:80"])
def test_a_name_is_no_permission_to_ask_for_credentials_of_the_cloud(allowed: str, make: Any) -> None:
    fetcher = make(allowed, resolve=Names(**NAMES))
    assert "169.254.169.254" in _refusal(fetcher, "http://metadata.example/latest/meta-data/")


@pytest.mark.parametrize("allowed", ["a b", "http:", "example.com:0", "example.com:http", "10.0.0.0/99", "*", "[::1"])
def test_an_allowance_that_is_none_is_an_error(allowed: str) -> None:
    with pytest.raises(ConfigurationError, match="FETCH_ALLOWED_HOSTS"):
        Fetcher(FetchPolicy(frozenset({allowed})))


@BOTH
def test_a_name_that_changes_is_looked_up_once_and_connected_to_as_it_was(ask: Ask, web: WebServer, make: Any) -> None:
    """DNS rebinding: the first answer is allowed, the next one is not, and nobody asks for it."""
    answers = iter([["127.0.0.1"], ["10.9.9.9"], ["10.9.9.9"]])
    asked: list[str] = []

    def rebinding(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        asked.append(host)
        return _entries(next(answers), port)

    web.routes["/"] = Answer(b"once")
    fetcher = make("127.0.0.1", resolve=rebinding)
    ask(fetcher, f"http://rebind.example:{web.port}/")
    assert asked == ["rebind.example"]
    # A connection that is still open is used again.
    ask(fetcher, f"http://rebind.example:{web.port}/")
    assert asked == ["rebind.example"]
    fetcher.close()
    with pytest.raises(FetchRefused, match=r"10\.9\.9\.9"):
        ask(fetcher, f"http://rebind.example:{web.port}/")
    assert [request.headers["Host"] for request in web.requests] == [f"rebind.example:{web.port}"] * 2


def test_a_name_that_turns_inside_after_it_was_public_is_refused_when_it_is_connected(
    web: WebServer, make: Any
) -> None:
    """What was checked is what is connected to: here the check sees the second answer, as there is no other."""
    fetcher = make(resolve=Names(rebind_example=["127.0.0.1"]))
    with pytest.raises(FetchRefused):
        fetcher.get(f"http://rebind.example:{web.port}/")
    assert not web.requests


@BOTH
def test_a_certificate_is_of_the_name_and_not_of_the_address(
    ask: Ask, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checked address is connected to, and the name is what is asked for and proven."""
    pytest.importorskip("cryptography")
    certificate = _certificate(tmp_path, "secure.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    asked_for: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked_for.append(name)
    with WebServer(context) as web:
        web.routes["/"] = Answer(b"secure")
        fetcher = make("127.0.0.1", resolve=Names(secure_example=["127.0.0.1"], other_example=["127.0.0.1"]))
        ask(fetcher, f"https://secure.example:{web.port}/")
        assert web.requests[0].headers["Host"] == f"secure.example:{web.port}"
        assert asked_for == ["secure.example"]
        with pytest.raises(FetchFailed, match="certificate verify failed"):
            ask(fetcher, f"https://other.example:{web.port}/", **({"verify": False} if ask is by_session else {}))


def _certificate(folder: Path, name: str) -> Path:
    """A certificate that vouches for itself, with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(private + builder.sign(key, hashes.SHA256()).public_bytes(pem))
    return path


def test_the_environment_has_no_say(web: WebServer, make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A proxy would resolve names itself, and .netrc would send passwords."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{web.port}")
    fetcher = make(resolve=Names(**NAMES))
    for ask in (by_fetcher, by_session):
        with pytest.raises(FetchRefused):
            ask(fetcher, "http://lan.example/")
    assert not web.requests
    web.routes["/"] = Answer(b"x")
    by_session(make("127.0.0.1"), web.url + "/")
    assert web.requests[0].headers["Authorization"] is None


def test_a_library_that_mounts_an_adapter_of_its_own_stays_guarded(web: WebServer, make: Any) -> None:
    session = make().session()
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=3))
    with pytest.raises(FetchRefused):
        session.get(web.url)
    assert not web.requests


def test_what_the_session_raises_is_an_error_of_requests_too(web: WebServer, make: Any) -> None:
    with pytest.raises(requests.exceptions.ConnectionError) as error:
        make().session().get(web.url)
    assert isinstance(error.value, FetchRefused)
    assert "FETCH_ALLOWED_HOSTS" in error.value.one_line


def test_the_session_is_a_session(web: WebServer, make: Any) -> None:
    """Cookies, JSON, streaming, redirects and compression, as a client library knows them."""

    def echo(asked: Asked) -> Answer:
        return Answer.json({"sent": asked.json(), "cookie": asked.headers["Cookie"], "query": asked.query})

    web.routes |= {
        "/set": Answer(b"", 302, {"Location": "/echo-not", "Set-Cookie": "a=b; Path=/"}),
        "/echo-not": Answer(b"landed"),
        "/echo": echo,
        "/zip": Answer(_gzip(b"packed"), 200, {"Content-Encoding": "gzip", "Content-Type": "text/plain"}),
    }
    session = make("127.0.0.1").session()
    landed = session.get(web.url + "/set")
    assert landed.text == "landed"
    assert landed.url == web.url + "/echo-not"
    assert [answer.status_code for answer in landed.history] == [302]
    answer = session.post(web.url + "/echo", json={"é": 1}, params={"q": "a b"}, timeout=(1, 2))
    assert answer.json() == {"sent": {"é": 1}, "cookie": "a=b", "query": {"q": "a b"}}
    assert answer.ok
    assert answer.reason == "OK"
    packed = session.get(web.url + "/zip", stream=True)
    assert b"".join(packed.iter_content(2)) == b"packed"
    assert packed.transferred == len(_gzip(b"packed"))
    assert "Content-Encoding" not in packed.headers
    with pytest.raises(requests.HTTPError, match="404"):
        session.get(web.url + "/none").raise_for_status()


@BOTH
def test_too_many_redirects(ask: Ask, web: WebServer, make: Any) -> None:
    web.routes["/loop"] = Answer.to("/loop")
    with pytest.raises((FetchRefused, requests.exceptions.TooManyRedirects)):
        ask(make("127.0.0.1", max_redirects=3), web.url + "/loop")
    assert len(web.requests) == 4


def test_redirects_are_followed_with_cookies_and_where_they_lead_is_told(web: WebServer, make: Any) -> None:
    web.routes |= {
        "/a": Answer(b"", 301, {"Location": "b?x=1#part", "Set-Cookie": "seen=1; Path=/"}),
        "/b": lambda asked: Answer(asked.headers["Cookie"] or "none", 200, {"X-Seen": "yes"}),
    }
    answer = make("127.0.0.1").get(web.url + "/a#top")
    assert (answer.status, answer.body, answer.url) == (200, b"seen=1", web.url + "/b?x=1")
    assert answer.headers["x-SEEN"] == "yes"
    # The next fetch is another visitor.
    assert make("127.0.0.1").get(web.url + "/b").body == b"none"


def test_what_is_no_get_is_not_sent_elsewhere(web: WebServer, make: Any) -> None:
    web.routes["/form"] = Answer.to("/other", 307)
    assert make("127.0.0.1").request("POST", web.url + "/form", json={"a": 1}).status == 307
    assert web.paths() == ["/form"]


@BOTH
def test_secrets_stay_with_their_origin(ask: Ask, make: Any) -> None:
    """Another host, another port: neither sees what was meant for the first."""
    sent = {
        "Authorization": "Bearer secret",
        "Cookie": "session=secret",
        "PRIVATE-TOKEN": "secret",
        "X-Api-Key": "secret",
        "Accept": "text/plain",
    }
    with WebServer() as first, WebServer() as second:
        names = Names(one_example=["127.0.0.1"], two_example=["127.0.0.1"])
        first.routes |= {
            "/same": Answer.to("/here"),
            "/here": Answer(b"same"),
            "/port": Answer.to(f"http://one.example:{second.port}/there"),
            "/host": Answer.to(f"http://two.example:{first.port}/here"),
        }
        second.routes["/there"] = Answer(b"there")
        fetcher = make("127.0.0.1", resolve=names)
        for path in ("/same", "/port", "/host"):
            ask(fetcher, f"http://one.example:{first.port}{path}", headers=sent)
        same, at_port, at_host = first.requests[1], second.requests[0], first.requests[-1]
        assert same.headers["Authorization"] == "Bearer secret"
        for leaked in (at_port, at_host):
            assert "secret" not in str(leaked.headers.items())
            assert leaked.headers["Accept"] == "text/plain"


def test_who_asks_is_told(web: WebServer, make: Any) -> None:
    make("127.0.0.1").get(web.url)
    assert web.requests[0].headers["User-Agent"].startswith("housekeeping-pipelines/")
    assert web.requests[0].headers["Accept-Encoding"] == "gzip, deflate"


def _gzip(data: bytes) -> bytes:
    """The same bytes at any time: a test is named after them."""
    return gzip.compress(data, mtime=0)


def _zeros(compress: Callable[[bytes], bytes]) -> bytes:
    return compress(bytes(64 * 2**20))


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@BOTH
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", _zeros(_gzip)),
        ("gzip", b"".join([_gzip(bytes(2**20))] * 64)),
        ("deflate", _zeros(zlib.compress)),
        ("deflate", _zeros(_raw_deflate)),
    ],
    ids=["gzip", "many gzips", "deflate", "raw deflate"],
)
def test_a_bomb_is_not_unpacked(ask: Ask, encoding: str, packed: bytes, web: WebServer, make: Any) -> None:
    import tracemalloc

    web.routes["/bomb"] = Answer(packed, 200, {"Content-Encoding": encoding})
    fetcher = make("127.0.0.1", max_bytes=2**20)
    tracemalloc.start()
    try:
        with pytest.raises(FetchFailed, match="larger than 1 MiB"):
            ask(fetcher, web.url + "/bomb")
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", _gzip(b"text")),
        ("GZip", _gzip(b"te") + _gzip(b"xt")),
        ("gzip", _gzip(b"text") + bytes(100)),
        ("x-gzip", _gzip(b"text")),
        ("deflate", zlib.compress(b"text")),
        ("deflate", _raw_deflate(b"text")),
        ("identity", b"text"),
        ("", b"text"),
    ],
)
def test_what_is_compressed_is_unpacked(encoding: str, packed: bytes, web: WebServer, make: Any) -> None:
    web.routes["/"] = Answer(packed, 200, {"Content-Encoding": encoding} if encoding else {})
    answer = make("127.0.0.1").get(web.url)
    assert (answer.body, answer.transferred) == (b"text", len(packed))


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", b"this is not compressed"),
        ("gzip", _gzip(b"text" * 1000)[:-20]),
        ("deflate", b"\xff\xff\xff\xff"),
        ("br", b"\x0b\x02\x80text\x03"),
        ("gzip, gzip", _gzip(_gzip(b"text"))),
        ("zstd", b"text"),
    ],
)
def test_what_is_compressed_wrongly_is_a_failure(encoding: str, packed: bytes, web: WebServer, make: Any) -> None:
    web.routes["/"] = Answer(packed, 200, {"Content-Encoding": encoding})
    with pytest.raises(FetchFailed, match="compressed"):
        make("127.0.0.1").get(web.url)


def _forever(head: bytes, piece: bytes, pause: float = 0.0) -> Raw:
    def write(send: Callable[[bytes], None]) -> None:
        send(head)
        until = time.monotonic() + 4
        while time.monotonic() < until:
            send(piece)
            if pause:
                time.sleep(pause)

    return Raw(write)


@BOTH
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_body_without_end_is_cut(ask: Ask, head: bytes, web: WebServer, make: Any) -> None:
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n" if b"chunked" in head else b"x" * 65536
    web.routes["/"] = _forever(head, piece)
    with pytest.raises(FetchFailed, match="larger than"):
        ask(make("127.0.0.1", max_bytes=2**20), web.url + "/")


@BOTH
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b""),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: drip\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silence", "status", "headers", "a header", "body", "length", "chunks", "100s"],
)
def test_a_drip_ends_with_the_deadline(ask: Ask, head: bytes, piece: bytes, web: WebServer, make: Any) -> None:
    """However little comes however often."""
    web.routes["/"] = _forever(head, piece, 0.02)
    started = time.monotonic()
    with pytest.raises(FetchFailed):
        ask(make("127.0.0.1", timeout_seconds=0.3), web.url + "/")
    assert 0.25 < time.monotonic() - started < 0.9


@BOTH
def test_redirects_have_the_deadline_together(ask: Ask, web: WebServer, make: Any) -> None:
    def slow(asked: Asked) -> Answer:
        time.sleep(0.2)
        return Answer.to(f"/{int(asked.path[1:]) + 1}")

    web.routes |= {f"/{number}": slow for number in range(20)}
    started = time.monotonic()
    with pytest.raises(FetchFailed, match="within"):
        ask(make("127.0.0.1", timeout_seconds=0.5, max_redirects=20), web.url + "/0")
    assert time.monotonic() - started < 0.9
    assert len(web.requests) <= 3


def test_a_resolver_that_hangs_is_waited_for_no_longer_than_connecting_may_take(make: Any) -> None:
    free = threading.Event()

    def hanging(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        free.wait(5)
        return []

    fetcher = make(resolve=hanging, connect_timeout_seconds=0.2)
    started = time.monotonic()
    with pytest.raises(FetchFailed, match="could not be looked up within 0"):
        fetcher.get("http://slow.example/")
    assert time.monotonic() - started < 0.6
    free.set()


def test_a_name_that_is_not_known(make: Any) -> None:
    def unknown(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(FetchFailed, match=r"the name nowhere\.example cannot be looked up: Name or service not known"):
        make(resolve=unknown).get("http://nowhere.example/?token=secret")
    with pytest.raises(FetchFailed, match="it has no address"):
        make(resolve=lambda *_, **__: []).get("http://nowhere.example/")


def test_nobody_listens(make: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/path?token=secret"
        with pytest.raises(FetchFailed, match="connection refused") as error:
            make("127.0.0.1").get(url)
    assert "secret" not in error.value.one_line


def test_the_next_address_is_tried(web: WebServer, make: Any) -> None:
    web.routes["/"] = Answer(b"second")
    fetcher = make("127.0.0.0/8", "::1", resolve=Names(two_example=["::1", "127.0.0.1"]))
    assert fetcher.get(f"http://two.example:{web.port}/").body == b"second"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 999999 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000,
        b"",
    ],
    ids=["ssh", "status", "short", "chunks", "header", "nothing"],
)
def test_what_is_not_http_is_a_failure(answer: bytes, web: WebServer, make: Any) -> None:
    web.routes["/"] = Raw(lambda send: send(answer))
    with pytest.raises(FetchFailed, match=r"127\.0\.0\.1") as error:
        make("127.0.0.1").get(web.url)
    assert "\n" not in error.value.one_line


@pytest.mark.parametrize("location", ["http://[", "http://a b:c/", "https://\x7f/", "http://exa mple/"])
def test_a_redirect_to_nowhere_is_refused(location: str, web: WebServer, make: Any) -> None:
    web.routes["/"] = Answer.to(location)
    with pytest.raises(FetchError):
        make("127.0.0.1").get(web.url)


def test_headers_that_cannot_be_sent_are_refused(web: WebServer, make: Any) -> None:
    with pytest.raises(FetchError):
        make("127.0.0.1").get(web.url, {"X-Bad": "a\r\nX-Injected: b"})
    assert not web.requests


@pytest.mark.parametrize("interval", [0.0, 0.01])
def test_a_host_is_asked_no_more_than_so_many_things_at_once(interval: float, web: WebServer, make: Any) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def busy(_: Asked) -> Answer:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.05)
        with lock:
            inside -= 1
        return Answer(b"done")

    web.routes["/"] = busy
    fetcher = make("127.0.0.1", per_host=3, per_host_interval_seconds=interval)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: fetcher.get(web.url + "/").body, range(30)))
    assert answers == [b"done"] * 30
    assert most == 3


def test_a_host_is_asked_no_more_often(web: WebServer, make: Any) -> None:
    starts: list[float] = []

    def note(_: Asked) -> Answer:
        starts.append(time.monotonic())
        return Answer(b"")

    web.routes["/"] = note
    fetcher = make("127.0.0.1", per_host_interval_seconds=0.1)
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda _: fetcher.get(web.url), range(5)))
    assert starts[-1] - starts[0] > 0.35


def test_hosts_do_not_wait_for_each_other_and_nobody_waits_for_ever(web: WebServer, make: Any) -> None:
    release = threading.Event()
    web.routes |= {"/hold": lambda _: Answer(b"held" if release.wait(5) else b"late"), "/": Answer(b"free")}
    names = Names(busy_example=["127.0.0.1"], free_example=["127.0.0.1"])
    fetcher = make("127.0.0.1", resolve=names, per_host=1)
    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(fetcher.get, f"http://busy.example:{web.port}/hold")
        while not web.requests:
            time.sleep(0.005)
        assert fetcher.get(f"http://free.example:{web.port}/").body == b"free"
        with pytest.raises(FetchFailed, match=r"busy\.example was busy with other requests for 0\.2 s"):
            fetcher.request("GET", f"http://busy.example:{web.port}/", timeout_seconds=0.2)
        release.set()
        assert held.result().body == b"held"
    assert fetcher.get(f"http://busy.example:{web.port}/").body == b"free"


def test_a_failure_gives_its_turn_back(web: WebServer, make: Any) -> None:
    web.routes["/"] = Raw(lambda send: send(b"nonsense"))
    fetcher = make("127.0.0.1", per_host=1)
    for _ in range(3):
        with pytest.raises(FetchFailed, match="does not answer in valid HTTP"):
            fetcher.get(web.url)


NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120),
        ({"retry-after": " 7 "}, 7),
        ({"RETRY-AFTER": "0"}, 0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "99999999999"}, 7 * 86400),
        ({"Retry-After": "Sun, 01 Mar 2026 12:05:00 GMT"}, 300),
        ({"Retry-After": "Sunday, 01-Mar-26 12:05:00 GMT"}, 300),
        ({"Retry-After": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0),
        ({"Retry-After": "Wed, 01 Jan 2126 00:00:00 GMT"}, 7 * 86400),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "9" * 5000}, None),
        ({"Retry-After": "²"}, None),
        ({}, None),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW.timestamp()) + 60)}, 60),
        ({"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": str(int(NOW.timestamp()) + 60)}, None),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW.timestamp()) - 60)}, 0),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": str(int(NOW.timestamp()) + 30)}, 30),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "45"}, 45),
        ({"RateLimit-Remaining": "0"}, None),
        ({"Retry-After": "10", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9999999999"}, 10),
        ({"Retry-After": "soon", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99"}, 99),
    ],
)
def test_when_to_come_again(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == (None if seconds is None else timedelta(seconds=seconds))
