#!/usr/bin/env python3
"""limit.py - what a detector reaches that is told the truth: the limit beside each recall of the exam.

USE  limit.py --kit ../shared/exam --data DIR --json out.json [--every N]
DIR  config.json, events.jsonl of one run of the exam's simulator; its flows are simulated again from the same seed.

METHOD  For every pair and window the log-likelihood ratio of the fault against the pair's true baseline, and a CUSUM of
  it. It is told: the rate of retransmissions and of failed connects of every minute, the dispersion behind them, the
  level of round-trip times of every peer and minute up to the drift, and of every fault its size and the share of
  flows hit. Not when.
  loss      two views, the better one counts: segments (negative binomial; a burst of about 25 in one flow is one of the
            null's own ways) and flows with a retransmission.
  latency   it sees every flow and knows every peer's own level, which no window shows. What is left is a slow drift
            (AR(1), told) and noise. A level is estimated per window, the drift followed by a Kalman filter, and a shift
            held against the filter's surprises, from the best start of the last 90 windows. Two humps: the likelihood
            of each flow's residual.
  connect   binomial failures over attempts; blackhole: the same with what a blackhole does to those.
THRESHOLD at the budget (1 false alarm in 1,000 pair-days): crossings in clean time are counted at low thresholds, per
  class over all pairs, and carried on exponentially, as they fall for a likelihood ratio; never above the theory's
  ln(1000 x steps a day). So where the model is too simple the limit is too high, not too low.
HITS  as score.py: a crossing in (start, end + 1 window]; permanent shifts: within 3 h.
"""

import argparse, collections, importlib.util, json, math, sys

import numpy as np

LOSS = {"loss_0.1": 0.001, "loss_0.5": 0.005, "loss_1": 0.01, "loss_5": 0.05}
RTT = {
    "rtt_10": math.log(1.1),
    "rtt_25": math.log(1.25),
    "rtt_100": math.log(2),
    "bimodal": math.log(2),
    "ramp_50": math.log(1.25),
    "shift_30": math.log(1.3),
}
CONNECT = {"reject_5": 0.05, "reject_30": 0.30, "syn_20": 0.20, "blackhole": None}
CLASSES = list(LOSS) + list(RTT) + list(CONNECT)
GRACE, BENIGN_GRACE, DAY = 2700, 900, 86400
LEVELS = np.arange(3.0, 16.0, 0.5)  # thresholds at which crossings are counted


def load_sim(kit):
    spec = importlib.util.spec_from_file_location("exam_sim", f"{kit}/sim.py")
    if spec is None:
        raise SystemExit(f"limit.py: no sim.py in {kit}")
    sim = importlib.util.module_from_spec(spec)
    sys.modules["exam_sim"] = sim
    spec.loader.exec_module(sim)
    return sim


class Pair:
    """all windows of a pair: what was observed, and the truth behind it"""

    def __init__(self, world, p):
        c = world.cfg
        s = world.static(p)
        wpm = 60 // c.window_s
        self.W = c.window_s
        chunk = 240 if c.window_s == 60 else 60
        cols = collections.defaultdict(list)
        self.ar = s["ar"]
        self.sd = 0.8 * s["sig"]
        self.tail = s["wt"]
        self.flows = []
        done = 0
        base = math.log(world.pairs[p]["base"])
        for m0 in range(0, world.M, chunk):
            m1 = min(world.M, m0 + chunk)
            f, nw, late, _ = world.flows(p, m0, m1)
            w = f["w"]
            keep = late == 0  # a late line is out of reach for everybody
            put = lambda a: np.bincount(w, a, nw) * keep
            for k, a in (
                ("n", np.ones(len(w))),
                ("packets", f["packets"]),
                ("retx", f["retx"]),
                ("rflows", f["retx"] > 0),
                ("connects", f["conn"]),
                ("fails", f["fail"]),
            ):
                cols[k].append(put(a))
            ok = (f["rc"] > 0) & (f["pid"] < 1000) & (keep[w] > 0)
            x = np.log(f["sm"][ok] / f["rc"][ok]) - base - s["off"][f["pid"][ok] % 160]
            self.flows.append((w[ok].astype(np.int64) + done, x.astype(np.float32)))
            done += nw
        for k, v in cols.items():
            setattr(self, k, np.concatenate(v))
        self.T = len(self.n)
        self.t = c.t0 + np.arange(self.T) * c.window_s
        m = np.arange(world.M)
        tod = m % 1440 / 1440
        weekend = (m // 1440 + c.t0 // DAY + 3) % 7 >= 5
        load = (1 + s["amp"] * np.sin(2 * np.pi * (tod - s["ph"]))) * np.where(weekend, s["wk"], 1)
        rate = s["p0"] * (1 + s["couple"] * np.clip((load - 1) / s["amp"], -0.5, 1))
        if s["night"] >= 0:
            rate = np.where((m - s["night"]) % 1440 < 25, rate * 4, rate)
        rep = lambda a: np.repeat(a, wpm)
        self.rate, self.lift, self.shape, self.pf = rep(rate), rep(s["lift"] * (load - 1)), s["k"], s["pf"]
        self.burst = c.burst / wpm
        self.phi = 0.95 ** (1 / wpm)
        at, x = (np.concatenate(z) for z in zip(*self.flows))
        self.at, self.x = at, x - self.lift[at]
        del self.flows

    def levels(self):
        """level of every window over its known peers and the number of flows behind it: the median, then one step
        of Huber's"""
        o = np.lexsort((self.x, self.at))
        at, x = self.at[o], self.x[o]
        k = np.bincount(at, minlength=self.T)
        first = np.cumsum(k) - k
        has = k > 0
        med = np.zeros(self.T)
        med[has] = (x[(first + (k - 1) // 2)[has]] + x[(first + k // 2)[has]]) / 2
        c = 1.5 * self.sd
        r = x - med[at]
        inside = np.maximum(np.bincount(at, np.abs(r) < c, self.T), 1)
        return np.where(has, med + np.bincount(at, np.clip(r, -c, c), self.T) / inside, 0), k


def nb(x, mean, shape):
    """log probability of a negative binomial up to what depends on x alone"""
    mean = np.maximum(mean, 1e-12)
    return lgamma(x + shape) - lgamma(shape) + x * np.log(mean / (mean + shape)) - shape * np.log1p(mean / shape)


def lgamma(x):
    """ln gamma by Stirling's series behind a shift by 8; x > 0"""
    x = np.asarray(x, float)
    shift = np.log(x * (x + 1) * (x + 2) * (x + 3)) + np.log((x + 4) * (x + 5) * (x + 6) * (x + 7))
    y = x + 8
    return (y - 0.5) * np.log(y) - y + 0.5 * math.log(2 * math.pi) + 1 / (12 * y) - 1 / (360 * y**3) - shift


def ratio(x, m0, k0, m1, floor=None):
    """log-likelihood ratio; the alternative adds m1-m0 without more dispersion; `floor`: log probability of a
    burst under the null"""
    m1 = np.maximum(m1, 1e-12)
    k1 = np.clip(m1 * m1 * k0 / np.maximum(m0 * m0, 1e-12), k0, 1e6)
    null, other = nb(x, m0, k0), nb(x, m1, k1)
    if floor is not None:  # both can burst; beyond its own reach the null takes the burst's word
        null = np.logaddexp(null + np.log1p(-np.exp(floor[1])), floor[0] + floor[1] + lgamma(x + 1))
    return other - null


GAUSS = np.polynomial.hermite_e.hermegauss(15)


def hit_flows(packets, n, p):
    """share of flows with at least one retransmission at rate p: packets per flow are 1 + log-normal(sd 1)"""
    scale = np.maximum(packets / np.maximum(n, 1) - 1, 0.01) / math.exp(0.5)
    q = np.zeros_like(scale)
    for z, w in zip(*GAUSS):
        q += w * -np.expm1((1 + scale * math.exp(z)) * np.log1p(-np.clip(p, 0, 0.9)))
    return q / GAUSS[1].sum()


def evidence(v, cls, share, clean, memo):
    """log-likelihood ratio of a fault in every window, one row a view; or the score of a whole past"""
    if cls in LOSS:
        d = LOSS[cls] * share
        m0 = v.rate * v.packets
        if "burst" not in memo:
            far = v.retx - m0
            sd2 = 25 + m0 + m0 * m0 / v.shape
            memo["burst"] = (-((far - 25) ** 2) / 2 / sd2 - 0.5 * np.log(2 * np.pi * sd2), math.log(v.burst))
            memo["q0"] = hit_flows(v.packets, v.n, v.rate)
        m1 = m0 + d * v.packets
        q0 = memo["q0"]
        q1 = 1 - (1 - q0) * (1 - share * hit_flows(v.packets, v.n, np.full(v.T, LOSS[cls])))
        seg = ratio(v.retx, m0, v.shape, m1, memo["burst"])
        flo = ratio(v.rflows, q0 * v.n, v.shape, q1 * v.n)
        return np.where(v.n > 0, np.stack([seg, flo]), 0)
    if cls in CONNECT:
        p0 = v.pf
        d = CONNECT[cls]
        attempts = np.maximum(v.connects, 1e-9)
        p1 = (
            (p0 + d * share)
            if d is not None
            else np.minimum(0.95, p0 + share * 0.25 / ((1 - share) * 0.7 + share * 0.32))
        )
        return np.where(
            v.connects > 0,
            v.fails * np.log(p1 / p0) + (attempts - v.fails) * np.log1p(-p1) - (attempts - v.fails) * np.log1p(-p0),
            0,
        )[None]
    if "level" not in memo:
        memo["level"] = Drift(v, clean)
    drift = memo["level"]
    if cls == "bimodal" or share < 1:  # each flow is hit or not, on its own

        def density(r):
            return (
                (1 - v.tail) * np.exp(-r * r / 2 / v.sd**2) / v.sd
                + v.tail * np.exp(-((r - 1.3) ** 2) / 2 / (0.64 + v.sd**2)) / math.sqrt(0.64 + v.sd**2)
                + 1e-4
            )

        hit = share * (0.3 if cls == "bimodal" else 1)
        r = v.x - drift.expected[v.at]
        far = density(r - RTT[cls])
        return np.bincount(v.at, np.log(1 - hit + hit * far / density(r)), v.T)[None]
    return drift.shift(RTT[cls])


class Drift:
    """Kalman filter of a pair's drift, and what a shift that began `k` windows ago does to its surprises"""

    SPAN = 90

    def __init__(self, v, clean):
        y, n = v.levels()
        use = n > 0
        y = y - (np.average(y[clean & use], weights=np.minimum(n[clean & use], 50)) if (clean & use).any() else 0)
        q = v.ar**2 * (1 - v.phi**2)
        noise = 1.2 * v.sd**2 / np.maximum(n, 1)
        self.expected = np.zeros(v.T)
        for scale in (1.0, None):  # the second time with the dispersion that its own clean surprises show
            if scale is None:
                z = surprise[clean & use] ** 2 / size[clean & use]
                scale = float(np.clip(np.mean(np.minimum(z, 9)), 0.5, 4)) if len(z) else 1.0
            a, var = 0.0, v.ar**2
            surprise = np.zeros(v.T)
            size = np.ones(v.T)
            gain = np.zeros(v.T)
            for i in range(v.T):
                a *= v.phi
                var = v.phi**2 * var + q
                self.expected[i] = a
                if use[i]:
                    size[i] = s = (var + noise[i]) * scale
                    e = y[i] - a
                    surprise[i] = max(-4 * s**0.5, min(4 * s**0.5, e)) if n[i] < 5 else e
                    gain[i] = g = var / (var + noise[i])
                    a += g * surprise[i]
                    var *= 1 - g
        K = self.SPAN
        up = np.zeros(K)
        A = np.zeros(K)
        B = np.zeros(K)
        self.A = np.zeros((v.T, K), np.float32)
        self.B = np.zeros((v.T, K), np.float32)
        for i in range(v.T):  # row j: the shift began at the window i with i mod K = j
            j = i % K
            up[j] = A[j] = B[j] = 0
            up *= v.phi
            if use[i]:
                h = 1 - up
                A += h * surprise[i] / size[i]
                B += h * h / size[i]
                up += gain[i] * h
            self.A[i] = A
            self.B[i] = B

    def shift(self, d):
        return ("score", (d * self.A - d * d * self.B / 2).max(1))


def cusum(found, free):
    """CUSUM of every row, the larger of the views less ln of their number; a `score` is the best over starts
    already"""
    if isinstance(found, tuple):
        return np.where(free, np.maximum(found[1], 0), 0)
    total = np.cumsum(np.where(free, found, -1.0), 1)
    low = np.minimum.accumulate(total, 1)
    return (total - np.minimum(low, 0)).max(0) - math.log(len(found))


def crossings(score, clean):
    """upward crossings of every level in clean time; one begins a new count after a return below 1 nat"""
    armed = np.ones(len(LEVELS), bool)
    found = np.zeros(len(LEVELS), int)
    for i in np.nonzero((score > LEVELS[0]) | (score < 1))[0]:
        if score[i] < 1:
            armed[:] = True
            continue
        over = armed & (score[i] > LEVELS)
        if over.any():
            if clean[i]:
                found += over
            armed &= ~over
    return found


def threshold(found, pair_days, window_s, budget=1.0):
    """level at which crossings are `budget` in 1,000 pair-days; carried on with the theory's slope 1 beyond 20 of
    them"""
    want = budget * pair_days / 1000
    enough = np.nonzero(found >= 20)[0]
    if found[0] <= want:
        return float(LEVELS[0])
    i = enough[-1] if len(enough) else 0
    theory = math.log(1000 * DAY / window_s / budget)
    return float(min(theory, LEVELS[i] + math.log(max(found[i], 1) / want)))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--kit", required=True)
    ap.add_argument("--data", required=True)
    ap.add_argument("--json", required=True)
    ap.add_argument("--every", type=int, default=1, help="count crossings on every N-th pair only")
    a = ap.parse_args()
    sim = load_sim(a.kit)
    cfg = json.load(open(f"{a.data}/config.json"))
    names = {f.name for f in sim.dataclasses.fields(sim.Config)}
    world = sim.World(sim.Config(**{k: v for k, v in cfg.items() if k in names}))
    known = {(q["src"], q["dst"]): q["pair"] for q in world.pairs}
    events = [json.loads(ln) for ln in open(f"{a.data}/events.jsonl")]
    on = collections.defaultdict(list)
    blocked = collections.defaultdict(list)
    for e in events:
        for h in e["hits"]:
            on[known[h["src"], h["dst"]]].append((e, h["share"]))
        hold = e["start"] + DAY if e["permanent"] else e["end"]
        grace = BENIGN_GRACE if e["cause"] == "benign" else GRACE
        for p in world.by_el.get(
            (e["element"]["kind"], e["element"]["id"]), [known[h["src"], h["dst"]] for h in e["hits"]]
        ):
            blocked[p].append((e["start"], hold + grace))
    test = cfg["t0"] + cfg["warm_days"] * DAY
    found = {c: np.zeros(len(LEVELS), int) for c in CLASSES}
    pair_days = 0.0
    runs = []
    for p in range(len(world.pairs)):
        v = Pair(world, p)
        free = np.ones(v.T, bool)
        for x, y in blocked[p]:
            free &= (v.t < x - v.W) | (v.t > y)
        memo = {}
        clean = free & (v.t >= test)
        if p % a.every == 0:
            pair_days += clean.sum() * v.W / DAY
            for c in CLASSES:
                found[c] += crossings(cusum(evidence(v, c, 1.0, clean, memo), free), clean)
        for e, share in on[p]:
            if e["cause"] in ("benign", "contamination"):
                continue
            i = int((e["start"] - cfg["t0"]) // v.W)
            j = i + (10800 if e["permanent"] else e["end"] - e["start"]) // v.W + 1
            what = evidence(v, e["cls"], share, clean, memo)
            part = ("score", what[1][i:j]) if isinstance(what, tuple) else what[:, i:j]
            score = cusum(part, np.ones(part[-1].shape[-1], bool))
            runs.append(
                dict(
                    event=e["event"],
                    cls=e["cls"],
                    scope=e["scope"],
                    pair=p,
                    flows_a_minute=float(world.static(p)["base"]),
                    score=[round(float(x), 2) for x in np.maximum.accumulate(score)],
                )
            )
        (
            print(f"\rlimit: pair {p + 1} of {len(world.pairs)}", end="", file=sys.stderr, flush=True)
            if sys.stderr.isatty()
            else None
        )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    out = {
        "window_s": cfg["window_s"],
        "pair_days": pair_days,
        "levels": LEVELS.tolist(),
        "crossings": {c: x.tolist() for c, x in found.items()},
        "runs": runs,
    }
    json.dump(out, open(a.json, "w"))
    for c in CLASSES:
        h = threshold(found[c], pair_days, cfg["window_s"])
        mine = [r for r in runs if r["cls"] == c and r["scope"] == "pair"]
        hits = [r for r in mine if r["score"] and r["score"][-1] > h]
        delay = sorted((next(i for i, x in enumerate(r["score"]) if x > h) + 1) * cfg["window_s"] for r in hits)
        print(
            f"{c:10s} threshold {h:5.2f}  found {len(hits):3d} of {len(mine):3d}  "
            f"delay p50 {delay[len(delay) // 2] if delay else '-'} s"
        )


if __name__ == "__main__":
    main()
