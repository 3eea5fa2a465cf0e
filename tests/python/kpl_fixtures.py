"""Makes consumer/tests/data/kpl-aggregates.txt with AWS's own aggregation library.

    python3 -m venv v && v/bin/pip install aws-kinesis-agg==1.2.3 protobuf==3.20.3 six==1.17.0
    v/bin/python tests/python/kpl_fixtures.py > consumer/tests/data/kpl-aggregates.txt

One block per aggregate: a line `aggregate KEY HASH HEX` with what PutRecord is called with, then one line
`record KEY HASH HEX` for each record in it, in order. KEY is the UTF-8 of the partition key in hex, HASH the explicit
hash key or `-`, HEX the bytes. The library reads back what it wrote before anything is printed.
"""

import base64
import random

from aws_kinesis_agg.aggregator import AggRecord
from aws_kinesis_agg.deaggregator import deaggregate_records

CHANCE = random.Random(20261122)


def records(case):
    if case == "one":
        return [("key", b"payload", None)]
    if case == "shared keys":
        return [(f"key-{n % 3}", f"line {n}".encode(), None) for n in range(12)]
    if case == "hash keys":
        hashes = [None, "0", "340282366920938463463374607431768211455", "170141183460469231731687303715884105728"]
        return [(f"k{n}", bytes([n]), hashes[n % 4]) for n in range(9)]
    if case == "bytes of every kind":
        return [("ключ-🔑", bytes(range(256)), None), ("k" * 256, b"", None), ("z", b"\xf3\x89\x9a\xc2", None)]
    assert case == "many"
    return [(f"agent-{CHANCE.randrange(7)}", CHANCE.randbytes(CHANCE.randrange(1, 24)), None) for _ in range(300)]


def hexed(key, hash_key, data):
    return f"{key.encode().hex()} {hash_key or '-'} {data.hex() or '-'}"


print("# aws-kinesis-agg 1.2.3 (PyPI, Apache-2.0), by tests/python/kpl_fixtures.py")
for case in ["one", "shared keys", "hash keys", "bytes of every kind", "many"]:
    aggregate = AggRecord()
    inside = records(case)
    for key, data, hash_key in inside:
        assert aggregate.add_user_record(key, data, hash_key)
    key, hash_key, data = aggregate.get_contents()
    event = {"kinesis": {"data": base64.b64encode(data), "partitionKey": key, "sequenceNumber": "1",
                         "approximateArrivalTimestamp": 0, "kinesisSchemaVersion": "1.0"},
             "eventSource": "", "eventVersion": "", "eventID": "", "eventName": "", "invokeIdentityArn": "",
             "awsRegion": "", "eventSourceARN": ""}
    back = deaggregate_records([event])
    assert [(r["kinesis"]["partitionKey"], base64.b64decode(r["kinesis"]["data"])) for r in back] == [
        (k, d) for k, d, _ in inside
    ], case
    print(f"# {case}")
    print("aggregate", hexed(key, hash_key, data))
    for key, data, hash_key in inside:
        print("record", hexed(key, hash_key, data))
