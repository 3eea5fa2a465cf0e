"""Sums agent reports per directed subnet pair, from the agents' own JSON log and nothing else.

Usage: oracle.py SUBNETS FILE..., SUBNETS as id=cidr,cidr;id=cidr, FILE with one report a line, plain or .gz

Prints {"records", "pairs": {"src>dst": {...}}}. The mapping (local -> remote): bytes = bytes_delivered, segments =
segments_delivered, retransmits and timeouts by state, connects = connect_attempts - retrans_syn, connect_failures =
severed_connect, resets = severed_establish; what is received belongs to the other direction. Shares no code with the product.
"""

import collections
import gzip
import ipaddress
import json
import sys


def subnets(text: str) -> list:
    found = []
    for part in text.split(";"):
        name, cidrs = part.split("=")
        found += [(ipaddress.ip_network(cidr), name) for cidr in cidrs.split(",")]
    return found


def place(table: list, text: str) -> str:
    address = ipaddress.ip_address(text)
    address = getattr(address, "ipv4_mapped", None) or address
    names = [name for network, name in table if address.version == network.version and address in network]
    assert len(names) == 1, f"{text} is in {names}"
    return names[0]


def main() -> None:
    table = subnets(sys.argv[1])
    records = 0
    pairs = collections.defaultdict(collections.Counter)
    for path in sys.argv[2:]:
        opened = gzip.open(path, "rt") if path.endswith(".gz") else open(path)
        with opened as lines:
            for line in lines:
                for row in json.loads(line)["report"]["network_stats"]:
                    records += 1
                    flow, stats = row["flow"], row["stats"]
                    pair = place(table, flow["local_address"]) + ">" + place(table, flow["remote_address"])
                    pairs[pair].update(
                        {
                            "flows": 1,
                            "bytes": stats["bytes_delivered"],
                            "segments": stats["segments_delivered"],
                            "retransmits.syn": stats["retrans_syn"],
                            "retransmits.established": stats["retrans_est"],
                            "retransmits.close": stats["retrans_close"],
                            "timeouts.syn": stats["rtos_syn"],
                            "timeouts.established": stats["rtos_est"],
                            "timeouts.close": stats["rtos_close"],
                            "connects": stats["connect_attempts"] - stats["retrans_syn"],
                            "connect_failures": stats["severed_connect"],
                            "resets": stats["severed_establish"],
                        }
                    )
    json.dump({"records": records, "pairs": pairs}, sys.stdout, indent=1, sort_keys=True)


main()
