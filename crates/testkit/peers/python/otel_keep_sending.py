"""Exports a span over gRPC again and again until SIGTERM.

    otel_keep_sending.py THREADS PAUSE_MS

Endpoint and key come from the standard OTEL_EXPORTER_OTLP_* variables. Prints
one line of JSON at the end:
{"succeeded": 100, "failed": 0, "complaints": {"UNAVAILABLE": 1}}
Complaints are the exporter's own: calls that failed and that it repeats, which
it would only log.
"""

import collections
import json
import logging
import signal
import sys
import threading

from opentelemetry.exporter.otlp.proto.grpc import exporter as grpc_exporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

threads, pause_seconds = int(sys.argv[1]), int(sys.argv[2]) / 1000
results, complaints = collections.Counter(), collections.Counter()
counting = threading.Lock()
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())


class Complaints(logging.Handler):
    def emit(self, record):
        # What is repeated is logged with the status first.
        what = str(record.args[0]) if record.args else record.getMessage()
        with counting:
            complaints[what] += 1
        print(record.getMessage(), file=sys.stderr)


# The exporter's own filter drops what it has logged a moment ago.
grpc_exporter.logger.filters.clear()
grpc_exporter.logger.addHandler(Complaints(level=logging.WARNING))

memory = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
with provider.get_tracer("okmon.peers").start_as_current_span("checkout"):
    pass
spans = memory.get_finished_spans()


def keep_exporting():
    exporter = OTLPSpanExporter()
    while not stop.is_set():
        result = exporter.export(spans)
        with counting:
            results[result is SpanExportResult.SUCCESS] += 1
        stop.wait(pause_seconds)


exporting = [threading.Thread(target=keep_exporting) for _ in range(threads)]
for thread in exporting:
    thread.start()
for thread in exporting:
    thread.join()
print(json.dumps({"succeeded": results[True], "failed": results[False], "complaints": complaints}))
