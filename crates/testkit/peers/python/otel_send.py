"""Sends traces, metrics and logs with the OpenTelemetry SDK for Python.

Endpoint, key and compression come from the standard OTEL_EXPORTER_OTLP_*
variables, as in a customer's program. The one argument chooses the exporter:
grpc or http.

Prints one line of JSON, the result of each signal's last export:
{"traces": "SUCCESS", "metrics": "SUCCESS", "logs": "SUCCESS"}
and exits with 1 unless all are SUCCESS. crates/testkit/src/sent.rs knows what
is sent.
"""

import json
import logging
import sys

from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

protocol = sys.argv[1]
if protocol == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
elif protocol == "http":
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
else:
    sys.exit(f"usage: otel_send.py grpc|http, not {protocol!r}")

results = {}


def reporting(signal, exporter):
    """Makes an exporter note the result that the SDK itself only logs."""

    class Reporting(exporter):
        def export(self, *args, **kwargs):
            result = super().export(*args, **kwargs)
            results[signal] = result.name
            return result

    return Reporting()


resource = Resource({"service.name": "okmon-python"})

tracing = TracerProvider(resource=resource)
tracing.add_span_processor(BatchSpanProcessor(reporting("traces", OTLPSpanExporter)))
tracer = tracing.get_tracer("okmon.peers")
for n in range(3):
    with tracer.start_as_current_span(f"checkout {n}", attributes={"n": n, "town": "Köln"}):
        pass

metering = MeterProvider(
    resource=resource,
    metric_readers=[PeriodicExportingMetricReader(reporting("metrics", OTLPMetricExporter))],
)
orders = metering.get_meter("okmon.peers").create_counter("orders", unit="1")
orders.add(5, {"shop": "north"})
orders.add(7, {"shop": "south"})

logs = LoggerProvider(resource=resource)
logs.add_log_record_processor(BatchLogRecordProcessor(reporting("logs", OTLPLogExporter)))
logger = logging.getLogger("okmon.peers")
logger.propagate = False
logger.addHandler(LoggingHandler(logger_provider=logs))
for n in range(2):
    logger.error("order %d failed: Zahlung ungültig", n)

tracing.shutdown()
metering.shutdown()
logs.shutdown()

print(json.dumps(results))
sys.exit(0 if sorted(results) == ["logs", "metrics", "traces"] and set(results.values()) == {"SUCCESS"} else 1)
