import pytest

from mfn_compile.device.real.address import RpcAddress
from mfn_compile.errors import UsageError


@pytest.mark.parametrize(
    ("text", "host", "port", "key"),
    [
        ("rpc://127.0.0.1:9190/pi4", "127.0.0.1", 9190, "pi4"),
        ("rpc://lab-7.example.org:1/rock-5b_2.1", "lab-7.example.org", 1, "rock-5b_2.1"),
        ("rpc://[::1]:65535/k", "::1", 65535, "k"),
        ("rpc://[fe80::1%eth0]:9190/k", "fe80::1%eth0", 9190, "k"),
    ],
)
def test_an_address_is_taken_apart_and_written_back(
    text: str, host: str, port: int, key: str
) -> None:
    found = RpcAddress.parse(text)
    assert (found.host, found.port, found.key) == (host, port, key)
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("local", "no address"),
        ("http://a:1/k", "no address"),
        ("rpc://a:1", "key"),
        ("rpc://a:1/", "key"),
        ("rpc://a/k", "port"),
        ("rpc://a:/k", "port"),
        ("rpc://a:0/k", "port"),
        ("rpc://a:65536/k", "port"),
        ("rpc://a:9²/k", "port"),
        ("rpc://a:-1/k", "port"),
        ("rpc://:9190/k", "host"),
        ("rpc://a b:9190/k", "host"),
        ("rpc://::1:9190/k", "brackets"),
        ("rpc://[::1:9190/k", "brackets"),
        ("rpc://[example]:9190/k", "IPv6"),
        ("rpc://a:1/k/l", "letters"),
        ("rpc://a:1/k -timeout=9", "letters"),
        ("rpc://a:1/" + "k" * 65, "letters"),
        ("rpc://a:1/ключ", "letters"),
    ],
)
def test_a_bad_address_says_what_is_wrong_and_how_to_write_it(text: str, says: str) -> None:
    with pytest.raises(UsageError, match="rpc://HOST:PORT/KEY") as caught:
        RpcAddress.parse(text)
    assert says in str(caught.value)
    assert caught.value.exit_code == 2
