// Sends traces, metrics and logs with the OpenTelemetry SDK for JavaScript.
//
// Endpoint, key and compression come from the standard OTEL_EXPORTER_OTLP_*
// variables, as in a customer's program. The one argument chooses the exporter:
// http (JSON), proto (protobuf over HTTP) or grpc.
//
// Prints one line of JSON, the result of each signal's last export, and exits
// with 1 unless all are SUCCESS. crates/testkit/src/sent.rs knows what is sent.

const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BatchLogRecordProcessor, LoggerProvider } = require("@opentelemetry/sdk-logs");
const { MeterProvider, PeriodicExportingMetricReader } = require("@opentelemetry/sdk-metrics");
const { BasicTracerProvider, BatchSpanProcessor } = require("@opentelemetry/sdk-trace-base");

const protocol = process.argv[2];
if (!["http", "proto", "grpc"].includes(protocol)) {
  console.error(`usage: otel_send.js http|proto|grpc, not ${protocol}`);
  process.exit(2);
}
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${protocol}`);
const { OTLPMetricExporter } = require(`@opentelemetry/exporter-metrics-otlp-${protocol}`);
const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${protocol}`);

const results = {};

// Makes an exporter note the result that the SDK itself only logs.
function reporting(signal, exporter) {
  const send = exporter.export.bind(exporter);
  exporter.export = (items, done) =>
    send(items, (result) => {
      results[signal] = result.code === 0 ? "SUCCESS" : `FAILURE: ${result.error}`;
      done(result);
    });
  return exporter;
}

const resource = resourceFromAttributes({ "service.name": "okmon-js" });

const tracing = new BasicTracerProvider({
  resource,
  spanProcessors: [new BatchSpanProcessor(reporting("traces", new OTLPTraceExporter()))],
});
const tracer = tracing.getTracer("okmon.peers");
for (let n = 0; n < 3; n++) {
  tracer.startSpan(`checkout ${n}`, { attributes: { n, town: "Köln" } }).end();
}

const metering = new MeterProvider({
  resource,
  readers: [new PeriodicExportingMetricReader({ exporter: reporting("metrics", new OTLPMetricExporter()) })],
});
const orders = metering.getMeter("okmon.peers").createCounter("orders", { unit: "1" });
orders.add(5, { shop: "north" });
orders.add(7, { shop: "south" });

const logs = new LoggerProvider({
  resource,
  processors: [new BatchLogRecordProcessor({ exporter: reporting("logs", new OTLPLogExporter()) })],
});
const logger = logs.getLogger("okmon.peers");
for (let n = 0; n < 2; n++) {
  logger.emit({ severityNumber: 17, severityText: "ERROR", body: `order ${n} failed: Zahlung ungültig` });
}

// A failed export rejects the shutdown of some providers; the result is noted already.
Promise.allSettled([tracing.shutdown(), metering.shutdown(), logs.shutdown()]).then(() => {
  console.log(JSON.stringify(results));
  const all = ["traces", "metrics", "logs"].every((signal) => results[signal] === "SUCCESS");
  process.exit(all ? 0 : 1);
});
