"""The other side of the codecs: Python's msgpack, protobuf and fastavro.

    peer.py write FORMAT <value.json >payload
    peer.py read  FORMAT <payload    >value.json

FORMAT is `json`, `msgpack`, `protobuf`, `avro:SCHEMA` or, to resolve schemas, `avro:WRITER:READER`.
The value is the one of `actors/src/event/codec/golden/`, its bytes a list of numbers.
"""

import io
import json
import sys


def sample():
    """`sample.proto`, without a compiler."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="sample.proto", package="golden", syntax="proto3")
    message = file.message_type.add(name="Sample")

    def add(to, name, number, kind, label=field.LABEL_OPTIONAL, of=None):
        to.field.add(name=name, number=number, type=kind, label=label, type_name=of)

    item = message.nested_type.add(name="Item")
    add(item, "sku", 1, field.TYPE_STRING)
    add(item, "pieces", 2, field.TYPE_UINT32)
    state = message.enum_type.add(name="State")
    state.value.add(name="OPEN", number=0)
    state.value.add(name="CLOSED", number=1)
    entry = message.nested_type.add(name="TagsEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, field.TYPE_STRING)
    add(entry, "value", 2, field.TYPE_INT64)

    add(message, "name", 1, field.TYPE_STRING)
    add(message, "count", 2, field.TYPE_INT64)
    add(message, "small", 3, field.TYPE_UINT32)
    add(message, "ratio", 4, field.TYPE_DOUBLE)
    add(message, "open", 5, field.TYPE_BOOL)
    message.oneof_decl.add(name="_note")
    message.field.add(
        name="note", number=6, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL,
        oneof_index=0, proto3_optional=True,
    )
    add(message, "data", 7, field.TYPE_BYTES)
    add(message, "items", 8, field.TYPE_MESSAGE, field.LABEL_REPEATED, ".golden.Sample.Item")
    add(message, "tags", 9, field.TYPE_MESSAGE, field.LABEL_REPEATED, ".golden.Sample.TagsEntry")
    add(message, "state", 10, field.TYPE_ENUM, of=".golden.Sample.State")
    add(message, "steps", 11, field.TYPE_SINT32, field.LABEL_REPEATED)

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    of = pool.FindMessageTypeByName("golden.Sample")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(of)()
    return message_factory.MessageFactory(pool).GetPrototype(of)()


# Protobuf has steps, which the other formats do not.
STEPS = [0, -1, 1, -2147483648, 2147483647]


def write_protobuf(value):
    message = sample()
    for name in ("name", "count", "small", "ratio", "open", "note"):
        if value[name] is not None:
            setattr(message, name, value[name])
    message.data = value["data"]
    for item in value["items"]:
        message.items.add(**item)
    for key, number in value["tags"].items():
        message.tags[key] = number
    message.state = value["state"] == "Closed"
    message.steps.extend(STEPS)
    return message.SerializeToString(deterministic=True)


def read_protobuf(payload):
    message = sample()
    message.MergeFromString(payload)
    assert list(message.steps) == STEPS, message.steps
    return {
        "name": message.name, "count": message.count, "small": message.small,
        "ratio": message.ratio, "open": message.open,
        "note": message.note if message.HasField("note") else None, "data": message.data,
        "items": [{"sku": item.sku, "pieces": item.pieces} for item in message.items],
        "tags": dict(message.tags), "state": ["Open", "Closed"][message.state],
    }


def write(form, value):
    value["data"] = bytes(value["data"])
    if form == "msgpack":
        import msgpack
        return msgpack.packb(value)
    if form == "protobuf":
        return write_protobuf(value)
    import fastavro
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.schema.load_schema(form.split(":")[1]), value)
    return out.getvalue()


def read(form, payload):
    if form == "msgpack":
        import msgpack
        value = msgpack.unpackb(payload)
    elif form == "protobuf":
        value = read_protobuf(payload)
    else:
        import fastavro
        schemas = [fastavro.schema.load_schema(path) for path in form.split(":")[1:]]
        rest = io.BytesIO(payload)
        value = fastavro.schemaless_reader(rest, *schemas)
        assert not rest.read(), "bytes are left"
    value["data"] = list(value["data"])
    return value


def main():
    what, form = sys.argv[1:]
    given = sys.stdin.buffer.read()
    if form == "json":
        # Both ways: a text that is read and written.
        out = json.dumps(json.loads(given), ensure_ascii=False, separators=(",", ":")).encode()
    elif what == "write":
        out = write(form, json.loads(given))
    else:
        out = json.dumps(read(form, given), ensure_ascii=False, separators=(",", ":")).encode()
    sys.stdout.buffer.write(out)


main()
