"""The store: `engine`, `broker` and `presence_manager` of Centrifugo as our `broker` options.

Centrifugo gives addresses, credentials and TLS in separate options; ours are one URL per shard, and
passwords. Source: https://centrifugal.dev/docs/server/engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from cluster.import_config.formats import Document

#: Options of Redis that are read here.
_READ: Final = frozenset(
    {
        "address", "cluster_address", "client_name", "connect_timeout", "db", "io_timeout", "password",
        "prefix", "sentinel_address", "sentinel_client_name", "sentinel_master_name",
        "sentinel_password", "sentinel_tls", "sentinel_user", "tls", "user",
    }
)  # fmt: skip
_NOTHING_TO_SET: Final[Mapping[str, str]] = {
    "force_resp2": "RESP2 is spoken always",
    "history_use_lists": "publications are kept in streams always",
    "presence_hash_field_ttl": "there is nothing to set",
    "presence_user_mapping": "there is nothing to set",
    "replica_client": "everything is read from the master",
}
#: Options of Redis that are options of clients here.
_OF_CLIENTS: Final[Mapping[str, str]] = {"presence_ttl": "client.presence_ttl"}
_TLS_FILES: Final[Mapping[str, str]] = {
    "server_ca_pem": "ssl_ca_certs",
    "cert_pem": "ssl_certfile",
    "key_pem": "ssl_keyfile",
}


@dataclass(slots=True)
class Store:
    """What becomes of the options of the store.

    Attributes:
        options: ours, by dotted key; one that this version does not have is lost.
        differs: what will differ, by the name of an option.
        lost: what has no counterpart, by the name of an option.
    """

    options: Document = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)


def store_of(tree: Document) -> Store:
    """Take the options of the store out of the tree, and say what becomes of them."""
    engine, broker, presence = (
        _table(tree.pop(name, {})) for name in ("engine", "broker", "presence_manager")
    )
    store = Store()
    kind, path, table = engine.get("type", "memory"), "engine", engine
    if broker.get("enabled"):
        kind, path, table = broker.get("type", "memory"), "broker", broker
    if kind == "redis":
        _redis(_table(table.get("redis")), f"{path}.redis", store)
    elif kind == "memory":
        if engine or broker:
            store.differs[f"{path}.type"] = (
                "memory: here a Valkey that ws-cluster starts keeps what Centrifugo kept in its process"
            )
    else:
        store.lost[f"{path}.type"] = (
            f"{_short(kind)}: publications are carried by Redis or Valkey; without broker.redis_urls a"
            " Valkey is started"
        )
    if presence.get("enabled") and presence.get("type", "memory") != kind:
        store.lost["presence_manager"] = "presence is kept in the store of the publications"
    return store


def _redis(redis: Document, path: str, store: Store) -> None:
    urls = list(_urls(redis, path, store))
    store.options["broker.redis_urls"] = urls
    if redis.get("password") and not redis.get("user"):
        store.options["broker.redis_password"] = redis["password"]
    if redis.get("sentinel_password") and urls[0].partition("://")[0].endswith("+sentinel"):
        store.options["broker.sentinel_password"] = redis["sentinel_password"]
    if redis.get("prefix"):
        store.options["broker.prefix"] = redis["prefix"]
    if redis.get("io_timeout"):
        store.options["broker.timeout"] = redis["io_timeout"]
    if redis.get("connect_timeout"):
        store.lost[f"{path}.connect_timeout"] = "broker.timeout is the limit of connecting too"
    store.differs[path] = (
        "Redis or Valkey from version 7 is needed; Centrifugo's history is not read, and streams start"
        " empty with a new epoch"
    )
    if len(urls) > 1:
        store.differs[f"{path}.address"] = "channels are divided among the shards in another way"
    for name, value in redis.items():
        if name in _OF_CLIENTS:
            store.options[_OF_CLIENTS[name]] = value
        elif name not in _READ and value not in (None, "", False, 0, {}):
            store.lost[f"{path}.{name}"] = _NOTHING_TO_SET.get(name, "there is no such option")


def _urls(redis: Document, path: str, store: Store) -> Iterator[str]:
    scheme = "rediss" if _is_on(redis.get("tls")) else "redis"
    options = _url_options(redis, path, store)
    where = f"{_credentials(redis)}@" if redis.get("user") else ""
    database = f"/{redis.get('db') or 0}"
    if clusters := _strings(redis.get("cluster_address")):
        if len(clusters) > 1:
            store.lost[f"{path}.cluster_address"] = (
                "one Redis Cluster is used: the first; give others as clusters of their own"
            )
        # Every node names the others.
        for node in clusters[0].split(","):
            yield f"{scheme}://{where}{node.strip()}/0{options}"
    elif sentinels := _strings(redis.get("sentinel_address")):
        if len(sentinels) > 1:
            store.lost[f"{path}.sentinel_address"] = (
                "one master is used: that of the first sentinels"
            )
        master = f"/{quote(str(redis.get('sentinel_master_name', '')), safe='')}"
        yield f"{scheme}+sentinel://{where}{sentinels[0]}{master}{database}{options}"
    else:
        for address in _strings(redis.get("address")) or ["redis://127.0.0.1:6379"]:
            yield from (_one(part, scheme, where, database, options) for part in _parts(address))


def _parts(address: str) -> list[str]:
    """One address may name several shards, with commas, if it is no URL."""
    return [address] if "://" in address else [part.strip() for part in address.split(",")]


def _one(address: str, scheme: str, where: str, database: str, options: str) -> str:
    """The URL of one server; what an address says itself is stronger than the options beside it."""
    if "://" not in address:
        return f"{scheme}://{where}{address}{database}{options}"
    given, _, rest = address.partition("://")
    scheme = {"tcp": scheme, "redis": scheme}.get(given, given)
    if scheme == "unix":
        return (
            f"unix://{rest}"
            if "?" in rest or database == "/0"
            else f"unix://{rest}?db={database[1:]}"
        )
    try:
        parts = urlsplit(f"{scheme}://{rest}")
    except ValueError:
        # check-config says what is wrong with it.
        return f"{scheme}://{rest}"
    place = parts.netloc if "@" in parts.netloc else where + parts.netloc
    path = parts.path if parts.path.strip("/") else database
    return f"{scheme}://{place}{path}" + (f"?{parts.query}" if parts.query else options)


def _credentials(redis: Document) -> str:
    user = quote(str(redis.get("user", "")), safe="")
    password = quote(str(redis.get("password", "")), safe="")
    return f"{user}:{password}" if password else user


def _url_options(redis: Document, path: str, store: Store) -> str:
    pairs: list[tuple[str, str]] = []
    if redis.get("client_name"):
        pairs.append(("client_name", str(redis["client_name"])))
    if _strings(redis.get("sentinel_address")):
        if redis.get("sentinel_user"):
            pairs.append(("sentinel_username", str(redis["sentinel_user"])))
        if _is_on(redis.get("tls")) != _is_on(redis.get("sentinel_tls")):
            store.lost[f"{path}.sentinel_tls"] = (
                "sentinels and master are both reached by TLS, or none is"
            )
    if _is_on(redis.get("tls")):
        pairs += _tls_options(_table(redis["tls"]), f"{path}.tls", store)
    return f"?{urlencode(pairs, quote_via=quote)}" if pairs else ""


def _tls_options(tls: Document, path: str, store: Store) -> Iterator[tuple[str, str]]:
    for name, ours in _TLS_FILES.items():
        file = tls.get(f"{name}_file") or tls.get(name)
        if (
            isinstance(file, str)
            and file
            and "\n" not in file
            and len(file) < 1024
            and "-----" not in file
        ):
            yield ours, file
        elif file or tls.get(f"{name}_b64"):
            store.lost[f"{path}.{name}"] = (
                f"write it to a file, and add {ours}=… with its path to the URL:"
                " docs/how-to/external-redis.md"
            )
    if tls.get("insecure_skip_verify"):
        yield "ssl_cert_reqs", "none"
        yield "ssl_check_hostname", "false"
    if tls.get("server_name"):
        store.lost[f"{path}.server_name"] = "the name in the URL is compared with the certificate"


def _table(value: object) -> Document:
    return value if isinstance(value, dict) else {}


def _is_on(value: object) -> bool:
    return isinstance(value, dict) and bool(value.get("enabled"))


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    return [str(one) for one in value] if isinstance(value, list) else []


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
