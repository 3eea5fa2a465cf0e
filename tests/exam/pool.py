"""Several seeds as one: truth and logs with the seed's name before every id, so that the exam's own scorer pools
them exactly.

For: tests/exam/run. Not for: judging; that is score.py's. Invariant: nothing but ids changes.
"""

import bisect, collections, json, os


def lines(path):
    with open(path) as f:
        for ln in f:
            if ln.strip():
                yield json.loads(ln)


def truth(folders, out):
    """`folders`: {prefix: folder of a seed}"""
    os.makedirs(out, exist_ok=True)
    n = 0
    events = 0
    with open(f"{out}/pairs.jsonl", "w") as fp, open(f"{out}/events.jsonl", "w") as fe:
        for prefix, folder in folders.items():
            cfg = json.load(open(f"{folder}/config.json"))
            first = n
            for r in lines(f"{folder}/pairs.jsonl"):
                r.update(
                    pair=n,
                    src=prefix + r["src"],
                    dst=prefix + r["dst"],
                    elements=[{"kind": e["kind"], "id": prefix + e["id"]} for e in r["elements"]],
                )
                n += 1
                fp.write(json.dumps(r) + "\n")
            for r in lines(f"{folder}/events.jsonl"):
                r.update(
                    event=events,
                    element={"kind": r["element"]["kind"], "id": prefix + r["element"]["id"]},
                    hits=[{**h, "src": prefix + h["src"], "dst": prefix + h["dst"]} for h in r["hits"]],
                )
                events += 1
                fe.write(json.dumps(r) + "\n")
    cfg["pairs"] = n
    json.dump(cfg, open(f"{out}/config.json", "w"))


def log(logs, out):
    with open(out, "w") as o:
        for prefix, path in logs.items():
            for r in lines(path):
                r["incident"] = prefix + r["incident"]
                if "element" in r:
                    r["element"] = {"kind": r["element"]["kind"], "id": prefix + r["element"]["id"]}
                if "pairs" in r:
                    r["pairs"] = [{**p, "src": prefix + p["src"], "dst": prefix + p["dst"]} for p in r["pairs"]]
                o.write(json.dumps(r) + "\n")


def joins(path):
    """when each pair joined an incident (rule R2 of score.py): {(src, dst): sorted times}"""
    found, inside = collections.defaultdict(list), collections.defaultdict(set)
    for r in lines(path):
        if r["type"] == "anomaly.resolved":
            inside.pop(r["incident"], None)
            continue
        now = {(p["src"], p["dst"]) for p in r["pairs"]}
        was = set() if r["type"] == "anomaly.opened" else inside[r["incident"]]
        for p in now - was:
            found[p].append(r["at"])
        inside[r["incident"]] = now
    for v in found.values():
        v.sort()
    return found


VOLUMES = [("< 10", 0, 10), ("10-40", 10, 40), ("40-150", 40, 150), ("> 150", 150, 1e9)]


def by_volume(truth_dir, log_path, volume):
    """recall of pair faults by class and volume class of the pair: {cls: {name: [found, events]}}; `volume`:
    {(src, dst): flows/min}"""
    window = json.load(open(f"{truth_dir}/config.json"))["window_s"]
    when = joins(log_path)
    out = collections.defaultdict(lambda: {n: [0, 0] for n, _, _ in VOLUMES})
    for e in lines(f"{truth_dir}/events.jsonl"):
        if e["scope"] != "pair" or e["cause"] in ("benign", "contamination"):
            continue
        h = (e["hits"][0]["src"], e["hits"][0]["dst"])
        name = next(n for n, lo, hi in VOLUMES if lo <= volume[h] < hi)
        at = when.get(h, [])
        i = bisect.bisect_right(at, e["start"])
        cell = out[e["cls"]][name]
        cell[1] += 1
        cell[0] += i < len(at) and at[i] <= e["end"] + window
    return out
