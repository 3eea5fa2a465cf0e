"""The dashboards as lists: rows of panels, each with its unit and its queries. Written to JSON by make.py.

A panel is (kind, title, unit, description, queries), a query (expression, legend); of a matrix, its one query is by
the zones of source and destination. Every metric of the program
stands in one of them; tests/operations holds the names, labels and rates. `$namespace` and `$stream` are variables.
"""

# Selectors: of the job, and of its streams.
N = '{namespace=~"$namespace"}'
S = '{namespace=~"$namespace",stream=~"$stream"}'
RATE = "$__rate_interval"
# What only the leader sees is asked of the leader; others may remember what they saw when they led.
LED = f" * on (job, instance) group_left () flowshift_leader{N}"


def rate(metric, by, labels=N):
    """Per second, summed by labels."""
    return f"sum by ({by}) (rate({metric}{labels}[{RATE}]))"


def count(metric, by, labels=N):
    """How many in the interval of a point."""
    return f"sum by ({by}) (increase({metric}{labels}[{RATE}]))"


def quantile(q, metric, by, labels=N):
    """Of a histogram of seconds."""
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket{labels}[{RATE}])))"


def both(metric, by, labels=N):
    """Median and 99th percentile, by one label."""
    return [(quantile(q, metric, by, labels), f"p{int(q * 100)} {{{{{by}}}}}") for q in (0.5, 0.99)]


def zones(metric):
    """Per second from zone to zone."""
    return rate(f"flowshift_az_{metric}_total", "src_az, dst_az")


def between(part, whole):
    """A share, or a mean, from zone to zone."""
    return [(f"{zones(part)} / {zones(whole)}", "")]


def pairs(part, whole=None):
    """Per second from subnet to subnet, or a share of it, or a mean."""
    by = "src_subnet, dst_subnet"
    parts = [rate(f"flowshift_pair_{metric}_total", by) for metric in (part, whole) if metric]
    return [(" / ".join(parts), "{{src_subnet}} to {{dst_subnet}}")]


# fmt: off
FLEET = [
    ("Is it well?", [
        ("stat", "Workers", "none", "Processes that are scraped, collectors too.",
         [(f"count(flowshift_build_info{N})", "")]),
        ("stat", "Leaders", "none", "One, or none for some seconds after a leader died.",
         [(f"sum(flowshift_leader{N})", "")]),
        ("stat", "Reading late by", "s", "Oldest unread record of any shard.",
         [(f"max(stream:flowshift_iterator_age_seconds:max{N})", "")]),
        ("stat", "Judged event time behind", "s", "With allowed lateness: 1 min for reports, 15 for flow logs.",
         [(f"job:flowshift_lane_watermark_lag_seconds:max{N}", "")]),
        ("stat", "Longest without progress", "s", "Of any owned shard.",
         [(f"max(stream:flowshift_progress_age_seconds:max{N})", "")]),
        ("stat", "Alerts firing", "none", "Of flowshift's rules, without the informative ones.",
         [('count(ALERTS{alertname=~"Flowshift.*",alertstate="firing",severity!="info"}) or vector(0)', "")]),
    ]),
    ("Records", [
        ("lines", "Records in", "ops", "Flow records read from the input stream.",
         [(rate("flowshift_records_in_total", "feed"), "{{feed}}"),
          (f"sum(rate(flowshift_records_accounted_total{N}[{RATE}]))", "accounted")]),
        ("lines", "In no pane", "percentunit", "By the one reason that applies, as a share of the records in.",
         [(f"reason:flowshift_records_rejected:ratio_rate5m{N}", "{{reason}}")]),
        ("lines", "Read from streams", "Bps", "", [(rate("flowshift_read_bytes_total", "stream", S), "{{stream}}")]),
        ("lines", "Kinesis records read", "ops", "",
         [(rate("flowshift_records_read_total", "stream", S), "{{stream}}")]),
        ("lines", "Steps judged", "ops", "", [(f"sum(rate(flowshift_steps_judged_total{N}[{RATE}]))", "steps")]),
        ("lines", "Subnet pairs in memory", "none", "Directed pairs with windows.",
         [(f"sum(flowshift_subnet_pairs{N})", "pairs")]),
    ]),
    ("Time", [
        ("lines", "Iterator age", "s", "Of the slowest shard of each stream.",
         [(f"stream:flowshift_iterator_age_seconds:max{S}", "{{stream}}")]),
        ("lines", "Iterator age of the ten slowest shards", "s", "",
         [(f"topk(10, flowshift_iterator_age_seconds{S})", "{{stream}} {{shard}}")]),
        ("lines", "Watermarks behind", "s", "Event time up to which sources and lanes are complete, behind now.",
         [(f"job:flowshift_source_watermark_lag_seconds:max{N}", "slowest source"),
          (f"job:flowshift_lane_watermark_lag_seconds:max{N}", "slowest lane")]),
        ("lines", "The ten slowest sources", "s", "",
         [(f"topk(10, time() - (flowshift_source_watermark_timestamp_seconds{N} > 0))", "{{shard}}")]),
        ("lines", "The ten slowest exchange shards", "s", "",
         [(f"topk(10, time() - (flowshift_lane_watermark_timestamp_seconds{N} > 0))", "{{shard}}")]),
        ("lines", "Sources", "none", "As the leader sees them; an idle one holds nothing back.",
         [(f"sum by (status) (flowshift_sources{N}{LED})",
          "{{status}}")]),
    ]),
    ("Leases", [
        ("lines", "Leases by worker", "none", "",
         [(f"sum by (stream, instance) (flowshift_leases_owned{S})", "{{stream}} {{instance}}")]),
        ("lines", "Hand-over", "s", "From seeing a lease assigned to the first read.",
         both("flowshift_hand_over_duration_seconds", "stream", S)),
        ("lines", "Leases lost and taken", "none", "Lost: somebody else has it. Taken: its owner stood still.",
         [(count("flowshift_leases_lost_total", "stream", S), "lost {{stream}}"),
          (count("flowshift_lease_expirations_total", "stream", S), "taken {{stream}}")]),
        ("lines", "Without progress", "s", "The ten owned shards that stand longest.",
         [(f"topk(10, flowshift_progress_age_seconds{S})", "{{stream}} {{shard}}")]),
        ("lines", "Shards started again", "none", "After an error, from their commit.",
         [(count("flowshift_shard_restarts_total", "stream", S), "{{stream}}")]),
        ("lines", "Refused writes to lease rows", "none", "Own: our own write, whose answer was lost.",
         [(count("flowshift_commit_conflicts_total", "stream", S), "refused {{stream}}"),
          (count("flowshift_spurious_recoveries_total", "stream", S), "own {{stream}}")]),
    ]),
    ("State", [
        ("lines", "Commits and batches", "ops", "",
         [(rate("flowshift_commits_total", "stream", S), "commits {{stream}}"),
          (rate("flowshift_batches_total", "stream", S), "batches {{stream}}")]),
        ("lines", "Oldest commit", "s", "", [(f"max by (stream) (flowshift_checkpoint_age_seconds{S})", "{{stream}}")]),
        ("lines", "State held", "bytes", "Before compression.",
         [(f"sum by (stream) (flowshift_state_held_bytes{S})", "{{stream}}")]),
        ("lines", "State written", "Bps", "Before compression, and as it is stored by form.",
         [(rate("flowshift_state_written_bytes_total", "stream", S), "plain {{stream}}"),
          (rate("flowshift_state_packed_bytes_total", "stream, form", S), "{{stream}} {{form}}")]),
        ("lines", "Parts written", "ops", "",
         [(rate("flowshift_state_parts_written_total", "stream, form", S), "{{stream}} {{form}}")]),
        ("lines", "Restoring a shard's state", "s", "", both("flowshift_restore_duration_seconds", "stream", S)),
    ]),
    ("AWS", [
        ("lines", "Calls", "ops", "",
         [(rate("flowshift_aws_calls_total", "service, operation"), "{{service}} {{operation}}")]),
        ("lines", "Calls that failed or were throttled", "percentunit", "",
         [(f"operation:flowshift_aws_calls:failure_ratio_rate5m{N}", "{{service}} {{operation}}")]),
        ("lines", "Time of a call, p99", "s", "With the SDK's own retries.",
         [(quantile(0.99, "flowshift_aws_call_duration_seconds", "operation"), "{{operation}}")]),
        ("lines", "Retries of the SDK", "ops", "",
         [(rate("flowshift_aws_retries_total", "service, operation"), "{{service}} {{operation}}")]),
        ("lines", "DynamoDB units", "ops", "Read and write units a second.",
         [(rate("flowshift_dynamodb_write_units_total", "table"), "write {{table}}"),
          (rate("flowshift_dynamodb_read_units_total", "table"), "read {{table}}")]),
        ("lines", "Records Kinesis did not take", "ops", "",
         [(rate("flowshift_put_failures_total", "stream, outcome", S), "{{stream}} {{outcome}}")]),
    ]),
    ("Losses", [
        ("lines", "Missing batches", "none", "Each retry of a stopped shard counts.",
         [(count("flowshift_batch_gaps_total", "stream", S), "{{stream}}")]),
        ("lines", "Lanes with incomplete windows", "none", "",
         [(count("flowshift_lane_losses_total", "stream, reason", S), "{{stream}} {{reason}}")]),
        ("lines", "Expired unread", "none", "", [(count("flowshift_shard_trims_total", "stream", S), "{{stream}}")]),
        ("lines", "Batches computed again", "none", "",
         [(count("flowshift_batches_recomputed_total", "stream, outcome", S), "{{stream}} {{outcome}}")]),
        ("lines", "State given up", "none", "",
         [(count("flowshift_state_discards_total", "stream, reason", S), "{{stream}} {{reason}}")]),
        ("lines", "Holes and skipped lanes", "none", "As the leader sees them.",
         [(f"max by (stream) (flowshift_hash_range_holes{N}{LED})", "holes {{stream}}"),
          (f"max(flowshift_lanes_skipped{N}{LED})", "lanes skipped"),
          (count("flowshift_lane_skips_total", "stream", S), "skips put {{stream}}")]),
        ("lines", "KPL aggregates", "ops", "",
         [(rate("flowshift_kpl_aggregates_total", "stream", S), "taken apart {{stream}}"),
          (rate("flowshift_kpl_undecodable_total", "stream, reason", S), "not one: {{reason}}"),
          (rate("flowshift_kpl_out_of_range_total", "stream, when", S), "out of range: {{when}}")]),
    ]),
]

INCIDENTS = [
    ("Incidents", [
        ("stat", "Open", "none", "", [(f"max(flowshift_incidents_open{N})", "")]),
        ("stat", "Opened in the time shown", "none", "",
         [(f"sum(increase(flowshift_incidents_opened_total{N}[$__range])) or vector(0)", "")]),
        ("stat", "Resolved in the time shown", "none", "",
         [(f"sum(increase(flowshift_incidents_resolved_total{N}[$__range]))", "")]),
        ("lines", "Opened by severity", "none", "From the size of the effect; s1 is the worst.",
         [(count("flowshift_incidents_opened_total", "severity"), "{{severity}}")]),
        ("lines", "Opened by signal", "none", "",
         [(count("flowshift_incidents_opened_total", "signal"), "{{signal}}")]),
        ("lines", "Opened by verdict", "none", "The first verdict; it may change.",
         [(count("flowshift_incidents_opened_total", "verdict"), "{{verdict}}")]),
        ("lines", "Open", "none", "", [(f"max(flowshift_incidents_open{N})", "open")]),
        ("lines", "Operators' words", "none", "What became of acknowledgements, mutes and dismissals.",
         [(count("flowshift_operator_words_total", "verb, outcome"), "{{verb}} {{outcome}}")]),
        ("lines", "Operators' requests", "none", "",
         [(count("flowshift_operator_requests_total", "outcome"), "{{outcome}}")]),
        ("lines", "Evidence in no incident", "ops", "",
         [(rate("flowshift_evidence_dropped_total", "reason"), "{{reason}}"),
          (f"sum(rate(flowshift_outbox_dropped_total{N}[{RATE}]))", "events dropped undelivered")]),
    ]),
    ("From zone (down) to zone (across)", [
        ("matrix", "Segments retransmitted", "percentunit", "Of those sent; edge is outside the topology's subnets.",
         between("retransmits", "segments")),
        ("matrix", "Mean round-trip time", "s", "Of all readings.", between("rtt_seconds", "rtt_readings")),
        ("matrix", "Connections that fail", "percentunit", "Refused, rejected or not answered.",
         between("connect_failures", "connects")),
        ("matrix", "Flow records", "ops", "What the other three rest on.", [(zones("flows"), "")]),
    ]),
    ("Subnet pairs with the most flows (admin.top_pairs)", [
        ("lines", "Segments retransmitted", "percentunit", "Of those sent. Empty while admin.top_pairs is 0.",
         pairs("retransmits", "segments")),
        ("lines", "Mean round-trip time", "s", "Of all readings.", pairs("rtt_seconds", "rtt_readings")),
        ("lines", "Connections that fail", "percentunit", "Refused, rejected or not answered.",
         pairs("connect_failures", "connects")),
        ("lines", "Flow records", "ops", "other: all pairs without a place.", pairs("flows")),
    ]),
    ("Webhooks", [
        ("lines", "Waiting", "none", "Entries of the outbox.",
         [(f"max by (endpoint) (flowshift_webhook_queue_length{N})", "{{endpoint}}")]),
        ("lines", "Oldest waiting", "s", "",
         [(f"max by (endpoint) (flowshift_webhook_oldest_seconds{N})", "{{endpoint}}")]),
        ("lines", "Requests", "ops", "By how they ended.",
         [(rate("flowshift_webhook_attempts_total", "endpoint, outcome"), "{{endpoint}} {{outcome}}")]),
        ("lines", "Failing requests", "percentunit", "",
         [(f"endpoint:flowshift_webhook_attempts:failure_ratio_rate5m{N}", "{{endpoint}}")]),
        ("lines", "Time of a request", "s", "", both("flowshift_webhook_attempt_duration_seconds", "endpoint")),
        ("lines", "Told and given up", "none", "",
         [(count("flowshift_webhook_deliveries_total", "endpoint, outcome"), "{{endpoint}} {{outcome}}")]),
        ("lines", "Disabled", "none", "1: it answered 410.",
         [(f"max by (endpoint) (flowshift_webhook_endpoint_disabled{N})", "{{endpoint}}")]),
    ]),
]

TAKEN = "flowshift_collect_request_duration_seconds"
COLLECTOR = [
    ("The door", [
        ("lines", "Requests", "reqps", "By how they were answered.",
         [(rate("flowshift_collect_requests_total", "route, outcome"), "{{route}} {{outcome}}")]),
        ("lines", "Turned away", "percentunit", "Throttled, overloaded, unavailable: clients repeat these.",
         [(f"job:flowshift_collect_requests:unanswered_ratio_rate5m{N}", "turned away")]),
        ("lines", "Time of a request", "s", "",
         [(f"histogram_quantile({q}, sum by (le) (rate({TAKEN}_bucket{N}[{RATE}])))",
                                                  f"p{int(q * 100)}") for q in (0.5, 0.99)]),
        ("lines", "Flows", "ops", "Inside accepted bodies.",
         [(rate("flowshift_collect_flows_total", "route, outcome"), "{{route}} {{outcome}}")]),
        ("lines", "Bodies", "Bps", "Before decompression.",
         [(rate("flowshift_collect_body_bytes_total", "route"), "{{route}}")]),
        ("lines", "Requests inside", "none", "",
         [(f"sum by (instance) (flowshift_collect_in_flight_requests{N})", "{{instance}}")]),
    ]),
    ("Kinesis", [
        ("lines", "Records put", "ops", "",
         [(f"sum(rate(flowshift_collect_put_records_total{N}[{RATE}]))", "records")]),
        ("lines", "Bytes put", "Bps", "", [(f"sum(rate(flowshift_collect_put_bytes_total{N}[{RATE}]))", "bytes")]),
        ("lines", "Not taken at an attempt", "ops", "",
         [(rate("flowshift_collect_put_failures_total", "reason"), "{{reason}}")]),
        ("lines", "Waiting for Kinesis", "bytes", "",
         [(f"sum by (instance) (flowshift_collect_queue_bytes{N})", "{{instance}}")]),
    ]),
]

# File, uid, title, rows; and whether the dashboard has the variable `stream`.
DASHBOARDS = [
    ("fleet.json", "flowshift-fleet", "flowshift: fleet", FLEET, True),
    ("incidents.json", "flowshift-incidents", "flowshift: incidents", INCIDENTS, False),
    ("collector.json", "flowshift-collector", "flowshift: collector", COLLECTOR, False),
]
