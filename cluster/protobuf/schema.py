"""The messages of the client protocol, once: their Protobuf classes and their shapes as JSON are made of it.

Source: the names, numbers and types of centrifugal/protocol `client.proto`. Fields that neither side of
this server uses are left out; Protobuf ignores what it does not know.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE: Final = "centrifugal.centrifuge.protocol"

#: A message per line: `name:type=number`. A type with `[]` is repeated, `{}` a map from strings, and one that
#: begins with a capital letter is a message.
_MESSAGES: Final = """
Command id:uint32=1 connect:ConnectRequest=4 subscribe:SubscribeRequest=5 unsubscribe:ChannelRequest=6 \
publish:PublishRequest=7 presence:ChannelRequest=8 presence_stats:ChannelRequest=9 history:HistoryRequest=10 \
ping:Empty=11 send:SendRequest=12 rpc:RPCRequest=13 refresh:RefreshRequest=14 sub_refresh:SubRefreshRequest=15
ConnectRequest token:string=1 data:bytes=2 subs:SubscribeRequest{}=3 name:string=4 version:string=5 \
headers:string{}=6
SubscribeRequest channel:string=1 token:string=2 recover:bool=3 epoch:string=6 offset:uint64=7 data:bytes=8 \
positioned:bool=9 recoverable:bool=10 join_leave:bool=11 delta:string=12 tf:FilterNode=13 flag:int64=14
FilterNode op:string=1 key:string=2 cmp:string=3 val:string=4 vals:string[]=5 nodes:FilterNode[]=6
ChannelRequest channel:string=1
PublishRequest channel:string=1 data:bytes=2
HistoryRequest channel:string=1 limit:int32=7 since:StreamPosition=8 reverse:bool=9
StreamPosition offset:uint64=1 epoch:string=2
SendRequest data:bytes=1
RPCRequest data:bytes=1 method:string=2
RefreshRequest token:string=1
SubRefreshRequest channel:string=1 token:string=2
Empty
Reply id:uint32=1 error:Error=2 push:Push=4 connect:ConnectResult=5 subscribe:SubscribeResult=6 \
unsubscribe:Empty=7 publish:Empty=8 presence:PresenceResult=9 presence_stats:PresenceStatsResult=10 \
history:HistoryResult=11 ping:Empty=12 rpc:RPCResult=13 refresh:RefreshResult=14 sub_refresh:SubRefreshResult=15
Error code:uint32=1 message:string=2 temporary:bool=3
ConnectResult client:string=1 version:string=2 expires:bool=3 ttl:uint32=4 data:bytes=5 \
subs:SubscribeResult{}=6 ping:uint32=7 pong:bool=8
SubscribeResult expires:bool=1 ttl:uint32=2 recoverable:bool=3 epoch:string=6 publications:Publication[]=7 \
recovered:bool=8 offset:uint64=9 positioned:bool=10 data:bytes=11 was_recovering:bool=12 delta:bool=13
Publication data:bytes=4 info:ClientInfo=5 offset:uint64=6 tags:string{}=7 delta:bool=8
ClientInfo user:string=1 client:string=2 conn_info:bytes=3 chan_info:bytes=4
PresenceResult presence:ClientInfo{}=1
PresenceStatsResult num_clients:uint32=1 num_users:uint32=2
HistoryResult publications:Publication[]=1 epoch:string=2 offset:uint64=3
RPCResult data:bytes=1
RefreshResult client:string=1 version:string=2 expires:bool=3 ttl:uint32=4
SubRefreshResult expires:bool=1 ttl:uint32=2
Push channel:string=2 pub:Publication=4 join:Member=5 leave:Member=6 unsubscribe:Unsubscribe=7 \
message:Message=8 subscribe:Subscribe=9 refresh:Refresh=12
Member info:ClientInfo=1
Unsubscribe code:uint32=2 reason:string=3
Message data:bytes=1
Subscribe recoverable:bool=1 epoch:string=4 offset:uint64=5 positioned:bool=6 data:bytes=7
Refresh expires:bool=1 ttl:uint32=2
"""


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        type: a scalar type of Protobuf, or the name of a message.
        is_map: whether its keys are strings and its values of this type.
    """

    name: str
    type: str
    number: int
    is_list: bool
    is_map: bool

    @property
    def is_message(self) -> bool:
        return self.type[0].isupper()


def _field(text: str) -> Field:
    name, _, rest = text.partition(":")
    kind, _, number = rest.partition("=")
    return Field(name, kind.rstrip("[]{}"), int(number), kind.endswith("[]"), kind.endswith("{}"))


#: The members of a command of which a client sends one: on the wire it makes no difference that they are one.
METHOD: Final = "method"

#: The fields of each message.
MESSAGES: Final[dict[str, tuple[Field, ...]]] = {
    words[0]: tuple(map(_field, words[1:]))
    for words in map(str.split, _MESSAGES.strip().splitlines())
}

_Descriptor = descriptor_pb2.FieldDescriptorProto


def _add(message: descriptor_pb2.DescriptorProto, field: Field, *, is_list: bool) -> Any:
    added = message.field.add(
        name=field.name,
        number=field.number,
        label=_Descriptor.LABEL_REPEATED if is_list else _Descriptor.LABEL_OPTIONAL,
    )
    if field.is_message:
        added.type = _Descriptor.TYPE_MESSAGE
        added.type_name = f".{_PACKAGE}.{field.type}"
    else:
        added.type = _Descriptor.Type.Value(f"TYPE_{field.type.upper()}")
    return added


def _add_map(message: descriptor_pb2.DescriptorProto, name: str, field: Field) -> None:
    entry = message.nested_type.add(name=f"{field.name.title()}Entry")
    entry.options.map_entry = True
    _add(entry, Field("key", "string", 1, False, False), is_list=False)
    _add(entry, field._replace(name="value", number=2), is_list=False)
    message.field.add(
        name=field.name,
        number=field.number,
        label=_Descriptor.LABEL_REPEATED,
        type=_Descriptor.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.{name}.{entry.name}",
    )


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="cluster/client.proto", package=_PACKAGE, syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            if field.is_map:
                _add_map(message, name, field)
                continue
            added = _add(message, field, is_list=field.is_list)
            if name == "Command" and field.is_message:
                added.oneof_index = 0
        if name == "Command":
            message.oneof_decl.add(name=METHOD)
    # A pool of its own: a client in the same process may have registered the same names.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in MESSAGES
    }


#: The Protobuf class of each message.
CLASSES: Final = _classes()
