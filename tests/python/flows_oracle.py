"""Sums flow records per directed subnet pair, from the raw JSON lines that a producer sent and nothing else.

Usage: flows_oracle.py TOPOLOGY FLOWS, TOPOLOGY as `flowshift simulate` writes it, FLOWS with one flow record a line

Prints {"records", "pairs": {"src>dst": {...}}}. An address in no range of the topology is `internet`. Shares no code with
the product: the ranges are read with a regular expression, an address belongs to the range `ipaddress` says it is in.
"""

import collections
import ipaddress
import json
import re
import sys

COUNTERS = {"bytes": "bytes", "packets": "segments", "retransmits": "retransmits", "timeouts": "timeouts"}
COUNTERS |= {"connects": "connects", "connect_failures": "connect_failures"}


def ranges(path: str) -> list:
    text = open(path, encoding="utf-8").read()
    found = []
    for name, cidrs in re.findall(r"- id: (\S+)\n\s+cidrs: \[(.*?)\]", text):
        found += [(ipaddress.ip_network(cidr.strip().strip('"')), name) for cidr in cidrs.split(",")]
    assert found, f"no subnets in {path}"
    return found


def main() -> None:
    table = ranges(sys.argv[1])
    places = {}

    def place(text: str) -> str:
        if text not in places:
            address = ipaddress.ip_address(text)
            names = [name for network, name in table if address.version == network.version and address in network]
            assert len(names) <= 1, f"{text} is in {names}"
            places[text] = names[0] if names else "internet"
        return places[text]

    records = 0
    pairs = collections.defaultdict(collections.Counter)
    with open(sys.argv[2], encoding="utf-8") as lines:
        for line in lines:
            flow = json.loads(line)
            records += 1
            sums = pairs[place(flow["src"]) + ">" + place(flow["dst"])]
            sums["flows"] += 1
            sums["rtt_n"] += flow["rtt"]["count"] > 0  # one observation a record: its summary
            for theirs, ours in COUNTERS.items():
                sums[ours] += flow[theirs]
    json.dump({"records": records, "pairs": pairs}, sys.stdout, indent=1, sort_keys=True)


main()
