"""An application on the Kinesis Client Library (kcl-rs): it says what it is given and checkpoints where it is told to.

Usage: kcl_app.py STREAM APPLICATION WORKER [--retrieval POLLING|FANOUT] [--checkpoint-at N] [--prepare-at N]

Services come from AWS_ENDPOINT_URL_KINESIS and AWS_ENDPOINT_URL_DYNAMODB. One JSON line each on standard output:
{"event": "start", "shard", "sequence", "sub"}: a processor starts behind this checkpoint;
{"event": "record", "shard", "sequence", "sub", "data"}; {"event": "checkpoint" | "prepare", "shard", "sequence"}: after the
Nth record of a processor; {"event": "shard_end" | "lost", "shard"}; {"event": "stopped"}: after the end of standard input.
Knows nothing of flowshift.
"""

import argparse
import json
import sys
import threading

import kcl_rs

OUTPUT = threading.Lock()


def say(event: str, **fields: object) -> None:
    with OUTPUT:
        print(json.dumps({"event": event, **fields}), flush=True)


def processor(checkpoint_at: int, prepare_at: int) -> type:
    class Processor(kcl_rs.RecordProcessorBase):
        def initialize(self, start: kcl_rs.InitializeInput) -> None:
            self.shard = start.shard_id
            self.records = 0
            say("start", shard=self.shard, sequence=start.sequence_number, sub=start.sub_sequence_number)

        def process_records(self, batch: kcl_rs.ProcessRecordsInput) -> None:
            for record in batch.records:
                self.records += 1
                place = {"shard": self.shard, "sequence": record.sequence_number}
                say("record", **place, sub=record.sub_sequence_number, data=record.data.decode())
                if self.records == checkpoint_at:
                    batch.checkpointer.checkpoint(record.sequence_number, record.sub_sequence_number)
                    say("checkpoint", **place)
                if self.records == prepare_at:
                    batch.checkpointer.prepare_checkpoint(record.sequence_number, record.sub_sequence_number)
                    say("prepare", **place)

        def lease_lost(self, _: kcl_rs.LeaseLostInput) -> None:
            say("lost", shard=self.shard)

        def shard_ended(self, end: kcl_rs.ShardEndedInput) -> None:
            end.checkpointer.checkpoint()
            say("shard_end", shard=self.shard)

        def shutdown_requested(self, _: kcl_rs.ShutdownRequestedInput) -> None:
            say("lost", shard=self.shard)

    return Processor


def main() -> None:
    arguments = argparse.ArgumentParser()
    for name in ("stream", "application", "worker"):
        arguments.add_argument(name)
    arguments.add_argument("--retrieval", default="POLLING")
    arguments.add_argument("--checkpoint-at", type=int, default=0)
    arguments.add_argument("--prepare-at", type=int, default=0)
    given = arguments.parse_args()
    pace = {"idle_time_between_reads_millis": 250} if given.retrieval == "POLLING" else {}
    scheduler = kcl_rs.Scheduler(
        stream_name=given.stream,
        application_name=given.application,
        worker_identifier=given.worker,
        record_processor_factory=processor(given.checkpoint_at, given.prepare_at),
        region="us-east-1",
        initial_position="TRIM_HORIZON",
        access_key_id="local",
        secret_access_key="local",
        retrieval_mode=given.retrieval,
        shard_sync_interval_millis=1000,
        **pace,
    )
    scheduler.start()
    sys.stdin.read()
    scheduler.shutdown()
    say("stopped")


if __name__ == "__main__":
    main()
